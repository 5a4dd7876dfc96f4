"""The claims of the study, each recomputed from the records: PASS or FAIL, with the numbers.

Owns what is claimed and the threshold it must meet. A claim that fails is said to fail.
"""

from collections.abc import Callable
from dataclasses import dataclass

import pandas as pd
from scipy import stats

from maskutils import analysis
from maskutils.config import register
from maskutils.records import on_grid, summarise

LEARNT = ["gumbel_sigmoid", "hard_concrete", "edge_popup", "piggyback", "continuous_sparsification", "bernoulli"]
OPPONENTS = ["wise_ft", "ewc", "l2_sp", "replay"]


@dataclass(frozen=True)
class Verdict:
    """Whether a claim holds, and the numbers that say so. `passed` is None where the records cannot tell."""

    claim: str
    passed: bool | None
    evidence: str

    @property
    def word(self) -> str:
        """PASS, FAIL or SKIP."""
        return {True: "PASS", False: "FAIL", None: "SKIP"}[self.passed]


CLAIMS: dict[str, Callable[[pd.DataFrame], Verdict]] = {}


def verify(records: pd.DataFrame) -> list[Verdict]:
    """The verdict on every claim; one that the records hold nothing of is skipped, and says so."""
    return [claim(records) for claim in CLAIMS.values()]


def _signed(value: float) -> str:
    return f"{100 * value:+.1f}"


def _interval(row: pd.Series) -> str:
    return f"{_signed(row['difference'])} [{_signed(row['low'])}, {_signed(row['high'])}]"


@register(CLAIMS)
def density_is_the_dial(records: pd.DataFrame) -> Verdict:
    """Rank correlation of density with retention is at least 0.9, with adaptation at most -0.9, for every learnt method."""
    said, passed = [], True
    means = summarise(on_grid(records), ["approach", "density"])
    for name in [n for n in LEARNT if n in set(means["approach"])]:
        curve = means[means["approach"] == name]
        if len(curve) < 3:
            continue
        up = stats.spearmanr(curve["density"], curve["source_acc_full"]).statistic
        down = stats.spearmanr(curve["density"], curve["target_acc"]).statistic
        passed &= bool(up >= 0.9 and down <= -0.9)
        said.append(f"{name} {up:+.2f} / {down:+.2f}")
    claim = "within each method, more density means more retention (full network) and less adaptation"
    return Verdict(claim, passed if said else None, "rank correlations with density: " + ", ".join(said))


@register(CLAIMS)
def some_masks_prevent_forgetting_and_pay(records: pd.DataFrame) -> Verdict:
    """Some mask loses at most 2 points of the source with the full network, and at least 2 points of the target."""
    claim = "some masks prevent forgetting almost wholly with the full network (2 points), and pay on the target"
    means = summarise(on_grid(records), ["approach", "density"])
    if not {"finetune", *LEARNT} & set(means["approach"]) > {"finetune"}:
        return Verdict(claim, None, "the records hold no learnt masks beside fine-tuning")
    free = means[means["approach"] == "finetune"].iloc[0]
    masks = means[means["approach"].isin(LEARNT)].assign(
        lost=lambda m: m["source_acc_before"] - m["source_acc_full"],
        paid=lambda m: free["target_acc"] - m["target_acc"],
    )
    held = masks[masks["lost"] <= 0.02].sort_values("paid")
    if held.empty:
        least = masks.loc[masks["lost"].idxmin()]
        what = f"{least['approach']} at density {least['density']:g}"
        return Verdict(claim, False, f"none: the least is {100 * least['lost']:.1f} points, {what}")
    said = [
        f"{r.approach} at {r.density:g} loses {100 * r.lost:.1f}, pays {100 * r.paid:.1f}" for r in held.itertuples()
    ]
    return Verdict(claim, bool((held["paid"] >= 0.02).all()), "; ".join(said[:6]) + " (points)")


@register(CLAIMS)
def learnt_masks_beat_their_controls_through_the_mask(records: pd.DataFrame) -> Verdict:
    """The mean over densities of the source accuracy through the mask exceeds that of random and of shuffled masks, p < 0.05."""
    return _against_controls(
        records,
        "source_acc_masked",
        "through the mask, learnt masks retain more than their controls",
    )


@register(CLAIMS)
def learnt_masks_beat_random_with_the_full_network(records: pd.DataFrame) -> Verdict:
    """The same with the full network: there the density says more than the mask."""
    return _against_controls(
        records,
        "source_acc_full",
        "with the full network, learnt masks retain more than their controls",
    )


