"""The wheel as others install it: without a checkout, in folders of their own, where the smallest profile
runs to its end. Torch is that of this environment.
"""

import os
import re
import subprocess
import sys
import zipfile

import pytest
from projects import write_notebook

import maskutils
from maskutils.core import files, paths
from maskutils.results import records

ROOT = paths.PACKAGE.parent
pytestmark = pytest.mark.slow


COMMANDS = """
import os, sys
from maskutils.batch.cli import app

for line in sys.argv[1:]:
    print("$", line, flush=True)
    if line.startswith("cd "):
        os.chdir(line[3:])
        continue
    try:
        app(line.split(), standalone_mode=False)
    except SystemExit as left:
        print("exit code", left.code)
"""


def python(*arguments, cwd, path):
    """What a Python that finds the packages at `path` first prints, from the folder `cwd`; `-P`: nothing of the folder itself."""
    ours = {"MASKUTILS_ROOT", "JUPYTER_DEFAULT_PROVISIONER_NAME"}
    environment = {k: v for k, v in os.environ.items() if k not in ours} | {"PYTHONPATH": str(path)}
    command = [sys.executable, "-P", *arguments]
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel of this checkout."""
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", folder, ROOT]
    subprocess.run(build, check=True)
    return next(folder.glob("*.whl"))


@pytest.fixture(scope="module")
def site(wheel):
    """A folder of packages that holds nothing but the installed wheel."""
    folder = wheel.parent / "site"
    install = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-index", "--target", folder, wheel]
    subprocess.run(install, check=True)
    return folder


def test_the_wheel_holds_the_committed_files_and_no_others(wheel):
    command = ["git", "ls-files", "-co", "--exclude-standard", "maskutils", "notebooks", "results"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if not listed.stdout:
        pytest.skip("not a clone")
    held = {name.replace("maskutils/project/", "") for name in zipfile.ZipFile(wheel).namelist()}
    committed = {name for name in listed.stdout.splitlines() if (ROOT / name).exists()}
    assert {name for name in held if ".dist-info/" not in name} == committed


def test_the_command_says_its_version(site, tmp_path):
    assert python("-m", "maskutils", "--version", cwd=tmp_path, path=site) == f"maskutils {maskutils.__version__}\n"


@pytest.fixture(scope="module")
def project(site, tmp_path_factory):
    """A project of the wheel's in which the smallest profile was run to its end, and what the commands said.

    In one process, for each would import torch anew.
    """
    above = tmp_path_factory.mktemp("above")
    here = above / "here"
    is_ours = f"import maskutils\nassert maskutils.__file__.startswith({str(site)!r}), maskutils.__file__"
    write_notebook(here / "notebooks" / "where.ipynb", is_ours, parameters="seeds: list[int] = [0]  # seeds")
    smoke = (paths.PROFILES / "smoke.yaml").read_text(encoding="utf-8")
    (here / "my.yaml").write_text(f"{smoke}  - notebook: where\n", encoding="utf-8")
    lines = ["init here", "cd here", "plan -p smoke", "reproduce -p my.yaml --workers 2", "verify -p default"]
    return here, python("-c", COMMANDS, *lines, "plan -p my.yaml", cwd=above, path=site)


def test_a_project_is_laid_out_planned_reproduced_and_verified_without_a_checkout(project):
    said = dict(part.split("\n", 1) for part in project[1].split("$ ")[1:])
    assert re.search(r"(\d+) of \1 to run", said["plan -p smoke"])
    assert re.search(r"(\d+) of \1 runs done", said["reproduce -p my.yaml --workers 2"]), project[1]
    assert "PASS" in said["verify -p default"]
    assert re.search(r"\b0 of \d+ to run", said["plan -p my.yaml"])


def test_the_smallest_profile_leaves_every_notebook_the_joined_records_and_the_manifest(project, monkeypatch):
    here, _ = project
    monkeypatch.setenv("MASKUTILS_ROOT", str(here))
    executed = {re.split(r"[.-]", file.name)[0] for file in (here / "results" / "my" / "runs").glob("*.ipynb")}
    assert {file.stem for file in paths.checkout().glob("notebooks/*.ipynb")} <= executed
    table = records.load_records("my")
    assert len(table) > 80
    assert not table.duplicated(records.IDENTITY).any()
    assert set(files.read_json(here / "results" / "my" / "manifest.json")) >= {"commit", "checksums", "runs"}


def test_a_checkout_is_found_from_the_folder_above_a_clone_of_its_name(tmp_path):
    """Python takes a folder named maskutils in the working directory for a package without files; a path entry comes before that."""
    build = f"from hatchling.build import build_editable; build_editable({str(tmp_path)!r})"
    subprocess.run([sys.executable, "-c", build], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    zipfile.ZipFile(next(tmp_path.glob("*.whl"))).extractall(tmp_path / "site")
    above = tmp_path / "above"
    above.mkdir()
    (above / "maskutils").symlink_to(ROOT)
    code = f"import site; site.addsitedir({str(tmp_path / 'site')!r}); import maskutils; print(maskutils.__file__)"
    bare = [sys.executable, "-E", "-S", "-c", code]  # neither PYTHONPATH nor what this environment has installed
    done = subprocess.run(bare, cwd=above, capture_output=True, text=True, check=False)
    assert done.stdout.strip() == str(ROOT / "maskutils" / "__init__.py"), done.stderr
