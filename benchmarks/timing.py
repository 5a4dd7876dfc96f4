"""Two things measured side by side, and the row that says so."""

import time
from collections.abc import Callable

COLUMNS = ["what", "ours", "reference", "is", "ratio", "target", "met"]
REPEATS, STEPS = 5, 20


def row(
    what: str, ours: float, reference: float, kind: str, unit: str = "ms", target: float | None = None
) -> list[str]:
    """`ours` and `reference` in seconds or bytes; their ratio is below 1 where ours is cheaper, and `met` if at most `target`."""
    factor = {"ms": 1e3, "s": 1.0, "kB": 1e-3, "MB": 1e-6}[unit]
    shown = [f"{factor * value:.3g} {unit}" for value in (ours, reference)]
    ratio = round(ours / reference, 2)
    aim = ["", ""] if target is None else [f"{target:.2f}", "yes" if ratio <= target else "no"]
    return [what, *shown, kind, f"{ratio:.2f}", *aim]


def best_of(
    *calls: Callable[[], object],
    repeats: int | None = None,
    steps: int | None = None,
    clock: Callable[[], float] = time.process_time,
) -> list[float]:
    """Seconds of one call of each: the best of several rounds that alternate, so that the machine's moods meet all.

    Processor time of this process by default: with one thread the same as wall time, but for what other processes take.
    """
    best, steps = [float("inf")] * len(calls), steps or STEPS
    for _ in range(repeats or REPEATS):
        for i, call in enumerate(calls):
            begun = clock()
            for _ in range(steps):
                call()
            best[i] = min(best[i], (clock() - begun) / steps)
    return best
