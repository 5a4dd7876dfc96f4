"""The batch: order, failure, resumption after a kill, two at once. These tests start real workers and kernels."""

import contextlib
import errno
import gc
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import filelock
import nbformat
import pytest
import torch
from projects import WRITE, root, write_notebook, write_profile  # noqa: F401

from maskutils import __version__
from maskutils.batch import cluster, plan, schedule, status, worker
from maskutils.batch import run as batch
from maskutils.batch.plan import Run
from maskutils.batch.run import reproduce
from maskutils.core import files, paths
from maskutils.core.checks import BadSetting

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # of the libraries that run kernels
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture(scope="module")
def scheduler():
    """The address of a cluster of one worker, for tests that need none of their own: to start one takes twenty seconds.

    It believes in a GPU, of a name that none has. In the end the environment must be as it was.
    """
    before = dict(os.environ)
    with contextlib.ExitStack() as stack:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(cluster, "gpus", lambda: ["none"])
            local = stack.enter_context(cluster.client(1, None))
        yield local.scheduler.address
    assert dict(os.environ) == before


def test_there_are_as_many_workers_as_asked_for_with_an_environment_of_their_own(scheduler):
    from distributed import Client

    with Client(scheduler, set_as_default=False) as dask:
        assert list(dask.nthreads().values()) == [1]
        (temporary,) = dask.run(os.environ.get, "TMPDIR").values()
        assert Path(temporary).name.startswith("maskutils-")


@pytest.mark.parametrize(
    ("present", "chosen", "named"),
    [(3, None, ["0", "1", "2"]), (2, "2,GPU-5a,7", ["2", "GPU-5a"]), (1, "3", ["3"]), (0, "", []), (0, None, [])],
)
def test_there_is_a_worker_for_each_gpu(monkeypatch, tmp_path, present, chosen, named):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: present)
    monkeypatch.setattr(cluster, "DRIVERS", (str(tmp_path / "none"),))
    assert cluster.gpus() == []
    monkeypatch.setattr(cluster, "DRIVERS", (str(tmp_path),))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if chosen is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", chosen)
    assert cluster.gpus() == named
    assert cluster.at_once() == (len(named) or cluster.cores())


def test_workers_take_turns_with_the_gpus(monkeypatch):
    monkeypatch.delenv(cluster.GPUS, raising=False)
    assert worker.own_gpu() == {}
    monkeypatch.setenv(cluster.GPUS, "2,GPU-5a")
    taken = []
    for number in range(3):
        monkeypatch.setattr("distributed.get_worker", lambda number=number: SimpleNamespace(name=number))
        taken.append(worker.own_gpu()["CUDA_VISIBLE_DEVICES"])
    assert taken == ["2", "GPU-5a", "2"]


def test_a_kernel_sees_the_gpu_of_its_worker_alone(root, scheduler):  # noqa: F811
    asked = "import os\nassert os.environ['CUDA_VISIBLE_DEVICES'] == 'none'"
    write_notebook(root / "notebooks" / "first.ipynb", asked, parameters="x: int = 1")
    states = reproduce(write_profile(root / "tiny.yaml", [{"notebook": "first"}]), scheduler=scheduler)
    assert states["first"]["status"] == "done", states["first"]


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
    line = "raise RuntimeError('this cell is broken')"
    assert states["broken"]["error"] == f"code cell 2 ({line}): RuntimeError: this cell is broken"
    assert Path(states["broken"]["notebook"]).name == "broken.failed.ipynb"
    assert Path(states["broken"]["notebook"]).exists()
    assert not (root / "results" / "tiny" / "manifest.json").exists()
    assert ("started", "second") not in heard

    write_notebook(root / "notebooks" / "broken.ipynb", "repaired = True", parameters="seeds: list[int] = [0]")
    heard.clear()
    states = reproduce(profile, scheduler=scheduler, report=lambda event, run, state: heard.append((event, run.id)))
    assert {state["status"] for state in states.values()} == {"done"}
    assert ("skipped", "first") in heard
    assert ("started", "first") not in heard
    assert not (root / "results" / "tiny" / "runs" / "broken.failed.ipynb").exists()
    manifest = files.read_json(root / "results" / "tiny" / "manifest.json")
    assert [row["id"] for row in manifest["runs"]] == ["broken", "second", "first"]
    assert manifest["runs"][1]["parameters"]["seeds"] == [3]


