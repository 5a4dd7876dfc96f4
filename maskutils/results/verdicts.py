"""What a verdict is, how a claim becomes one, and the parts that claims share."""

import functools
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from maskutils.core.approaches import described, every
from maskutils.core.checks import enter, needs
from maskutils.results import statistics
from maskutils.results.wording import interval, intervals, p_text

with needs("study"):
    import pandas as pd


@dataclass(frozen=True)
class Verdict:
    """Whether a claim holds, and the numbers that show it. `passed` is None where the records cannot tell."""

    claim: str
    passed: bool | None
    evidence: str

    @property
    def word(self) -> str:
        """PASS, FAIL or SKIP."""
        return "SKIP" if self.passed is None else "PASS" if self.passed else "FAIL"


class Skip(Exception):
    """Raised by a claim that the records cannot tell, with the reason."""


Claim = Callable[[pd.DataFrame], Verdict]
CLAIMS: dict[str, Claim] = {}


def claim(text: str) -> Callable[[Callable[[pd.DataFrame], tuple[bool, str]]], Claim]:
    """A decorator that files a function from records to (passed, evidence) in `CLAIMS`, as one that gives a `Verdict` on `text`.

    The verdict is SKIP where the function raises `Skip`, and for fewer than `statistics.LEAST` seeds.
    """

    def filed(function: Callable[[pd.DataFrame], tuple[bool, str]]) -> Claim:
        @functools.wraps(function)
        def judge(records: pd.DataFrame) -> Verdict:
            try:
                enough([records["seed"].nunique()])
                return Verdict(text, *function(records))
            except Skip as reason:
                return Verdict(text, None, str(reason))

        named: Claim = judge
        return enter(CLAIMS, function.__name__, named)

    return filed


def enough(seeds: Iterable[int]) -> None:
    """Raises `Skip` if one of the comparisons has fewer than `statistics.LEAST` seeds."""
    if (least := min(seeds, default=statistics.LEAST)) < statistics.LEAST:
        raise Skip(f"fewer than three seeds: {least}")


def told(rows: pd.DataFrame, who: str, notes: Mapping[str, str] | None = None) -> str:
    """Each of the `statistics.paired` differences `rows`, named as in `who`, with its interval and the note on its opponent.

    Raises `Skip` if one of them has too few seeds.
    """
    enough(rows["n"])
    each = zip(rows.to_dict("records"), intervals(rows), strict=True)
    return ", ".join(f"{who.format(**row)} {said}{(notes or {}).get(row['against'], '')}" for row, said in each)


def by_pairs(table: pd.DataFrame, value: str, of: statistics.Name, against: statistics.Name, by: str = "family") -> str:
    """The mean differences on each pair of domains, in brackets; nothing for a single pair."""
    on = statistics.by_pair(table, value, of, against, by)
    return f" (by pair: {', '.join(f'{pair} {100 * d:+.1f}' for pair, d in on.items())})" if len(on) > 1 else ""


def margin(table: pd.DataFrame, value: str, of: str, against: str) -> str:
    """A difference with the two wider intervals: over other pairs of domains, and corrected for shared training images."""
    row = statistics.paired(table, value, [of], against)
    wide = f"{against} {intervals(row, '_corrected')[0]}, p {p_text(row['p_corrected'].item()) or 'none'}"
    mean, low, high = statistics.random_effects(table, value, of, against)
    over = "" if pd.isna(mean) else f"; random-effects mean over pairs {interval(mean, low, high, '+')}"
    return f"with the variance corrected for shared training images (Nadeau and Bengio) {wide}{over}"


def minus_each(table: pd.DataFrame, value: str, family: str, others: Iterable[str]) -> pd.DataFrame:
    """`value` of `family` minus that of each of `others`, paired by seed: rows of `statistics.paired`."""
    return pd.concat([statistics.paired(table, value, [family], other) for other in others], ignore_index=True)


def rankings() -> list[str]:
    """The masks that nobody learns, but for the random one: those made of the weights and their gradients."""
    return [a.name for a in every() if a.kind == "control" and not a.learns_mask and a.role != "chance"]


def tuned_for_known(reading: str, others: Iterable[str]) -> str:
    """A note for the task unknown on those of `others` whose rates are tuned for the task known (`rates.ranked`), and suffer here."""
    off = [name for name in others if described(name).known == "intact"] if reading == "full" else []
    return f"; tuned for the task known alone: {', '.join(off)}" if off else ""


def opponents(table: pd.DataFrame) -> list[str]:
    """The families in `table` that the claims compare masks with."""
    return [a.name for a in every() if a.opponent and a.name in set(table["family"])]
