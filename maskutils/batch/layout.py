"""What `maskutils init` lays out: a folder to work in, without a checkout."""

from pathlib import Path

from maskutils import __version__
from maskutils.core import paths
from maskutils.core.checks import BadSetting
from maskutils.core.files import write_atomically

LAID_OUT = ("notebooks/*.ipynb", "results/*/[!.]*.*")


def lay_out(folder: Path) -> tuple[list[Path], list[Path]]:
    """Copy the notebooks, the committed results and, to be changed, the profiles into `folder`, and mark it as a project.

    Returns the files that were written and those that were there before and stay as they were, relative to `folder`.
    Raises `BadSetting` for the checkout itself, `OSError` for a folder that cannot be written.
    """
    if folder.resolve() == paths.checkout():
        raise BadSetting(f"{folder} is the checkout, which is a project already; give another folder")
    source = paths.checkout() or paths.SHIPPED
    found = {
        file.relative_to(source): file
        for pattern in LAID_OUT
        for file in sorted(source.glob(pattern))
        if file.is_file()
    }
    found |= {Path("profiles", file.name): file for file in sorted(paths.PROFILES.glob("*.yaml"))}
    kept = [name for name in found if (folder / name).exists()]
    written = [name for name in found if name not in kept]
    for name in written:
        write_atomically(folder / name, found[name].read_bytes())
    write_atomically(folder / paths.MARKER, f"A project laid out by maskutils {__version__}.\n".encode())
    return written, kept
