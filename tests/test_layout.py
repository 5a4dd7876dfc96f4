"""`maskutils init`: what it lays out, what it leaves alone, and that the commands work there or say what to do."""

import os
import subprocess
import sys

import pytest
from typer.testing import CliRunner

import maskutils
from maskutils.batch import app, cli, plan
from maskutils.batch.profile import load_profile, profiles
from maskutils.core import paths
from maskutils.core.checks import BadSetting
from maskutils.results.records import load_records


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    """A working directory without a project."""
    monkeypatch.delenv("MASKUTILS_ROOT", raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def nowhere(elsewhere, monkeypatch):
    """One in which there is no checkout either."""
    monkeypatch.setattr(paths, "checkout", lambda: None)
    monkeypatch.setattr(paths, "_users", lambda kind: elsewhere / kind)
    return elsewhere


def call(*arguments):
    result = CliRunner().invoke(cli.app, list(arguments))
    return result.exit_code, " ".join(result.output.split())


def test_a_project_holds_notebooks_records_and_profiles(elsewhere, monkeypatch):
    code, output = call("init", "mine")
    assert code == 0
    assert "0 were there and stay" in output
    monkeypatch.chdir("mine")
    assert paths.project_root() == elsewhere / "mine"
    assert len(plan.make_plan("smoke")) > 10
    assert len(load_records("study")) > 9_000
    assert {p.stem for p in (elsewhere / "mine" / "profiles").glob("*.yaml")} == set(profiles())
    assert not list((elsewhere / "mine").rglob("runs"))


def test_a_projects_profiles_come_before_those_that_ship(elsewhere, monkeypatch):
    app.lay_out(elsewhere)
    monkeypatch.chdir(elsewhere)
    own = elsewhere / "profiles" / "smoke.yaml"
    assert load_profile("smoke") == load_profile(str(own))
    for file in (own, own.with_name("mine.yaml")):
        file.write_text("description: of my own\nruns: [{notebook: 00_quickstart}]\n")
        for name in (file.stem, f"profiles/{file.name}"):
            assert [run.id for run in plan.make_plan(name)] == ["00_quickstart"]
    (elsewhere / "smoke.yaml").write_text(own.read_text())
    with pytest.raises(BadSetting, match=r"smoke\.yaml has the name of .*profiles/smoke\.yaml, and would write over"):
        load_profile("smoke.yaml")


def test_files_that_are_there_stay_and_are_named(elsewhere):
    own = elsewhere / "notebooks" / "00_quickstart.ipynb"
    own.parent.mkdir()
    own.write_text("my own")
    code, output = call("init", ".")
    assert code == 0
    assert "stays: notebooks/00_quickstart.ipynb" in output
    assert "1 were there and stay" in output
    assert own.read_text() == "my own"
    assert (elsewhere / "notebooks" / "14_claims.ipynb").exists()


def test_the_checkout_and_a_file_are_refused(elsewhere):
    with pytest.raises(BadSetting, match="is the checkout, which is a project already"):
        app.lay_out(paths.checkout())
    (elsewhere / "file").touch()
    code, output = call("init", "file")
    assert code == 1
    assert "error: " in output


@pytest.mark.parametrize(("command", "code"), [("plan", 2), ("reproduce", 2), ("status", 2), ("lab", 2), ("verify", 1)])
def test_where_nothing_is_laid_out_every_command_says_what_to_do(nowhere, command, code):
    left, output = call(command)
    assert left == code
    assert "lay out a project with `maskutils init DIR` and work in DIR" in output


def test_jupyterlab_gets_the_options_and_its_kernels_the_root(elsewhere, monkeypatch):
    app.lay_out(elsewhere)
    monkeypatch.setenv("MASKUTILS_DATA_ROOT", str(elsewhere / "data"))
    monkeypatch.setattr(os, "environ", dict(os.environ))
    started = []
    monkeypatch.setattr(os, "execv", lambda *arguments: started.append(arguments))
    assert call("lab", "--no-browser", "--port", "9000")[0] == 0
    first = str(elsewhere / "notebooks" / "00_quickstart.ipynb")
    command = [
        sys.executable,
        "-m",
        "jupyterlab",
        f"--ServerApp.root_dir={elsewhere}",
        first,
        "--no-browser",
        "--port",
        "9000",
    ]
    assert started == [(sys.executable, command)]
    assert os.environ["MASKUTILS_ROOT"] == str(elsewhere)


def test_in_a_clone_jupyterlab_opens_copies_and_what_is_tried_stays(tmp_path, capsys):
    first, second = (tmp_path / "notebooks" / f"{name}.ipynb" for name in ("00_a", "01_b"))
    (tmp_path / "docs").mkdir()
    first.parent.mkdir()
    first.write_text("old")
    second.write_text("old")
    folder = app.working_copies(tmp_path)
    assert (folder / "docs").samefile(tmp_path / "docs")  # ../docs/x.md leads to the same page from a copy
    tried = folder / "notebooks" / first.name
    tried.write_text("mine")
    assert app.working_copies(tmp_path) == folder
    assert capsys.readouterr().out == ""  # nothing to say: the original is as it was
    first.write_text("new")
    second.write_text("new")
    app.working_copies(tmp_path)
    assert (tried.read_text(), first.read_text()) == ("mine", "new")
    assert (folder / "notebooks" / second.name).read_text() == "new"
    assert "lab/notebooks/00_a.ipynb stays as you changed it" in capsys.readouterr().out


def test_what_is_tried_in_jupyterlab_is_nothing_to_git(monkeypatch):
    """Opening a notebook alone changes it: JupyterLab writes the version of the language."""
    home = paths.checkout()
    if not (home / ".git").exists():
        pytest.skip("not a clone")
    ignored = subprocess.run(["git", "check-ignore", "-q", f"{app.WORKED_ON}/notebooks/00_quickstart.ipynb"], cwd=home)
    assert ignored.returncode == 0
    monkeypatch.setenv("MASKUTILS_ROOT", str(home))
    monkeypatch.setattr(os, "environ", dict(os.environ))
    monkeypatch.setattr(app, "working_copies", lambda root: root / app.WORKED_ON)
    started = []
    monkeypatch.setattr(os, "execv", lambda *arguments: started.append(arguments[1]))
    assert call("lab")[0] == 0
    assert f"--ServerApp.root_dir={home / app.WORKED_ON}" in started[0]


def test_the_version_is_said():
    assert call("--version") == (0, f"maskutils {maskutils.__version__}")


def test_a_missing_group_is_an_error_of_one_line(elsewhere, monkeypatch):
    monkeypatch.setitem(sys.modules, "jupyterlab", None)
    app.lay_out(elsewhere)
    code, output = call("lab")
    assert code == 1
    assert output.startswith("error: jupyterlab is not installed")
    assert app.app is cli.app