def test_records_are_joined_before_the_notebook_that_reads_them(root, scheduler):  # noqa: F811
    read = "import pandas as pd\nfrom maskutils.core import paths\nassert len(pd.read_csv(paths.results_dir(profile) / 'records.csv')) == 4"
    uses = "import os, pathlib\nassert pathlib.Path(os.environ['MASKUTILS_USES']).read_text() == ''"
    write_notebook(root / "notebooks" / "reader.ipynb", read, uses, parameters='profile: str = "default"')
    runs = [{"notebook": ["first", "second"]}, {"notebook": "reader", "after": ["first", "second"], "collect": True}]
    states = reproduce(write_profile(root / "tiny.yaml", runs, seeds=[0, 1]), scheduler=scheduler)
    assert states["reader"]["status"] == "done", states["reader"]
    assert "MASKUTILS_USES" not in os.environ


def test_a_table_or_figure_that_was_deleted_is_made_again(root, scheduler):  # noqa: F811
    table = "import pandas as pd\nfrom maskutils.results.report import write_tables\nwrite_tables(pd.DataFrame({'a': [1]}), 'tiny', 'odd')"
    figure = "import matplotlib.pyplot as plt\nfrom maskutils.results import plots\nplots.save_figure(plt.figure(), 'drawn', 'tiny')"
    write_notebook(root / "notebooks" / "writer.ipynb", table, figure, parameters="seeds: list[int] = [0]")
    profile = write_profile(root / "tiny.yaml", [{"notebook": "writer"}])
    made = [paths.results_dir(profile) / "odd.md", paths.results_dir(profile) / "odd.tex"]
    made += [paths.figures_dir(profile) / "drawn.pdf", paths.figures_dir(profile) / "drawn.png"]
    for lost in (made[0], made[3]):
        states = reproduce(profile, scheduler=scheduler)
        assert all(file.is_file() for file in made), states
        (run,) = plan.make_plan(profile)
        assert not plan.why(profile, run)
        lost.unlink()
        assert plan.why(profile, run) == f"missing or damaged: {lost.name}"


