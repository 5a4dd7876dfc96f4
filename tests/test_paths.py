"""Paths: the root does not depend on where one stands."""

from maskutils.core import paths


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
