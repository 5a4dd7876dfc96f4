"""The smallest profile, to its end: every notebook, the joined records, the manifest."""

import shutil

import pytest

from maskutils.batch import plan
from maskutils.batch.run import reproduce
from maskutils.core import files, paths
from maskutils.results import records

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # of the libraries that run kernels
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


def test_the_smoke_profile_runs_to_its_end(tmp_path, monkeypatch):
    shutil.copytree(paths.notebooks_dir(), tmp_path / "notebooks")
    monkeypatch.setenv("MASKUTILS_ROOT", str(tmp_path))
    states = reproduce("smoke", workers=2)
    assert {run: state for run, state in states.items() if state["status"] != "done"} == {}
    table = records.load_records("smoke")
    assert len(table) > 80
    assert not table.duplicated(records.IDENTITY).any()
    assert set(files.read_json(tmp_path / "results" / "smoke" / "manifest.json")) >= {"commit", "checksums", "runs"}
    assert [run.id for run in plan.make_plan("smoke") if plan.why("smoke", run)] == []
