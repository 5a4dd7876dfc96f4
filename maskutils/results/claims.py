"""The claims of the study, each recomputed from the records: PASS or FAIL against its threshold, with the numbers.

Claims on masks against their rivals are in `rivals`; here are those on masks among themselves, and on the reader's choice.
"""

from maskutils.core.approaches import described, names, the
from maskutils.core.checks import needs
from maskutils.results import analysis, choice, rivals, statistics
from maskutils.results.records import of_masks, on_grid, summarise
from maskutils.results.verdicts import CLAIMS, Skip, Verdict, claim, enough, told
from maskutils.results.wording import of_seeds

with needs("study"):
    import pandas as pd

MARGIN, minus_wise_ft = rivals.MARGIN, rivals.minus_wise_ft  # importing rivals also files its claims
EVERY = "every learnt mask retains more than a random mask of its density, and gumbel_sigmoid more than its own shuffle"


@claim("within each method, more density means more retention (full network) and less adaptation")
def density_is_the_dial(records: pd.DataFrame) -> tuple[bool, str]:
    """Rank correlation of density with retention is at least 0.9, with adaptation at most -0.9, for every learnt method."""
    means, said, passed = _means(records, "source_acc_full", "target_acc"), [], True
    for name in names("mask"):
        curve = means[means["approach"] == name]
        if len(curve) < 3:
            continue
        enough(curve["n"])
        up, down = (
            round(
                curve["density"].corr(curve[v], method="spearman"), analysis.DIGITS
            )  # 0.9 of five is 0.8999999999999998
            for v in ("source_acc_full", "target_acc")
        )
        passed &= bool(up >= 0.9 and down <= -0.9)
        said.append(f"{name} {up:+.2f} / {down:+.2f}")
    if not said:
        raise Skip("the records hold no learnt mask at three densities")
    return passed, "rank correlations with density: " + ", ".join(said)


def _means(records: pd.DataFrame, *values: str) -> pd.DataFrame:
    """`summarise` of each approach and density, over the transfers that have all `values`."""
    return summarise(on_grid(records).dropna(subset=list(values)), ["approach", "density"], values)


@claim("some masks prevent forgetting almost wholly with the full network (2 points), and pay on the target")
def some_masks_prevent_forgetting_and_pay(records: pd.DataFrame) -> tuple[bool, str]:
    """Of the masks that lose at most 2 points of the source on validation, some lose no more on test, and all pay 2 of the target."""
    before, full = "source_acc_before", "source_acc_full"
    means = _means(records, before, full, "target_acc", f"val_{before}", f"val_{full}")
    free, masks = means[means["approach"] == the("free")], means[means["approach"].isin(names("mask"))]
    if free.empty or masks.empty:
        raise Skip("the records hold no learnt masks beside fine-tuning")
    enough([*free["n"], *masks["n"]])
    val_lost = (masks[f"val_{before}"] - masks[f"val_{full}"]).round(analysis.DIGITS)
    masks = masks.assign(lost=masks[before] - masks[full], paid=free["target_acc"].iloc[0] - masks["target_acc"])
    held = masks[val_lost <= 0.02].sort_values("paid")
    if held.empty:
        least = masks.loc[val_lost.idxmin()]
        what = f"{least['approach']} at density {least['density']:g}"
        return False, f"none: the least is {100 * least['lost']:.1f} points, {what}"
    said = [
        f"{r.approach} at {r.density:g} loses {100 * r.lost:.1f}, pays {100 * r.paid:.1f}" for r in held.itertuples()
    ]
    return bool((held["lost"] <= 0.02).any() and (held["paid"] >= 0.02).all()), "; ".join(said[:6]) + " (points)"


@claim(f"through the mask, {EVERY}")
def learnt_masks_beat_their_controls_through_the_mask(records: pd.DataFrame) -> tuple[bool, str]:
    """Through the mask, each learnt mask keeps more source accuracy than random masks, and gumbel_sigmoid than its shuffle.

    Means over densities; p < 0.05 after Holm's correction over all of these comparisons.
    """
    return _beat(records, "source_acc_masked", "random", "shuffled")


@claim(f"with the full network, {EVERY}")
def learnt_masks_beat_random_with_the_full_network(records: pd.DataFrame) -> tuple[bool, str]:
    """The same with the full network: there the density says more than the mask."""
    return _beat(records, "source_acc_full", "random", "shuffled")


@claim("through the mask, every learnt mask retains more than the largest weights of its density (magnitude)")
def learnt_masks_beat_magnitude_through_the_mask(records: pd.DataFrame) -> tuple[bool, str]:
    """The same as the first of them against the largest weights, which cost nothing to find."""
    return _beat(records, "source_acc_masked", "magnitude")


def _beat(records: pd.DataFrame, value: str, *controls: str) -> tuple[bool, str]:
    """Whether every learnt mask is above `controls` in `value`, p < 0.05 after Holm's correction over all comparisons.

    There is no p where the difference is the same on every seed.
    """
    rows = pd.concat([minus_control(records, value, control) for control in controls], ignore_index=True)
    if rows.empty:
        raise Skip("the records hold no learnt masks beside these controls")
    passed = bool(((rows["low"] > 0) & ~(statistics.holm(rows["p"]) >= 0.05)).all())
    return passed, f"{told(rows, '{approach} - {against}')} points ({of_seeds(rows['n'])})"


def minus_control(records: pd.DataFrame, value: str, control: str = "random") -> pd.DataFrame:
    """`value` of each learnt mask minus that of the `control` mask of its density, paired by seed: rows of `statistics.paired`.

    Means over densities and pairs of domains. Only gumbel_sigmoid is compared with "shuffled", which is made of its mask.
    """
    rows = on_grid(records)
    rows = rows[of_masks(rows, per_layer=True)]
    present, made_of = set(rows["approach"]), described(control).method
    of = [n for n in names("mask") if n in present and made_of in ("", n) and control in present]
    return statistics.paired(rows, value, of, control, by="approach")


@claim("the reader's choice holds on seeds left out (at most 2 points more than allowed, 9 times of 10)")
def the_choice_holds_on_seeds_left_out(records: pd.DataFrame) -> tuple[bool, str]:
    """The approach recommended on the other seeds loses at most 2 points more than was allowed, nine times of ten.

    A seed left out has other training images and initial weights, and the same test images.
    """
    drops, ways = [0.02, 0.05, 0.1], (False, True)
    try:
        table, elsewhere = (
            pd.concat([choice.check_choice(records, drops, task_known, left_out) for task_known in ways])
            for left_out in ("seed", "pair")
        )
    except choice.Unmet as error:  # no approach loses as little: the records hold no `source_only`
        raise Skip(str(error)) from None
    said = f"{_kept(table)}; worst {100 * (table['found'] - table['allowed']).max():.1f} points over"
    if len(elsewhere):
        said += f". Made on the other pairs of domains and read on the one left out: {_kept(elsewhere)}"
    return bool(choice.kept(table).mean() >= 0.9), said


def _kept(checked: pd.DataFrame) -> str:
    return f"{100 * choice.kept(checked).mean():.0f} % of {len(checked)} choices"


def verify(records: pd.DataFrame) -> list[Verdict]:
    """The verdict on every claim. A claim is skipped, with the reason, if the records hold nothing that it is about."""
    return [judge(records) for judge in CLAIMS.values()]
