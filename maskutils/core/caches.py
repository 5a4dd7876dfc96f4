"""Values that are made once and stored in a file with a checksum."""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from maskutils.core import paths
from maskutils.core.files import DamagedFile, file_digest, write_atomically

T = TypeVar("T")


def cached(path: Path, make: Callable[[], T], save_to: Callable[[T, Path], None], load_from: Callable[[Path], T]) -> T:
    """What lies at `path`, or else what `make` makes, stored there with a checksum. A damaged file is named in a warning, and made
    again.
    """
    checksum = paths.cache_dir("checksum") / f"{path.parent.name}-{path.name}"
    if path.exists() and checksum.exists():
        try:
            value = load_from(path)
            if checksum.read_text(encoding="utf-8") != file_digest(path):
                raise DamagedFile(f"{path} is damaged (it has another checksum); delete it and run again")
            return value
        except DamagedFile as error:
            warnings.warn(f"cache: {error}", stacklevel=2)
    value = make()
    save_to(value, path)
    write_atomically(checksum, file_digest(path).encode())
    return value
