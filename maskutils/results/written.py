"""The tables and figures that a run of the batch writes: it notes them, and one that is deleted is made again."""

import os
from collections.abc import Iterable
from pathlib import Path

from maskutils.core import paths
from maskutils.core.caches import USES

WRITES = ".writes"  # ends the name of the file that lists them, beside the one that lists what the run uses


def note_written(*files: Path) -> None:
    """List `files` among those that this run writes, if it is a run of the batch."""
    if uses := os.environ.get(USES):
        with open(Path(uses).with_suffix(WRITES), "a", encoding="utf-8") as noted:
            noted.writelines(f"{os.path.relpath(file, paths.project_root())}\n" for file in files)


def written(uses: Path) -> list[str]:
    """The names, from the project's root, of what the run wrote whose uses are in the file `uses`."""
    noted = uses.with_suffix(WRITES)
    return sorted(set(noted.read_text(encoding="utf-8").splitlines())) if noted.is_file() else []


def lost(names: Iterable[str]) -> list[str]:
    """Those of the `written` names at which there is no file any more."""
    return [name for name in names if not (paths.project_root() / name).is_file()]
