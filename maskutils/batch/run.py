"""The batch: a plan carried out by notebooks in worker processes, resumable.

Owns the order of work, what is written when, and what a failure leaves behind. The state of a run is written last and
atomically, so a batch that is killed at any moment and started again finishes only what is missing.
"""

import contextlib
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import filelock
import torch

from maskutils.batch import kernels, plan
from maskutils.batch.estimates import longest_paths
from maskutils.batch.plan import Run
from maskutils.core import paths
from maskutils.core.checks import BadSetting
from maskutils.core.files import DamagedFile, file_digest, read_json, write_json
from maskutils.results import records
from maskutils.study.inputs import check_inputs
from maskutils.study.provenance import cores, git_commit, versions

Report = Callable[[str, Run, dict[str, Any]], None]


class Busy(RuntimeError):
    """Another batch works on the same results."""


def reproduce(
    profile: str,
    workers: int | None = None,
    scheduler: str | None = None,
    force: bool = False,
    report: Report = lambda event, run, state: None,
) -> dict[str, dict[str, Any]]:
    """Bring the results of `profile` up to date; returns the state of every run by id.

    Runs that are done stay as they are, unless `force`. `workers` processes on this machine (by default one a core, or one
    where there is a GPU), or those of the Dask `scheduler` at an address that shares our file system. `report(event, run, state)` hears
    "skipped", "started", "done", "failed" and "blocked" (something it comes after failed). Raises `BadSetting` before
    anything starts, `Busy` if another batch holds the results.
    """
    runs = plan.make_plan(profile)
    with exclusive(profile):
        reasons = {run.id: plan.why(profile, run) for run in runs}
        todo = [run for run in runs if force or reasons[run.id]]
        check_inputs(*(run.parameters for run in todo))
        states = {run.id: read_json(plan.state_file(profile, run.id)) for run in runs if run not in todo}
        for run in runs:
            if run.id in states:
                report("skipped", run, states[run.id])
        if todo:
            with client(min(workers or _at_once(), len(todo)), scheduler) as dask:
                _work(profile, todo, states, dask, report)
        if todo or not _has_manifest(profile, runs):
            _write_manifest(profile, runs, states)
    return states


def _at_once() -> int:
    """How many notebooks to run at a time: as many as there are cores, or one where they would share a GPU."""
    return 1 if torch.cuda.is_available() or torch.backends.mps.is_available() else cores()


def _work(profile: str, todo: Sequence[Run], states: dict[str, dict[str, Any]], dask: Any, report: Report) -> None:
    """Run what is to do, each as soon as what it comes after is done; fills `states`."""
    from distributed import as_completed

    by_id, waiting, running = {run.id: run for run in todo}, list(todo), {}
    done = as_completed(loop=dask.loop)
    timeout, longest = plan.load_profile(profile).cell_timeout, longest_paths(profile, todo)

    def launch() -> None:
        for run in [r for r in waiting if all(before in states for before in r.after)]:
            waiting.remove(run)
            if any(states[before]["status"] != "done" for before in run.after):
                states[run.id] = {"status": "blocked"}
                report("blocked", run, states[run.id])
                launch()  # what comes after this one is blocked too
                return
            if run.collect:
                files = [plan.records_file(profile, before) for before in run.after]
                records.collect(files, paths.results_dir(profile) / "records.csv")
            future = dask.submit(
                execute, run, paths.runs_dir(profile), timeout, paths.environment(), pure=False, key=f"{run.id}-{time.time_ns()}",
                priority=longest[run.id],  # so that the last ones are short
            )  # fmt: skip
            running[future] = run.id
            done.add(future)
            report("started", run, {})

    launch()
    while running:
        future = next(done)
        run = by_id[running.pop(future)]
        failure = (
            {"status": "failed", "seconds": 0.0, "error": f"it could not be executed ({future.exception()!r})"}
            if future.status != "finished"
            else None
        )
        states[run.id] = failure or future.result()
        _write_state(profile, run, states[run.id])
        report(states[run.id]["status"], run, states[run.id])
        launch()


def execute(run: Run, folder: Path, timeout: int, folders: Mapping[str, str]) -> dict[str, Any]:
    """Execute one notebook in a kernel of its own; returns its state. Runs in a worker process, wherever that is.

    `folders` is our `paths.environment`, `timeout` the seconds that a cell may take. The executed notebook is left in
    `folder` as `<id>.ipynb`, or as `<id>.failed.ipynb` with the error in it.
    """
    import papermill
    from nbclient.exceptions import CellTimeoutError, DeadKernelError

    folder.mkdir(parents=True, exist_ok=True)
    # Dask sets 64 KiB for its workers; a kernel that inherits it gives back its memory and faults it in again at every step.
    os.environ.pop("MALLOC_TRIM_THRESHOLD_", None)
    os.environ.update(folders)
    partial, failed, final = (folder / f"{run.id}{kind}.ipynb" for kind in (".partial", ".failed", ""))
    begun, error = time.time(), ""
    with tempfile.TemporaryDirectory(prefix="mu") as sockets:
        try:
            papermill.execute_notebook(
                run.notebook,
                partial,
                dict(run.parameters),
                kernel_name="python3",
                language="python",
                cwd=run.notebook.parent,
                progress_bar=False,
                execution_timeout=timeout,
                config=kernels.through_files(sockets),
                shutdown_kernel="immediate",  # by then all that it wrote is whole on disk
            )
        except papermill.PapermillExecutionError as e:
            error = f"{e.ename}: {e.evalue}"
        except DeadKernelError:
            error = "the kernel died, probably for want of memory; run fewer workers"
        except CellTimeoutError:
            error = f"a cell took longer than {timeout} s (cell_timeout of the profile)"
    os.replace(partial, failed if error else final)
    with contextlib.suppress(FileNotFoundError):
        (final if error else failed).unlink()
    state = {"status": "failed" if error else "done", "seconds": round(time.time() - begun, 1)}
    return state | ({"error": error, "notebook": str(failed)} if error else {"notebook": str(final)})


