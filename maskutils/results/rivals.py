"""Claims on masks against their rivals: with the task known at equal bits, with the task unknown, and against WiSE-FT."""

from collections.abc import Sequence

from maskutils.core.approaches import every, names, the
from maskutils.core.checks import needs
from maskutils.core.storage import whole_network
from maskutils.results import analysis, choice, statistics
from maskutils.results.records import of_masks
from maskutils.results.verdicts import (
    Skip,
    by_pairs,
    claim,
    margin,
    minus_each,
    opponents,
    rankings,
    told,
    tuned_for_known,
)
from maskutils.results.wording import of_seeds, settings

with needs("study"):
    import pandas as pd

ELASTIC = ("elastic_mask", "elastic_mask (shuffled)", "elastic_mask (magnitude)", "l2_sp")  # ours, and its controls
MARGIN = 0.02  # of the hypervolume: the most that "not worse than WiSE-FT" may lose; fixed before the study was run
LOSS = 0.02  # the most source accuracy that a mask may lose on validation to stand for masks, with the task known
BEHIND = 0.01  # target accuracy that it may lie behind two networks
NOT_WORSE = f"not worse than WiSE-FT by more than {100 * MARGIN:g} points of the box (hypervolume, lower end of the 95 % interval)"
FULL, KNOWN = "with the full network", "with the task known"


@claim(
    f"{KNOWN}, some learnt mask that loses at most {100 * LOSS:g} points of the source is better on the target than every approach "
    "without a mask that stores no more bits and loses no more of the source"
)
def masks_win_at_equal_bits(records: pd.DataFrame) -> tuple[bool, str]:
    """The mask whose lead over its best rival is largest on validation leads on test too: the 95 % interval lies above 0."""
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
    mask, ahead = max(leads, key=lambda m: leads[m]), sum(lead > 0 for lead in leads.values())
    shown = [
        statistics.paired(rows, "target_acc", [m], rival, by="candidate")["low"].item() > 0 for m, rival in best.items()
    ]
    said = f"{ahead} of {len(leads)} settings of masks lead on validation, {sum(shown)} on test by their interval. The largest lead"
    return _ahead(rows, means, mask, best[mask], 0.0, said)


def _best_rival(mask: pd.Series, others: pd.DataFrame) -> int | None:
    """The one of `others` with the best target of those that store no more bits than `mask` and lose no more of the source."""
    met = others[(others["bits"] <= mask["bits"]) & (others["drop"] <= max(mask["drop"], 0.0))]
    return None if met.empty else int(met["target"].idxmax())


@claim(
    f"{KNOWN}, a learnt mask that loses at most {100 * LOSS:g} points of the source is at most {100 * BEHIND:g} point behind two "
    "networks on the target"
)
def masks_reach_two_networks(records: pd.DataFrame) -> tuple[bool, str]:
    """The best such mask by validation: the lower end of the 95 % interval of its target accuracy minus theirs is above -`BEHIND`."""
    rows, means = _candidates(records)
    two = means[means["protocol"].isin([a.name for a in every() if a.bits is whole_network]) & (means["alpha"] == 1)]
    masks = means[means["learnt"] & (means["drop"] <= LOSS)]
    if two.empty or masks.empty:
        raise Skip("the records hold no two networks, or no learnt mask that loses so little")
    return _ahead(rows, means, masks["target"].idxmax(), two["target"].idxmax(), -BEHIND, "The best mask")


