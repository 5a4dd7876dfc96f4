"""The commands of the batch: arguments in, printing out, nothing else."""

import json
import signal
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.table import Column, Table

from maskutils.batch.app import app, console, faults
from maskutils.batch.local import data_at, placed, shown
from maskutils.batch.printed import coloured, print_damaged, print_details, print_end, print_failed, print_plan
from maskutils.core.checks import BadSetting

ProfileName = Annotated[
    str,
    typer.Option(
        "--profile", "-p", help="The profile to use: a name, as default or study, or a YAML file of your own."
    ),
]
Workers = Annotated[
    int | None, typer.Option(min=1, help="Number of worker processes; by default one for each GPU, else for each core.")
]
Only = Annotated[
    list[str] | None, typer.Option(help="Take only runs whose name matches, as '02*', and the runs that they need.")
]
OnlyFailed = Annotated[
    bool,
    typer.Option(
        "--only-failed",
        help="Take only runs that failed before, what comes after them, and the runs that these need.",
    ),
]
Force = Annotated[bool, typer.Option("--force", help="Run again what is done. Cached networks and masks stay.")]
Param = Annotated[
    list[str] | None,
    typer.Option(
        help="Give a parameter another value in all notebooks, as seeds=[17]. Results go to a folder of their own."
    ),
]
Renew = Annotated[bool, typer.Option("--renew", help="Write over the committed results instead of results/local.")]
Committed = Annotated[
    bool, typer.Option("--committed", help="Read the committed results instead of yours in results/local.")
]
DataRoot = Annotated[str | None, typer.Option(help="Folder of your data sets, in torchvision's layout.")]
Scheduler = Annotated[
    str | None, typer.Option(help="Run on a Dask cluster: the address of its scheduler, as tcp://host:8786.")
]
Retries = Annotated[int, typer.Option(min=0, help="How often to try a failed run again.")]
Timeout = Annotated[int | None, typer.Option(min=1, help="Seconds that one cell may take.")]
KeepGoing = Annotated[bool, typer.Option("--keep-going", help="Collect what is there after a failure.")]
FailFast = Annotated[bool, typer.Option("--fail-fast", help="Start no further run once one has failed.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for scripts.")]


@app.command()
def plan(
    profile: ProfileName = "default",
    workers: Workers = None,
    scheduler: Scheduler = None,
    force: Force = False,
    data_root: DataRoot = None,
    only: Only = None,
    only_failed: OnlyFailed = False,
    param: Param = None,
    retries: Retries = 0,
    timeout: Timeout = None,
    keep_going: KeepGoing = False,
    fail_fast: FailFast = False,
    renew: Renew = False,
    as_json: AsJson = False,
) -> None:
    """Show what `reproduce` would run with the same options, and why. Nothing is run, so how it would run changes nothing here."""
    with faults(), placed(renew), data_at(data_root), varied(profile, param) as own:
        check_one_of(keep_going, fail_fast)
        from maskutils.batch import plan as planning
        from maskutils.batch.estimates import expected_seconds
        from maskutils.batch.profile import load_profile
        from maskutils.batch.run import refusal
        from maskutils.batch.status import chosen_runs, statuses

        runs = planning.make_plan(own)
        found = statuses(own, runs)
        todo = chosen_runs(own, runs, {run.id: found[run.id]["why"] for run in runs}, only or (), only_failed, force)
        with console.status("estimating; a network that never ran here is measured for one training step"):
            expected = expected_seconds(own, todo)
        description, refused = load_profile(own).description, refusal(todo, scheduler)  # elsewhere it may run
    why = dict.fromkeys(found, "") | {run.id: found[run.id]["why"] or "--force" for run in todo}
    what = {n: "run" if why[n] else "done" if found[n]["status"] == "done" else "left out" for n in found}
    if as_json:
        keys = ("run", "what", "why", "seconds", "parameters")
        rows = [(r.id, what[r.id], why[r.id], expected.get(r.id), r.parts["parameters"]) for r in runs]
        print(json.dumps([dict(zip(keys, row, strict=True)) for row in rows], indent=1))
        return
    told = {r.id: (why[r.id], what[r.id], expected.get(r.id, 0.0)) for r in runs}
    print_plan(f"{profile}: {description}", told, refused)


@app.command()
def reproduce(
    profile: ProfileName = "default",
    workers: Workers = None,
    scheduler: Scheduler = None,
    force: Force = False,
    data_root: DataRoot = None,
    only: Only = None,
    only_failed: OnlyFailed = False,
    param: Param = None,
    retries: Retries = 0,
    timeout: Timeout = None,
    keep_going: KeepGoing = False,
    fail_fast: FailFast = False,
    renew: Renew = False,
) -> None:
    """Run the notebooks of a profile that are not done yet, and write its records, tables and figures.

    In a clone they go to results/local and figures/local, and are compared with the committed ones at the end.
    """
    begun = time.monotonic()
    how: dict[str, Any] = {"only": only or (), "only_failed": only_failed, "retries": retries, "timeout": timeout}
    how |= {"keep_going": keep_going, "fail_fast": fail_fast}
    with faults(), placed(renew), data_at(data_root):
        check_one_of(keep_going, fail_fast)
        from maskutils.batch import plan as planning
        from maskutils.batch import run as batch
        from maskutils.batch.display import Display
        from maskutils.batch.estimates import expected_seconds
        from maskutils.batch.status import variation

        with varied(profile, param) as own:
            runs = planning.make_plan(own)  # one that is refused leaves no file
        profile = variation(profile, param or ())
        display = Display(expected_seconds(profile, runs), console)
        how["see"] = lambda address: console.print(f"Dask's dashboard: {address}", soft_wrap=True)
        with stopping(profile), display.bar:
            states = batch.reproduce(profile, workers, scheduler, force, display.report, runs=runs, **how)
        failed = print_failed({run.id: states[run.id] for run in runs if run.id in states})
        print_end(profile, len(states), failed, len(display.expected), len(runs), time.monotonic() - begun)
    raise typer.Exit(1 if failed else 0)


