"""What the commands of the batch print: plans, failures, the end of a batch."""

from typing import Any

import typer
from rich.markup import escape
from rich.table import Column, Table

from maskutils.batch.app import console
from maskutils.core import paths


def print_damaged(profile: str, asked: str) -> None:
    """Check the results of `profile` against their manifest; exit with 1 if a file is damaged or missing. `asked` is shown in messages.

    Raises `FileNotFoundError` where there are no results.
    """
    from maskutils.batch.status import few, lacking
    from maskutils.results.manifest import MANIFEST, damaged, vouched
    from maskutils.results.records import absent

    folder = paths.results_dir(profile)
    if not any((folder / name).is_file() for name in (MANIFEST, "records.csv")):
        raise absent(folder / "records.csv", asked)
    if not (folder / MANIFEST).is_file():
        without = f", and its records were joined without those of {few(lacks)}" if (lacks := lacking(profile)) else ""
        console.print(f"{folder} has no manifest: its files are not checked{without}", soft_wrap=True, markup=False)
        return
    faulty, committed = damaged(folder), folder == paths.committed_results(profile)
    restore, renew = "restore it with git, or " * committed, " --renew" * committed
    for fault in faulty:
        console.print(
            f"[red]DAMAGED[/] {escape(fault)}; {restore}delete what is there of it and make it again: "
            f"maskutils reproduce --profile {escape(asked)}{renew}",
            soft_wrap=True,
        )
    if faulty:
        raise typer.Exit(1)
    ours = vouched(folder)
    told = (
        f"{len(ours)} file{'s are' if len(ours) > 1 else ' is'} as the manifest says"
        if ours
        else "the manifest vouches for no file"
    )
    console.print(f"{folder}: {told}", soft_wrap=True, markup=False)
    if "records.csv" not in ours:
        console.print("there are no records, so there are no claims to check")
        raise typer.Exit


def print_plan(title: str, rows: dict[str, tuple[str, str, float]], refused: str = "") -> None:
    """Print for each run why it runs (or nothing), what becomes of it and its seconds, their sum, and why it would be `refused`."""
    from maskutils.batch.estimates import UNKNOWN_SECONDS

    table = Table(Column("run", overflow="fold"), "why it runs", "about", title=escape(title), title_justify="left")
    for name, (why, what, seconds) in rows.items():
        stays = f"[dim]{'done, stays' if what == 'done' else what}[/dim]"
        table.add_row(name, escape(why) or stays, duration(seconds) if why else "")
    console.print(table)
    todo = [seconds for why, _, seconds in rows.values() if why]
    about = duration(sum(todo))
    console.print(
        f"{len(todo)} of {len(rows)} to run; about {about} of one worker, by earlier runs, one measured step, or "
        f"{UNKNOWN_SECONDS:.0f} s where nothing is known",
        soft_wrap=True,
    )
    if refused:
        console.print(f"[yellow]not yet:[/] reproduce would refuse it here: {escape(refused)}", soft_wrap=True)


def duration(seconds: float) -> str:
    """Seconds, minutes or hours, as people say it."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.0f} h"


def print_failed(states: dict[str, dict[str, Any]]) -> int:
    """Print what failed, was blocked or lacks other runs, why, and what to open; returns how many runs are not done, or not whole."""
    from maskutils.batch.status import blocked, few, first_causes

    for run_id, state in states.items():
        status = state["status"]
        if status == "failed":
            told = "\n".join(str(state[k]) for k in ("error", "notebook") if k in state)
        elif status == "blocked":
            told = blocked(state["by"])
        elif "lacks" in state:  # of the batch's own states, which are done
            status, told = "partial", f"made without {few(first_causes(state['lacks'], states, 'lacks'))}"
        else:
            continue
        console.print(f"{coloured(status)} {run_id}", soft_wrap=True)
        for line in told.splitlines():
            console.print(f"    {escape(line)}", soft_wrap=True)  # addresses and paths are there to be copied
    return sum(state["status"] != "done" or "lacks" in state for state in states.values())


def print_details(details: dict[str, Any]) -> None:
    """Print all that is known of a run, a line for each thing."""
    for name, value in details.items():
        lines = [f"{k}: {v}" for k, v in value.items()] if isinstance(value, dict) else value
        lines = lines if isinstance(lines, list) else str(lines).splitlines()
        for place, line in enumerate(lines):
            console.print(f"[dim]{'' if place else name:<12}[/dim]{escape(str(line))}", soft_wrap=True)


def coloured(status: str) -> str:
    """The status of a run, for the console."""
    colour = {"done": "green", "failed": "red"}.get(status, "yellow")
    return f"[{colour}]{status}[/]"


def print_end(profile: str, ended: int, failed: int, chosen: int, of: int, seconds: float) -> None:
    """Print the table of the study, if all is done, and what became of the runs: of `chosen` ones, `ended` or had ended before."""
    done = ended - failed
    if done == of:
        print_summary(profile)
    took = f"{seconds // 60:.0f} min {seconds % 60:.0f} s"
    others = {"not": failed, "not started": chosen - ended, "left out": of - chosen}
    told = "".join(f", {n} {what}" for what, n in others.items() if n)
    console.print(f"{done} of {of} runs done{told}, in {took}: {paths.results_dir(profile)}", soft_wrap=True)
    if done == of:
        from maskutils.results.reproduced import comparison

        if told := comparison(profile):
            console.print(told, soft_wrap=True, markup=False)


def print_summary(profile: str) -> None:
    """Print the table of the study, where the profile has one."""
    from maskutils.results.records import load_records
    from maskutils.results.report import headline

    try:
        frame = headline(load_records(profile))
    except FileNotFoundError:
        return
    if frame.empty:  # records of a notebook of the user's own
        return
    title = f"{profile}: mean over pairs and seeds ± 95 % interval over seeds"
    table = Table(*frame.columns, title=title, title_justify="left")
    for row in frame.itertuples(index=False):
        table.add_row(*map(str, row))
    console.print(table)
