"""Writes files that are whole or absent, and reads JSON."""

import contextlib
import errno
import hashlib
import json
import os
import secrets
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from maskutils.core.checks import content_key

NEW = ".new."  # begins the name of a file that is being written
FREE = "free some space there"


class DamagedFile(ValueError):
    """A file whose content is not what it should be. The message names it and the way out."""


def write_atomically(path: str | Path, content: bytes) -> None:
    """Write all of `content` or nothing: to a temporary file in the same folder, then renamed. Creates a missing folder."""
    path = Path(path)
    with naming(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.parent / f"{NEW}{secrets.token_hex(8)}"
        try:
            with open(temporary, "xb") as file:  # with the permissions that the user gives new files
                file.write(content)
            os.replace(temporary, path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise


@contextlib.contextmanager
def naming(path: Path, setting: str = "MASKUTILS_ROOT") -> Iterator[None]:
    """Inside the block an error of the system names its file, or `path` if it names none, and says what to do about a full disk: the
    `setting` names another.
    """
    try:
        yield
    except OSError as error:
        if error.errno is None:
            raise
        said, file = error.strerror or str(error), str(error.filename or path)
        if error.errno in (errno.ENOSPC, errno.EDQUOT) and FREE not in said:
            said += f"; {FREE}, or set {setting} to a folder on another disk"
        if error.errno in (errno.EROFS, errno.EACCES) and setting not in said:
            said += f"; set {setting} to a folder that can be written"
        raise OSError(error.errno, said, str(path) if NEW in file else file) from None


def file_digest(path: Path) -> str:
    """16 hex digits of a file's content; empty if there is no such file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16] if path.is_file() else ""


def stamp(files: Iterable[str | Path]) -> str:
    """Names the content of `files` without reading them: by their names, sizes and times of change."""
    return content_key([(str(file), (s := os.stat(file)).st_size, s.st_mtime_ns) for file in files])


def is_path(name: str) -> bool:
    """Whether `name`, of weights, is a path rather than one of torchvision's names."""
    return "." in name or "/" in name


def write_json(path: Path, value: Any) -> None:
    """Write JSON atomically. Raises `ValueError` for `nan` and infinity, which JSON does not have."""
    write_atomically(path, (json.dumps(value, indent=1, allow_nan=False) + "\n").encode())


def read_json(path: Path) -> Any:
    """The JSON value in the file `path`. Raises `DamagedFile` if it holds none."""
    try:
        return json.loads(path.read_bytes())
    except ValueError as error:
        raise DamagedFile(f"{path} is damaged ({error}); delete it and run again, which makes it anew") from None
