"""The findings of the README: what masks lose and win against their rivals, in sentences made from records.

Families and settings are chosen on validation and reported on test, as everywhere in `results`.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import pandas as pd

from maskutils.core.approaches import every, find, names, the
from maskutils.results.analysis import (
    CANDIDATE,
    DECIMALS,
    learnt,
    of_second_network,
    source_read,
    stored_bits,
    trained,
)
from maskutils.results.fronts import hypervolumes, largest
from maskutils.results.records import of_masks, on_grid
from maskutils.results.statistics import LEAST, by_pair, paired
from maskutils.results.verdicts import rankings
from maskutils.results.wording import interval, points

APART = "cannot be told from"
GAIN = 0.005  # source accuracy that learning a mask may add before it is told of
TITLES = {
    "leads": "a learnt mask leads the best rival that stores no more",
    "trails": "a learnt mask trails the best rival that stores no more",
    APART: "a learnt mask cannot be told from the best rival that stores no more",
}


@dataclass(frozen=True)
class Areas:
    """Hypervolumes of all families in one reading of the source, on `test` and on `val`, as `hypervolumes` gives them."""

    test: pd.DataFrame
    val: pd.DataFrame

    def there(self, wanted: Sequence[str]) -> list[str]:
        """Those of the families `wanted` that there are."""
        found = set(self.val["family"])
        return [name for name in wanted if name in found]

    def best(self, wanted: Sequence[str]) -> str:
        """The one of `wanted` with the largest area on validation; empty if there is none."""
        return largest(self.val, wanted)

    def minus(self, of: Sequence[str], other: str) -> pd.DataFrame:
        """The areas of the families `of` minus that of `other`, on test: rows of `paired`."""
        return paired(self.test, "hypervolume", of, other)


def findings(records: pd.DataFrame) -> str:
    """Three Markdown items: masks with the task unknown, with the task known at equal storage, and learnt against unlearnt.

    Differences are in points, with 95 % intervals over seeds; "leads" and "trails" stand where the interval excludes 0. An item
    says so if its rows are missing, and the whole if there are fewer than `LEAST` seeds.
    """
    seeds = records["seed"].nunique()
    if seeds < LEAST:
        return f"A finding takes {LEAST} seeds; these records hold {seeds}."
    full, known = (areas(records, reading) for reading in ("full", "known"))
    return "\n".join(f"- {item}" for item in (task_unknown(full), task_known(records), learnt_or_not(full, known)))


def areas(records: pd.DataFrame, reading: str) -> Areas:
    """The hypervolumes of `records` with the source read as `reading`."""
    return Areas(hypervolumes(records, reading), hypervolumes(records, reading, split="val_"))


def task_unknown(full: Areas) -> str:
    """Which opponents cover more than every mask, or else than the best learnt one, and by how much; and that one beside the yardstick."""
    masks, yardstick = full.there(names("mask", "control")), the("yardstick")
    rivals = full.there([a.name for a in every() if a.opponent and a.kind != "control"])
    if not full.best(names("mask")) or not rivals:
        return "**Task unknown.** The records hold no learnt masks beside opponents without one."
    ranked = sorted(rivals, key=full.test.groupby("family")["hypervolume"].mean().get, reverse=True)
    over = [r for r in ranked if (full.minus(masks, r)["high"] < 0).all()]
    top, best = full.best(masks), full.best(names("mask"))
    led = [r for r in rivals if full.minus([best], r)["low"].item() > 0]
    whom = "all of them" if led == rivals else f"only {_listed(map(_called, led))}" if led else "none of them"
    said = f"**Task unknown: no opponent leads the masks.** Opponents: {_listed(map(_called, rivals))}."
    said += f" The best learnt mask, {_called(best)}, leads {whom}."
    ahead = {r: row for r in ranked if (row := full.minus([r], best).iloc[0])["low"] > 0}
    if ahead:
        by = _listed(f"{_called(r)} by {_size(row)} points" for r, row in ahead.items())
        said = f"**Task unknown: masks trail.** The best learnt mask, {_called(best)}, trails {by}."
    if over:
        by = _listed([_size(full.minus([r], top).iloc[0]) for r in over])
        who = f"{_listed(map(_called, over))} {'lead' if len(over) > 1 else 'leads'} every mask, learnt or not."
        lead = f"The lead over the strongest mask, {_called(top)}, is {by} points."
        said = f"**Task unknown: masks lose.** {who} {lead}"
    if yardstick in ahead and not over:
        said += _on_pairs(by_pair(full.test, "hypervolume", best, yardstick), _called(yardstick))
    elif yardstick in rivals:
        who = f"The best learnt mask, {_called(best)}," if over else "It"
        said += f" {who} {_beside(full, best, yardstick)}"
    strongest = next((r for r in ahead if r != yardstick), "")
    if strongest and not over:
        said += _on_pairs(by_pair(full.test, "hypervolume", best, strongest), _called(strongest))
    return said


def _beside(full: Areas, best: str, yardstick: str) -> str:
    """What is to be said of the mask `best` against `yardstick`, from the verb on, and on which pairs of domains."""
    said = f"{_versus(full.minus([best], yardstick).iloc[0], _called(yardstick))}."
    return said + _on_pairs(by_pair(full.test, "hypervolume", best, yardstick), _called(yardstick))


def _on_pairs(differences: pd.Series, whom: str) -> str:
    """A sentence on the pairs of domains that a mean is over: their sorted `differences` to `whom`. Empty for a single pair."""
    on = 100 * differences
    if len(on) < 2:
        return ""
    pairs = f"from {on.iloc[0]:+.1f} on `{on.index[0]}` to {on.iloc[-1]:+.1f} on `{on.index[-1]}`"
    return f" It is better than {whom} on {(on > 0).sum()} of {len(on)} pairs, {pairs}."


def task_known(records: pd.DataFrame) -> str:
    """The best learnt mask beside the best rivals that store no more bits and none at all; and what is reached with more bits.

    The last are the better rival of fewest bits, and a second network. Best is the highest mean of both tasks on validation. A rival
    is an approach that learns no mask, masks that nobody learns too.
    """
    rows, means = _tried(records)
    masks, rivals = means[means["mask"]], means[~means["mask"]]
    if masks.empty or rivals.empty:
        return "**Task known.** The records hold no learnt masks beside rivals whose bits are known."
    mask, best = masks["val_both"].idxmax(), masks.loc[masks["val_both"].idxmax()]
    cheap = {
        "that stores no more": rivals[rivals["bits"] <= best["bits"]],
        "without a mask that stores no more": rivals[(rivals["bits"] <= best["bits"]) & ~rivals["unlearnt"]],
        "that stores nothing": rivals[rivals["bits"] == 0],
    }
    chosen: dict[int, str] = {}  # the strongest first
    for which, table in cheap.items():
        if len(table):
            chosen.setdefault(table["val_both"].idxmax(), which)
    minus = {rival: paired(rows, "both", [mask], rival, by="candidate").iloc[0] for rival in chosen}
    reaches = "{} reaches {} as the mean of both tasks and stores {}.".format
    said = [reaches(f"{_called(best['approach'])} at density {best['density']:g}", points(best["both"]), _kbit(best))]
    decides = next(iter(minus.values()), None)
    for rival, row in minus.items():
        called = _called(means.approach[rival])
        said.append(f"It {_versus(row, f'the best rival {chosen[rival]} ({called}, {_kbit(means.loc[rival])})')}.")
        if len(said) == 2:  # the strongest comes first
            said[-1] += _on_pairs(by_pair(rows, "both", mask, rival, by="candidate"), called)
            gained, decides = _gained(rows, mask, rival, called, row)
            said[-1] += gained
    better = rivals[(rivals["bits"] > best["bits"]) & (rivals["val_both"] > best["val_both"]) & ~rivals["whole"]]
    better = better.sort_values(["bits", "val_both"], ascending=[True, False])
    dearer = [*better[:1].iterrows(), *rivals[rivals["whole"]].iterrows()]
    more = [
        f"{_called(r['approach'])} ({_kbit(r)}){'' if i else ' reaches'} {points(r['both'])}"
        for i, (_, r) in enumerate(dearer)
    ]
    if more:
        said.append(f"With more bits, {_listed(more)}.")
    title = "" if decides is None else f": {TITLES[_verb(decides)]}"
    return f"**Task known{title}.** {' '.join(said)}"


def _gained(rows: pd.DataFrame, mask: int, rival: int, whom: str, row: pd.Series) -> tuple[str, pd.Series]:
    """What is to be said if learning the `mask` has made the source network better, and the comparison without that gain.

    Without a gain of `GAIN` on average nothing is said, and the comparison is `row` itself.
    """
    own = rows[rows["candidate"] == mask]
    gain = 2 * (own["both"] - own["both_held"]).mean()  # of the source, which is half of both
    if gain < GAIN:
        return "", row
    without = paired(rows, "both_held", [mask], rival, by="candidate").iloc[0]
    told = f" Learning it trains more on the source (+{100 * gain:.1f} points there); without that it {_versus(without, whom)}."
    return told, without


def _tried(records: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Rows of learnt masks and of rivals with `candidate` and `both`, and a row for each setting tried on every pair of domains.

    `both_held` is `both` with no more source accuracy than the source network had.

    Columns of the settings: approach, density, mask (is it learnt), unlearnt (is it a mask that nobody learns), whole (is it a
    second network), bits, both and val_both.
    """
    rows, about = on_grid(records), {a.label or a.name: a for a in every()}
    mask = learnt(rows)
    kinds = ("baseline", "control", "reference")
    rival = [k for k, a in about.items() if a.kind in kinds and a.choosable and not a.learns_mask]
    bits, source = stored_bits(rows), source_read(rows, "known")
    rows = rows.assign(
        bits=bits,
        mask=mask,
        unlearnt=of_masks(rows) & ~mask,
        whole=of_second_network(rows) & (rows["alpha"] == 1),
        both=(source + rows["target_acc"]) / 2,
        both_held=(source.clip(upper=rows["source_acc_before"]) + rows["target_acc"]) / 2,
        val_both=(source_read(rows, "known", "val_") + rows["val_target_acc"]) / 2,
    )[(mask | trained(rows).isin(rival)) & bits.notna()]
    groups = rows.assign(candidate=rows.groupby(CANDIDATE, dropna=False).ngroup()).groupby("candidate")
    means = (
        groups[["approach", "density", "mask", "unlearnt", "whole"]]
        .first()
        .join(groups[["bits", "both", "val_both"]].mean())
    )
    means["val_both"] = means["val_both"].round(DECIMALS)
    return groups.obj, means[groups["pair"].nunique() == records["pair"].nunique()]


