"""How numbers and settings are written in sentences and tables."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from maskutils.core.approaches import INTERPOLATED, described, find
from maskutils.results.records import KNOBS
from maskutils.results.statistics import LEAST

APART = "cannot be told apart from"
TUNED = ", whose rates are tuned for the task known"


def points(fraction: float) -> str:
    """A fraction as "95.1 %"."""
    return f"{100 * fraction:.1f} %"


def interval(middle: float, low: float, high: float, sign: str = "") -> str:
    """Fractions in points as "4.1 [3.1, 5.2]", or "4.1" without an interval; `sign` "+" writes the plus of positive ones too."""
    return f"{100 * middle:{sign}.1f} {ends(low, high, sign)}".rstrip()


def ends(low: float, high: float, sign: str = "") -> str:
    """The interval alone, as "[3.1, 5.2]"; empty where there is none."""
    return "" if math.isnan(low) else f"[{100 * low:{sign}.1f}, {100 * high:{sign}.1f}]"


def intervals(rows: pd.DataFrame) -> list[str]:
    """The differences of a table of `statistics.paired` in points, as "+4.1 [+3.1, +5.2]"."""
    return [interval(*row, "+") for row in zip(rows["difference"], rows["low"], rows["high"], strict=True)]


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


@dataclass(frozen=True)
class Finding:
    """What records show in a case: the sentences that the first page has too, what else there is to say, and all in a few words."""

    case: str
    brief: list[str]
    more: list[str] = field(default_factory=list)
    short: str = ""

    def told(self, whole: bool = True) -> str:
        """The finding as an item of Markdown, `whole` with an item in it for each further sentence, or only what the first page has."""
        title = f"{self.case}: {self.short}" if whole and self.short else self.case
        return "\n  - ".join([f"- **{title}.** {' '.join(self.brief)}", *self.more * whole])


def on_pairs(differences: pd.Series) -> tuple[str, list[str]]:
    """As "is ahead on 3 of 4 pairs", and a sentence on the ends of the sorted `differences`; both empty for a single pair."""
    if len(differences) < 2:
        return "", []
    least, greatest = (f"{100 * differences.iloc[i]:+.1f} on `{differences.index[i]}`" for i in (0, -1))
    ahead = f"is ahead on {(differences > 0).sum()} of {len(differences)} pairs"
    return ahead, [f"By pair the difference is {least} to {greatest}."]


def called(approach: str) -> str:
    """The approach within a sentence."""
    about = find(approach)
    return (about and about.phrase) or f"`{approach}`"


def with_tuning(rivals: Sequence[str]) -> str:
    """`rivals` that a mask leads with the task unknown, last those whose rates are tuned for the task known (see `rates.ranked`)."""
    removable = [rival for rival in rivals if described(rival).known == "intact"]
    usual = [rival for rival in rivals if rival not in removable]
    told = [listed(map(called, names)) for names in (usual, removable) if names]
    return ", and ".join(told) + TUNED * bool(removable)


def kbit(setting: pd.Series) -> str:
    """What a setting stores, as "51 kbit"."""
    return f"{setting['bits'] / 1e3:,.0f} kbit"


def verb(row: pd.Series) -> str:
    """What a row of `paired` says in a word: "leads", "trails" or `APART`."""
    return "leads" if row["low"] > 0 else "trails" if row["high"] < 0 else APART


def size(row: pd.Series, doubt: str = "") -> str:
    """A paired difference without its sign, in points with its interval; with the corrected one and `doubt` where that alone holds 0."""
    told = interval(abs(row["difference"]), *_unsigned(row, ""))
    return told + (f" (corrected {ends(*_unsigned(row, '_corrected'))}{doubt})" if in_doubt(row) else "")


def sizes(rows: Iterable[pd.Series]) -> str:
    """Several paired differences as `size` gives them, in a list; one that is in doubt says so."""
    return listed(size(row, ", not for certain") for row in rows)


def in_doubt(row: pd.Series) -> bool:
    """Whether a row of `paired` tells two apart by its interval, and not by the corrected one."""
    return verb(row) != APART and bool(row["low_corrected"] <= 0 <= row["high_corrected"])


def _unsigned(row: pd.Series, kind: str) -> tuple[float, float]:
    """The interval, of a `kind`, of the difference without its sign."""
    low, high = row[f"low{kind}"], row[f"high{kind}"]
    return (low, high) if row["difference"] >= 0 else (-high, -low)


def versus(row: pd.Series, whom: str) -> str:
    """What a row of `paired` says, from the verb on; "but not for certain" where the corrected interval alone holds 0."""
    if math.isnan(row["low"]):
        return f"{APART} {whom}, for they share fewer than {LEAST} seeds"
    if verb(row) == APART:
        return f"{APART} {whom} ({interval(row['difference'], row['low'], row['high'], '+')} points)"
    return f"{verb(row)} {whom} by {size(row)} points" + ", but not for certain" * in_doubt(row)


def leading(approaches: Sequence[str]) -> str:
    """The approaches and their verb, as in "`a` and `b` lead"."""
    return f"{listed(map(called, approaches))} {'lead' if len(approaches) > 1 else 'leads'}"


def listed(words: Iterable[str], last: str = "and") -> str:
    """The words joined as in "a, b and c"."""
    *first, end = words
    return f"{', '.join(first)} {last} {end}" if first else end
