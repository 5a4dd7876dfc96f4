"""Values that are made once and stored in a file with a checksum."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from maskutils.core import paths
from maskutils.core.checks import warn
from maskutils.core.files import DamagedFile, file_digest, write_atomically

T = TypeVar("T")
USES = "MASKUTILS_USES"  # names the file in which a kernel of the batch lists what it uses of the cache


def cached(path: Path, make: Callable[[], T], save_to: Callable[[T, Path], None], load_from: Callable[[Path], T]) -> T:
    """The value stored at `path`; else `make()`, stored there with a checksum. A damaged file gives a warning and is made again.

    What another process stores there meanwhile stays: to write over it could part it from its checksum under a third one's eyes.
    """
    _note(path)
    checksum = checksum_of(path)
    if path.exists() and checksum.exists():
        try:
            value = load_from(path)
            if checksum.read_bytes() != file_digest(path).encode():
                raise DamagedFile(f"{path} has another checksum")
            return value
        except FileNotFoundError:  # another process found it damaged
            pass
        except DamagedFile:
            warn(f"cache: {path} is damaged, and is made anew")
            checksum.unlink(missing_ok=True)
    value = make()
    if not (path.exists() and checksum.exists()):
        save_to(value, path)
        write_atomically(checksum, file_digest(path).encode())
    return value


def checksum_of(path: Path) -> Path:
    """The file that holds the checksum of the cached file at `path`."""
    return paths.cache_dir("checksum") / f"{path.parent.name}-{path.name}"


def _note(path: Path) -> None:
    """List the cached file at `path` among those that this run uses, if it is a run of the batch."""
    if uses := os.environ.get(USES):
        with open(uses, "a", encoding="utf-8") as file:
            file.write(f"{path.parent.name}/{path.name}\n")
