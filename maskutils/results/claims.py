"""The claims of the study, each recomputed from the records: PASS or FAIL, with the numbers.

Owns what is claimed and the threshold it must meet. A claim that fails is said to fail.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from maskutils.core.approaches import described, every, names, the
from maskutils.core.checks import needs, register
from maskutils.results import analysis, choice
from maskutils.results.records import of_masks, on_grid, summarise

with needs("study"):
    import pandas as pd

ELASTIC = ("elastic_mask", "elastic_mask (shuffled)", "elastic_mask (magnitude)", "l2_sp")  # ours, and its controls
MARGIN = 0.02  # of the hypervolume: what may be lost to WiSE-FT by what is "not worse"; fixed before the records of the study were there


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
    for name in [n for n in names("mask") if n in set(means["approach"])]:
        curve = means[means["approach"] == name]
        if len(curve) < 3:
            continue
        up = curve["density"].corr(curve["source_acc_full"], method="spearman")
        down = curve["density"].corr(curve["target_acc"], method="spearman")
        passed &= bool(up >= 0.9 and down <= -0.9)
        said.append(f"{name} {up:+.2f} / {down:+.2f}")
    claim = "within each method, more density means more retention (full network) and less adaptation"
    return Verdict(claim, passed if said else None, "rank correlations with density: " + ", ".join(said))


@register(CLAIMS)
def some_masks_prevent_forgetting_and_pay(records: pd.DataFrame) -> Verdict:
    """Some mask loses at most 2 points of the source with the full network, and at least 2 points of the target."""
    claim = "some masks prevent forgetting almost wholly with the full network (2 points), and pay on the target"
    means = summarise(on_grid(records), ["approach", "density"])
    if not {the("free"), *names("mask")} & set(means["approach"]) > {the("free")}:
        return Verdict(claim, None, "the records hold no learnt masks beside fine-tuning")
    free = means[means["approach"] == the("free")].iloc[0]
    masks = means[means["approach"].isin(names("mask"))].assign(
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
    """The mean over densities of the source accuracy through the mask exceeds that of random masks, that of gumbel_sigmoid its shuffle's
    too; p < 0.05 after Holm's correction over all of these comparisons.
    """
    return _beat_controls(records, "source_acc_masked", "through the mask")


@register(CLAIMS)
def learnt_masks_beat_random_with_the_full_network(records: pd.DataFrame) -> Verdict:
    """The same with the full network: there the density says more than the mask."""
    return _beat_controls(records, "source_acc_full", "with the full network")


@register(CLAIMS)
def learnt_masks_beat_magnitude_through_the_mask(records: pd.DataFrame) -> Verdict:
    """The same as the first of them against the largest weights, which cost nothing to find."""
    claim = "through the mask, every learnt mask retains more than the largest weights of its density (magnitude)"
    return _ahead(claim, minus_control(records, "source_acc_masked", "magnitude"))


def _beat_controls(records: pd.DataFrame, value: str, reading: str) -> Verdict:
    claim = f"{reading}, every learnt mask retains more than a random mask of its density, and gumbel_sigmoid more than its own shuffle"
    tables = [minus_control(records, value, control) for control in ("random", "shuffled")]
    return _ahead(claim, pd.concat(tables, ignore_index=True))


def _ahead(claim: str, rows: pd.DataFrame) -> Verdict:
    """Whether every difference of `rows` is above 0, p < 0.05 after Holm's correction over all of them."""
    passed = bool(((rows["difference"] > 0) & (analysis.holm(rows["p"]) < 0.05)).all())
    said = [f"{row['approach']} - {row['against']} {_interval(row)}" for _, row in rows.iterrows()]
    return Verdict(claim, passed if len(rows) else None, ", ".join(said) + " points")


