"""Progress bars for what takes more than a few seconds: a line of text, in a terminal and in a notebook."""

import os
import sys
from collections.abc import Iterable
from typing import Any, TypeVar

from tqdm import tqdm

T = TypeVar("T")


class _Line:
    """A file that shows the last line written to it as an output of a cell. An empty line leaves an empty output, and no dead widget."""

    handle: Any = None

    def write(self, text: str) -> None:
        line = text.strip("\r\n ")
        if self.handle is None and line:
            from IPython.display import display  # there is a kernel, so it is installed

            self.handle = display({"text/plain": line}, raw=True, display_id=True)
        elif self.handle is not None:
            self.handle.update({"text/plain": line}, raw=True)

    def flush(self) -> None:
        """Nothing is kept back."""


def _in_notebook() -> bool:
    ipython = sys.modules.get("IPython")
    return hasattr(ipython and ipython.get_ipython(), "kernel")


def watched() -> bool:
    """Whether somebody watches. `$TQDM_DISABLE` says no; the batch, the tests and `make notebooks` set it."""
    return not os.environ.get("TQDM_DISABLE")


def bar(items: Iterable[T], what: str, unit: str = "step", delay: float = 3) -> Iterable[T]:
    """`items`, with a bar that appears after `delay` seconds and disappears at the end. `$TQDM_DISABLE` turns it off."""
    form: dict[str, Any] = {"file": _Line(), "ncols": 90, "mininterval": 0.5} if _in_notebook() else {}
    shown: Iterable[T] = tqdm(items, desc=what, unit=unit, delay=delay, leave=False, disable=not watched(), **form)
    return shown
