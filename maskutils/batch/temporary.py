"""Temporary folders that no kill leaves behind for good: the next one that is made sweeps away those whose owner has ended."""

import contextlib
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import filelock

PREFIX = "maskutils-"
LONGEST = 40  # characters of the folder that holds them: sockets lie in them, whose paths may have 107


@contextlib.contextmanager
def temporary_folder() -> Iterator[Path]:
    """A folder with a short path, removed on leaving. While it is in use its lock is held, which ends with the process."""
    usual = tempfile.gettempdir()
    base = Path(usual if len(usual) <= LONGEST else "/tmp")
    sweep(base)
    folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=base))
    try:
        with filelock.FileLock(folder / ".lock"):
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def sweep(base: Path) -> None:
    """Remove the folders of this kind in `base` whose owner has ended; those of other users and those in use stay."""
    for lock in base.glob(f"{PREFIX}*/.lock"):
        with contextlib.suppress(filelock.Timeout, OSError), filelock.FileLock(lock, timeout=0):
            shutil.rmtree(lock.parent, ignore_errors=True)
