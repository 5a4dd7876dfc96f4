"""What a verdict is, how a claim becomes one, and the parts that claims share."""

import functools
import inspect
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field

import pandas as pd

from maskutils.core.approaches import described, every
from maskutils.core.checks import enter
from maskutils.results import report, statistics
from maskutils.results.wording import ends, interval, intervals

ACCURACY, BOX = "points of accuracy", "points of hypervolume"
KNOWN, UNKNOWN = "With the task known", "With the task unknown"


@dataclass(frozen=True)
class Verdict:
    """Whether a claim holds, and the numbers that show it.

    `passed` is None where the records cannot tell. `effect` is the comparison that decides, or why the claim is skipped; `meaning`
    what follows from the verdict for a reader; `rule` how it is judged. `evidence` has a row for each comparison that was made.
    """

    claim: str
    passed: bool | None
    effect: str
    meaning: str = ""
    rule: str = ""
    evidence: pd.DataFrame = field(default_factory=pd.DataFrame, compare=False)

    @property
    def word(self) -> str:
        """PASS, FAIL or SKIP."""
        return "SKIP" if self.passed is None else "PASS" if self.passed else "FAIL"


def summary(found: Iterable[Verdict]) -> pd.DataFrame:
    """A table of verdicts for people: the claim, its verdict, the comparison that decides, and what it means."""
    return pd.DataFrame(
        [{"claim": v.claim, "verdict": v.word, "effect": v.effect, "what it means": v.meaning} for v in found]
    )


def failures(found: Collection[Verdict]) -> str:
    """A Markdown list: how many of the claims that were judged fail, then each of these with the comparison that decides."""
    failed = [v for v in found if v.passed is False]
    counted = f"- **{len(failed)} of {len(found)} [claims](#claims) fail{':' if failed else '.'}**"
    return "\n".join([counted, *(f"  - *{v.claim}* {v.effect}." for v in failed)])


def explain(*found: Verdict) -> str:
    """Each verdict as Markdown: the claim, the comparison that decides, what follows, and what stands behind it."""
    said = [(f"**{v.word}. {v.claim}** {v.effect}. {v.meaning}".strip(), behind(v)) for v in found]
    return "\n\n".join(part for parts in said for part in parts if part)


def behind(verdict: Verdict) -> str:
    """How a verdict is judged, and every comparison that was made, as Markdown; nothing for a claim that is skipped."""
    if verdict.passed is None:
        return ""
    return f"*The rule.* {verdict.rule}\n\n{report.markdown(verdict.evidence)}"


class Skip(Exception):
    """Raised by a claim that the records cannot tell, with the reason."""


Found = tuple[bool, str, pd.DataFrame]  # passed, effect and evidence, as in `Verdict`
Claim = Callable[[pd.DataFrame], Verdict]
CLAIMS: dict[str, Claim] = {}


def claim(text: str, holds: str, fails: str) -> Callable[[Callable[[pd.DataFrame], Found]], Claim]:
    """A decorator that files a function of the records in `CLAIMS`, as one that gives a `Verdict` on `text`.

    What the claim means where it `holds` and where it `fails` is told to the reader; the docstring of the function is its rule.
    The verdict is SKIP where the function raises `Skip`, and for fewer than `statistics.LEAST` seeds.
    """

    def filed(function: Callable[[pd.DataFrame], Found]) -> Claim:
        rule = " ".join((inspect.getdoc(function) or "").split())

        @functools.wraps(function)
        def judge(records: pd.DataFrame) -> Verdict:
            try:
                enough([records["seed"].nunique()])
                passed, effect, evidence = function(records)
            except Skip as reason:
                return Verdict(text, None, str(reason), rule=rule)
            return Verdict(text, passed, effect, holds if passed else fails, rule, evidence)

        named: Claim = judge
        return enter(CLAIMS, function.__name__, named)

    return filed


def enough(seeds: Iterable[int]) -> None:
    """Raises `Skip` if one of the comparisons has fewer than `statistics.LEAST` seeds."""
    if (least := min(seeds, default=statistics.LEAST)) < statistics.LEAST:
        raise Skip(f"fewer than three seeds: {least}")


def evidence_of(rows: pd.DataFrame, table: pd.DataFrame, value: str, unit: str, by: str = "family") -> pd.DataFrame:
    """The `statistics.paired` differences `rows` of `value` in `table`, for people: one row each, in `unit`.

    Columns: compared, the difference with its 95 % interval, the mean difference on each pair of domains if there are several, seeds.
    Raises `Skip` if one of them has too few seeds.
    """
    enough(rows["n"])
    shown = pd.DataFrame({"compared": [f"{r[by]} - {r['against']}" for _, r in rows.iterrows()], unit: intervals(rows)})
    on = [statistics.by_pair(table, value, r[by], r["against"], by) for _, r in rows.iterrows()]
    if table["pair"].nunique() > 1:
        for pair in sorted(table["pair"].unique()):
            shown[pair] = [f"{100 * d[pair]:+.1f}" if pair in d else "" for d in on]
    return shown.assign(seeds=rows["n"].to_numpy())


def closest(rows: pd.DataFrame, unit: str, by: str = "family", least: float = 0.0) -> str:
    """The one of `rows` that decides whether all lie above `least`, as "a - b -3.4 [-5.7, -1.1] points".

    It is the one whose interval begins lowest, of those that lie below 0 if there are any. Where its corrected interval would decide
    otherwise, that is told too.
    """
    below = rows[rows["high"] < 0]
    row = rows.loc[(rows if below.empty else below)["low"].idxmin()]
    ahead = f"; ahead in {(rows['low'] > 0).sum()} of {len(rows)} comparisons" if len(rows) > 1 else ""
    by_end = ((row[end] > at, row[f"{end}_corrected"] > at) for end, at in (("low", least), ("high", 0.0)))
    doubt = any(plain != corrected for plain, corrected in by_end)
    said = f" (corrected {ends(row['low_corrected'], row['high_corrected'], '+')}, not for certain)" * doubt
    return (
        f"{row[by]} - {row['against']}: {interval(row['difference'], row['low'], row['high'], '+')} {unit}{said}{ahead}"
    )


def surely_above(rows: pd.DataFrame) -> bool:
    """Whether each difference of `statistics.paired` lies above 0, and p < 0.05 after Holm's correction for all of them.

    There is no p where the difference is the same on every seed.
    """
    return bool(((rows["low"] > 0) & ~(statistics.holm(rows["p"]) >= 0.05)).all())


def minus_each(table: pd.DataFrame, value: str, family: str, others: Iterable[str]) -> pd.DataFrame:
    """`value` of `family` minus that of each of `others`, paired by seed: rows of `statistics.paired`."""
    return pd.concat([statistics.paired(table, value, [family], other) for other in others], ignore_index=True)


def rankings() -> list[str]:
    """The masks that nobody learns, but for the random one: those made of the weights and their gradients."""
    return [a.name for a in every() if a.kind == "control" and not a.learns_mask and a.role != "chance"]


def tuned_for(reading: str, others: Iterable[str]) -> dict[str, list[str]]:
    """With the task unknown, a column that tells which of `others` have rates tuned for the other reading alone (`rates.ranked`)."""
    alone = [described(name).known == "intact" for name in others]
    told = {"rate tuned for": ["task known" if known else "both" for known in alone]}
    return told if reading == "full" and any(alone) else {}


def rivals_in(table: pd.DataFrame) -> list[str]:
    """The families in `table` that the claims compare masks with."""
    return [a.name for a in every() if a.rival and a.name in set(table["family"])]
