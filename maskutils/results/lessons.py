"""What to take from a notebook on masks, computed from what it shows and from the records of the study."""

import math
from collections.abc import Sequence

import pandas as pd

from maskutils.core import paths
from maskutils.results.records import at_density, load_records, on_grid, summarise
from maskutils.results.report import density_findings
from maskutils.results.statistics import paired
from maskutils.results.wording import called, listed, points, versus

CARRIES = 0.01  # less than this of the source accuracy is lost through a mask that carries the source


def lesson(curves: pd.DataFrame, whole: float, records: pd.DataFrame, methods: Sequence[str]) -> str:
    """How sparse a mask of `methods` may be, beside the controls, and what a denser one brings and costs in the transfer.

    `curves` are source accuracies through masks (fractions; rows densities, columns methods and controls), `whole` that of the network
    itself, `records` those of the transfers.
    """
    return f"{sparsest(curves, whole, methods)}\n\n{dial(records, methods)}".strip()


def sparsest(curves: pd.DataFrame, whole: float, methods: Sequence[str]) -> str:
    """Down to which density each of `methods` carries the source, and whether that is sparser than the best of the other columns."""
    least = carried(curves, whole)
    controls = {name: least[name] for name in curves if name not in methods}
    best = min(controls, key=controls.__getitem__)
    told = listed(f"**{name}** {_down_to(least[name])}" for name in methods)
    said = f"Less than a point of the source is lost through {told}; through the best control, `{best}`, {_down_to(least[best])}."
    ahead = [name for name in methods if least[name] < least[best]]
    if not ahead:
        below = _at_lowest(curves, methods) if curves.index.min() < min(least.values()) else ""
        return f"{said} So learning finds no sparser mask that carries the source. {below}".strip()
    who = "learning" if len(ahead) == len(methods) else f"only {listed(f'**{name}**' for name in ahead)}"
    return f"{said} So {who} finds a sparser mask that carries the source."


def _at_lowest(curves: pd.DataFrame, methods: Sequence[str]) -> str:
    """What the best of `methods` and the best of the other columns keep at the lowest density."""
    density = curves.index.min()
    at = curves.loc[density]
    learnt, control = at[list(methods)].idxmax(), at.drop(list(methods)).idxmax()
    return f"At density {density:g}, where none carries it, **{learnt}** keeps {points(at[learnt])} and `{control}` {points(at[control])}."


def carried(curves: pd.DataFrame, whole: float, lost: float = CARRIES) -> dict[str, float]:
    """The density down to which each column of `curves` loses less than `lost` of the accuracy `whole`; `inf` where there is none."""
    short = (whole - curves.sort_index(ascending=False)).ge(lost).cumsum().gt(0)
    return {name: min(map(float, short.index[~short[name]]), default=math.inf) for name in curves}


def _down_to(density: float) -> str:
    return "at none of these densities" if density == math.inf else f"down to density {density:g}"


def dial(records: pd.DataFrame, methods: Sequence[str]) -> str:
    """What the highest density of `records` changes beside the lowest, for `methods`; empty if they have one density."""
    rows = on_grid(records).query("alpha == 1")
    values = ["source_acc_full", "target_acc"]
    means = summarise(rows[rows["approach"].isin(methods)], ["approach", "density"], values).set_index("density")
    low, high = means.index.min(), means.index.max()
    if low == high:
        return ""
    ends = [means.loc[[d]].set_index("approach")[values] for d in (high, low)]
    source, target = (_spread(100 * (ends[0] - ends[1])[value]) for value in values)
    return (
        f"With {high:.0%} of the weights held instead of {low:.0%}, the full network's accuracy changes by {source} points on the source, "
        f"and by {target} on the target."
    )


def in_the_study(
    pair: str, model: str, approaches: Sequence[str], densities: Sequence[float] = (), tuned: bool = False
) -> str:
    """What `approaches` reach on `pair` in the study, for a run that is not `tuned`; in bold what is done otherwise there.

    Empty for a run that is `tuned`, and where the study has no such records.
    """
    if tuned:
        return ""
    rows = on_grid(load_records(paths.committed_results("study") / "records.csv")).query("alpha == 1")
    rows = rows[(rows["pair"] == pair) & (rows["model"] == model) & rows["approach"].isin(approaches)]
    rows = rows[rows["density"].isna() | rows["density"].isin(densities)]
    if rows.empty:
        return ""
    seeds = rows["seed"].nunique()
    return (
        "**Here all approaches train at one rate. In the study each has the rate and the steps that serve both tasks best. There, on this "
        f"pair (means of {seeds} seeds):**\n\n{density_findings(rows, approaches)}"
    )


def _spread(changes: pd.Series) -> str:
    """Changes in points as "+4.1", or as "+4.1 to +7.0" if there are several."""
    return " to ".join(dict.fromkeys(f"{change:+.1f}" for change in (changes.min(), changes.max())))


def which_or_how_many(curves: pd.DataFrame, learnt: str, shuffled: str, chance: str) -> str:
    """How much of what a `learnt` mask keeps beyond `chance` its shares of layers explain (`shuffled`), at both ends of `curves`.

    Accuracies are fractions. Empty where one of the three is missing.
    """
    told: list[str] = []
    if not {learnt, shuffled, chance} <= set(curves):
        return ""
    for density in dict.fromkeys((curves.index.min(), curves.index.max())):
        of = curves.loc[density]
        layers, weights = 100 * (of[shuffled] - of[chance]), 100 * (of[learnt] - of[shuffled])
        told.append(
            f"At density {density:g} **{learnt}** keeps {points(of[learnt])} of the source and a random mask {points(of[chance])}: "
            f"{layers:+.1f} points come from how many weights each layer keeps, {weights:+.1f} from which."
        )
    return " ".join(told)


def beside(records: pd.DataFrame, method: str, other: str, density: float) -> str:
    """How the masks of `method` and of `other` differ at `density`, on the source through them and on the target."""
    rows = at_density(records, density).query("alpha == 1")
    source, target = (
        versus(paired(rows, value, [method], other, by="approach").iloc[0], called(other))
        for value in ("source_acc_masked", "target_acc")
    )
    return f"At density {density:g}, on the source through the mask, **{method}** {source}. On the target it {target}."
