"""Claims on masks against their rivals: with the task known at equal bits, with the task unknown, and against WiSE-FT."""

from collections.abc import Sequence

from maskutils.core.approaches import every, names, the
from maskutils.core.checks import needs
from maskutils.core.storage import whole_network
from maskutils.results import analysis, choice, statistics
from maskutils.results.records import of_masks
from maskutils.results.verdicts import (
    ACCURACY,
    BOX,
    Found,
    Skip,
    claim,
    closest,
    compared,
    minus_each,
    opponents,
    rankings,
    tuned_for_known,
)
from maskutils.results.wording import intervals, settings

with needs("study"):
    import pandas as pd

ELASTIC = ("elastic_mask", "elastic_mask (shuffled)", "elastic_mask (magnitude)", "l2_sp")  # ours, and its controls
MARGIN = 0.02  # of the hypervolume: the most that "not worse than WiSE-FT" may lose; fixed before the study was run
LOSS = 0.02  # the most source accuracy that a mask may lose on validation to stand for masks, with the task known
BEHIND = 0.01  # target accuracy that it may lie behind two networks
KNOWN, UNKNOWN = "With the task known", "With the task unknown"


@claim(
    f"{KNOWN}, a learnt mask beats every rival that stores no more bits.",
    holds="Where the task is known and bits are scarce, a mask is the best use of them.",
    fails="For the same bits a rival without a mask is as good.",
)
def masks_win_at_equal_bits(records: pd.DataFrame) -> Found:
    """Masks may lose at most 2 points of the source. A rival takes no mask, stores no more bits and loses no more of the source.

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
        raise Skip("the records hold no learnt mask beside an approach that stores no more and loses no more")
    mask = max(leads, key=lambda m: leads[m])
    passed, effect, evidence = _ahead(rows, means, mask, best[mask], 0.0)
    shown = [_ahead(rows, means, m, rival, 0.0)[0] for m, rival in best.items()]
    said = f"; {sum(lead > 0 for lead in leads.values())} of {len(leads)} settings of masks lead on validation, {sum(shown)} on test"
    return passed, effect + said, evidence


def _best_rival(mask: pd.Series, others: pd.DataFrame) -> int | None:
    """The one of `others` with the best target of those that store no more bits than `mask` and lose no more of the source."""
    met = others[(others["bits"] <= mask["bits"]) & (others["drop"] <= max(mask["drop"], 0.0))]
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
    two = means[means["protocol"].isin([a.name for a in every() if a.bits is whole_network]) & (means["alpha"] == 1)]
    masks = means[means["learnt"] & (means["drop"] <= LOSS)]
    if two.empty or masks.empty:
        raise Skip("the records hold no two networks, or no learnt mask that loses so little")
    return _ahead(rows, means, masks["target"].idxmax(), two["target"].idxmax(), -BEHIND)


def _candidates(records: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Rows with the task known, and for each setting tried on every pair its description and validation means."""
    rows = choice.candidates(records, task_known=True)
    learnt = of_masks(rows) & rows["method"].isin(names("mask")) & (rows["alpha"] == 1)  # read through the mask
    groups = rows.assign(learnt=learnt).groupby("candidate")
    means = groups[["approach", "protocol", "learnt", *analysis.CANDIDATE[1:]]].first()
    means = means.join(groups.agg(bits=("bits", "mean"), drop=("val_drop", "mean"), target=("val_target_acc", "mean")))
    means = means[groups["pair"].nunique() == rows["pair"].nunique()]
    return rows, means.round({"bits": 0, "drop": analysis.DIGITS, "target": analysis.DIGITS})


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


@claim(
    f"{KNOWN}, learning a mask beats ranking the weights.",
    holds="The steps that learn the mask are well spent.",
    fails="No lead is shown over some ranking, by size or by gradients, which costs next to nothing.",
)
def masks_beat_unlearnt_masks(records: pd.DataFrame) -> Found:
    """The best family of learnt masks, by validation, has a larger hypervolume than each ranking: the 95 % intervals lie above 0."""
    return _beats(records, "known", names("mask"), rankings())