def test_committed_results_are_not_written_by_code_that_is_not_committed(root, scheduler, monkeypatch):  # noqa: F811
    profile = write_profile(root / "tiny.yaml", [{"notebook": "first"}])
    monkeypatch.setattr(batch, "git_commit", lambda: "0123456789ab-dirty")
    monkeypatch.setattr(batch, "is_committed", lambda folder: folder == root / "results" / "tiny")
    with pytest.raises(
        BadSetting, match=r"results of .*tiny.* are committed, but maskutils/ or notebooks/ hold changes"
    ):
        reproduce(profile, scheduler=scheduler)
    assert not list((root / "results" / "tiny" / "runs").glob("*.json"))
    monkeypatch.setattr(batch, "git_commit", lambda: "0123456789ab")
    assert reproduce(profile, scheduler=scheduler)["first"]["status"] == "done"


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
    gone = files.json.loads(whole)
    gone["checksums"]["notes.md"] = "0"  # which somebody put there, and took away
    for content in ("", whole[:50], "{}", files.json.dumps(gone)):
        manifest.write_text(content) if content else manifest.unlink()
        reproduce(profile, scheduler=scheduler)
        assert files.read_json(manifest)["runs"] == files.json.loads(whole)["runs"]
        assert batch.damaged(root / "results" / "tiny") == []


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
    states = {run.id: {"status": "done", "seconds": 2.5} for run in runs}
    for run in runs:
        files.write_json(plan.state_file(profile, run.id), states[run.id] | {"parts": run.parts})
    batch._write_manifest(profile, runs, states)
    found = files.read_json(manifest)
    manifest.write_text("[")
    batch._write_manifest(profile, runs, {})  # none is done: one that cannot be read vouches for nothing
    assert not manifest.exists()
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
    write_notebook(root / "notebooks" / "second.ipynb", wait, parameters="seeds: list[int] = [0]")
    profile = write_profile(root / "tiny.yaml", [{"notebook": "first"}, {"notebook": "second", "after": ["first"]}])
    command = [sys.executable, "-m", "maskutils", "reproduce", "--profile", profile]
    partial = root / "results" / "tiny" / "runs" / "second.partial.ipynb"

    def until(reached):
        deadline = time.monotonic() + 120
        while not reached() and time.monotonic() < deadline:
            time.sleep(0.05)
        assert reached()

    def ended_midway(kind, *options):
        pid.unlink(missing_ok=True)
        process = subprocess.Popen([*command, *options], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        until(lambda: partial.exists() and pid.exists() and pid.read_text())
        os.kill(process.pid, kind)
        return process.communicate()[0], process.returncode

    said, code = ended_midway(signal.SIGTERM, "--scheduler", scheduler)
    assert code == 128 + signal.SIGTERM
    assert "stopping ...\nstopped; what is done stays, and the same command goes on from there" in said
    os.kill(int(pid.read_text()), signal.SIGKILL)  # a worker of a cluster finishes what it began
    until(lambda: not partial.exists())
    ended_midway(signal.SIGKILL, "--workers", "1")
    until(lambda: not alive(int(pid.read_text())))  # its kernel does not go on without it

    done = plan.state_file(profile, "first").read_bytes()
    first, second = plan.make_plan(profile)
    assert (plan.why(profile, first), plan.why(profile, second)) == ("", "not run yet")
    go.touch()
    states = reproduce(profile, scheduler=scheduler)
    assert {state["status"] for state in states.values()} == {"done"}
    assert plan.state_file(profile, "first").read_bytes() == done
    assert not partial.exists()


def test_ctrl_c_which_a_terminal_sends_to_all_processes_is_not_for_the_workers():
    with cluster.client(1, None) as dask:
        assert set(dask.run(signal.getsignal, signal.SIGINT).values()) == {signal.SIG_IGN}


STOPS = {
    "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)": "the kernel died of signal 9 (SIGKILL): somebody, or a limit",
    "import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)": "the kernel died of signal 11 (SIGSEGV): a fault of compiled code",
    "import os\nos._exit(3)": "the kernel died: the cell ended it with exit code 3",
    "import time\ntime.sleep(600)": "it took longer than 2 s",
}


def test_how_a_cell_ended_its_kernel_is_said_in_the_summary_and_in_the_notebook(root, scheduler):  # noqa: F811
    for n, source in enumerate(STOPS):
        write_notebook(
            root / "notebooks" / f"stop{n}.ipynb", "before = 1", source, "after = 1", parameters="x: int = 1"
        )
    profile = write_profile(root / "tiny.yaml", [{"notebook": [f"stop{n}" for n in range(len(STOPS))]}])
    states = reproduce(profile, scheduler=scheduler, timeout=2)
    for n, (source, said) in enumerate(STOPS.items()):
        assert states[f"stop{n}"]["error"].startswith(f"code cell 3 ({source.splitlines()[0]}): {said}")
        notebook = nbformat.read(states[f"stop{n}"]["notebook"], as_version=4)
        assert [cell.metadata.papermill.status for cell in notebook.cells[3:]] == ["completed", "failed", "pending"]
        assert said in notebook.cells[4].outputs[-1].evalue


def test_a_dead_kernel_is_told_in_our_words_alone(root, monkeypatch, caplog):  # noqa: F811
    monkeypatch.delenv(cluster.GPUS, raising=False)
    monkeypatch.setattr("distributed.get_worker", lambda: SimpleNamespace(log_event=lambda *_: None))
    write_notebook(root / "notebooks" / "first.ipynb", "\nimport os\nos._exit(3)", parameters="x: int = 1")
    profile = write_profile(root / "tiny.yaml", [{"notebook": "first"}])
    state = worker.execute(*plan.make_plan(profile), paths.runs_dir(profile), 60, paths.variables(), "nobody", "abc")
    assert (state["commit"], state["maskutils"]) == ("abc", __version__)  # of the batch, and of the worker
    assert state["error"].startswith("code cell 2 (import os): the kernel died: the cell ended it")
    assert "Kernel died" not in caplog.text


def test_a_cell_that_takes_too_long_is_told_in_our_words_alone(root, monkeypatch, caplog):  # noqa: F811
    monkeypatch.delenv(cluster.GPUS, raising=False)
    monkeypatch.setattr("distributed.get_worker", lambda: SimpleNamespace(log_event=lambda *_: None))
    write_notebook(root / "notebooks" / "first.ipynb", "import time\ntime.sleep(60)", parameters="x: int = 1")
    profile = write_profile(root / "tiny.yaml", [{"notebook": "first"}])
    given = (*plan.make_plan(profile), paths.runs_dir(profile), 1, paths.variables(), "nobody", "abc")
    with ThreadPoolExecutor(1) as threads:  # as a worker's
        state = threads.submit(worker.execute, *given).result()
    gc.collect()  # a task that nobody waits for complains then
    assert "it took longer than 1 s" in state["error"]
    assert "Task was destroyed" not in caplog.text


def test_the_line_at_which_a_cell_failed_is_told():
    traceback = ["[31mValueError[39m", "[36mCell[39m[36m In[3], line 2[39m", "Cell In[2], line 9"]
    assert worker.failing_line("x = 1\nraise ValueError", traceback) == ", line 2 (raise ValueError)"
    assert worker.failing_line("raise ValueError", ["Cell In[3], line 1"]) == ""
    chain = ["Cell In[2], line 2", "During handling of the above exception, another", "Cell In[3], line 3"]
    assert worker.failing_line("x\ny\nf()", chain) == ", line 3 (f())"
    assert worker.failing_line("%timeit x", ["UsageError"]) == ""


@pytest.mark.parametrize("at", ["maskutils.batch.worker._run", "tempfile.mkdtemp", "os.replace"])
def test_a_full_disk_of_a_worker_is_told_with_the_place_and_the_way_out(root, monkeypatch, at):  # noqa: F811
    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.delenv(cluster.GPUS, raising=False)
    monkeypatch.setattr("distributed.get_worker", lambda: SimpleNamespace(log_event=lambda *_: None))
    if at == "os.replace":
        monkeypatch.setattr(worker, "_run", lambda *_: "")
    monkeypatch.setattr(at, full)
    profile = write_profile(root / "tiny.yaml", [{"notebook": "first"}])
    folder, setting = (tempfile.gettempdir(), "TMPDIR") if "temp" in at else (paths.runs_dir(profile), "MASKUTILS_ROOT")
    with pytest.raises(OSError, match=f"No space left on device; free some .* {setting} .*: '{folder}'$"):
        worker.execute(*plan.make_plan(profile), paths.runs_dir(profile), 60, paths.variables(), "nobody", "")


@pytest.mark.parametrize(("killed", "said"), [(0, "a limit of the system"), (1, "no memory left: run fewer workers")])
def test_want_of_memory_is_said_on_evidence_only(killed, said):
    assert said in worker.meaning(-signal.SIGKILL, killed)
    assert "memory" not in worker.meaning(-signal.SIGTERM, killed)


def test_an_output_that_is_not_written_is_a_failure_although_an_earlier_one_is_there(root, scheduler):  # noqa: F811
    profile = write_profile(root / "tiny.yaml", [{"notebook": "first"}])
    reproduce(profile, scheduler=scheduler)
    write_notebook(root / "notebooks" / "first.ipynb", "nothing = 'written'")
    states = reproduce(profile, scheduler=scheduler)
    assert "it did not write " in states["first"]["error"]
    assert "first.csv" in states["first"]["error"]
    assert plan.why(profile, plan.make_plan(profile)[0]) == "failed before"


def test_what_is_too_long_to_keep_is_cut(root, scheduler):  # noqa: F811
    write_notebook(root / "notebooks" / "first.ipynb", "print('x' * 5_000_000)", parameters="x: int = 1")
    write_notebook(root / "notebooks" / "second.ipynb", "raise ValueError('y' * 3_000_000)", parameters="x: int = 1")
    states = reproduce(write_profile(root / "tiny.yaml", [{"notebook": ["first", "second"]}]), scheduler=scheduler)
    assert Path(states["first"]["notebook"]).stat().st_size < 1_100_000
    assert "4,000,001 characters left out" in Path(states["first"]["notebook"]).read_text()
    assert len(states["second"]["error"]) < 2_100
    (error,) = nbformat.read(states["second"]["notebook"], as_version=4).cells[-1].outputs
    assert [len(text) < 1_000_100 for text in (error.evalue, *error.traceback)] == [True, True]


def test_records_that_do_not_go_together_fail_that_run_only_and_name_the_two(root, scheduler):  # noqa: F811
    for name, steps in (("first", 300), ("second", 20)):
        write = WRITE.replace("'model': 'cnn'", f"'model': 'cnn', 'mask_steps': {steps}")
        write_notebook(root / "notebooks" / f"{name}.ipynb", f"NAME = 'same'\n{write}")
    write_notebook(root / "notebooks" / "third.ipynb", "x = 1", parameters="x: int = 1")
    collect = {"notebook": "third", "after": ["first", "second"], "collect": True, "each": {"x": [1]}}
    runs = [{"notebook": ["first", "second"]}, collect, {"notebook": "third", "each": {"x": [2]}}]
    profile = write_profile(root / "tiny.yaml", runs)
    states = reproduce(profile, scheduler=scheduler)
    assert {run: state["status"] for run, state in states.items()} == {
        "first": "done", "second": "done", "third-1": "failed", "third-2": "done",
    }  # fmt: skip
    assert "stand for the same transfer" in states["third-1"]["error"]
    assert "in first.csv and second.csv, with other settings: mask_steps 300 and 20;" in states["third-1"]["error"]
    assert plan.why(profile, plan.make_plan(profile)[2]) == "failed before"


def test_a_run_starts_when_a_worker_starts_it_and_says_its_cells(root, scheduler, monkeypatch):  # noqa: F811
    heard, seen = [], []
    monkeypatch.setattr(batch, "find_spec", lambda name: True)
    profile = write_profile(root / "tiny.yaml", [{"notebook": ["first", "second"]}])
    reproduce(
        profile,
        scheduler=scheduler,
        report=lambda event, run, state: heard.append((event, run.id)),
        see=seen.append,
    )
    assert [address.endswith("/status") for address in seen] == [True]  # of the dashboard
    (first, second) = (heard.index(("started", name)) for name in ("first", "second"))
    earlier = "first" if first < second else "second"
    assert heard.index(("cell", earlier)) < max(first, second)  # there is one worker
    assert ("cell", "first") in heard


class Nobody:
    """A client of a scheduler whose workers are all lost."""

    status = "running"

    def __init__(self):
        self.scheduler_info, self.subscribe_topic = lambda: {"workers": {}}, lambda topic, handler: None
        self.nthreads, self.unsubscribe_topic = dict, lambda topic: None

    def submit(self, *_: object, **__: object) -> "Nobody":
        return self

    def add_done_callback(self, function):
        """Never called."""


def test_when_all_workers_are_lost_it_is_noticed_and_said(root, monkeypatch):  # noqa: F811
    monkeypatch.setattr(schedule, "PATIENCE", 0.2)
    monkeypatch.setattr(schedule, "LOOK", 0.1)
    profile = write_profile(root / "tiny.yaml", [{"notebook": "first"}])
    with pytest.raises(ConnectionError, match="all workers are gone"):
        schedule.Schedule(profile, plan.make_plan(profile), {}, Nobody(), lambda *_: None).carry_out()


def test_a_scheduler_that_is_lost_is_one_sentence(root):  # noqa: F811
    profile, nobody = write_profile(root / "tiny.yaml", [{"notebook": "first"}]), Nobody()
    nobody.status = "cancelled"
    nobody.add_done_callback = lambda function: function(nobody)
    with pytest.raises(ConnectionError, match="the Dask scheduler is gone"):
        schedule.Schedule(profile, plan.make_plan(profile), {}, nobody, lambda *_: None).carry_out()


def test_a_thousand_runs_blocked_by_one_are_no_recursion(root):  # noqa: F811
    write_notebook(root / "notebooks" / "chain.ipynb", "pass", parameters="n: int = 0")
    runs = [Run(f"r{n}", root, {}, (f"r{n - 1}",) if n else (), False, {}) for n in range(1500)]
    states, profile = {"r0": {"status": "failed"}}, write_profile(root / "tiny.yaml", [{"notebook": "first"}])
    schedule.Schedule(profile, runs[1:], states, Nobody(), lambda *_: None).carry_out()
    assert states["r1499"] == {"status": "blocked", "by": ["r0"]}


def test_workers_that_cannot_do_the_work_are_refused_before_it_starts(root, scheduler):  # noqa: F811
    with cluster.client(1, scheduler, root):
        assert not list(root.glob(".*"))
    for found, said in {
        "0.0": "has maskutils 0.0; install maskutils",
        ModuleNotFoundError("no"): "has no maskutils; install",
    }.items():
        remote = SimpleNamespace(run=lambda *_, found=found, **__: {"tcp://w": found})
        with pytest.raises(BadSetting, match=f"the worker tcp://w {said}"):
            cluster.check_workers(remote, root)
    answers = {cluster.version: cluster.version("maskutils"), os.path.isdir: True}  # of another disk at the same place
    remote = SimpleNamespace(run=lambda function, *_, **__: {"tcp://w": answers.get(function)}, nthreads=dict)
    with pytest.raises(BadSetting, match=f"the worker tcp://w does not see {root}; set MASKUTILS_ROOT to"):
        cluster.check_workers(remote, root)


def test_one_worker_at_a_time_has_a_run(root, monkeypatch):  # noqa: F811
    monkeypatch.delenv(cluster.GPUS, raising=False)  # of the cluster of other tests
    heard = []  # for here is no worker of Dask
    monkeypatch.setattr("distributed.get_worker", lambda: SimpleNamespace(log_event=lambda *told: heard.append(told)))
    profile = write_profile(root / "tiny.yaml", [{"notebook": "first"}])
    run, folder = plan.make_plan(profile)[0], paths.runs_dir(profile)
    folder.mkdir(parents=True)
    with ThreadPoolExecutor(1) as threads:
        with filelock.FileLock(folder / ".first.lock"):
            future = threads.submit(worker.execute, run, folder, 60, paths.variables(), "nobody", "")
            time.sleep(2)
            assert not list(folder.glob("*.ipynb"))
            assert not heard
            assert status.is_held(folder / plan.lock_name(run.id))
        assert future.result()["status"] == "done"
    assert heard[0] == ("nobody", {"event": "started", "run": "first"})
    assert not status.is_held(folder / plan.lock_name(run.id))


def test_a_folder_of_runs_that_cannot_be_written_is_one_error_too(root, monkeypatch):  # noqa: F811
    def read_only(*_):
        raise OSError(errno.EROFS, "Read-only file system")

    profile = write_profile(root / "tiny.yaml", [{"notebook": "first"}])
    monkeypatch.setattr(batch, "write_atomically", read_only)
    with pytest.raises(BadSetting, match=r"cannot write to .*Read-only"), batch.held_by_us(profile):
        pass


def test_a_second_batch_on_the_same_results_is_refused(root):  # noqa: F811
    profile = write_profile(root / "tiny.yaml", [{"notebook": "first"}])
    with (
        batch.held_by_us(profile),
        pytest.raises(batch.Busy, match=rf"another batch works on .*\(process {os.getpid()} on .*, since 20"),
    ):
        reproduce(profile)
    assert plan.why(profile, plan.make_plan(profile)[0]) == "not run yet"


def test_a_results_folder_that_cannot_be_written_is_refused_before_work(root):  # noqa: F811
    (root / "results").write_text("a file where the folder should be")
    with pytest.raises(BadSetting, match="cannot write to"):
        reproduce(write_profile(root / "tiny.yaml", [{"notebook": "first"}]))


def test_an_address_without_a_scheduler_is_refused(root, monkeypatch):  # noqa: F811
    with pytest.raises(BadSetting, match="no Dask scheduler at"), cluster.client(1, "nonsense://here"):
        pass


def test_image_folders_that_are_not_there_are_refused_before_anything_starts(root):  # noqa: F811
    write_notebook(root / "notebooks" / "one.ipynb", "pass", parameters='pair: str = "mnist_to_digits"  # pair')
    profile = write_profile(
        root / "tiny.yaml", [{"notebook": "one", "parameters": {"pair": "folders:/nowhere/a:/nowhere/b"}}]
    )
    with pytest.raises(BadSetting, match="/nowhere/a is not a folder"):
        reproduce(profile)
    assert not list((root / "results" / "tiny" / "runs").glob("*.ipynb"))
