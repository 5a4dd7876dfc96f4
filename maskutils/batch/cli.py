"""The commands of the batch: arguments in, printing out, nothing else."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Column, Table

from maskutils.batch.app import app, console, faults
from maskutils.core import paths

ProfileName = Annotated[
    str, typer.Option("--profile", "-p", help="Size of the study: a file of maskutils/batch/profiles, or your own.")
]
Workers = Annotated[int | None, typer.Option(min=1, help="Worker processes; one a core by default.")]


@app.command()
def plan(profile: ProfileName = "default") -> None:
    """Show what `reproduce` would run, with which parameters, and why."""
    with faults():
        from maskutils.batch import plan as planning
        from maskutils.batch.estimates import expected_seconds

        runs = planning.make_plan(profile)
        with console.status("estimating; a network that never ran here is measured for one training step"):
            expected = expected_seconds(profile, runs)
        reasons = {run.id: planning.why(profile, run) for run in runs}
    table = Table(
        Column("run", overflow="fold"),
        "why it runs",
        "about",
        title=escape(f"{profile}: {planning.load_profile(profile).description}"),
        title_justify="left",
    )
    for run in runs:
        table.add_row(
            run.id,
            escape(reasons[run.id]) or "[dim]done, stays[/dim]",
            duration(expected[run.id]) if reasons[run.id] else "",
        )
    console.print(table)
    seconds = sum(expected[run.id] for run in runs if reasons[run.id])
    todo = sum(map(bool, reasons.values()))
    console.print(
        f"{todo} of {len(runs)} to run; about {duration(seconds)} of one worker, by earlier runs or one measured step"
    )


@app.command()
def reproduce(
    profile: ProfileName = "default",
    workers: Workers = None,
    scheduler: Annotated[
        str | None, typer.Option(help="Address of a running Dask scheduler, as tcp://host:8786.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Run again what is done; caches stay.")] = False,
    data_root: Annotated[Path | None, typer.Option(help="Folder of data sets, in torchvision's layout.")] = None,
) -> None:
    """Run the notebooks of a profile that are not done; write its records, tables and figures."""
    begun = time.monotonic()
    if data_root is not None:
        os.environ["MASKUTILS_DATA_ROOT"] = str(data_root.expanduser().resolve())  # for the kernels of this machine
    with faults():
        from maskutils.batch import plan as planning
        from maskutils.batch import run as batch
        from maskutils.batch.estimates import expected_seconds

        runs = planning.make_plan(profile)
        expected = expected_seconds(profile, runs)
        with progress(expected) as report:
            states = batch.reproduce(profile, workers, scheduler, force, report)
    failed = print_failed({run.id: states[run.id] for run in runs})
    if not failed:
        with faults():
            print_summary(profile)
    minutes, seconds = divmod(round(time.monotonic() - begun), 60)
    console.print(
        f"{len(states) - failed} of {len(runs)} runs done, {failed} not, in {minutes} min {seconds} s: {paths.results_dir(profile)}",
        soft_wrap=True,
    )
    raise typer.Exit(1 if failed else 0)


@app.command()
def status(profile: ProfileName = "default") -> None:
    """Show which runs are done, failed or missing, and where the failed notebooks lie."""
    with faults():
        from maskutils.batch import plan as planning
        from maskutils.core.files import read_json

        states, runs = {}, planning.make_plan(profile)
        for run in runs:
            reason = planning.why(profile, run)
            done = {"status": "missing", "error": reason}
            if reason in ("", "failed before"):
                done = {"status": "failed"} | read_json(planning.state_file(profile, run.id))
            states[run.id] = done
    table = Table(Column("run", overflow="fold"), "status", "seconds", "why", title=profile, title_justify="left")
    for run_id, state in states.items():
        why = state["error"] if state["status"] == "missing" else ""
        table.add_row(run_id, coloured(state["status"]), str(state.get("seconds", "")), why)
    console.print(table)
    raise typer.Exit(1 if print_failed(states) else 0)


@app.command()
def verify(profile: ProfileName = "default") -> None:
    """Check the study's claims against the records: PASS or FAIL, with the numbers. Exits 1 if one fails."""
    with faults():
        from maskutils.results.claims import verify as verdicts
        from maskutils.results.records import load_records

        found = verdicts(load_records(profile))
    colours = {"PASS": "green", "FAIL": "red", "SKIP": "yellow"}
    for v in found:
        console.print(f"[{colours[v.word]}]{v.word}[/] {v.claim}\n     [dim]{escape(v.evidence)}[/dim]")
    raise typer.Exit(1 if any(v.passed is False for v in found) else 0)


