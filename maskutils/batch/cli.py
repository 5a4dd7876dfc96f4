"""The commands of the batch: arguments in, printing out, nothing else."""

import json
import os
import signal
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.table import Column, Table

from maskutils.batch.app import app, console, faults
from maskutils.core import paths

ProfileName = Annotated[
    str, typer.Option("--profile", "-p", help="Size of the study: a file of maskutils/batch/profiles, or your own.")
]
Workers = Annotated[int | None, typer.Option(min=1, help="Worker processes; one a core by default.")]


Only = Annotated[list[str] | None, typer.Option(help="Only runs whose id matches, with * and ?, and what they need.")]
OnlyFailed = Annotated[bool, typer.Option("--only-failed", help="Only runs that failed before, and what they need.")]
Force = Annotated[bool, typer.Option("--force", help="Run again what is done; caches stay.")]
Param = Annotated[
    list[str] | None, typer.Option(help="Another value, as name=value, for all notebooks; has results of its own.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")]


@app.command()
def plan(
    profile: ProfileName = "default",
    only: Only = None,
    only_failed: OnlyFailed = False,
    force: Force = False,
    param: Param = None,
    as_json: AsJson = False,
) -> None:
    """Show what `reproduce` would run with the same options, with which parameters, and why."""
    with faults(), varied(profile, param) as own:
        from maskutils.batch import plan as planning
        from maskutils.batch.estimates import expected_seconds
        from maskutils.batch.status import select, statuses

        runs = planning.make_plan(own)
        found = statuses(own, runs)
        todo = select(own, runs, {run.id: found[run.id]["why"] for run in runs}, only or (), only_failed, force)
        with console.status("estimating; a network that never ran here is measured for one training step"):
            expected = expected_seconds(own, todo)
        description = planning.load_profile(own).description
    why = {run.id: found[run.id]["why"] or "--force" if run in todo else "" for run in runs}
    if as_json:
        rows = [
            {"run": r.id, "why": why[r.id], "seconds": expected.get(r.id), "parameters": r.parts["parameters"]}
            for r in runs
        ]
        print(json.dumps(rows, indent=1))
        return
    print_plan(
        f"{profile}: {description}", {r.id: (why[r.id], found[r.id]["status"], expected.get(r.id, 0.0)) for r in runs}
    )


@app.command()
def reproduce(
    profile: ProfileName = "default",
    workers: Workers = None,
    scheduler: Annotated[
        str | None, typer.Option(help="Address of a running Dask scheduler, as tcp://host:8786.")
    ] = None,
    force: Force = False,
    data_root: Annotated[Path | None, typer.Option(help="Folder of data sets, in torchvision's layout.")] = None,
    only: Only = None,
    only_failed: OnlyFailed = False,
    param: Param = None,
    retries: Annotated[int, typer.Option(min=0, help="Try a run that fails so often again.")] = 0,
    timeout: Annotated[int | None, typer.Option(min=1, help="Seconds that a cell may take.")] = None,
    keep_going: Annotated[
        bool, typer.Option("--keep-going", help="Collect the records that are there, where a run failed.")
    ] = False,
    fail_fast: Annotated[bool, typer.Option("--fail-fast", help="Start nothing more once a run failed.")] = False,
) -> None:
    """Run the notebooks of a profile that are not done; write its records, tables and figures."""
    begun = time.monotonic()
    if data_root is not None:
        os.environ["MASKUTILS_DATA_ROOT"] = str(data_root.expanduser().resolve())  # for the kernels of this machine
    how: dict[str, Any] = {"only": only or (), "only_failed": only_failed, "retries": retries, "timeout": timeout}
    how |= {"keep_going": keep_going, "fail_fast": fail_fast}
    with faults():
        from maskutils.batch import plan as planning
        from maskutils.batch import run as batch
        from maskutils.batch.display import Display
        from maskutils.batch.estimates import expected_seconds
        from maskutils.batch.status import variation

        profile = variation(profile, param or ())
        runs = planning.make_plan(profile)
        display = Display(expected_seconds(profile, runs), console)
        with display.bar, stopping():
            states = batch.reproduce(profile, workers, scheduler, force, display.report, **how)
    failed = print_failed({run.id: states[run.id] for run in runs if run.id in states})
    print_end(profile, len(states) - failed, len(runs), time.monotonic() - begun)
    raise typer.Exit(1 if failed or (fail_fast and len(states) < len(runs)) else 0)


