"""Files that are whole or not there, and the error for those that are neither.

Owns how anything is written. It must not know what is in a file.
"""

import contextlib
import errno
import hashlib
import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any


class DamagedFile(ValueError):
    """A file that cannot be read back as what it should be; the message names it and the way out."""


def write_atomically(path: str | Path, content: bytes) -> None:
    """Write a whole file or none: to a temporary file beside it, then renamed over it. Makes the folder if it is
    missing.
    """
    path = Path(path)
    with _naming(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=".new.")
    try:
        with _naming(path):
            with os.fdopen(handle, "wb") as file:
                file.write(content)
            os.chmod(temporary, 0o644)
            os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


@contextlib.contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Inside the block an error of the system names `path`, and says what to do about a full disk."""
    try:
        yield
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        hint = "; free some space there, or set MASKUTILS_ROOT to a folder on another disk" * full
        raise OSError(error.errno, f"{error.strerror}{hint}", str(path)) from None


def file_digest(path: Path) -> str:
    """16 hex digits of a file's content; empty if it is not there."""
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16] if path.is_file() else ""


def write_json(path: Path, value: Any) -> None:
    """Write JSON atomically; refuses `nan`, which is not JSON."""
    write_atomically(path, (json.dumps(value, indent=1, allow_nan=False) + "\n").encode())


def read_json(path: Path) -> Any:
    """The JSON value at `path`. Raises `DamagedFile`, naming it and the way out, if it is not one."""
    try:
        return json.loads(path.read_bytes())
    except (ValueError, UnicodeDecodeError) as error:
        raise DamagedFile(f"{path} is damaged ({error}); delete it and run again: only it is made anew") from None
