"""The batch: a plan carried out by notebooks in worker processes, resumable.

The state of a run is written last and atomically, so a batch that is killed at any moment and started again finishes only what is
missing.
"""

import contextlib
import os
import platform
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import filelock

from maskutils.batch import plan
from maskutils.batch.cluster import at_once, client
from maskutils.batch.plan import Run
from maskutils.batch.profile import HOLDER, mark_owner
from maskutils.batch.schedule import Schedule
from maskutils.batch.status import chosen_runs
from maskutils.core import paths
from maskutils.core.checks import BadSetting, content_key
from maskutils.core.files import DamagedFile, read_json, write_atomically, write_json
from maskutils.results.manifest import MANIFEST, damaged, sealed, vouched, with_runs
from maskutils.study.inputs import check_inputs, download_weights
from maskutils.study.provenance import cores, git_commit, is_committed, versions
from maskutils.study.setup import setup_in

Report = Callable[[str, Run, dict[str, Any]], None]


class Busy(RuntimeError):
    """Another batch works on the same results."""


def reproduce(
    profile: str,
    workers: int | None = None,
    scheduler: str | None = None,
    force: bool = False,
    report: Report = lambda event, run, state: None,
    *,
    runs: Sequence[Run] | None = None,
    only: Sequence[str] = (),
    only_failed: bool = False,
    see: Callable[[str], None] = lambda address: None,
    **how: Any,
) -> dict[str, dict[str, Any]]:
    """Bring the results of `profile` up to date; returns the state of every run that is done or was to be run, by id.

    `runs` is its plan, where that is made already. Runs that are done stay as they are, unless `force`. `only` and `only_failed` choose
    runs, see `status.chosen_runs`; `how` is for `Schedule`: retries, timeout, keep_going, fail_fast. `workers` processes on this machine
    (by default one a GPU, or one a core without), or those of the Dask `scheduler` at an address that shares our file system.
    `report(event, run, state)` is called with "skipped", "left out" (by `only`), "started", "cell" (with its number), "retried", "done",
    "failed" and "blocked" (a run that it needs failed); `see` with the address of Dask's dashboard, where there is one.
    Raises `BadSetting` before anything starts, `Busy` if another batch holds the results, `ConnectionError` if all workers are lost.
    """
    runs = plan.make_plan(profile) if runs is None else runs
    with held_by_us(profile):
        reasons = {run.id: plan.why(profile, run) for run in runs}
        todo = chosen_runs(profile, runs, reasons, only, only_failed, force)
        check_ready(todo, scheduler)
        download_weights(*(run.parameters for run in todo))
        if todo:
            check_clean(profile)
        mark_owner(profile)
        done = {run.id: plan.last_state(profile, run) for run in runs if not reasons[run.id] and run not in todo}
        # what it lacked, where there is no reason to run it again, is no longer in the profile
        states = {name: {key: value for key, value in state.items() if key != "lacks"} for name, state in done.items()}
        for run in runs:
            if run not in todo:
                report("skipped" if run.id in states else "left out", run, states.get(run.id, {}))
        if todo:
            with client(workers or at_once(), scheduler, paths.runs_dir(profile), len(todo)) as dask:
                if find_spec("bokeh"):  # which draws it
                    see(dask.dashboard_link)
                if force:
                    _mark_forced(profile, todo)
                Schedule(profile, todo, states, dask, report, **how).carry_out()
        if todo or not _has_manifest(profile, runs):
            _write_manifest(profile, runs, states)
    return states


def _mark_forced(profile: str, runs: Sequence[Run]) -> None:
    """Write into the last states of `runs` that they are to run again, so that a batch that is stopped goes on with them."""
    for run in runs:
        if state := plan.last_state(profile, run):
            write_json(plan.state_file(profile, run.id), state | {"forced": True})


def check_ready(runs: Sequence[Run], scheduler: str | None = None) -> None:
    """Raise `BadSetting` for image folders, weight files or devices that `runs` name and that are not there.

    What devices the workers of a `scheduler` have is not known here.
    """
    check_inputs(*(run.parameters for run in runs))
    setups = {setup.compute: setup for setup in (setup_in(run.parameters) for run in runs)}
    if scheduler is None and any(compute.device not in ("auto", "cpu") for compute in setups):
        from maskutils.study.artefacts import device  # here, for it takes torch

        for setup in setups.values():
            device(setup)


