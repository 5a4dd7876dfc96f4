"""The claims of the study, each recomputed from the records: PASS or FAIL against its threshold, with the numbers."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from maskutils.core.approaches import described, every, names, the
from maskutils.core.checks import needs, register
from maskutils.results import analysis, choice
from maskutils.results.records import of_masks, on_grid, summarise
from maskutils.results.wording import intervals

with needs("study"):
    import pandas as pd

ELASTIC = ("elastic_mask", "elastic_mask (shuffled)", "elastic_mask (magnitude)", "l2_sp")  # ours, and its controls
MARGIN = 0.02  # of the hypervolume: the most that "not worse than WiSE-FT" may lose; fixed before the study was run
EVERY = "every learnt mask retains more than a random mask of its density, and gumbel_sigmoid more than its own shuffle"


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


CLAIMS: dict[str, Callable[[pd.DataFrame], Verdict]] = {}


def verify(records: pd.DataFrame) -> list[Verdict]:
    """The verdict on every claim. A claim is skipped, with the reason, if the records hold nothing that it is about."""
    return [claim(records) for claim in CLAIMS.values()]


def _told(rows: pd.DataFrame, who: str, notes: Mapping[str, str] | None = None) -> str:
    """Each of the `analysis.paired` differences `rows`, named as in `who`, with its interval and the note on its opponent."""
    each = zip(rows.to_dict("records"), intervals(rows), strict=True)
    return ", ".join(f"{who.format(**row)} {told}{(notes or {}).get(row['against'], '')}" for row, told in each)


@register(CLAIMS)
def density_is_the_dial(records: pd.DataFrame) -> Verdict:
    """Rank correlation of density with retention is at least 0.9, with adaptation at most -0.9, for every learnt method."""
    means, said, passed = summarise(on_grid(records), ["approach", "density"]), [], True
    for name in names("mask"):
        curve = means[means["approach"] == name]
        if len(curve) < 3:
            continue
        up, down = (curve["density"].corr(curve[v], method="spearman") for v in ("source_acc_full", "target_acc"))
        passed &= bool(up >= 0.9 and down <= -0.9)
        said.append(f"{name} {up:+.2f} / {down:+.2f}")
    claim = "within each method, more density means more retention (full network) and less adaptation"
    return Verdict(claim, passed if said else None, "rank correlations with density: " + ", ".join(said))


@register(CLAIMS)
def some_masks_prevent_forgetting_and_pay(records: pd.DataFrame) -> Verdict:
    """Some mask loses at most 2 points of the source with the full network, and at least 2 points of the target."""
    claim = "some masks prevent forgetting almost wholly with the full network (2 points), and pay on the target"
    means = summarise(on_grid(records), ["approach", "density"])
    free, masks = means[means["approach"] == the("free")], means[means["approach"].isin(names("mask"))]
    if free.empty or masks.empty:
        return Verdict(claim, None, "the records hold no learnt masks beside fine-tuning")
    lost, paid = masks["source_acc_before"] - masks["source_acc_full"], free["target_acc"].iloc[0] - masks["target_acc"]
    masks = masks.assign(lost=lost, paid=paid)
    held = masks[lost <= 0.02].sort_values("paid")
    if held.empty:
        least = masks.loc[lost.idxmin()]
        what = f"{least['approach']} at density {least['density']:g}"
        return Verdict(claim, False, f"none: the least is {100 * least['lost']:.1f} points, {what}")
    said = [
        f"{r.approach} at {r.density:g} loses {100 * r.lost:.1f}, pays {100 * r.paid:.1f}" for r in held.itertuples()
    ]
    return Verdict(claim, bool((held["paid"] >= 0.02).all()), "; ".join(said[:6]) + " (points)")


@register(CLAIMS)
def learnt_masks_beat_their_controls_through_the_mask(records: pd.DataFrame) -> Verdict:
    """Through the mask, each learnt mask keeps more source accuracy than random masks, and gumbel_sigmoid than its shuffle.

    Means over densities; p < 0.05 after Holm's correction over all of these comparisons.
    """
    return _beat(records, "source_acc_masked", f"through the mask, {EVERY}", "random", "shuffled")


@register(CLAIMS)
def learnt_masks_beat_random_with_the_full_network(records: pd.DataFrame) -> Verdict:
    """The same with the full network: there the density says more than the mask."""
    return _beat(records, "source_acc_full", f"with the full network, {EVERY}", "random", "shuffled")


@register(CLAIMS)
def learnt_masks_beat_magnitude_through_the_mask(records: pd.DataFrame) -> Verdict:
    """The same as the first of them against the largest weights, which cost nothing to find."""
    claim = "through the mask, every learnt mask retains more than the largest weights of its density (magnitude)"
    return _beat(records, "source_acc_masked", claim, "magnitude")


def _beat(records: pd.DataFrame, value: str, claim: str, *controls: str) -> Verdict:
    """Whether every learnt mask is above `controls` in `value`, p < 0.05 after Holm's correction over all comparisons."""
    rows = pd.concat([minus_control(records, value, control) for control in controls], ignore_index=True)
    passed = bool(((rows["difference"] > 0) & (analysis.holm(rows["p"]) < 0.05)).all())
    return Verdict(claim, passed if len(rows) else None, _told(rows, "{approach} - {against}") + " points")


