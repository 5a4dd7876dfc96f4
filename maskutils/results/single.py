"""Findings that compare single settings by the mean accuracy of both tasks: one setting for all pairs, the best on validation."""

from collections.abc import Sequence

import pandas as pd

from maskutils.core.approaches import every
from maskutils.results import analysis
from maskutils.results.choice import candidates
from maskutils.results.equal_storage import ABOUT
from maskutils.results.records import of_masks, on_grid
from maskutils.results.statistics import by_pair, paired
from maskutils.results.wording import (
    Finding,
    called,
    in_doubt,
    kbit,
    leading,
    listed,
    on_pairs,
    points,
    sizes,
    verb,
    versus,
    with_tuning,
)

GAIN = 0.005  # source accuracy that learning a mask may add before it is told of


def at_one_setting(
    records: pd.DataFrame, masks: Sequence[str], rivals: Sequence[str]
) -> tuple[dict[str, pd.Series], list[str]]:
    """The `rivals` that lead the best learnt mask at one setting, task unknown, largest lead first, and sentences on all.

    Each has its row of `paired`.
    """
    rows = analysis.with_family(on_grid(records[~analysis.of_second_network(records)]))
    both, val = (analysis.both_tasks(rows, "full", p) for p in ("", "val_"))
    best = analysis.best_on_validation(rows.assign(both=both, val_both=val), "both")
    mask = str(best.groupby("family")["val_both"].mean()[list(masks)].idxmax())
    minus = paired(best, "both", rivals, mask).set_index("family")
    trails = [rival for rival, row in minus.iterrows() if verb(row) == "trails"]
    furthest = minus.sort_values("difference", ascending=False, kind="stable")
    leads = {rival: row for rival, row in furthest.iterrows() if verb(row) == "leads"}
    there = f"the best learnt mask there, {called(mask)}"
    said = f"At one setting, no rival leads {there}."
    if leads:
        said = f"At one setting, {leading(list(leads))} {there}, by {sizes(leads.values())} points of accuracy."
    led = [f"At one setting, {called(mask)} leads {with_tuning(trails)}."] if trails else []
    return leads, [said, *led]


def task_known(records: pd.DataFrame) -> Finding:
    """The best learnt mask beside its best rival, beside the best of no more bits and of none, and what is reached with more bits.

    Best is the highest mean of both tasks on validation. Others are all approaches that learn no mask, masks that nobody learns too;
    rivals are those of them that store at most `ABOUT` times the bits of the mask.
    """
    rows, means = tried(records)
    masks, others = means[means["mask"]], means[~means["mask"]]
    none = Finding("Task known", ["The records hold no learnt masks beside rivals whose bits are known."])
    if masks.empty:
        return none
    best = means.loc[mask := masks["val_both"].idxmax()]
    near = others[others["bits"] <= ABOUT * best["bits"]]
    if near.empty:
        return none
    other = means.loc[rival := near["val_both"].idxmax()]
    row = _minus(rows, "both", mask, rival)
    ahead, spread = on_pairs(by_pair(rows, "both", mask, rival, by="candidate"))
    gained, decides = _gained(rows, mask, rival, called(other["approach"]), row)
    setting = f"{called(best['approach'])} at density {best['density']:g}"
    beside = f"its best rival, {called(other['approach'])}, {points(other['both'])} with {kbit(other)}"
    told = [f"{setting} reaches {points(best['both'])} with {kbit(best)}, {beside}.", f"The mask {versus(row, 'it')}."]
    short = f"a learnt mask {verb(decides)} its best rival{', without its gain on the source too' * bool(gained)}"
    short += ", but not for certain" * in_doubt(decides)
    on = [*_on_each_pair(rows, near, mask, bool(gained)), *([f"The mask {ahead}."] if ahead else [])]
    cheaper, dearer = _cheaper(rows, near, mask, best, rival), _dearer(best, others)
    return Finding("Task known", told, [*gained, *on, *spread, *cheaper, *dearer], short)


def _gained(rows: pd.DataFrame, mask: int, rival: int, whom: str, row: pd.Series) -> tuple[list[str], pd.Series]:
    """A sentence if the source network answers better through the `mask` than before the transfer, and the comparison without that gain.

    Without a gain of `GAIN` on average nothing is said, and the comparison is `row` itself.
    """
    own = rows[rows["candidate"] == mask]
    gains = 200 * (own["both"] - own["both_before"]).groupby(own["pair"]).mean()  # of the source, which is half of both
    if gains.mean() < 100 * GAIN:
        return [], row
    without = _minus(rows, "both_before", mask, rival)
    spread = f" ({gains.min():+.1f} to {gains.max():+.1f} by pair)" if len(gains) > 1 else ""
    told = f"Through the mask the source is {gains.mean():.1f} points better than before{spread}; without that gain it reaches"
    return [f"{told} {points(own['both_before'].mean())} and {versus(without, whom)}."], without