def duration(seconds: float) -> str:
    """Seconds, minutes or hours, as people say it."""
    return (
        f"{seconds:.0f} s"
        if seconds < 120
        else f"{seconds / 60:.0f} min"
        if seconds < 7200
        else f"{seconds / 3600:.0f} h"
    )


@contextmanager
def progress(expected: dict[str, float]) -> Iterator[Callable[[str, Any, dict[str, Any]], None]]:
    """A live line with an estimate in a terminal, a line per finished run elsewhere; gives the `report` of the batch."""
    bar = Progress(
        TextColumn("[bold]{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("{task.fields[left]}"),
        console=console, disable=not console.is_terminal,
    )  # fmt: skip
    task = bar.add_task("reproduce", total=len(expected), left="")
    left, begun, running, todo = dict(expected), time.monotonic(), set(), 0.0

    def report(event: str, run: Any, state: dict[str, Any]) -> None:
        nonlocal todo
        if event == "started":
            running.add(run.id)
            if not console.is_terminal:
                print(f"{run.id}: started", flush=True)
        else:
            running.discard(run.id)
            seconds = left.pop(run.id)
            todo += seconds if event != "skipped" else 0
            bar.advance(task)
        remaining = sum(left.values()) - sum(left[r] for r in running) / 2
        pace = (time.monotonic() - begun) / todo if todo else 0.5
        estimate = f"about {max(1, round(remaining * pace / 60))} min left" if left else ""
        bar.update(task, description=", ".join(sorted(running)) or "reproduce", left=estimate)
        if event in ("done", "failed", "blocked") and not console.is_terminal:
            print(
                f"[{len(expected) - len(left)}/{len(expected)}] {run.id}: {event} ({state.get('seconds', 0):.0f} s) {estimate}",
                flush=True,
            )

    with bar:
        yield report


def print_failed(states: dict[str, dict[str, Any]]) -> int:
    """Print what failed or was blocked, why, and what to open; returns how many runs are not done."""
    for run_id, state in states.items():
        if state["status"] in ("failed", "blocked"):
            console.print(f"{coloured(state['status'])} {run_id}", soft_wrap=True)
            lines = [str(state[k]) for k in ("error", "notebook") if k in state]
            for line in lines or ["something it comes after is not done"]:
                console.print(f"    {escape(line)}", soft_wrap=True)  # addresses and paths are there to be copied
    return sum(state["status"] != "done" for state in states.values())


def coloured(status: str) -> str:
    """The status of a run, for the console."""
    colour = {"done": "green", "failed": "red"}.get(status, "yellow")
    return f"[{colour}]{status}[/]"


def print_summary(profile: str) -> None:
    """Print the table of the study, where the profile has one."""
    from maskutils.results.records import load_records
    from maskutils.results.report import headline

    try:
        frame = headline(load_records(profile))
    except FileNotFoundError:
        return
    table = Table(
        *frame.columns, title=f"{profile}: mean over pairs and seeds ± 95 % interval over seeds", title_justify="left"
    )
    for row in frame.itertuples(index=False):
        table.add_row(*map(str, row))
    console.print(table)


def main() -> None:
    """The command line. SIGTERM, by which a cluster ends a job, is as Ctrl-C."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    app()