def minus_control(records: pd.DataFrame, value: str, control: str = "random") -> pd.DataFrame:
    """`value` of each learnt mask minus that of the `control` mask of its density, paired by seed: rows of `analysis.paired`.

    Means over densities and pairs of domains. Only gumbel_sigmoid is compared with "shuffled", which is made of its mask.
    """
    rows = on_grid(records)
    rows = rows[of_masks(rows, per_layer=True)]
    present, made_of = set(rows["approach"]), described(control).method
    of = [n for n in names("mask") if n in present and made_of in ("", n) and control in present]
    return analysis.paired(rows, value, of, control, by="approach")


@register(CLAIMS)
def masks_against_strong_baselines(records: pd.DataFrame) -> Verdict:
    """With the full network, the best family of hard masks (by validation) is not worse than WiSE-FT by more than `MARGIN`."""
    return _not_worse(records, names("mask"), "with the full network the best family of hard masks", "full")


@register(CLAIMS)
def masks_against_strong_baselines_through_the_mask(records: pd.DataFrame) -> Verdict:
    """The same with the task known: the source is read through the mask, or with the full network where there is none."""
    return _not_worse(
        records, names("mask"), "through the mask (the task known) the best family of hard masks", "known"
    )


@register(CLAIMS)
def elastic_mask_against_strong_baselines(records: pd.DataFrame) -> Verdict:
    """With the full network, the elastic mask (with interpolation) is not worse than WiSE-FT by more than `MARGIN`."""
    return _not_worse(records, [ELASTIC[0]], "with the full network our elastic mask", "full")


@register(CLAIMS)
def elastic_mask_owes_it_to_the_mask(records: pd.DataFrame) -> Verdict:
    """The elastic mask has a larger hypervolume than its controls with shuffled, magnitude and constant (L2-SP) strength.

    p < 0.05 after Holm's correction, and the 95 % interval lies above 0.
    """
    claim = "what the elastic mask gains comes from the learnt probabilities, not from anchoring as such (hypervolume)"
    elastic, *controls = ELASTIC
    areas = analysis.hypervolumes(records)
    if not set(ELASTIC) <= set(areas["family"]):
        return Verdict(claim, None, "the records hold no elastic masks with all controls")
    rows = _minus_each(areas, "hypervolume", elastic, controls)
    # there is no p where the difference is the same on every seed
    passed = (rows["low"] > 0) & ~(analysis.holm(rows["p"]) >= 0.05)
    said = _told(rows, "against {against}", {c: _on_pairs(areas, elastic, c) for c in controls})
    return Verdict(claim, bool(passed.all()), said + " points of the box")


