"""How numbers are written in sentences and tables."""

from maskutils.core.checks import needs

with needs("study"):
    import pandas as pd


def points(fraction: float) -> str:
    """A fraction as "95.1 %"."""
    return f"{100 * fraction:.1f} %"


def interval(middle: float, low: float, high: float, sign: str = "") -> str:
    """Fractions in points as "4.1 [3.1, 5.2]"; `sign` "+" writes the plus of positive ones too."""
    return "{} [{}, {}]".format(*(f"{100 * value:{sign}.1f}" for value in (middle, low, high)))


def intervals(rows: pd.DataFrame) -> list[str]:
    """The differences of a table of `analysis.paired` in points, as "+4.1 [+3.1, +5.2]"."""
    return [interval(*row, "+") for row in zip(rows["difference"], rows["low"], rows["high"], strict=True)]
