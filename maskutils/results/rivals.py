"""Claims on masks against their rivals by their whole curves: in both readings, and against WiSE-FT."""

from collections.abc import Sequence

import pandas as pd

from maskutils.core.approaches import every, names, the
from maskutils.results import analysis, fronts, statistics
from maskutils.results.verdicts import (
    BOX,
    KNOWN,
    UNKNOWN,
    Found,
    Skip,
    claim,
    closest,
    evidence_of,
    minus_each,
    rankings,
    rivals_in,
    surely_above,
    tuned_for,
)
from maskutils.results.wording import intervals

ELASTIC = ("elastic_mask", "elastic_mask (shuffled)", "elastic_mask (magnitude)", "l2_sp")  # ours, and its controls
BESIDE = (ELASTIC[0], "fisher", "snip", "lwf")  # no rivals of the claims, but shown with them
MARGIN = 0.02  # of the hypervolume: the most that "not worse than WiSE-FT" may lose; fixed before the study was run


@claim(
    f"{KNOWN}, a learnt mask beats every ranking that is not learnt.",
    holds="The steps that learn the mask are well spent.",
    fails="No lead is shown over every ranking by size or gradient, which costs next to nothing.",
)
def masks_beat_unlearnt_masks(records: pd.DataFrame) -> Found:
    """The best family of learnt masks, by validation, has a larger hypervolume than each: the 95 % intervals lie above 0."""
    return _beats(records, "known", names("mask"), rankings())


@claim(
    f"{KNOWN}, a learnt mask beats PackNet, which retrains the kept weights.",
    holds="Learning which weights to keep is worth more than retraining them.",
    fails="No lead is shown over PackNet, which keeps the largest weights and retrains them.",
)
def masks_beat_retrained_masks(records: pd.DataFrame) -> Found:
    """The best family of learnt masks, by validation, has a larger hypervolume: the whole 95 % interval lies above 0."""
    return _beats(records, "known", names("mask"), [a.name for a in every() if a.rival and "mask" in a.needs])


@claim(
    f"{UNKNOWN}, learnt masks beat every rival.",
    holds="A mask is the best choice even if the task is unknown.",
    fails="Where the task is unknown, look at the rivals first: masks are not shown to lead them all.",
)
def masks_beat_every_rival(records: pd.DataFrame) -> Found:
    """The best family of learnt masks, by validation, has a larger hypervolume than each rival: the 95 % intervals lie above 0."""
    return _beats(records, "full", names("mask"), [a.name for a in every() if a.rival])


@claim(
    f"{UNKNOWN}, our elastic mask beats the strongest rival.",
    holds="The elastic mask is the best choice if the task is unknown.",
    fails="Our own method is not shown to win: look at that rival first.",
)
def elastic_mask_beats_the_strongest(records: pd.DataFrame) -> Found:
    """The strongest is the rival with the largest hypervolume on validation; the 95 % interval on test must lie above 0."""
    strongest = _best_of(records, "full", [a.name for a in every() if a.rival])
    return _beats(records, "full", [ELASTIC[0]], [strongest])


def _beats(records: pd.DataFrame, reading: str, families: Sequence[str], others: Sequence[str]) -> Found:
    """Whether the best of `families` (by validation) has a larger hypervolume than each of `others`."""
    areas, best = fronts.hypervolumes(records, reading), _best_of(records, reading, families)
    others = [name for name in others if name in set(areas["family"])]
    if not others:
        raise Skip("the records hold none of these rivals")
    rows = minus_each(areas, "hypervolume", best, others)
    evidence = evidence_of(rows, areas, "hypervolume", BOX).assign(**tuned_for(reading, rows["against"]))
    return bool((rows["low"] > 0).all()), closest(rows, BOX), evidence


def _best_of(records: pd.DataFrame, reading: str, families: Sequence[str]) -> str:
    """The one of `families` with the largest mean hypervolume on validation. Raises `Skip` if there is none of them."""
    if not (best := fronts.largest(fronts.hypervolumes(records, reading, split="val_"), families)):
        raise Skip("the records hold none of these masks or none of their rivals")
    return best


@claim(
    f"{UNKNOWN}, learnt masks are not worse than WiSE-FT by 2 points or more.",
    holds="Over these pairs, a mask trails interpolation, which is free, by less than 2 points, if at all.",
    fails="Interpolation towards the source, which is free, may be better.",
)
def masks_against_strong_baselines(records: pd.DataFrame) -> Found:
    """The best family of learnt masks, by validation, minus WiSE-FT: the 95 % interval lies above -2 points of hypervolume."""
    return _not_worse(records, names("mask"), "full")


@claim(
    f"{KNOWN}, learnt masks are not worse than WiSE-FT by 2 points or more.",
    holds="Read through the mask, masks trail interpolation by less than 2 points, if at all.",
    fails="Even if the task is known, interpolation, which is free, may be better.",
)
def masks_against_strong_baselines_through_the_mask(records: pd.DataFrame) -> Found:
    """The best family of learnt masks, by validation, minus WiSE-FT, with the source read through the mask.

    The 95 % interval lies above -2 points of hypervolume.
    """
    return _not_worse(records, names("mask"), "known")


