"""How numbers and settings are written in sentences and tables."""

import math
from collections.abc import Mapping
from typing import Any

import pandas as pd

from maskutils.core.approaches import INTERPOLATED, find
from maskutils.results.records import KNOBS


def points(fraction: float) -> str:
    """A fraction as "95.1 %"."""
    return f"{100 * fraction:.1f} %"


def interval(middle: float, low: float, high: float, sign: str = "") -> str:
    """Fractions in points as "4.1 [3.1, 5.2]", or "4.1" without an interval; `sign` "+" writes the plus of positive ones too."""
    told = f"{100 * middle:{sign}.1f}"
    return told if math.isnan(low) else f"{told} [{100 * low:{sign}.1f}, {100 * high:{sign}.1f}]"


def intervals(rows: pd.DataFrame, kind: str = "") -> list[str]:
    """The differences of a table of `statistics.paired` in points, as "+4.1 [+3.1, +5.2]"; `kind` "_corrected" for those."""
    each = zip(rows["difference"], rows[f"low{kind}"], rows[f"high{kind}"], strict=True)
    return [interval(*row, "+") for row in each]


def p_text(p: float) -> str:
    """A p-value as "0.042" or "< 0.001"; empty where there is none."""
    return "" if math.isnan(p) else "< 0.001" if p < 0.001 else f"{p:.3f}"


def settings(candidate: Mapping[str, Any]) -> str:
    """The settings of a candidate as "density 0.1, alpha 0.5", without those that it does not have.

    A knob without a column of its own has the name that its approach gives it, as "rank 4".
    """
    about = find(candidate["approach"].removesuffix(INTERPOLATED))
    named = {name: (about.knob if about and name == "knob" else name) for name in KNOBS}
    told = [f"{named[name]} {candidate[name]:g}" for name in KNOBS if not math.isnan(candidate[name])]
    return ", ".join(told + ([f"alpha {candidate['alpha']:g}"] if candidate["alpha"] < 1 else []))
