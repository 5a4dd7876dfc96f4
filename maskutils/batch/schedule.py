"""The order of work: each run starts as soon as what it comes after is done, on whatever workers Dask has."""

import queue
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from maskutils.batch import plan
from maskutils.batch.estimates import longest_paths
from maskutils.batch.plan import Run
from maskutils.batch.profile import load_profile
from maskutils.batch.status import first_causes
from maskutils.batch.worker import LONGEST_ERROR, execute, shortened
from maskutils.core import paths
from maskutils.core.checks import BadSetting
from maskutils.core.files import DamagedFile, file_digest, write_json
from maskutils.results.manifest import MANIFEST
from maskutils.study.inputs import stamps
from maskutils.study.provenance import git_commit, is_committed

PATIENCE, LOOK = 45.0, 5.0  # seconds without any worker until we give up, and between two looks


class Schedule:
    """Runs that are to be done, and what becomes of them; `states` holds those that are done, and is filled.

    A run that fails is tried again up to `retries` times. `timeout` is the seconds that a cell may take, by default those of the profile.
    After a failure, runs that do not need the failed one go on. With `fail_fast` nothing more is started. With `keep_going` a run that
    collects records does so from the runs that are done.
    """

    def __init__(
        self,
        profile: str,
        todo: Sequence[Run],
        states: dict[str, dict[str, Any]],
        dask: Any,
        report: Callable[[str, Run, dict[str, Any]], None],
        *,
        retries: int = 0,
        timeout: int | None = None,
        keep_going: bool = False,
        fail_fast: bool = False,
    ) -> None:
        self.profile, self.states, self.dask, self.report = profile, states, dask, report
        self.by_id, self.waiting = {run.id: run for run in todo}, list(todo)
        self.ready: list[Run] = []  # to be submitted as soon as a worker is free
        self.running: dict[Any, Any] = {}
        self.tries, self.retries = retries + 1, dict.fromkeys(self.by_id, retries)
        self.timeout = timeout or load_profile(profile).cell_timeout
        self.keep_going, self.fail_fast, self.stopped = keep_going, fail_fast, False
        self.joined = {b for run in todo if run.collect for b in run.after}  # whose records a later run joins
        self.longest, self.committed = longest_paths(profile, todo), is_committed(paths.results_dir(profile))
        self.events: queue.SimpleQueue[Any] = queue.SimpleQueue()  # futures that ended, and what workers tell
        self.topic, self.seen = f"maskutils-{time.time_ns()}", time.monotonic()

    def carry_out(self) -> None:
        """Run them all. Raises `ConnectionError` if scheduler or workers are lost."""
        self.dask.subscribe_topic(self.topic, lambda event: self.events.put(event[1]))
        try:
            self._launch()
            while self.running:
                self._hear()
        finally:
            # What workers tell after this would be a traceback of the scheduler, which has nobody to pass it on to.
            if self.dask.status == "running":
                self.dask.unsubscribe_topic(self.topic)

    def _hear(self) -> None:
        """Act on the next event; after some time without one look for workers, of which there may be more than before."""
        try:
            event = self.events.get(timeout=LOOK)
        except queue.Empty:
            self._look_for_workers()
            self._launch()
            return
        self.seen = time.monotonic()
        if isinstance(event, dict):
            self.report(event["event"], self.by_id[event["run"]], event)
        else:
            self._finish(event)
            self._launch()

    def _launch(self) -> None:
        """Start what can be started; what cannot ever be is blocked, and then so is what comes after it."""
        again = not self.stopped
        while again:
            for run in list(self.waiting):  # each stands after those it needs
                if not self.stopped and all(before in self.states for before in run.after):
                    self.waiting.remove(run)
                    self._start(run)
            again = not self.stopped and self._fill()

    def _fill(self) -> bool:
        """Submit a run for each free worker, those that begin the longest chains first. Returns whether one failed at once.

        Dask gives a run to a worker at once, and leaves it there where that is busy and another becomes idle.
        """
        self.ready.sort(key=lambda run: self.longest[run.id], reverse=True)
        free = max(1, sum(self.dask.nthreads().values())) - len(self.running)
        return any(not self._submit(self.ready.pop(0)) for _ in range(min(free, len(self.ready))))

    def _start(self, run: Run) -> None:
        failed = [b for b in run.after if self.states[b]["status"] != "done"]
        if failed and not (self.keep_going and run.collect and len(failed) < len(run.after)):
            state = {"status": "blocked", "by": first_causes(failed, self.states, "by")}
            self.states[run.id] = state
            self.report("blocked", run, state)
        elif error := self._collect(run) if run.collect else "":
            self._settle(run, _failed(error))
        else:
            self.ready.append(run)

    def _submit(self, run: Run) -> bool:
        """Give `run` to a worker, as its notebook, rates and images are by now; returns False where it fails before that."""
        try:
            stamps.cache_clear()  # images and weights may be others by now
            upstream = {b: self.by_id[b].key if b in self.by_id else key for b, key in run.parts["upstream"].items()}
            found = plan.found_parts(run.notebook, run.parts["parameters"])
            if self.committed and found["notebook code"] != run.parts["notebook code"]:
                raise BadSetting(
                    f"{run.notebook} was edited since the batch began; commit it, and start the batch again"
                )
        except (OSError, BadSetting) as error:
            self._settle(run, _failed(str(error)))
            return False
        self.by_id[run.id] = run = replace(run, parts={**run.parts, **found, "upstream": upstream})
        future = self.dask.submit(
            execute, run, paths.runs_dir(self.profile), self.timeout, paths.variables(), self.topic, git_commit(),
            pure=False, key=f"{run.id}-{time.time_ns()}",
        )  # fmt: skip
        self.running[future] = run
        future.add_done_callback(self.events.put)
        return True

    def _collect(self, run: Run) -> str:
        """Join the records of what `run` comes after; returns what went wrong, or nothing."""
        from maskutils.results import records

        files = [plan.records_file(self.profile, b) for b in run.after if self.states[b]["status"] == "done"]
        try:
            (paths.results_dir(self.profile) / MANIFEST).unlink(missing_ok=True)  # of the records before
            records.collect(files, paths.results_dir(self.profile) / "records.csv")
        except (ValueError, OSError) as error:
            return f"the records of what it comes after cannot be joined: {error}"
        return ""

    def _fault(self, run: Run) -> str:
        """What is wrong with the records that `run` has left, if anything."""
        from maskutils.results.records import load_records

        try:
            load_records(plan.records_file(self.profile, run.id))
        except DamagedFile as error:
            return str(error)
        except FileNotFoundError:
            pass  # `_write_state` says so
        return ""

    def _finish(self, future: Any) -> None:
        run = self.running.pop(future)
        if future.status in ("cancelled", "lost"):
            raise ConnectionError(f"the Dask scheduler is gone; {plan.goes_on(self.profile)}")
        if future.status == "finished":
            state = future.result()
        else:
            state = _failed(f"no worker could execute it: {type(why := future.exception()).__name__}: {why}")
        if state["status"] == "failed" and self.retries[run.id] and not self.stopped:
            self.retries[run.id] -= 1
            self.report("retried", run, state | {"try": self.tries - self.retries[run.id]})
            self.ready.append(run)
        else:
            self._settle(run, state)

    def _settle(self, run: Run, state: dict[str, Any]) -> None:
        if state["status"] == "done" and run.id in self.joined and (error := self._fault(run)):
            state |= {"status": "failed", "error": error}
        if lacks := [b for b in run.after if self.states[b]["status"] != "done" or "lacks" in self.states[b]]:
            state["lacks"] = lacks  # what it was made of is not whole, so it runs again once that is
        self.states[run.id] = state
        _write_state(self.profile, run, state)
        self.report(state["status"], run, state)
        self.stopped |= state["status"] == "failed" and self.fail_fast

    def _look_for_workers(self) -> None:
        """Dask itself waits for ever for workers that do not come back."""
        if self.dask.status == "running" and self.dask.scheduler_info()["workers"]:
            self.seen = time.monotonic()
        elif time.monotonic() - self.seen > PATIENCE:
            what = "the Dask scheduler is" if self.dask.status != "running" else "all workers are"
            raise ConnectionError(f"{what} gone; {plan.goes_on(self.profile)}")