def _on_pairs(areas: pd.DataFrame, family: str, opponent: str) -> str:
    """The mean differences in hypervolume on each pair of domains, in brackets; nothing for a single pair."""
    on = analysis.by_pair(areas, "hypervolume", family, opponent)
    return f" (by pair: {', '.join(f'{pair} {100 * d:+.1f}' for pair, d in on.items())})" if len(on) > 1 else ""


def _not_worse(records: pd.DataFrame, families: list[str], who: str, reading: str) -> Verdict:
    """Non-inferiority: the lower end of the 95 % interval of `who` minus WiSE-FT in hypervolume lies above -`MARGIN`."""
    claim = f"{who} is not worse than WiSE-FT by more than {100 * MARGIN:g} points of the box (hypervolume, lower end of the 95 % interval)"
    areas, yardstick = analysis.hypervolumes(records, reading), the("yardstick")
    families = [n for n in families if n in set(areas["family"])]
    if yardstick not in set(records["approach"]) or not families:  # its family alone may be nothing but fine-tuning
        return Verdict(claim, None, "the records hold no WiSE-FT or none of these masks")
    chosen = analysis.hypervolumes(records, reading, split="val_")
    best = chosen[chosen["family"].isin(families)].groupby("family")["hypervolume"].mean().idxmax()
    value = "harmonic" if reading == "full" else "harmonic_known"
    means = analysis.best_of_family(records, value)
    by_area = _minus_each(areas, "hypervolume", best, _opponents(areas))
    by_mean = _told(_minus_each(means, value, best, _opponents(means)), "{against}")
    passed = bool(by_area.set_index("against").loc[yardstick, "low"] > -MARGIN)
    said = f"{best} against {_told(by_area, '{against}', {yardstick: _on_pairs(areas, best, yardstick)})} points of the box"
    return Verdict(claim, passed, f"{said}; by best harmonic mean of retention and adaptation {by_mean} points")


def _opponents(table: pd.DataFrame) -> list[str]:
    return [a.name for a in every() if a.opponent and a.name in set(table["family"])]


def _minus_each(table: pd.DataFrame, value: str, family: str, others: Iterable[str]) -> pd.DataFrame:
    """`value` of `family` minus that of each of `others`, paired by seed: rows of `analysis.paired`."""
    return pd.concat([analysis.paired(table, value, [family], other) for other in others], ignore_index=True)


def minus_wise_ft(records: pd.DataFrame, reading: str = "full") -> pd.DataFrame:
    """Hypervolume of each family of masks and of each other opponent minus that of WiSE-FT: rows of `analysis.paired`."""
    areas, yardstick = analysis.hypervolumes(records, reading), the("yardstick")
    shown = [n for n in (*names("mask"), ELASTIC[0], *_opponents(areas)) if n in set(areas["family"]) - {yardstick}]
    return analysis.paired(areas, "hypervolume", shown, yardstick)


@register(CLAIMS)
def the_choice_holds_on_unseen_seeds(records: pd.DataFrame) -> Verdict:
    """The approach recommended on the other seeds loses at most 2 points more than was allowed, nine times of ten."""
    claim = "the reader's choice holds on seeds it has not seen (at most 2 points more than allowed, 9 times of 10)"
    if records["seed"].nunique() < 3:
        return Verdict(claim, None, "fewer than three seeds")
    drops, ways = [0.02, 0.05, 0.1], (False, True)
    try:
        table, elsewhere = (
            pd.concat([choice.check_choice(records, drops, task_known, unseen) for task_known in ways])
            for unseen in ("seed", "pair")
        )
    except choice.Unmet as error:  # no approach loses as little: the records hold no `source_only`
        return Verdict(claim, None, str(error))
    said = f"{_kept(table)}; worst {100 * (table['found'] - table['allowed']).max():.1f} points over"
    if len(elsewhere):
        said += f". Made on the other pairs of domains and read on one it has not seen: {_kept(elsewhere)}"
    return Verdict(claim, bool((table["found"] <= table["allowed"] + 0.02).mean() >= 0.9), said)


def _kept(checked: pd.DataFrame) -> str:
    return f"{100 * (checked['found'] <= checked['allowed'] + 0.02).mean():.0f} % of {len(checked)} choices"
