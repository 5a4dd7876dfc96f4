"""Progress bars for what takes more than a few seconds: a widget in JupyterLab, a line in a terminal."""

import os
from collections.abc import Iterable
from typing import TypeVar

from tqdm.auto import tqdm

T = TypeVar("T")


def bar(items: Iterable[T], what: str, unit: str = "step", delay: float = 3) -> Iterable[T]:
    """`items`, with a bar that appears after `delay` seconds and disappears at the end. `$TQDM_DISABLE` turns it off."""
    off = bool(os.environ.get("TQDM_DISABLE"))  # read here, for tqdm's notebook bars ignore the variable
    shown: Iterable[T] = tqdm(items, desc=what, unit=unit, delay=delay, leave=False, disable=off)
    return shown