def _failed(error: str) -> dict[str, Any]:
    """The state of a run that failed before it began."""
    return {"status": "failed", "seconds": 0.0, "error": shortened(error, LONGEST_ERROR)}


def _write_state(profile: str, run: Run, state: dict[str, Any]) -> None:
    """The last thing written of a run: from now on it is done, or failed. Its paths are relative to the results.

    Mutates `state`: a run whose outputs are not here failed, although its worker wrote them.
    """
    folder, outputs = paths.results_dir(profile), list[Path]()
    upstream = {before: key for before, key in run.parts["upstream"].items() if before not in state.get("lacks", ())}
    if state["status"] == "done":
        outputs.append(Path(state["notebook"]))
        outputs += [plan.records_file(profile, run.id)] * ("output" in run.parameters)
    if run.collect and "notebook" in state:  # which was executed on records that were joined
        outputs.append(folder / "records.csv")
    digests = {str(path.relative_to(folder)): file_digest(path) for path in outputs}
    if lost := [name for name, digest in digests.items() if not digest]:
        state |= {"status": "failed", "error": f"{folder / lost[0]} is not here; do all machines share {folder}?"}
    stored = state | {"parts": {**run.parts, "upstream": upstream}}
    if "notebook" in state:
        stored["notebook"] = str(Path(state["notebook"]).relative_to(folder))
    write_json(plan.state_file(profile, run.id), stored | {"outputs": digests})