@app.command()
def status(
    run: Annotated[str | None, typer.Argument(help="A run: what made its result, and why it would run again.")] = None,
    profile: ProfileName = "default",
    param: Param = None,
    as_json: AsJson = False,
) -> None:
    """Show which runs are done, running, failed, blocked, changed or missing; with RUN, all that is known of it."""
    with faults(), varied(profile, param) as own:
        from maskutils.batch import plan as planning
        from maskutils.batch.status import explain, statuses
        from maskutils.core.checks import known

        runs = {r.id: r for r in planning.make_plan(own)}
        states = statuses(own, list(runs.values()))
        if run is not None:
            known(run, runs, "run")
            console.print_json(json.dumps(explain(own, runs[run]))) if not as_json else print(
                json.dumps(explain(own, runs[run]), indent=1)
            )
            return
    if as_json:
        print(json.dumps([{"run": name} | state for name, state in states.items()], indent=1))
        raise typer.Exit(1 if any(s["status"] in ("failed", "blocked") for s in states.values()) else 0)
    table = Table(Column("run", overflow="fold"), "status", "seconds", "why", title=profile, title_justify="left")
    for name, state in states.items():
        table.add_row(name, coloured(state["status"]), str(state.get("seconds", "")), escape(state["why"]))
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


@app.command()
def report(profile: ProfileName = "default") -> None:
    """Write one page about a profile for a reviewer, to open offline: figures, tables, every executed notebook, how it was made."""
    with faults():
        from maskutils.batch.page import write_page

        console.print(f"written: {write_page(profile)}", soft_wrap=True)


@app.command()
def clean(yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False) -> None:
    """Remove what no profile refers to any more: old runs, results of profiles that are gone, unused caches. Lists it and asks."""
    with faults():
        from maskutils.batch.leftovers import leftovers, remove, size

        found, stays = leftovers()
        for reason in stays:
            console.print(f"stays: {escape(reason)}", soft_wrap=True)
        for name, files in found.items():
            console.print(f"{size(files) / 1e6:10.2f} MB  {escape(name)}, {len(files)} files", soft_wrap=True)
        every = [file for files in found.values() for file in files]
        if not every:
            console.print("nothing to remove")
        elif yes or typer.confirm(f"Remove these {len(every)} files, {size(every) / 1e6:.2f} MB?"):
            remove(every)
            console.print(f"removed {len(every)} files")


def print_plan(title: str, rows: dict[str, tuple[str, str, float]]) -> None:
    """Print for each run why it runs (or nothing), its status and its expected seconds, and their sum."""
    table = Table(Column("run", overflow="fold"), "why it runs", "about", title=escape(title), title_justify="left")
    for name, (why, status, seconds) in rows.items():
        stays = f"[dim]{'done, stays' if status == 'done' else 'left out'}[/dim]"
        table.add_row(name, escape(why) or stays, duration(seconds) if why else "")
    console.print(table)
    todo = [seconds for why, _, seconds in rows.values() if why]
    about = duration(sum(todo))
    console.print(
        f"{len(todo)} of {len(rows)} to run; about {about} of one worker, by earlier runs or one measured step"
    )


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
def varied(profile: str, param: list[str] | None) -> Iterator[str]:
    """`profile` with other parameters; its file is temporary, for what only looks."""
    from maskutils.batch.status import variation

    with tempfile.TemporaryDirectory() as folder:
        yield variation(profile, param or (), Path(folder))


@contextmanager
def stopping() -> Iterator[None]:
    """Inside the block Ctrl-C and SIGTERM are answered at once: to end workers takes seconds."""

    def stop(number: int, frame: Any) -> None:
        for kind in (signal.SIGINT, signal.SIGTERM):
            signal.signal(kind, signal.SIG_IGN)  # once is enough
        console.print("stopping ...")
        raise KeyboardInterrupt

    before = {kind: signal.signal(kind, stop) for kind in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for kind, handler in before.items():
            signal.signal(kind, handler)


def print_failed(states: dict[str, dict[str, Any]]) -> int:
    """Print what failed or was blocked, why, and what to open; returns how many runs are not done."""
    for run_id, state in states.items():
        if state["status"] in ("failed", "blocked"):
            console.print(f"{coloured(state['status'])} {run_id}", soft_wrap=True)
            blocked = [f"{state.get('by', 'something it comes after')} is not done"] * (state["status"] == "blocked")
            for line in blocked or [str(state[k]) for k in ("error", "notebook") if k in state]:
                console.print(f"    {escape(line)}", soft_wrap=True)  # addresses and paths are there to be copied
    return sum(state["status"] != "done" for state in states.values())


def coloured(status: str) -> str:
    """The status of a run, for the console."""
    colour = {"done": "green", "failed": "red"}.get(status, "yellow")
    return f"[{colour}]{status}[/]"


def print_end(profile: str, done: int, of: int, seconds: float) -> None:
    """Print the table of the study, if all is done, and how many runs are."""
    if done == of:
        with faults():
            print_summary(profile)
    took = f"{seconds // 60:.0f} min {seconds % 60:.0f} s"
    console.print(f"{done} of {of} runs done, {of - done} not, in {took}: {paths.results_dir(profile)}", soft_wrap=True)


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