def minus_control(records: pd.DataFrame, value: str, control: str = "random") -> pd.DataFrame:
    """`value` of each learnt mask minus that of the `control` mask of its density, paired by seed: a table of `analysis.paired`.

    Means over densities and pairs of domains. "shuffled" is the mask of gumbel_sigmoid, so that is compared with it alone.
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
    """The same with the task known at test time: masks are read through the mask, what has none with the full network."""
    return _not_worse(
        records, names("mask"), "through the mask (the task known) the best family of hard masks", "known"
    )


@register(CLAIMS)
def elastic_mask_against_strong_baselines(records: pd.DataFrame) -> Verdict:
    """With the full network, the elastic mask (with interpolation) is not worse than WiSE-FT by more than `MARGIN`."""
    return _not_worse(records, [ELASTIC[0]], "with the full network our elastic mask", "full")


@register(CLAIMS)
def elastic_mask_owes_it_to_the_mask(records: pd.DataFrame) -> Verdict:
    """The elastic mask has a larger hypervolume than its controls with shuffled, magnitude and constant (L2-SP) strength, p < 0.05."""
    claim = "what the elastic mask gains comes from the learnt probabilities, not from anchoring as such (hypervolume)"
    elastic, *controls = ELASTIC
    table = analysis.hypervolumes(records)
    if not set(ELASTIC) <= set(table["family"]):
        return Verdict(claim, None, "the records hold no elastic masks with all controls")
    rows = pd.concat([analysis.paired(table, "hypervolume", [elastic], c) for c in controls], ignore_index=True)
    said = ", ".join(
        f"against {r['against']} {_interval(r)}{_pairs(table, elastic, r['against'])}" for _, r in rows.iterrows()
    )
    # there is no p where the difference is the same on every seed
    passed = (rows["low"] > 0) & ~(analysis.holm(rows["p"]) >= 0.05)
    return Verdict(claim, bool(passed.all()), said + " points of the box")


def _pairs(table: pd.DataFrame, family: str, against: str) -> str:
    """The mean differences in hypervolume on each pair of domains, in brackets; nothing for a single pair."""
    on = analysis.by_pair(table, "hypervolume", family, against)
    return f" (by pair: {', '.join(f'{pair} {_signed(d)}' for pair, d in on.items())})" if len(on) > 1 else ""


def _not_worse(records: pd.DataFrame, families: list[str], who: str, reading: str) -> Verdict:
    """Non-inferiority: the lower end of the 95 % interval of `who` minus WiSE-FT in hypervolume lies above -`MARGIN`."""
    claim = f"{who} is not worse than WiSE-FT by more than {100 * MARGIN:g} points of the box (hypervolume, lower end of the 95 % interval)"
    areas, yardstick = analysis.hypervolumes(records, reading), the("yardstick")
    families = [n for n in families if n in set(areas["family"])]
    if yardstick not in set(records["approach"]) or not families:  # the family alone may be nothing but fine-tuning
        return Verdict(claim, None, "the records hold no WiSE-FT or none of these masks")
    chosen = analysis.hypervolumes(records, reading, split="val_")
    best = chosen[chosen["family"].isin(families)].groupby("family")["hypervolume"].mean().idxmax()
    value = "harmonic" if reading == "full" else "harmonic_known"
    by_area = minus_opponents(areas, "hypervolume", best)
    by_mean = minus_opponents(analysis.best_of_family(records, value), value, best)
    on_pairs = {yardstick: _pairs(areas, best, yardstick)}
    return Verdict(
        claim,
        bool(by_area.set_index("against").loc[yardstick, "low"] > -MARGIN),
        f"{best} against {_against(by_area, on_pairs)} points of the box; by best harmonic mean of retention and adaptation "
        f"{_against(by_mean, {})} points",
    )


def _against(rows: pd.DataFrame, notes: Mapping[str, str]) -> str:
    """Each difference of `rows` with its interval, and the note on its opponent where there is one."""
    return ", ".join(f"{r['against']} {_interval(r)}{notes.get(r['against'], '')}" for _, r in rows.iterrows())


def _opponents(table: pd.DataFrame) -> list[str]:
    return [a.name for a in every() if a.opponent and a.name in set(table["family"])]


def minus_opponents(table: pd.DataFrame, value: str, family: str) -> pd.DataFrame:
    """`value` of `family` minus that of each opponent in `table`, paired by seed: rows of `analysis.paired`."""
    rows = [analysis.paired(table, value, [family], opponent) for opponent in _opponents(table)]
    return pd.concat(rows, ignore_index=True)


def minus_wise_ft(records: pd.DataFrame, reading: str = "full") -> pd.DataFrame:
    """Hypervolume of each family of masks and of each other opponent minus that of WiSE-FT: a table of `analysis.paired`."""
    areas, yardstick = analysis.hypervolumes(records, reading), the("yardstick")
    shown = [n for n in (*names("mask"), ELASTIC[0], *_opponents(areas)) if n in set(areas["family"]) - {yardstick}]
    return analysis.paired(areas, "hypervolume", shown, yardstick)


@register(CLAIMS)
def the_choice_holds_on_unseen_seeds(records: pd.DataFrame) -> Verdict:
    """The approach recommended on the other seeds loses at most 2 points more than was allowed, nine times of ten."""
    claim = "the reader's choice holds on seeds it has not seen (at most 2 points more than allowed, 9 times of 10)"
    if records["seed"].nunique() < 3:
        return Verdict(claim, None, "fewer than three seeds")
    drops = [0.02, 0.05, 0.1]
    try:
        table = pd.concat([choice.check_choice(records, drops, known) for known in (False, True)])
        elsewhere = pd.concat([choice.check_choice(records, drops, known, "pair") for known in (False, True)])
    except choice.Unmet as error:  # no approach loses as little: the records hold no `source_only`
        return Verdict(claim, None, str(error))
    said = f"{_kept(table)}; worst {100 * (table['found'] - table['allowed']).max():.1f} points over"
    if len(elsewhere):
        said += f". Made on the other pairs of domains and read on one it has not seen: {_kept(elsewhere)}"
    return Verdict(claim, bool((table["found"] <= table["allowed"] + 0.02).mean() >= 0.9), said)


def _kept(checked: pd.DataFrame) -> str:
    return f"{100 * (checked['found'] <= checked['allowed'] + 0.02).mean():.0f} % of {len(checked)} choices"
