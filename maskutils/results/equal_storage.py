"""Claims on what a mask buys for its bits, with the task known: against rivals of as many or a few more, and against two networks."""

import pandas as pd

from maskutils.core.approaches import every
from maskutils.results import analysis, choice, statistics
from maskutils.results.verdicts import ACCURACY, KNOWN, Found, Skip, claim, closest, compared
from maskutils.results.wording import settings

LOSS = 0.02  # the most source accuracy that a mask may lose on validation to stand for masks
BEHIND = 0.01  # target accuracy that it may lie behind two networks
ABOUT = 1.25  # times the bits of a mask that a rival may store: the rivals' knobs have few values, and one may lie just above


@claim(
    f"{KNOWN}, at some density a learnt mask beats, on the target, every rival without a mask that stores at most a quarter more.",
    holds="Where the task is known and bits are scarce, a mask is worth its bits.",
    fails="No lead is shown over the best rival that stores at most a quarter more.",
)
def masks_win_at_similar_bits(records: pd.DataFrame) -> Found:
    """Masks may lose at most 2 points of the source. A rival has no mask, stores at most a quarter more bits, and loses no more.

    Of the masks the one with the largest lead on the target, by validation, is read on test: its 95 % interval must lie above 0.
    """
    rows, means = _candidates(records)
    without = [
        a.name for a in every() if a.choosable and not a.learns_mask and "mask" not in a.needs and not a.named_by_mask
    ]
    masks, others = means[means["learnt"] & (means["drop"] <= LOSS)], means[means["protocol"].isin(without)]
    tried = {m: _best_rival(mask, others) for m, mask in masks.iterrows()}
    best = {m: rival for m, rival in tried.items() if rival is not None}
    leads = {m: masks.loc[m, "target"] - others.loc[rival, "target"] for m, rival in best.items()}
    if not leads:
        raise Skip(
            "the records hold no learnt mask beside an approach that stores at most a quarter more and loses no more"
        )
    mask = max(leads, key=lambda m: leads[m])
    shown = [
        statistics.paired(rows, "target_acc", [m], rival, by="candidate")["low"].item() > 0 for m, rival in best.items()
    ]
    passed, effect, evidence = _ahead(rows, means, mask, best[mask], 0.0)
    ahead = sum(lead > 0 for lead in leads.values())
    said = f"; {ahead} of {len(leads)} settings of masks lead on validation, {sum(shown)} on test by their interval"
    return passed, effect + said, evidence


def _best_rival(mask: pd.Series, others: pd.DataFrame) -> int | None:
    """The one of `others` with the best target of those that store at most `ABOUT` times what `mask` does and lose no more."""
    met = others[(others["bits"] <= ABOUT * mask["bits"]) & (others["drop"] <= max(mask["drop"], 0.0))]
    return None if met.empty else int(met["target"].idxmax())


@claim(
    f"{KNOWN}, a learnt mask is as good as two networks, within a point.",
    holds="A mask does the work of a second network, at a small part of its bits.",
    fails="Two networks may be better on the target by more than a point, at many times the bits.",
)
def masks_reach_two_networks(records: pd.DataFrame) -> Found:
    """Of the masks that lose at most 2 points of the source the best on the target, by validation, is read on test.

    Its target accuracy minus that of two networks must lie above -1 point, the whole 95 % interval.
    """
    rows, means = _candidates(records)
    two = means[analysis.of_second_network(means) & (means["alpha"] == 1)]
    masks = means[means["learnt"] & (means["drop"] <= LOSS)]
    if two.empty or masks.empty:
        raise Skip("the records hold no two networks, or no learnt mask that loses so little")
    return _ahead(rows, means, masks["target"].idxmax(), two["target"].idxmax(), -BEHIND)


def _candidates(records: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Rows with the task known, and for each setting tried on every pair its description and validation means."""
    rows = choice.candidates(records, task_known=True)
    groups = rows.assign(learnt=analysis.learnt(rows)).groupby("candidate")
    means = groups[["approach", "protocol", "learnt", *analysis.CANDIDATE[1:]]].first()
    means = means.join(groups.agg(bits=("bits", "mean"), drop=("val_drop", "mean"), target=("val_target_acc", "mean")))
    means = means[groups["pair"].nunique() == rows["pair"].nunique()]
    return rows, means.round({"bits": 0, "drop": analysis.DECIMALS, "target": analysis.DECIMALS})


def _ahead(rows: pd.DataFrame, means: pd.DataFrame, of: int, against: int, least: float) -> Found:
    """Whether the test target of setting `of` minus that of `against` lies above `least`, and the numbers of both."""
    named = {number: _described(rows, means, number) for number in (of, against)}
    rows = rows[rows["candidate"].isin(named)]
    rows = rows.assign(candidate=rows["candidate"].map(named))
    difference = statistics.paired(rows, "target_acc", [named[of]], named[against], by="candidate")
    evidence = compared(difference, rows, "target_acc", ACCURACY, by="candidate")
    return bool(difference["low"].item() > least), closest(difference, ACCURACY, by="candidate"), evidence


def _described(rows: pd.DataFrame, means: pd.DataFrame, number: int) -> str:
    """A setting with what it stores, and the source accuracy lost and the target reached on test."""
    own, about = rows[rows["candidate"] == number], means.loc[number]
    bits, of = f"{about['bits'] / 1e3:.0f} kbit", settings(about)
    read = f"source lost {100 * own['drop'].mean():.1f}, target {100 * own['target_acc'].mean():.1f}"
    return f"{about['approach']} ({of + '; ' if of else ''}{bits}, {read})"