@app.command()
def status(
    run: Annotated[
        str | None,
        typer.Argument(help="Show all that is known of this run: what made its result, and why it would run again."),
    ] = None,
    profile: ProfileName = "default",
    param: Param = None,
    data_root: DataRoot = None,
    committed: Committed = False,
    as_json: AsJson = False,
) -> None:
    """Show which runs of a profile are done, running, failed, partial, blocked, changed or missing."""
    with faults(), placed(committed), data_at(data_root), varied(profile, param) as own:
        from maskutils.batch import plan as planning
        from maskutils.batch.status import run_details, statuses
        from maskutils.core.checks import known

        runs = {r.id: r for r in planning.make_plan(own)}
        states = statuses(own, list(runs.values()))
        if run is not None:
            known(run, runs, "run")
            details = run_details(own, runs[run], states[run])
            print(json.dumps(details, indent=1)) if as_json else print_details(details)
            raise typer.Exit(0 if states[run]["status"] == "done" else 1)
    if as_json:
        print(json.dumps([{"run": name} | state for name, state in states.items()], indent=1))
        raise typer.Exit(1 if any(s["status"] != "done" for s in states.values()) else 0)
    table = Table(Column("run", overflow="fold"), "status", "seconds", "why", title=profile, title_justify="left")
    for name, state in states.items():
        table.add_row(name, coloured(state["status"]), str(state.get("seconds", "")), escape(state["why"]))
    console.print(table)
    raise typer.Exit(1 if print_failed(states) else 0)


@app.command()
def verify(profile: ProfileName = "default", param: Param = None, committed: Committed = False) -> None:
    """Check the result files against their checksums, and the claims against the records: PASS or FAIL, with the numbers.

    Reads your results if there are any, else the committed ones. The exit code is 1 if a claim fails.
    """
    with faults(), placed(committed), varied(profile, param) as own, shown(own, committed):
        print_damaged(own, " --param ".join([profile, *(param or ())]))
        from maskutils.results import claims
        from maskutils.results.records import load_records

        if missing := claims.missing_columns(records := load_records(own)):
            console.print(f"the records lack {', '.join(missing)}, so there are no claims to check", soft_wrap=True)
            return
        found = claims.verify(records)
    colours = {"PASS": "green", "FAIL": "red", "SKIP": "yellow"}
    for v in found:
        console.print(f"[{colours[v.word]}]{v.word}[/] {escape(v.claim)}", soft_wrap=True)
        for line in filter(None, (v.effect, v.meaning)):
            console.print(f"     [dim]{escape(line)}[/dim]", soft_wrap=True)
    raise typer.Exit(1 if any(v.passed is False for v in found) else 0)


@app.command()
def report(
    profile: ProfileName = "default", param: Param = None, data_root: DataRoot = None, committed: Committed = False
) -> None:
    """Write a page about a profile that opens offline: figures, tables, every executed notebook, and what made them."""
    with faults(), placed(committed), data_at(data_root), varied(profile, param) as own, shown(own, committed):
        from maskutils.batch.page import write_page

        console.print(f"written: {write_page(own)}", soft_wrap=True)


@contextmanager
def varied(profile: str, param: list[str] | None) -> Iterator[str]:
    """`profile` with other parameters; its file is temporary, for what only looks."""
    from maskutils.batch.status import variation

    with tempfile.TemporaryDirectory() as folder:
        yield variation(profile, param or (), Path(folder))


def check_one_of(keep_going: bool, fail_fast: bool) -> None:
    """Raise `BadSetting` for both together."""
    if keep_going and fail_fast:
        raise BadSetting("--keep-going and --fail-fast exclude each other: leave one out")


@contextmanager
def stopping(profile: str) -> Iterator[None]:
    """Inside the block what ends it (`enders`) is answered at once, for to end workers takes seconds; and then how `profile` goes on."""
    from maskutils.batch.plan import goes_on

    def stop(number: int, frame: Any) -> None:
        for kind in before:
            signal.signal(kind, signal.SIG_IGN)  # once is enough
        with suppress(OSError):  # of a terminal that was closed
            console.print("stopping ...")
        raise KeyboardInterrupt(number)

    before = {kind: signal.signal(kind, stop) for kind in enders()}
    try:
        yield
    except KeyboardInterrupt as stopped:
        console.print(f"stopped; {goes_on(profile)}", soft_wrap=True)
        raise typer.Exit(128 + (stopped.args or (signal.SIGINT,))[0]) from None
    finally:
        for kind, handler in before.items():
            signal.signal(kind, handler)


def enders() -> list[signal.Signals]:
    """Ctrl-C, SIGTERM, by which a cluster ends a job, and SIGHUP, by which a terminal that is closed does, but for those that are to be
    ignored, as under `nohup`.
    """
    kinds = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    return [kind for kind in kinds if signal.getsignal(kind) is not signal.SIG_IGN]