def _on_each_pair(rows: pd.DataFrame, near: pd.DataFrame, mask: int, gained: bool) -> list[str]:
    """A sentence on the `mask` beside the best of the rivals `near` on each pair, without its gain if it `gained`; none for one pair."""
    found = [against_best(own, near, mask, gained) for _, own in rows.groupby("pair")]
    leads, trails = ([row for row in found if verb(row) == word] for word in ("leads", "trails"))
    without = " and without that gain" * gained
    told = f"Beside the best rival of each pair{without}, it leads on {len(leads) or 'none'} of {len(found)}{_unsure(leads)} "
    told += f"and trails on {len(trails) or 'none'}{_unsure(trails).rstrip(',')}."
    return [told] if len(found) > 1 else []


def _unsure(rows: Sequence[pd.Series]) -> str:
    """How many of `rows` are not in doubt, between commas; nothing where all are."""
    sure = len(rows) - sum(map(in_doubt, rows))
    if sure == len(rows):
        return ""
    return f", {sure} of them for certain," if sure else ", not for certain,"


def against_best(rows: pd.DataFrame, near: pd.DataFrame, mask: int, gained: bool) -> pd.Series:
    """The row of `paired` of the `mask` against the one of `near` that is best in `rows` on validation; see `_on_each_pair`."""
    reached = rows[rows["candidate"].isin(near.index)].groupby("candidate")["val_both"].mean()
    return _minus(rows, "both_before" if gained else "both", mask, reached.round(analysis.DECIMALS).idxmax())


def _minus(rows: pd.DataFrame, value: str, mask: int, rival: int) -> pd.Series:
    """The row of `paired` of one candidate against another."""
    return paired(rows, value, [mask], rival, by="candidate").iloc[0]


def _dearer(best: pd.Series, others: pd.DataFrame) -> list[str]:
    """A sentence on what is reached with more bits than a rival's, if it is more than the setting `best` reaches."""
    better = others[(others["bits"] > ABOUT * best["bits"]) & (others["val_both"] > best["val_both"])]
    cheapest = better[~better["whole"]].sort_values(["bits", "val_both"], ascending=[True, False])[:1]
    dearer = pd.concat([cheapest, better[better["whole"]]])
    reached = [
        f"{called(row['approach'])} ({kbit(row)}) {'' if i else 'reaches '}{points(row['both'])}"
        for i, (_, row) in enumerate(dearer.iterrows())
    ]
    return [f"With more bits, {listed(reached)}."] if reached else []


def _cheaper(rows: pd.DataFrame, near: pd.DataFrame, mask: int, best: pd.Series, rival: int) -> list[str]:
    """Sentences on the best of the rivals `near` beside `rival`: of fewer bits, without a mask, of no bits."""
    tables = {
        "that stores no more": near[near["bits"] <= best["bits"]],
        "without a mask": near[~near["unlearnt"]],
        "that stores nothing": near[near["bits"] == 0],
    }
    said = {rival: ""}
    for which, table in tables.items():
        if len(table) and (other := table["val_both"].idxmax()) not in said:
            named = f"the best rival {which} ({called(table.approach[other])}, {kbit(table.loc[other])})"
            said[other] = f"The mask {versus(_minus(rows, 'both', mask, other), named)}."
    return list(filter(None, said.values()))


def learn_no_mask() -> list[str]:
    """The approaches that learn no mask, masks that nobody learns among them."""
    return [a.name for a in every() if a.kind in ("baseline", "control", "reference") and not a.learns_mask]


def tried(records: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Rows of learnt masks and of rivals with `candidate` and `both`, and a row for each setting tried on every pair of domains.

    `both_before` is `both` with a learnt mask read as the source network was read before the transfer: it neither gains nor loses.

    Columns of the settings: approach, density, mask (is it learnt), unlearnt (is it a mask that nobody learns), whole (is it a
    second network), bits, both and val_both.
    """
    rows = candidates(records, task_known=True)
    mask = analysis.learnt(rows)
    rows = rows.assign(
        mask=mask,
        unlearnt=of_masks(rows) & ~mask,
        whole=analysis.of_second_network(rows) & (rows["alpha"] == 1),
        both=analysis.both_tasks(rows, "known"),
        both_before=(rows["source"].mask(mask, rows["source_acc_before"]) + rows["target_acc"]) / 2,
        val_both=analysis.both_tasks(rows, "known", "val_"),
    )[(mask | analysis.trained(rows).isin(learn_no_mask())) & rows["bits"].notna()]
    about = ["approach", "density", "mask", "unlearnt", "whole"]
    means = analysis.tried_everywhere(rows, about, ["bits", "both", "val_both"])
    return rows, means.round({"val_both": analysis.DECIMALS})