@claim(
    f"{KNOWN}, a learnt mask beats PackNet, which retrains the kept weights.",
    holds="Learning which weights to keep is worth more than retraining them.",
    fails="No lead is shown over PackNet, which keeps the largest weights and retrains them.",
)
def masks_beat_retrained_masks(records: pd.DataFrame) -> Found:
    """The best family of learnt masks, by validation, has a larger hypervolume: the whole 95 % interval lies above 0."""
    return _beats(records, "known", names("mask"), [a.name for a in every() if a.opponent and "mask" in a.needs])


@claim(
    f"{UNKNOWN}, learnt masks beat every opponent.",
    holds="A mask is the best choice even if the task is unknown.",
    fails="Where the task is unknown, do not choose a mask: some opponent is as good or better.",
)
def masks_beat_every_opponent(records: pd.DataFrame) -> Found:
    """The best family of learnt masks, by validation, has a larger hypervolume than each opponent: the 95 % intervals lie above 0."""
    return _beats(records, "full", names("mask"), [a.name for a in every() if a.opponent])


@claim(
    f"{UNKNOWN}, our elastic mask beats the strongest opponent.",
    holds="The elastic mask is the best choice if the task is unknown.",
    fails="Our own method does not win: choose that opponent.",
)
def elastic_mask_beats_the_strongest(records: pd.DataFrame) -> Found:
    """The strongest is the opponent with the largest hypervolume on validation; the 95 % interval on test must lie above 0."""
    areas = analysis.hypervolumes(records, split="val_")
    return _beats(records, "full", [ELASTIC[0]], [_best_of(areas, opponents(areas))])


def _beats(records: pd.DataFrame, reading: str, families: Sequence[str], others: Sequence[str]) -> Found:
    """Whether the best of `families` (by validation) has a larger hypervolume than each of `others`."""
    areas = analysis.hypervolumes(records, reading)
    best = _best_of(analysis.hypervolumes(records, reading, split="val_"), families)
    others = [name for name in others if name in set(areas["family"])]
    if not others:
        raise Skip("the records hold none of these opponents")
    rows = minus_each(areas, "hypervolume", best, others)
    effect = closest(rows, BOX) + tuned_for_known(reading, others)
    return bool((rows["low"] > 0).all()), effect, compared(rows, areas, "hypervolume", BOX)


def _best_of(areas: pd.DataFrame, families: Sequence[str]) -> str:
    """The one of `families` with the largest mean hypervolume. Raises `Skip` if there is none of them."""
    means = areas[areas["family"].isin(families)].groupby("family")["hypervolume"].mean()
    if means.empty:
        raise Skip("the records hold none of these masks or none of their opponents")
    return str(means.idxmax())


@claim(
    f"{UNKNOWN}, learnt masks are not worse than WiSE-FT.",
    holds="Over these pairs, a mask costs little against interpolation, which is free.",
    fails="Interpolation towards the source, which is free, may be better.",
)
def masks_against_strong_baselines(records: pd.DataFrame) -> Found:
    """The best family of learnt masks, by validation, minus WiSE-FT in hypervolume: the 95 % interval lies above -2 points of the box."""
    return _not_worse(records, names("mask"), "full")


@claim(
    f"{KNOWN}, learnt masks are not worse than WiSE-FT.",
    holds="Read through the mask, masks do not lose to interpolation.",
    fails="Even if the task is known, interpolation, which is free, may be better.",
)
def masks_against_strong_baselines_through_the_mask(records: pd.DataFrame) -> Found:
    """The best family of learnt masks, by validation, minus WiSE-FT in hypervolume, with the source read through the mask.

    The 95 % interval lies above -2 points of the box.
    """
    return _not_worse(records, names("mask"), "known")


@claim(
    f"{UNKNOWN}, learnt masks are not worse than WiSE-FT without their best pair either.",
    holds="The verdict does not hang on one pair of domains.",
    fails="What masks gain over WiSE-FT comes from one pair of domains.",
)
def masks_against_strong_baselines_without_their_best_pair(records: pd.DataFrame) -> Found:
    """The pair on which masks lead WiSE-FT most is left out; on the others the 95 % interval lies above -2 points of the box."""
    return _not_worse(records, names("mask"), "full", all_pairs=False)