@contextlib.contextmanager
def environment(variables: Mapping[str, str]) -> Iterator[None]:
    """`variables` in the environment of this process inside the block; on leaving it is what it was, whatever changed it.

    Dask changes it too: a kernel that some later code starts would inherit its thread counts.
    """
    before = dict(os.environ)
    os.environ.update(variables)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


QUIET = {
    "distributed.worker.daemon": False,  # a daemon may not have the process that kernels are forked from
    "distributed.worker.profile.enabled": False,  # sampling costs a tenth of a core, ticks and monitors another
    "distributed.admin.tick.interval": "1s",
    "distributed.admin.system-monitor.interval": "10s",
}


@contextlib.contextmanager
def client(workers: int, scheduler: str | None) -> Iterator[Any]:
    """A Dask client: of `scheduler`, or of `workers` single-threaded processes here, each with its share of the cores
    for kernels.
    """
    import dask
    from distributed import Client, LocalCluster

    if scheduler:
        try:
            remote = Client(scheduler, timeout="10s", set_as_default=False)
        except (OSError, ValueError) as error:
            raise BadSetting(
                f"no Dask scheduler at {scheduler!r} ({error}); start one, or leave --scheduler out"
            ) from None
        with remote:
            yield remote
        return
    threads = str(max(1, cores() // workers))
    kernel = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), threads) | {"TQDM_DISABLE": "1"} | kernels.chosen()
    with (
        environment(kernel),  # inherited by workers and their kernels
        dask.config.set(QUIET),
        LocalCluster(
            n_workers=workers, threads_per_worker=1, dashboard_address=":0", memory_limit=None, silence_logs=50
        ) as cluster,
        Client(cluster, set_as_default=False) as local,
    ):
        yield local


@contextlib.contextmanager
def exclusive(profile: str) -> Iterator[None]:
    """Hold the results of `profile`. Raises `Busy` if another batch does, `BadSetting` if they cannot be written."""
    folder = paths.results_dir(profile)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        paths.runs_dir(profile).mkdir(exist_ok=True)
        lock = filelock.FileLock(folder / ".lock", timeout=0)
        lock.acquire()
    except filelock.Timeout:
        raise Busy(f"another batch works on {folder}; wait for it, or set MASKUTILS_ROOT to work elsewhere") from None
    except OSError as error:
        raise BadSetting(
            f"cannot write to {folder} ({error}); free it, or set MASKUTILS_ROOT to a folder that can be written"
        ) from None
    try:
        yield
    finally:
        lock.release()


def _write_state(profile: str, run: Run, state: dict[str, Any]) -> None:
    """The last thing written of a run: from now on it is done, or failed."""
    outputs = [Path(state["notebook"])] if state["status"] == "done" else []
    if outputs and "output" in run.parameters:
        outputs.append(plan.records_file(profile, run.id))
    if outputs and run.collect:
        outputs.append(paths.results_dir(profile) / "records.csv")
    digests = {str(path.relative_to(paths.results_dir(profile))): file_digest(path) for path in outputs}
    write_json(plan.state_file(profile, run.id), state | {"parts": dict(run.parts), "outputs": digests})


def _has_manifest(profile: str, runs: Sequence[Run]) -> bool:
    """Whether there is a whole manifest of just these runs."""
    try:
        rows = read_json(paths.results_dir(profile) / "manifest.json")["runs"]
        return [(row["id"], row["key"]) for row in rows] == [(run.id, run.key) for run in runs]
    except (FileNotFoundError, DamagedFile, KeyError, TypeError):
        return False


def _write_manifest(profile: str, runs: Sequence[Run], states: dict[str, dict[str, Any]]) -> None:
    """What was run, from what, in how long; only when all is done."""
    if any(states[run.id]["status"] != "done" for run in runs):
        return
    rows = [
        {"id": run.id, "key": run.key, "seconds": states[run.id]["seconds"], "parameters": run.parts["parameters"]}
        for run in runs
    ]
    table = paths.results_dir(profile) / "records.csv"
    manifest = {
        "profile": profile,
        "commit": git_commit(),
        "versions": versions(),
        "cores": cores(),
        "records": file_digest(table),
    }
    manifest["kernel_seconds"] = round(sum(row["seconds"] for row in rows), 1)
    write_json(paths.results_dir(profile) / "manifest.json", manifest | {"runs": rows})
