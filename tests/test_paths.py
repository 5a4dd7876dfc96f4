"""Paths: the root does not depend on where one stands."""

import pytest

from maskutils.core import paths
from maskutils.core.checks import BadSetting


def test_the_checkout_is_the_root_from_any_folder(tmp_path, monkeypatch):
    monkeypatch.delenv("MASKUTILS_ROOT", raising=False)
    monkeypatch.chdir(tmp_path)
    assert paths.project_root() == paths.PACKAGE.parent
    assert paths.notebooks_dir().is_dir()


def test_the_environment_names_another_root(tmp_path, monkeypatch):
    monkeypatch.setenv("MASKUTILS_ROOT", str(tmp_path))
    assert paths.results_dir("smoke") == tmp_path / "results" / "smoke"
    assert paths.cache_dir("mask") == tmp_path / "results" / ".cache" / "mask"


def test_without_a_checkout_results_lie_with_the_users_data(tmp_path, monkeypatch):
    monkeypatch.delenv("MASKUTILS_ROOT", raising=False)
    monkeypatch.setattr(paths, "PACKAGE", tmp_path / "site-packages" / "maskutils")
    assert paths.project_root().name == "maskutils"
    assert tmp_path not in paths.project_root().parents


def test_a_profile_file_has_its_results_under_its_own_name(monkeypatch, tmp_path):
    monkeypatch.setenv("MASKUTILS_ROOT", str(tmp_path))
    assert paths.results_dir("/somewhere/mine.yaml") == tmp_path / "results" / "mine"
    assert paths.runs_dir("/somewhere/mine.yaml") == tmp_path / "results" / "mine" / "runs"
    assert paths.figures_dir("default") == tmp_path / "figures"
    assert paths.figures_dir("mine.yaml") == tmp_path / "figures" / "mine"


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """As if the package were installed without a checkout, and nothing were set; a folder to work in."""
    monkeypatch.delenv("MASKUTILS_ROOT", raising=False)
    monkeypatch.setattr(paths, "PACKAGE", tmp_path / "site-packages" / "maskutils")
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "here"


def test_a_project_that_was_laid_out_is_found_from_any_folder_in_it(installed, monkeypatch):
    assert paths.project_root() != installed
    (installed / paths.MARKER).touch()
    assert paths.project_root() == installed
    (installed / "notebooks" / "deeper").mkdir(parents=True)
    monkeypatch.chdir(installed / "notebooks" / "deeper")
    assert paths.project_root() == installed


def test_the_nearest_project_counts_and_the_environment_before_it(installed, monkeypatch):
    (installed / paths.MARKER).touch()
    (installed / "inner").mkdir()
    (installed / "inner" / paths.MARKER).touch()
    monkeypatch.chdir(installed / "inner")
    assert paths.project_root() == installed / "inner"
    monkeypatch.setenv("MASKUTILS_ROOT", str(installed / "set"))
    assert paths.project_root() == installed / "set"


def test_a_project_that_was_laid_out_comes_before_a_checkout_elsewhere(tmp_path, monkeypatch):
    monkeypatch.delenv("MASKUTILS_ROOT", raising=False)
    (tmp_path / paths.MARKER).touch()
    monkeypatch.chdir(tmp_path)
    assert paths.project_root() == tmp_path


def test_a_checkout_inside_a_project_is_nearer_than_it(installed, monkeypatch):
    clone = installed / "clone"
    (installed / paths.MARKER).touch()
    (clone / "tests").mkdir(parents=True)
    (clone / "pyproject.toml").touch()
    monkeypatch.setattr(paths, "PACKAGE", clone / "maskutils")
    monkeypatch.chdir(clone / "tests")
    assert paths.project_root() == clone


@pytest.mark.parametrize("url", ["s3://bucket/x", "gs://bucket", "file:///tmp/x", "https://host/x", "s3:/bucket"])
@pytest.mark.parametrize(
    ("variable", "folder"), [("MASKUTILS_ROOT", "project_root"), ("MASKUTILS_DATA_ROOT", "data_root")]
)
def test_a_url_is_no_folder(monkeypatch, url, variable, folder):
    monkeypatch.setenv(variable, url)
    with pytest.raises(BadSetting, match=f"{variable} {url} is a URL, not a folder; mount it, as with `rclone mount`"):
        getattr(paths, folder)()


@pytest.mark.parametrize("name", ["c:/study", "x:y/study", "a/b:/c"])
def test_a_colon_makes_no_url(name):
    assert paths.folder_at(name, "--data-root").as_posix() == name
