"""Progress bars with an estimate, on anything that takes more than a few seconds.

Owns when a bar is shown: a widget in JupyterLab, a line in a terminal, nothing where `$TQDM_DISABLE` is set (the batch and the tests
set it; tqdm's own reading of it does not reach its notebook bars).
"""

import os
from collections.abc import Iterable
from typing import Any

from tqdm.auto import tqdm


def bar(items: Iterable[Any], what: str, unit: str = "step", delay: float = 3) -> Iterable[Any]:
    """`items`, with a bar that appears after `delay` seconds and goes when it is done."""
    return tqdm(items, desc=what, unit=unit, delay=delay, leave=False, disable=bool(os.environ.get("TQDM_DISABLE")))