@claim(
    f"{UNKNOWN}, learnt masks are not worse than WiSE-FT by 2 points or more without their best pair either.",
    holds="Without that pair, too, a mask trails interpolation by less than 2 points, if at all.",
    fails="Without that pair, interpolation, which is free, may be better.",
)
def masks_against_strong_baselines_without_their_best_pair(records: pd.DataFrame) -> Found:
    """The pair on which masks lead WiSE-FT most is left out; on the others the 95 % interval lies above -2 points of hypervolume."""
    return _not_worse(records, names("mask"), "full", all_pairs=False)


@claim(
    f"{KNOWN}, learnt masks are not worse than WiSE-FT by 2 points or more without their best pair either.",
    holds="Without that pair, too, a mask trails interpolation by less than 2 points, if at all.",
    fails="Without that pair, interpolation, which is free, may be better.",
)
def masks_with_the_task_known_without_their_best_pair(records: pd.DataFrame) -> Found:
    """Masks are read through the mask, and the pair on which they lead WiSE-FT most is left out.

    On the others the 95 % interval lies above -2 points of hypervolume.
    """
    return _not_worse(records, names("mask"), "known", all_pairs=False)


@claim(
    f"{UNKNOWN}, our elastic mask is not worse than WiSE-FT by 2 points or more.",
    holds="The elastic mask trails interpolation by less than 2 points, if at all.",
    fails="Interpolation may be better than the elastic mask.",
)
def elastic_mask_against_strong_baselines(records: pd.DataFrame) -> Found:
    """The elastic mask, interpolated too, minus WiSE-FT: the 95 % interval lies above -2 points of hypervolume."""
    return _not_worse(records, [ELASTIC[0]], "full")


def _not_worse(records: pd.DataFrame, families: Sequence[str], reading: str, all_pairs: bool = True) -> Found:
    """Non-inferiority: the lower end of the 95 % interval of the best family minus WiSE-FT in hypervolume is above -`MARGIN`."""
    yardstick = the("yardstick")
    if yardstick not in set(records["approach"]):  # its family alone may be nothing but fine-tuning
        raise Skip("the records hold no WiSE-FT")
    best = _best_of(records, reading, families)
    areas, without = fronts.hypervolumes(records, reading), ""
    if not all_pairs:
        on = statistics.by_pair(areas, "hypervolume", best, yardstick)
        if len(on) < 2:
            raise Skip("the records hold a single pair of domains")
        records, areas = (table[table["pair"] != on.index[-1]] for table in (records, areas))
        without = f"without {on.index[-1]} ({100 * on.iloc[-1]:+.1f}): "
    rows = minus_each(areas, "hypervolume", best, rivals_in(areas))
    value = "harmonic" if reading == "full" else "harmonic_known"
    means = analysis.best_of_family(records, value)
    by_mean = minus_each(means, value, best, rivals_in(means))
    told = rows["against"].map(dict(zip(by_mean["against"], intervals(by_mean), strict=True)))
    evidence = evidence_of(rows, areas, "hypervolume", BOX)
    evidence.insert(2, "points of the harmonic mean of retention and adaptation", told.fillna(""))
    evidence = evidence.assign(**tuned_for(reading, rows["against"]))
    decides = rows[rows["against"] == yardstick]
    return bool(decides["low"].item() > -MARGIN), without + closest(decides, BOX, least=-MARGIN), evidence


@claim(
    "The elastic mask owes its gain to the learnt mask.",
    holds="It matters which weights are held firmly. On which pairs, the evidence says.",
    fails="No lead is shown over every other way to set how firmly weights are held.",
)
def elastic_mask_owes_it_to_the_mask(records: pd.DataFrame) -> Found:
    """It has a larger hypervolume than its controls, whose strengths are shuffled, dealt out by magnitude, or constant (L2-SP).

    p < 0.05 after Holm's correction, and the 95 % interval lies above 0. The closest is told also without the pair on which it leads the
    shuffled one most.
    """
    elastic, *controls = ELASTIC
    areas = fronts.hypervolumes(records)
    if not set(ELASTIC) <= set(areas["family"]):
        raise Skip("the records hold no elastic masks with all controls")
    rows = minus_each(areas, "hypervolume", elastic, controls)
    evidence = evidence_of(rows, areas, "hypervolume", BOX)
    best = statistics.by_pair(areas, "hypervolume", elastic, controls[0]).index[-1]
    others, told = areas[areas["pair"] != best], closest(rows, BOX)
    if len(others):
        told += f"; without {best}, {closest(minus_each(others, 'hypervolume', elastic, controls), BOX)}"
    return surely_above(rows), told, evidence


def minus_wise_ft(records: pd.DataFrame, reading: str = "full") -> pd.DataFrame:
    """Hypervolume of each family of masks, each rival and each of `BESIDE` minus that of WiSE-FT: rows of `statistics.paired`."""
    areas, yardstick = fronts.hypervolumes(records, reading), the("yardstick")
    every_family = (*names("mask"), *rivals_in(areas), *BESIDE)
    shown = [name for name in every_family if name in set(areas["family"]) - {yardstick}]
    return statistics.paired(areas, "hypervolume", shown, yardstick)