@claim(
    f"{KNOWN}, learnt masks are not worse than WiSE-FT without their best pair either.",
    holds="The verdict does not hang on one pair of domains.",
    fails="What masks gain over WiSE-FT comes from one pair of domains.",
)
def masks_with_the_task_known_without_their_best_pair(records: pd.DataFrame) -> Found:
    """Masks are read through the mask, and the pair on which they lead WiSE-FT most is left out.

    On the others the 95 % interval lies above -2 points of the box.
    """
    return _not_worse(records, names("mask"), "known", all_pairs=False)


@claim(
    f"{UNKNOWN}, our elastic mask is not worse than WiSE-FT.",
    holds="The elastic mask costs little against interpolation.",
    fails="Interpolation may be better than the elastic mask.",
)
def elastic_mask_against_strong_baselines(records: pd.DataFrame) -> Found:
    """The elastic mask, interpolated too, minus WiSE-FT in hypervolume: the 95 % interval lies above -2 points of the box."""
    return _not_worse(records, [ELASTIC[0]], "full")


def _not_worse(records: pd.DataFrame, families: Sequence[str], reading: str, all_pairs: bool = True) -> Found:
    """Non-inferiority: the lower end of the 95 % interval of the best family minus WiSE-FT in hypervolume is above -`MARGIN`."""
    yardstick = the("yardstick")
    if yardstick not in set(records["approach"]):  # its family alone may be nothing but fine-tuning
        raise Skip("the records hold no WiSE-FT")
    best = _best_of(analysis.hypervolumes(records, reading, split="val_"), families)
    areas, without = analysis.hypervolumes(records, reading), ""
    if not all_pairs:
        on = statistics.by_pair(areas, "hypervolume", best, yardstick)
        if len(on) < 2:
            raise Skip("the records hold a single pair of domains")
        records, areas = (table[table["pair"] != on.index[-1]] for table in (records, areas))
        without = f"without {on.index[-1]} ({100 * on.iloc[-1]:+.1f}): "
    rows = minus_each(areas, "hypervolume", best, opponents(areas))
    value = "harmonic" if reading == "full" else "harmonic_known"
    means = analysis.best_of_family(records, value)
    by_mean = minus_each(means, value, best, opponents(means))
    told = rows["against"].map(dict(zip(by_mean["against"], intervals(by_mean), strict=True)))
    evidence = compared(rows, areas, "hypervolume", BOX)
    evidence.insert(2, "points of the harmonic mean of retention and adaptation", told.fillna(""))
    decides = rows[rows["against"] == yardstick]
    return bool(decides["low"].item() > -MARGIN), without + closest(decides, BOX), evidence


@claim(
    "The elastic mask owes its gain to the learnt mask.",
    holds="It matters which weights are held firmly, and the mask finds them.",
    fails="No lead is shown over every other way to set how firmly weights are held.",
)
def elastic_mask_owes_it_to_the_mask(records: pd.DataFrame) -> Found:
    """It has a larger hypervolume than its controls, whose strengths are shuffled, dealt out by magnitude, or constant (L2-SP).

    p < 0.05 after Holm's correction, and the 95 % interval lies above 0.
    """
    elastic, *controls = ELASTIC
    areas = analysis.hypervolumes(records)
    if not set(ELASTIC) <= set(areas["family"]):
        raise Skip("the records hold no elastic masks with all controls")
    rows = minus_each(areas, "hypervolume", elastic, controls)
    # there is no p where the difference is the same on every seed
    passed = (rows["low"] > 0) & ~(statistics.holm(rows["p"]) >= 0.05)
    return bool(passed.all()), closest(rows, BOX), compared(rows, areas, "hypervolume", BOX)


def minus_wise_ft(records: pd.DataFrame, reading: str = "full") -> pd.DataFrame:
    """Hypervolume of each family of masks and of each other opponent minus that of WiSE-FT: rows of `statistics.paired`."""
    areas, yardstick = analysis.hypervolumes(records, reading), the("yardstick")
    shown = [n for n in (*names("mask"), ELASTIC[0], *opponents(areas)) if n in set(areas["family"]) - {yardstick}]
    return statistics.paired(areas, "hypervolume", shown, yardstick)