def refusal(runs: Sequence[Run], scheduler: str | None = None) -> str:
    """What `check_ready` refuses `runs` for, as one sentence; empty if they can run."""
    try:
        check_ready(runs, scheduler)
    except BadSetting as error:
        return str(error)
    return ""


def check_clean(profile: str) -> None:
    """Raise `BadSetting` if committed results would be written by code that is not committed: nobody could make them again."""
    if git_commit().endswith("-dirty") and is_committed(paths.results_dir(profile)):
        raise BadSetting(
            f"the results of {profile} are committed, but maskutils/ or notebooks/ hold changes that are not; commit these first, or "
            "leave out --renew to write to results/local"
        )


@contextlib.contextmanager
def held_by_us(profile: str) -> Iterator[None]:
    """Hold the results of `profile`. Raises `Busy` if another batch does, `BadSetting` if they cannot be written."""
    folder, by = paths.results_dir(profile), ""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        paths.runs_dir(profile).mkdir(exist_ok=True)
        held = filelock.FileLock(folder / ".lock", timeout=0).acquire()
    except filelock.Timeout:
        with contextlib.suppress(OSError):
            by = f" ({(paths.runs_dir(profile) / HOLDER).read_text(encoding='utf-8')})"
        raise Busy(
            f"another batch works on {folder}{by}; wait for it, or set MASKUTILS_ROOT to work elsewhere"
        ) from None
    except OSError as error:
        raise _unwritable(folder, error) from None
    with held:
        begun = f"process {os.getpid()} on {platform.node()}, since {datetime.now():%Y-%m-%d %H:%M}"
        try:
            write_atomically(holder := paths.runs_dir(profile) / HOLDER, begun.encode())
        except OSError as error:
            raise _unwritable(folder, error) from None
        try:
            yield
        finally:
            holder.unlink(missing_ok=True)


def _unwritable(folder: Path, error: OSError) -> BadSetting:
    return BadSetting(
        f"cannot write to {folder} ({error}); free it, or set MASKUTILS_ROOT to a folder that can be written"
    )


def _has_manifest(profile: str, runs: Sequence[Run]) -> bool:
    """Whether there is a whole manifest of just these runs, and of no file that is gone: where all runs are done, none wrote it."""
    folder = paths.results_dir(profile)
    try:
        rows = read_json(folder / MANIFEST)["runs"]
        same = [(row["id"], row["key"]) for row in rows] == [(run.id, run.key) for run in runs]
        return same and all((folder / name).is_file() for name in vouched(folder))
    except (FileNotFoundError, DamagedFile, KeyError, TypeError):
        return False


def _write_manifest(profile: str, runs: Sequence[Run], states: dict[str, dict[str, Any]]) -> None:
    """What was run, from what, in how long, when all is done; before that one that vouches for other files is deleted."""
    folder = paths.results_dir(profile)
    if any(states.get(run.id, {}).get("status") != "done" for run in runs):
        with contextlib.suppress(FileNotFoundError, DamagedFile):
            if not damaged(folder):
                return
        (folder / MANIFEST).unlink(missing_ok=True)
        return
    rows = [row_of(plan.state_file(profile, run.id)) for run in runs]
    manifest = {"profile": profile, "commit": git_commit(), "versions": versions(), "cores": cores()}
    write_json(folder / MANIFEST, with_runs(sealed(folder, manifest), rows))


def row_of(file: Path) -> dict[str, Any]:
    """What a manifest says of the run whose state is in `file`. Raises `ValueError` for one that is not done."""
    state = read_json(file)
    if state["status"] != "done":
        raise ValueError(f"{file} is the state of a run that is not done; run it first")
    parts = state["parts"]
    about = {"id": file.stem, "key": content_key(parts)}
    return about | {"seconds": state["seconds"], "parameters": parts["parameters"]}
