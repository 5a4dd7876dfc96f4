"""The command line itself: what all commands share, and those that work on a project as a whole.

Exit codes: 0 all done, 1 some runs failed (or another batch is at work), 2 bad arguments, 128 and its number after a signal.
Heavy modules are imported by the command that needs them.
"""

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

from maskutils import __version__
from maskutils.core import paths
from maskutils.core.checks import BadSetting, MissingPackage, needs
from maskutils.core.files import DamagedFile, file_digest, read_json, write_atomically, write_json

LAID_OUT = ("notebooks/*.ipynb", "results/*/[!.]*.*")
WORKED_ON = "lab"  # the folder of a checkout, ignored by git, with copies of its notebooks
app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Weight masks for domain transfer: run the study, look at its results, check its claims.",
)
console = Console(highlight=False)


def show_version(asked: bool) -> None:
    """Print the version and leave."""
    if asked:
        print(f"maskutils {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Options that stand before a command."""


@contextmanager
def faults() -> Iterator[None]:
    """Print a known error as one line and exit with its code."""
    from maskutils.batch.run import Busy

    try:
        with needs("study"):
            yield
    except (BadSetting, Busy, DamagedFile, MissingPackage, OSError) as error:
        Console(stderr=True, highlight=False, soft_wrap=True).print(f"error: {error}", markup=False)
        raise typer.Exit(2 if isinstance(error, BadSetting) else 1) from None
    except KeyboardInterrupt as stopped:
        console.print("stopped")
        raise typer.Exit(128 + (stopped.args or (signal.SIGINT,))[0]) from None


@app.command()
def init(folder: Annotated[Path, typer.Argument(help="A new folder, or a project to complete.")]) -> None:
    """Make a project folder with the notebooks, profiles to copy and the committed results. No file is overwritten."""
    with faults():
        written, kept = lay_out(folder)
    for name in kept:
        console.print(f"stays: {name}", soft_wrap=True, markup=False)
    console.print(f"{len(written)} files written to {folder}, {len(kept)} were there and stay", soft_wrap=True)
    console.print(f"next: cd {folder}; maskutils lab, or maskutils reproduce --profile smoke", soft_wrap=True)


def lay_out(folder: Path) -> tuple[list[Path], list[Path]]:
    """Copy the notebooks, the committed results and, to be changed, the profiles into `folder`, and mark it as a project.

    Returns the files that were written and those that were there before and stay as they were, relative to `folder`.
    Raises `BadSetting` for the checkout itself, `OSError` for a folder that cannot be written.
    """
    if folder.resolve() == paths.checkout():
        raise BadSetting(f"{folder} is the checkout, which is a project already; give another folder")
    source = paths.checkout() or paths.SHIPPED
    files = [file for pattern in LAID_OUT for file in sorted(source.glob(pattern)) if file.is_file()]
    found = {file.relative_to(source): file for file in files}
    found |= {Path("profiles", file.name): file for file in sorted(paths.PROFILES.glob("*.yaml"))}
    kept = [name for name in found if (folder / name).exists()]
    written = [name for name in found if name not in kept]
    for name in written:
        write_atomically(folder / name, found[name].read_bytes())
    write_atomically(folder / paths.MARKER, f"A project laid out by maskutils {__version__}.\n".encode())
    return written, kept


@app.command()
def clean(yes: Annotated[bool, typer.Option("--yes", help="Remove without asking.")] = False) -> None:
    """List what no profile needs any more (old runs, unused caches), and remove it if you agree."""
    with faults():
        from maskutils.batch.leftovers import leftovers, remove, total_bytes

        found, stays = leftovers()
        for reason in stays:
            console.print(f"stays: {escape(reason)}", soft_wrap=True)
        for name, files in found.items():
            console.print(f"{total_bytes(files) / 1e6:10.2f} MB  {escape(name)}, {len(files)} files", soft_wrap=True)
        every = [file for files in found.values() for file in files]
        if not every:
            console.print("nothing to remove")
        elif yes or typer.confirm(f"Remove these {len(every)} files, {total_bytes(every) / 1e6:.2f} MB?"):
            remove(every)
            console.print(f"removed {len(every)} files")


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def lab(context: typer.Context) -> None:
    """Open JupyterLab on the first notebook. Further options go to JupyterLab, as --no-browser or --port 9000.

    In a clone it opens copies, in the folder `lab`, so that git sees nothing of what you try.
    """
    with faults(), needs("study", "jupyterlab"):
        from maskutils.batch.notebooks import notebooks_folder

        notebooks, root = notebooks_folder(), paths.project_root()
        if root == paths.checkout():
            root = working_copies(root)
            notebooks = root / notebooks.name
        first = min(notebooks.glob("*.ipynb"), default=notebooks)
        command = [sys.executable, "-m", "jupyterlab", f"--ServerApp.root_dir={root}", str(first), *context.args]
    os.environ.update(paths.variables())  # its kernels start in folders of their own
    os.execv(command[0], command)


def working_copies(checkout: Path) -> Path:
    """Copy the notebooks of `checkout` into its folder `lab`, and link there what else it holds; returns that folder.

    A copy that was changed stays, and is named if its original has changed too; the others follow their originals.
    """
    folder = checkout / WORKED_ON
    record = folder / ".copied.json"
    copied = read_json(record) if record.exists() else {}
    for original in sorted((checkout / "notebooks").glob("*.ipynb")):
        name, copy, digest = original.name, folder / "notebooks" / original.name, file_digest(original)
        if file_digest(copy) in ("", copied.get(name)):  # "": it is not there
            write_atomically(copy, original.read_bytes())
            copied[name] = digest
        elif copied.get(name) != digest:
            told = f"{copy.relative_to(checkout)} stays as you changed it; remove it to get the new one"
            console.print(told, soft_wrap=True, markup=False)
    write_json(record, copied)
    for entry in checkout.iterdir():
        link = folder / entry.name
        if not entry.name.startswith(".") and entry.name != WORKED_ON and not os.path.lexists(link):
            link.symlink_to(Path("..", entry.name))
    return folder