def _against_controls(records: pd.DataFrame, value: str, claim: str) -> Verdict:
    rows = on_grid(records)
    rows = rows[rows["protocol"] == "protect"]
    present, said, passed = set(rows["approach"]), [], True
    for control in [c for c in ("random", "shuffled") if c in present]:
        # the shuffled mask is that of gumbel_sigmoid, so that is the pair to compare
        names = (
            [n for n in LEARNT if n in present]
            if control == "random"
            else [n for n in ("gumbel_sigmoid",) if n in present]
        )
        if not names:
            continue
        for _, row in analysis.paired(rows, value, names, control, by="approach").iterrows():
            passed &= bool(row["difference"] > 0 and row["p_holm"] < 0.05)
            said.append(f"{row['approach']} - {control} {_interval(row)}")
    return Verdict(claim, passed if said else None, ", ".join(said) + " points")


@register(CLAIMS)
def masks_against_strong_baselines(records: pd.DataFrame) -> Verdict:
    """With the full network, the interval of the best hard masks (by validation) minus WiSE-FT in hypervolume reaches 0."""
    return _against_baselines(
        records,
        LEARNT,
        "with the full network the best family of hard masks is not shown to be worse than WiSE-FT (hypervolume, 95 % interval reaches 0)",
    )


@register(CLAIMS)
def elastic_mask_against_strong_baselines(records: pd.DataFrame) -> Verdict:
    """With the full network, the interval of the elastic mask (with interpolation) minus WiSE-FT reaches 0."""
    return _against_baselines(
        records,
        ["elastic_mask"],
        "with the full network our elastic mask is not shown to be worse than WiSE-FT (hypervolume, 95 % interval reaches 0)",
    )


@register(CLAIMS)
def elastic_mask_owes_it_to_the_mask(records: pd.DataFrame) -> Verdict:
    """The elastic mask has a larger hypervolume than its controls with shuffled, magnitude and constant (L2-SP) strength."""
    claim = "what the elastic mask gains comes from the learnt probabilities, not from anchoring as such (hypervolume)"
    controls = ["elastic_mask (shuffled)", "elastic_mask (magnitude)", "l2_sp"]
    table = analysis.hypervolumes(records)
    if not {"elastic_mask", *controls} <= set(table["family"]):
        return Verdict(claim, None, "the records hold no elastic masks with all controls")
    rows = [analysis.paired(table, "hypervolume", ["elastic_mask"], control).iloc[0] for control in controls]
    said = ", ".join(f"against {r['against']} {_interval(r)}" for r in rows)
    return Verdict(claim, all(r["low"] > 0 for r in rows), said + " points of the box")


def _against_baselines(records: pd.DataFrame, names: list[str], claim: str) -> Verdict:
    table = analysis.hypervolumes(records)
    present = set(table["family"])
    names = [n for n in names if n in present]
    if "wise_ft" not in set(records["approach"]) or not names:  # the family alone may be nothing but fine-tuning
        return Verdict(claim, None, "the records hold no WiSE-FT or none of these masks")
    chosen = analysis.hypervolumes(records, split="val_")
    best = chosen[chosen["family"].isin(names)].groupby("family")["hypervolume"].mean().idxmax()
    rows = [analysis.paired(table, "hypervolume", [best], o).iloc[0] for o in OPPONENTS if o in present]
    said = ", ".join(f"{r['against']} {_interval(r)}" for r in rows)
    return Verdict(claim, bool(rows[0]["high"] >= 0), f"{best} against {said} points of the box")


@register(CLAIMS)
def the_choice_holds_on_unseen_seeds(records: pd.DataFrame) -> Verdict:
    """The approach recommended on the other seeds loses at most 2 points more than was allowed, nine times of ten."""
    claim = "the reader's choice holds on seeds it has not seen (at most 2 points more than allowed, 9 times of 10)"
    if records["seed"].nunique() < 3:
        return Verdict(claim, None, "fewer than three seeds")
    try:
        table = pd.concat([analysis.check_choice(records, [0.02, 0.05, 0.1], known) for known in (False, True)])
    except ValueError as error:  # no approach loses as little: the records hold no `source_only`
        return Verdict(claim, None, str(error))
    held = (table["found"] <= table["allowed"] + 0.02).mean()
    return Verdict(
        claim,
        bool(held >= 0.9),
        f"{100 * held:.0f} % of {len(table)} choices; worst {100 * (table['found'] - table['allowed']).max():.1f} points over",
    )
