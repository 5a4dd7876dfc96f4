"""The batch: order, failure, resumption after a kill, two at once. These tests start real workers and kernels."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from projects import root, write_notebook, write_profile  # noqa: F401

from maskutils.batch import plan
from maskutils.batch import run as batch
from maskutils.batch.run import reproduce
from maskutils.core import files
from maskutils.core.checks import BadSetting

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # of the libraries that run kernels
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture(scope="module")
def scheduler():
    """The address of a cluster of one worker, for tests that need none of their own: to start one takes twenty seconds."""
    with batch.client(1, None) as local:
        yield local.scheduler.address


def test_there_are_as_many_workers_as_asked_for(scheduler):
    from distributed import Client

    with Client(scheduler, set_as_default=False) as dask:
        assert list(dask.nthreads().values()) == [1]


def test_failure_blocks_what_follows_only_and_repair_finishes_the_rest(root, scheduler):  # noqa: F811
    runs = [{"notebook": "broken"}, {"notebook": "second", "after": ["broken"]}, {"notebook": "first"}]
    profile = write_profile(root / "tiny.yaml", runs, seeds=[3])
    heard = []
    states = reproduce(profile, scheduler=scheduler, report=lambda event, run, state: heard.append((event, run.id)))
    assert {run: state["status"] for run, state in states.items()} == {
        "broken": "failed",
        "second": "blocked",
        "first": "done",
    }
    assert "this cell is broken" in states["broken"]["error"]
    assert Path(states["broken"]["notebook"]).name == "broken.failed.ipynb"
    assert Path(states["broken"]["notebook"]).exists()
    assert not (root / "results" / "tiny" / "manifest.json").exists()
    assert ("started", "second") not in heard

    write_notebook(root / "notebooks" / "broken.ipynb", "repaired = True")
    heard.clear()
    states = reproduce(profile, scheduler=scheduler, report=lambda event, run, state: heard.append((event, run.id)))
    assert {state["status"] for state in states.values()} == {"done"}
    assert ("skipped", "first") in heard
    assert ("started", "first") not in heard
    assert not (root / "results" / "tiny" / "runs" / "broken.failed.ipynb").exists()
    manifest = files.read_json(root / "results" / "tiny" / "manifest.json")
    assert [row["id"] for row in manifest["runs"]] == ["broken", "second", "first"]
    assert manifest["runs"][1]["parameters"]["seeds"] == [3]


def test_the_environment_is_left_as_it_was():
    before = dict(os.environ)
    with batch.client(1, None) as dask:
        assert set(dask.run(os.environ.get, "TQDM_DISABLE").values()) == {"1"}
    assert dict(os.environ) == before


def test_records_are_joined_before_the_notebook_that_reads_them(root, scheduler):  # noqa: F811
    read = "import pandas as pd\nfrom maskutils.core import paths\nassert len(pd.read_csv(paths.results_dir(profile) / 'records.csv')) == 4"
    write_notebook(root / "notebooks" / "reader.ipynb", read, parameters='profile: str = "default"')
    runs = [{"notebook": ["first", "second"]}, {"notebook": "reader", "after": ["first", "second"], "collect": True}]
    states = reproduce(write_profile(root / "tiny.yaml", runs, seeds=[0, 1]), scheduler=scheduler)
    assert states["reader"]["status"] == "done", states["reader"]


def test_a_lost_table_or_manifest_is_made_again(root, scheduler):  # noqa: F811
    runs = [{"notebook": "first"}, {"notebook": "second", "after": ["first"], "collect": True}]
    profile = write_profile(root / "tiny.yaml", runs, seeds=[0])
    reproduce(profile, scheduler=scheduler)
    table, manifest = (root / "results" / "tiny" / name for name in ("records.csv", "manifest.json"))
    kept = table.read_bytes()
    table.unlink(), manifest.unlink()
    reproduce(profile, scheduler=scheduler)
    assert table.read_bytes() == kept
    whole = manifest.read_text()
    for damage in (manifest.unlink, lambda: manifest.write_text(whole[:50]), lambda: manifest.write_text("{}")):
        damage()
        reproduce(profile, scheduler=scheduler)
        assert files.read_json(manifest)["runs"] == files.json.loads(whole)["runs"]


def test_a_results_folder_can_be_moved_and_copied(root, scheduler, monkeypatch):  # noqa: F811
    runs = [{"notebook": "first"}, {"notebook": "second", "after": ["first"], "collect": True}]
    profile = write_profile(root / "tiny.yaml", runs)
    reproduce(profile, scheduler=scheduler)
    elsewhere = root / "elsewhere"
    for folder in ("notebooks", "results"):
        shutil.copytree(root / folder, elsewhere / folder)
    monkeypatch.setenv("MASKUTILS_ROOT", str(elsewhere))
    assert [plan.why(profile, run) for run in plan.make_plan(profile)] == ["", ""]
    (elsewhere / "results" / "tiny" / "runs" / "first.csv").write_text(
        "damaged"
    )  # the copy is looked at, not the original
    assert [plan.why(profile, run) for run in plan.make_plan(profile)] == ["missing or damaged: first.csv", ""]


def test_the_manifest_says_the_seconds_of_this_run_also_where_an_earlier_one_took_longer(root):  # noqa: F811
    profile = write_profile(root / "tiny.yaml", [{"notebook": ["first", "second"]}])
    manifest, runs = root / "results" / "tiny" / "manifest.json", plan.make_plan(profile)
    files.write_json(manifest, {"runs": [{"id": run.id, "seconds": 50.0} for run in runs]})
    batch._write_manifest(profile, runs, {run.id: {"status": "done", "seconds": 2.5} for run in runs})
    found = files.read_json(manifest)
    assert [row["seconds"] for row in found["runs"]] == [2.5, 2.5]
    assert found["kernel_seconds"] == 5.0


def alive(pid: int) -> bool:
    """Whether the process is there and no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_batch_killed_and_started_again_finishes_only_what_is_missing(root, scheduler):  # noqa: F811
    pid, go = root / "pid", root / "go"
    wait = f"import os, pathlib, time\npathlib.Path({str(pid)!r}).write_text(str(os.getpid()))\n"
    wait += f"while not pathlib.Path({str(go)!r}).exists(): time.sleep(0.05)"
    write_notebook(root / "notebooks" / "second.ipynb", wait)
    profile = write_profile(root / "tiny.yaml", [{"notebook": "first"}, {"notebook": "second", "after": ["first"]}])
    command = [sys.executable, "-m", "maskutils", "reproduce", "--profile", profile, "--workers", "1"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    partial = root / "results" / "tiny" / "runs" / "second.partial.ipynb"
    deadline = time.monotonic() + 120
    while not (partial.exists() and pid.exists() and pid.read_text()) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert partial.exists()
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    while alive(kernel := int(pid.read_text())) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not alive(kernel), "its kernel goes on without it"

    done = plan.state_file(profile, "first").read_bytes()
    first, second = plan.make_plan(profile)
    assert (plan.why(profile, first), plan.why(profile, second)) == ("", "not run yet")
    go.touch()
    states = reproduce(profile, scheduler=scheduler)
    assert {state["status"] for state in states.values()} == {"done"}
    assert plan.state_file(profile, "first").read_bytes() == done
    assert not partial.exists()


def test_a_kernel_that_dies_is_reported_in_plain_words(root, scheduler):  # noqa: F811
    write_notebook(root / "notebooks" / "broken.ipynb", "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)")
    states = reproduce(write_profile(root / "tiny.yaml", [{"notebook": "broken"}]), scheduler=scheduler)
    assert "the kernel died" in states["broken"]["error"]


def test_a_second_batch_on_the_same_results_is_refused(root):  # noqa: F811
    profile = write_profile(root / "tiny.yaml", [{"notebook": "first"}])
    with batch.exclusive(profile), pytest.raises(batch.Busy, match="another batch works on"):
        reproduce(profile)
    assert plan.why(profile, plan.make_plan(profile)[0]) == "not run yet"


def test_a_results_folder_that_cannot_be_written_is_refused_before_work(root):  # noqa: F811
    (root / "results").write_text("a file where the folder should be")
    with pytest.raises(BadSetting, match="cannot write to"):
        reproduce(write_profile(root / "tiny.yaml", [{"notebook": "first"}]))


def test_an_address_without_a_scheduler_is_refused(root, monkeypatch):  # noqa: F811
    with pytest.raises(BadSetting, match="no Dask scheduler at"), batch.client(1, "nonsense://here"):
        pass


def test_image_folders_that_are_not_there_are_refused_before_anything_starts(root):  # noqa: F811
    write_notebook(root / "notebooks" / "one.ipynb", "pass", parameters='pair: str = "mnist_to_digits"  # pair')
    profile = write_profile(
        root / "tiny.yaml", [{"notebook": "one", "parameters": {"pair": "folders:/nowhere/a:/nowhere/b"}}]
    )
    with pytest.raises(BadSetting, match="/nowhere/a is not a folder"):
        reproduce(profile)
    assert not list((root / "results" / "tiny" / "runs").glob("*.ipynb"))