def _candidates(records: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Rows with the task known, and for each setting tried on every pair its description and validation means."""
    rows = choice.candidates(records, task_known=True)
    learnt = of_masks(rows) & rows["method"].isin(names("mask")) & (rows["alpha"] == 1)  # read through the mask
    groups = rows.assign(learnt=learnt).groupby("candidate")
    means = groups[["approach", "protocol", "learnt", *analysis.CANDIDATE[1:]]].first()
    means = means.join(groups.agg(bits=("bits", "mean"), drop=("val_drop", "mean"), target=("val_target_acc", "mean")))
    means = means[groups["pair"].nunique() == rows["pair"].nunique()]
    return rows, means.round({"bits": 0, "drop": analysis.DIGITS, "target": analysis.DIGITS})


def _ahead(rows: pd.DataFrame, means: pd.DataFrame, of: int, against: int, least: float, said: str) -> tuple[bool, str]:
    """Whether the test target of setting `of` minus that of `against` lies above `least`, and the numbers of both."""
    difference = statistics.paired(rows, "target_acc", [of], against, by="candidate")
    who = [_described(rows, means, number) for number in (of, against)]
    lead = told(difference, "") + by_pairs(rows, "target_acc", of, against, by="candidate")
    evidence = f"{said}: {who[0]} against {who[1]}:{lead} points on the target ({of_seeds(difference['n'])})"
    return bool(difference["low"].item() > least), evidence


def _described(rows: pd.DataFrame, means: pd.DataFrame, number: int) -> str:
    """A setting with what it stores, and the source accuracy lost and the target reached on test."""
    own, about = rows[rows["candidate"] == number], means.loc[number]
    bits, of = f"{about['bits'] / 1e3:.0f} kbit", settings(about)
    read = f"source lost {100 * own['drop'].mean():.1f}, target {100 * own['target_acc'].mean():.1f}"
    return f"{about['approach']} ({of + '; ' if of else ''}{bits}, {read})"


@claim(f"{KNOWN}, the best family of learnt masks covers more than masks that nobody learns (hypervolume)")
def masks_beat_unlearnt_masks(records: pd.DataFrame) -> tuple[bool, str]:
    """Against each ranking that the records hold, but for the random mask: the whole 95 % interval lies above 0."""
    return _beats(records, "known", names("mask"), rankings())


@claim(
    f"{KNOWN}, the best family of learnt masks covers more than a mask whose weights are retrained on the source (hypervolume)"
)
def masks_beat_retrained_masks(records: pd.DataFrame) -> tuple[bool, str]:
    """The same against each opponent that takes a mask."""
    return _beats(records, "known", names("mask"), [a.name for a in every() if a.opponent and "mask" in a.needs])


@claim("with the task unknown, the best family of hard masks covers more than every opponent (hypervolume)")
def masks_beat_every_opponent(records: pd.DataFrame) -> tuple[bool, str]:
    """One set of weights serves both tasks. The whole 95 % interval lies above 0 for each opponent."""
    return _beats(records, "full", names("mask"), [a.name for a in every() if a.opponent])


@claim("with the task unknown, our elastic mask covers more than the strongest opponent (hypervolume)")
def elastic_mask_beats_the_strongest(records: pd.DataFrame) -> tuple[bool, str]:
    """The strongest is the opponent with the largest hypervolume on validation."""
    areas = analysis.hypervolumes(records, split="val_")
    return _beats(records, "full", [ELASTIC[0]], [_best_of(areas, opponents(areas))])


def _beats(records: pd.DataFrame, reading: str, families: Sequence[str], others: Sequence[str]) -> tuple[bool, str]:
    """Whether the best of `families` (by validation) has a larger hypervolume than each of `others`."""
    areas = analysis.hypervolumes(records, reading)
    best = _best_of(analysis.hypervolumes(records, reading, split="val_"), families)
    others = [name for name in others if name in set(areas["family"])]
    if not others:
        raise Skip("the records hold none of these opponents")
    rows = minus_each(areas, "hypervolume", best, others)
    said = told(rows, "{against}", {o: by_pairs(areas, "hypervolume", best, o) for o in others})
    evidence = f"{best} against {said} points of the box ({of_seeds(rows['n'])}){tuned_for_known(reading, others)}"
    return bool((rows["low"] > 0).all()), evidence


def _best_of(areas: pd.DataFrame, families: Sequence[str]) -> str:
    """The one of `families` with the largest mean hypervolume. Raises `Skip` if there is none of them."""
    means = areas[areas["family"].isin(families)].groupby("family")["hypervolume"].mean()
    if means.empty:
        raise Skip("the records hold none of these masks or none of their opponents")
    return str(means.idxmax())


@claim(f"{FULL} the best family of hard masks is {NOT_WORSE}")
def masks_against_strong_baselines(records: pd.DataFrame) -> tuple[bool, str]:
    """The best by validation is not worse than WiSE-FT by more than `MARGIN`."""
    return _not_worse(records, names("mask"), "full")


@claim(f"through the mask (the task known) the best family of hard masks is {NOT_WORSE}")
def masks_against_strong_baselines_through_the_mask(records: pd.DataFrame) -> tuple[bool, str]:
    """The same with the task known: the source is read as in `analysis.source_read`, "known"."""
    return _not_worse(records, names("mask"), "known")


@claim(f"without the pair of domains that favours it most, {FULL} the best family of hard masks is {NOT_WORSE}")
def masks_against_strong_baselines_without_their_best_pair(records: pd.DataFrame) -> tuple[bool, str]:
    """The first of them again, without the pair on which the lead over WiSE-FT is largest."""
    return _not_worse(records, names("mask"), "full", all_pairs=False)


@claim(f"without the pair of domains that favours it most, {KNOWN} the best family of hard masks is {NOT_WORSE}")
def masks_with_the_task_known_without_their_best_pair(records: pd.DataFrame) -> tuple[bool, str]:
    """The second of them again, without the pair on which the lead over WiSE-FT is largest."""
    return _not_worse(records, names("mask"), "known", all_pairs=False)


@claim(f"{FULL} our elastic mask is {NOT_WORSE}")
def elastic_mask_against_strong_baselines(records: pd.DataFrame) -> tuple[bool, str]:
    """The elastic mask, with interpolation, is not worse than WiSE-FT by more than `MARGIN`."""
    return _not_worse(records, [ELASTIC[0]], "full")


def _not_worse(
    records: pd.DataFrame, families: Sequence[str], reading: str, all_pairs: bool = True
) -> tuple[bool, str]:
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
        without = f"without {on.index[-1]} ({100 * on.iloc[-1]:+.1f}), "
    rows = minus_each(areas, "hypervolume", best, opponents(areas))
    said = told(rows, "{against}", {yardstick: by_pairs(areas, "hypervolume", best, yardstick)})
    value = "harmonic" if reading == "full" else "harmonic_known"
    means = analysis.best_of_family(records, value)
    by_mean = told(minus_each(means, value, best, opponents(means)), "{against}")
    evidence = (
        f"{without}{best} against {said} points of the box; by best harmonic mean of retention and adaptation {by_mean} points "
        f"({of_seeds(rows['n'])}); {margin(areas, 'hypervolume', best, yardstick)}{tuned_for_known(reading, rows['against'])}"
    )
    return bool(rows.set_index("against").loc[yardstick, "low"] > -MARGIN), evidence


@claim("what the elastic mask gains comes from the learnt probabilities, not from anchoring as such (hypervolume)")
def elastic_mask_owes_it_to_the_mask(records: pd.DataFrame) -> tuple[bool, str]:
    """The elastic mask has a larger hypervolume than its controls with shuffled, magnitude and constant (L2-SP) strength.

    p < 0.05 after Holm's correction, and the 95 % interval lies above 0.
    """
    elastic, *controls = ELASTIC
    areas = analysis.hypervolumes(records)
    if not set(ELASTIC) <= set(areas["family"]):
        raise Skip("the records hold no elastic masks with all controls")
    rows = minus_each(areas, "hypervolume", elastic, controls)
    # there is no p where the difference is the same on every seed
    passed = (rows["low"] > 0) & ~(statistics.holm(rows["p"]) >= 0.05)
    said = told(rows, "against {against}", {c: by_pairs(areas, "hypervolume", elastic, c) for c in controls})
    return bool(passed.all()), f"{said} points of the box ({of_seeds(rows['n'])})"


def minus_wise_ft(records: pd.DataFrame, reading: str = "full") -> pd.DataFrame:
    """Hypervolume of each family of masks and of each other opponent minus that of WiSE-FT: rows of `statistics.paired`."""
    areas, yardstick = analysis.hypervolumes(records, reading), the("yardstick")
    shown = [n for n in (*names("mask"), ELASTIC[0], *opponents(areas)) if n in set(areas["family"]) - {yardstick}]
    return statistics.paired(areas, "hypervolume", shown, yardstick)