def learnt_or_not(full: Areas, known: Areas) -> str:
    """In both readings, the best learnt mask beside the best that nobody learns and beside a random one."""
    said = []
    for when, found in {"known": known, "unknown": full}.items():
        best, others = found.best(names("mask")), filter(None, (found.best(rankings()), found.best([the("chance")])))
        told = [_versus(found.minus([best], other).iloc[0], _called(other)) for other in others if best]
        said += [f"With the task {when}, {_called(best)} {' and '.join(told)}."] if told else []
    return (
        f"**Learnt against unlearnt masks, by their whole curves.** {' '.join(said) or 'The records do not hold both.'}"
    )


def _called(approach: str) -> str:
    """The approach within a sentence."""
    about = find(approach)
    return (about and about.phrase) or f"`{approach}`"


def _kbit(setting: pd.Series) -> str:
    return f"{setting['bits'] / 1e3:,.0f} kbit"


def _verb(row: pd.Series) -> str:
    return "leads" if row["low"] > 0 else "trails" if row["high"] < 0 else APART


def _size(row: pd.Series) -> str:
    """A paired difference without its sign, in points with its interval."""
    d, low, high = row[["difference", "low", "high"]]
    return interval(d, low, high) if d >= 0 else interval(-d, -high, -low)


def _versus(row: pd.Series, whom: str) -> str:
    """What a row of `paired` says, from the verb on."""
    if math.isnan(row["low"]):
        return f"{APART} {whom}, for they share fewer than {LEAST} seeds"
    if (verb := _verb(row)) == APART:
        return f"{verb} {whom} at {interval(row['difference'], row['low'], row['high'], '+')} points"
    return f"{verb} {whom} by {_size(row)} points"


def _listed(words: Iterable[str]) -> str:
    """The words joined as in "a, b and c"."""
    *first, last = words
    return f"{', '.join(first)} and {last}" if first else last
