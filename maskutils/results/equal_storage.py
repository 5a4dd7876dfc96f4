"""Claims on what a mask buys for its bits, with the task known: against rivals of as many or a few more, and against two networks."""

import pandas as pd

from maskutils.core.approaches import every
from maskutils.results import analysis, choice, statistics
from maskutils.results.verdicts import ACCURACY, KNOWN, Found, Skip, claim, closest, evidence_of
from maskutils.results.wording import settings

LOSS = 0.02  # the most source accuracy that a mask may lose on validation to stand for masks
BEHIND_TWO = 0.01  # target accuracy that it may lie behind two networks
ABOUT = 1.25  # times the bits of a mask that a rival may store: the rivals' knobs have few values, and one may lie just above


@claim(
    f"{KNOWN}, at some density a learnt mask beats, on the target, every rival without a mask that stores at most a quarter more.",
    holds="On the target alone, a mask can lead the rivals of its size. The findings compare both tasks.",
    fails="No lead is shown over the best rival that stores at most a quarter more.",
)
def masks_win_at_similar_bits(records: pd.DataFrame) -> Found:
    """Masks may lose at most 2 points of the source. A rival has no mask, stores at most a quarter more bits, and loses no more.

    Of the masks the one with the largest lead on the target, by validation, is read on test: its 95 % interval must lie above 0.
    """
    rows, means = _settings(records)
    masks = means[means["learnt"] & (means["val_drop"] <= LOSS)]
    without = [a.name for a in every() if a.choosable and not (a.learns_mask or "mask" in a.needs or a.named_by_mask)]
    others = means[means["protocol"].isin(without)]
    best, leads = {}, {}
    for number, mask in masks.iterrows():
        met = others[(others["bits"] <= ABOUT * mask["bits"]) & (others["val_drop"] <= max(mask["val_drop"], 0.0))]
        if len(met):
            best[number] = met["val_target_acc"].idxmax()
            leads[number] = mask["val_target_acc"] - met["val_target_acc"].max()
    if not leads:
        raise Skip(
            "the records hold no learnt mask beside an approach that stores at most a quarter more and loses no more"
        )
    mask = max(leads, key=leads.__getitem__)
    minus = pd.concat([statistics.paired(rows, "target_acc", [m], r, by="candidate") for m, r in best.items()])
    passed, effect, evidence = _ahead(rows, means, mask, best[mask], 0.0)
    ahead, shown, sure = (sum(x > 0 for x in found) for found in (leads.values(), minus["low"], minus["low_corrected"]))
    said = f"; {ahead} of {len(leads)} settings of masks lead on validation, {shown} on test by their interval"
    said += f", {sure} by the corrected one" * (sure != shown)
    return passed, effect + said, evidence


@claim(
    f"{KNOWN}, a learnt mask reaches two networks on the target, within a point.",
    holds="On the target a mask does the work of a second network, at a small part of its bits. It may lose a little of the source.",
    fails="Two networks may be better on the target by more than a point, at many times the bits.",
)
def masks_reach_two_networks(records: pd.DataFrame) -> Found:
    """Of the masks that lose at most 2 points of the source the best on the target, by validation, is read on test.

    Its target accuracy minus that of two networks must lie above -1 point, the whole 95 % interval.
    """
    rows, means = _settings(records)
    two = means[analysis.of_second_network(means) & (means["alpha"] == 1)]
    masks = means[means["learnt"] & (means["val_drop"] <= LOSS)]
    if two.empty or masks.empty:
        raise Skip("the records hold no two networks, or no learnt mask that loses so little")
    return _ahead(rows, means, masks["val_target_acc"].idxmax(), two["val_target_acc"].idxmax(), -BEHIND_TWO)


def _settings(records: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Rows with the task known, and for each setting tried on every pair its description and validation means."""
    rows = choice.candidates(records, task_known=True)
    rows = rows.assign(learnt=analysis.learnt(rows))
    values = {"bits": 0, "val_drop": analysis.DECIMALS, "val_target_acc": analysis.DECIMALS}
    means = analysis.tried_everywhere(rows, [*analysis.CANDIDATE, "protocol", "learnt"], list(values))
    return rows, means.round(values)


def _ahead(rows: pd.DataFrame, means: pd.DataFrame, of: int, against: int, least: float) -> Found:
    """Whether the test target of setting `of` minus that of `against` lies above `least`, and the numbers of both."""
    mask, rival = (_described(rows, means, number) for number in (of, against))
    rows = rows.assign(candidate=rows["candidate"].map({of: mask, against: rival}))
    difference = statistics.paired(rows, "target_acc", [mask], rival, by="candidate")
    evidence = evidence_of(difference, rows, "target_acc", ACCURACY, by="candidate")
    return bool(difference["low"].item() > least), closest(difference, ACCURACY, "candidate", least), evidence


def _described(rows: pd.DataFrame, means: pd.DataFrame, number: int) -> str:
    """A setting with what it stores, and the source accuracy lost and the target reached on test."""
    own, about = rows[rows["candidate"] == number], means.loc[number]
    bits, of = f"{about['bits'] / 1e3:.0f} kbit", settings(about)
    read = f"source lost {100 * own['drop'].mean():.1f}, target {100 * own['target_acc'].mean():.1f}"
    return f"{about['approach']} ({of + '; ' if of else ''}{bits}, {read})"
