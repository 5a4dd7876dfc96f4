"""What a batch shows while it works: live lines in a terminal, a line for each event in a log."""

import contextlib
import time
from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Column

from maskutils.batch.notebooks import code_cells
from maskutils.batch.plan import Run
from maskutils.batch.printed import duration
from maskutils.batch.status import blocked
from maskutils.core.checks import BadSetting

WIDEST, ROOM = 44, 44  # characters of the name of a run, and those kept for what stands beside it


class Display:
    """A line for all runs, with an estimate, and one for each that runs, with its cell and its time. Call `report` with each event."""

    def __init__(self, expected: Mapping[str, float], console: Console) -> None:
        self.left, self.expected, self.live = dict(expected), dict(expected), console.is_terminal
        self.at: dict[str, float] = {}  # when the runs that run now began
        # seconds of runs that ended, as they were and as they were expected: of all, and of each notebook
        self.ended: dict[str, tuple[float, float]] = {"": (0.0, 0.0)}
        self.most = 1  # runs at a time, so far
        self.failed = 0  # or blocked
        took = TimeElapsedColumn(Column(no_wrap=True))  # so the bar alone gives way in a narrow terminal
        columns = TextColumn("{task.description}"), BarColumn(24), TextColumn("{task.fields[at]}"), took
        self.bar = Progress(*columns, console=console, disable=not self.live)
        self.all = self.bar.add_task(f"0 of {len(expected)} done", total=len(expected), at="")
        self.lines: dict[str, TaskID] = {}

    def report(self, event: str, run: Run, state: Mapping[str, Any]) -> None:
        """Show an event of the batch, see `run.reproduce`."""
        if event == "left out":
            del self.left[run.id], self.expected[run.id]
        elif event == "started":
            self._started(run)
        elif event == "cell":
            if run.id in self.lines:
                self.bar.update(self.lines[run.id], completed=state["cell"], at=f"code cell {state['cell']}")
        else:
            self._ended(event, run, state)
        ended, total = self._so_far()
        left = "" if event in ("left out", "skipped") else self.estimate()  # which looks at all runs
        failed = f", {self.failed} failed or blocked" if self.failed else ""
        done = f"{ended - self.failed} of {total} done{failed}"
        self.bar.update(self.all, completed=ended, total=total, description=done, at=left.removeprefix(", "))

    def _started(self, run: Run) -> None:
        if run.id in self.at:
            self._log(f"{run.id}: its worker was lost, another one begins it anew", always=True)
        if run.id in self.lines:
            self.bar.remove_task(self.lines.pop(run.id))
        self.at[run.id] = time.monotonic()
        self.most = max(self.most, len(self.at))
        widest = max(8, min(WIDEST, self.bar.console.width - ROOM))
        name = run.id if len(run.id) <= widest else f"{run.id[: widest - 1]}…"
        cells = None
        with contextlib.suppress(OSError, BadSetting):  # the run itself says what is wrong with its notebook
            cells = len(code_cells(run.notebook))
        self.lines[run.id] = self.bar.add_task(name, total=cells, at="starts")
        self._log(f"{run.id}: started")

    def _ended(self, event: str, run: Run, state: Mapping[str, Any]) -> None:
        if run.id in self.lines:
            self.bar.remove_task(self.lines.pop(run.id))
        self.at.pop(run.id, None)
        seconds = state.get("seconds", 0.0)
        why = blocked(state["by"]) if "by" in state else str(state.get("error", "")).partition("\n")[0]
        why = f": {why}" if why else ""
        if event == "retried":
            self._log(f"{run.id}: failed ({seconds:.0f} s), and try {state['try']} follows{why}", always=True)
            return
        expected = self.left.pop(run.id, 0.0)
        if event == "done":
            for of in ("", run.notebook.stem):
                spent, reckoned = self.ended.get(of, (0.0, 0.0))
                self.ended[of] = spent + seconds, reckoned + expected
        bad = event in ("failed", "blocked")
        self.failed += bad
        if event != "skipped":
            ended, total = self._so_far()
            self._log(f"[{ended}/{total}] {run.id}: {event} ({seconds:.0f} s){why or self.estimate()}", always=bad)

    def _so_far(self) -> tuple[int, int]:
        """How many runs ended, whatever became of them, and of how many."""
        return len(self.expected) - len(self.left), len(self.expected)

    def estimate(self) -> str:
        """The time that is left, by what was expected and by how far off that was until now."""
        now = time.monotonic()
        seconds = sum(max(0.0, self._likely(run) - (now - self.at.get(run, now))) for run in self.left)
        return f", about {duration(max(1.0, seconds / self.most))} left" if self.left else ""

    def _likely(self, run: str) -> float:
        """The seconds that `run` is likely to take: as expected, times how far off that was for its notebook, or for all before one ended.

        The pace of all is believed as half a minute, that of a notebook as one run.
        """
        (all_spent, all_reckoned), expected = self.ended[""], self.left[run]
        pace = (all_spent + 30) / (all_reckoned + 30)
        # names of notebooks may have hyphens
        its = [name for name in self.ended if name and f"{run}-".startswith(f"{name}-")]
        spent, reckoned = self.ended[max(its, key=len)] if its else (0.0, 0.0)
        return expected * (spent + pace * expected) / (reckoned + expected) if expected else 0.0

    def _log(self, line: str, always: bool = False) -> None:
        """A line of a log; in a terminal one above the bar, if `always`."""
        if not self.live:
            print(time.strftime("%H:%M:%S"), line, flush=True)
        elif always:
            self.bar.console.print(line, markup=False, soft_wrap=True)
