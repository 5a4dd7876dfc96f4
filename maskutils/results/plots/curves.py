"""Figures of source accuracy kept against target accuracy reached."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from maskutils.core.approaches import described, every, names, the
from maskutils.results.analysis import ideal, storage_front
from maskutils.results.fronts import front, hypervolumes, largest, unbeaten
from maskutils.results.plots.labels import BEHIND, name_curves
from maskutils.results.plots.storing import most_telling, storage_panel
from maskutils.results.plots.style import (
    BARS,
    MANY,
    PAIR_ORDER,
    STAR,
    density_axis,
    half_width,
    in_order,
    look,
    ordered,
    short,
    styled,
    within,
)
from maskutils.results.records import LOSSES, of_masks, on_grid, summarise

HIGHLIGHTED = ["fisher", "random", "wise_ft", "ewc", "replay"]  # with the task unknown, beside the best learnt mask
# Of the source, and the target, of one mask: no colours, for these are of methods.
LOOKS = [("#222222", "-", "o"), ("#222222", "--", "s"), ("#888888", "-", "^")]
VALIDATION = ["val_source_acc_full", "val_target_acc"]  # by which settings are left out
PANELS = {"source_acc_masked": "source, through the mask", "source_acc_full": "source, full network"}
PANELS |= {"target_acc": "target, full network"}
SHOWN = ["source_acc_full", "target_acc", *VALIDATION]
NEAR = 47  # points around the ideal that the panel of the unknown task shows


@styled()
def tradeoff(records: pd.DataFrame) -> Figure:
    """The headline: what is reached on both tasks, averaged over pairs, a panel for each reading of the source.

    Left, the task known: the mean of both tasks against the bits stored, as in `storage_fronts`. Right, the task unknown: source
    accuracy of the full network against target accuracy. There a solid curve is a mask over its densities: of the learnt ones the
    best on validation, its interpolations counted. A dotted one is a method without masks over its own knob. Thin lines are 95 %
    intervals over seeds. Settings that another beats on both tasks on validation are left out. The star is the `ideal`. The axes
    begin `NEAR` points before it. Other approaches are grey.
    """
    figure, axes = plt.subplots(1, 2, figsize=(10, 4.6), squeeze=False)
    _both_readings(axes, {"": records})
    return figure


@styled()
def tradeoff_by_pair(records: pd.DataFrame) -> Figure:
    """`tradeoff` for each pair of domains, a row per pair."""
    pairs = {pair: records[records["pair"] == pair] for pair in ordered(records["pair"].unique(), PAIR_ORDER)}
    figure, axes = plt.subplots(len(pairs), 2, figsize=(10, 3.8 * len(pairs)), dpi=MANY, squeeze=False)
    _both_readings(axes, pairs)
    return figure


@styled()
def task_unknown(records: pd.DataFrame, shown: Sequence[str]) -> Figure:
    """The right panel of `tradeoff` alone, with the curves of the approaches `shown` named."""
    figure, axis = plt.subplots(figsize=(6, 4.4))
    name_curves({axis: _tradeoff_panel(axis, records, shown)})
    return figure


def _both_readings(axes: np.ndarray, records: Mapping[str, pd.DataFrame]) -> None:
    """A row of `axes` for each of `records` (pair -> rows): task known, and task unknown. Names come last, when the layout stands.

    What storage names on one pair it names on all.
    """
    named: dict[Axes, dict[str, Line2D]] = {}
    learnt = largest(hypervolumes(pd.concat(records.values()), split="val_"), names("mask"))
    stored = {pair: storage_front(rows) for pair, rows in records.items()}
    telling = {name for table in stored.values() for name in most_telling(table)}
    for (known, unknown), (pair, rows) in zip(axes, records.items(), strict=True):
        named |= {
            known: storage_panel(known, stored[pair], telling),
            unknown: _tradeoff_panel(unknown, rows, [learnt, *HIGHLIGHTED]),
        }
        where = f"{short(pair)}, " if pair else ""
        known.set_title(f"{where}task known: accuracy for what is stored", fontsize=10)
        unknown.set_title(f"{where}task unknown: one network for both", fontsize=10)
    name_curves(named)


def _tradeoff_panel(axis: Axes, records: pd.DataFrame, shown: Sequence[str]) -> dict[str, Line2D]:
    """The task unknown, in percent; returns the lines to be named: the curves of `shown`, two references and the ideal."""
    rows, lines = on_grid(records).query("alpha == 1"), {}
    masks = summarise(rows[of_masks(rows)], ["approach", "density"], SHOWN).sort_values("density").groupby("approach")
    for name, means in [*masks, *_rivals(on_grid(records))]:
        curve = unbeaten(means, *VALIDATION)
        x, y = 100 * curve["source_acc_full"], 100 * curve["target_acc"]
        if name not in shown:
            axis.plot(x, y, **BEHIND)
            continue
        style: dict[str, Any] = look(name) | {"markersize": 5, "zorder": 3}
        style["linestyle"] = ":" if described(name).kind == "baseline" else "-"
        (lines[name],) = axis.plot(x, y, **style)
        both = half_width(curve, "target_acc"), half_width(curve, "source_acc_full")
        axis.errorbar(x, y, *both, ecolor=style["color"], **BARS)
    lines |= _references(axis, rows)
    axis.set(xlabel="source accuracy after transfer (%, right is better)", ylabel="target accuracy (%, up is better)")
    if "ideal" in lines:
        points = np.concatenate([line.get_xydata() for line in lines.values()])
        for along, at, values in zip("xy", np.asarray(lines["ideal"].get_xydata())[0], points.T, strict=True):
            low = max(at - NEAR, np.nanmin(values) - 3)
            getattr(axis, f"set_{along}lim")(low, min(np.nanmax(values) + 0.15 * (at - low), 103))
    return lines


def _references(axis: Axes, rows: pd.DataFrame) -> dict[str, Line2D]:
    """Points in `axis`: the ideal as a star, fine-tuning and joint training as dots. Returns them by name."""
    means, lines = summarise(rows, ["approach"]).set_index("approach"), {}
    dot: dict[str, Any] = {"color": "black", "linestyle": "", "zorder": 4}
    if not math.isnan((at := ideal(rows))[0]):
        (lines["ideal"],) = axis.plot(*([100 * v] for v in at), **STAR)
    for name in [the("free"), "joint"]:
        if name in means.index:
            at = 100 * means.loc[name, ["source_acc_full", "target_acc"]]
            (lines[name],) = axis.plot(*at.to_numpy()[:, None], marker=".", markersize=9, **dot)
    return lines


def _rivals(records: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    """Each headline rival that `records` hold, and its means along its knob.

    An interpolation runs from the source network to fine-tuning.
    """
    untrained, free = the("untrained"), the("free")
    drawn = sorted((a for a in every() if a.headline), key=lambda a: a.headline)
    for about in (a for a in drawn if a.name in set(records["approach"])):
        ends = [untrained, free] if about.knob == "alpha" else []
        rows = records[records["approach"].isin([about.name, *ends])]
        rows = rows.assign(alpha=rows["alpha"].where(rows["approach"] != untrained, 0.0))
        yield about.name, summarise(rows, [about.knob], SHOWN).sort_values(about.knob)


@styled()
def by_density(records: pd.DataFrame, values: Mapping[str, str] = PANELS) -> Figure:
    """Each of `values` (column -> label) against density, with 95 % intervals over seeds: a panel for each mask, the others grey behind.

    Values are rows and masks columns.
    """
    rows = on_grid(records).query("alpha == 1")
    points = summarise(rows[of_masks(rows)], ["approach", "density"])
    shown = in_order(points["approach"].unique())
    height, width = len(values), len(shown)
    size = (min(max(1.55 * width, 4) + 0.8, 10), 1.6 * height + 0.6)
    figure, axes = plt.subplots(height, width, figsize=size, dpi=MANY, sharex=True, sharey="row", squeeze=False)
    panels = [(axes[i, j], v, n) for i, v in enumerate(values) for j, n in enumerate(shown)]
    for axis, column, name in panels:
        for other in shown:
            curve = points[points["approach"] == other].sort_values("density")
            if other != name:
                axis.plot(curve["density"], 100 * curve[column], color="#cccccc", linewidth=0.8, zorder=1)
                continue
            size_of: dict[str, Any] = {"markersize": 4, "capsize": 2, "linewidth": 1.5, "zorder": 3}
            axis.errorbar(curve["density"], 100 * curve[column], half_width(curve, column), **look(name), **size_of)
    for axis, column, name in panels:  # all limits, which are shared, once everything is drawn
        first = axis.get_subplotspec()
        within(axis)
        density_axis(
            axis,
            sorted(points["density"].unique()),
            every=2 if width > 5 and points["density"].nunique() > 3 else 1,
            fontsize=9,
        )
        axis.set_xlabel("density" if first.is_last_row() else "")
        label, unit = values[column].replace(", ", ",\n"), "points" if column in LOSSES else "%"  # rows are low
        axis.set_ylabel(f"{label} ({unit})" if first.is_first_col() else "")
        if first.is_first_row():
            axis.set_title(name.replace("_", "_\n" if width > 4 else "_"), fontsize=9, color=look(name)["color"])
    return figure


@styled()
def readings(records: pd.DataFrame, values: Mapping[str, str] = PANELS) -> Figure:
    """Each of `values` (column -> label) of one mask against density in one panel, with 95 % intervals over seeds: at most three."""
    points = summarise(on_grid(records).query("alpha == 1"), ["density"]).sort_values("density")
    figure, axis = plt.subplots(figsize=(7, 3.4))
    named: dict[str, Line2D] = {}
    for (column, label), (colour, dash, marker) in zip(values.items(), LOOKS, strict=False):
        style: dict[str, Any] = {"color": colour, "linestyle": dash, "marker": marker, "markersize": 5, "capsize": 2}
        drawn = axis.errorbar(points["density"], 100 * points[column], half_width(points, column), **style)
        named[label] = drawn.lines[0]
    axis.set(xlabel="density (fraction of weights kept)", ylabel="accuracy (%)", ylim=(0, 103))
    density_axis(axis, sorted(points["density"].unique()), fontsize=9)
    name_curves({axis: named})
    return figure


@styled()
def fronts(records: pd.DataFrame, families: Sequence[str], behind: Sequence[str] = ()) -> Figure:
    """What each of `families` reaches on the target beyond WiSE-FT at equal source accuracy (full network), a panel for each pair.

    `records` need the column `family`. A curve joins the settings that no other setting of the family beats on validation. Families
    `behind` are grey and have no names. WiSE-FT is the line at 0; between its settings, which lie on one path, it is interpolated. A
    panel begins just before the least source accuracy of WiSE-FT, that of fine-tuning, below which there is nothing to compare with.
    Its axis is stretched to the right.
    """
    pairs, rule = ordered(records["pair"].unique(), PAIR_ORDER), the("yardstick")
    wide = min(len(pairs), 2)
    size = (5 * wide, 3.7 * -(-len(pairs) // 2)) if wide > 1 else (7, 4.2)
    figure, axes = plt.subplots(-(-len(pairs) // 2), wide, figsize=size, squeeze=False)
    named: dict[Axes, dict[str, Line2D]] = {}
    for axis, pair in zip(axes.flat, pairs, strict=False):
        own = records[records["pair"] == pair]
        yardstick, lines = front(own[own["family"] == rule]).sort_values("source"), {}
        axis.axhline(0, color="#666666", linewidth=1, zorder=1)
        axis.set(title=short(pair), xlabel="source accuracy, full network (%)", ylabel="target, minus WiSE-FT (points)")
        if yardstick.empty:
            axis.text(0.5, 0.6, "no fine-tuning to compare with", ha="center", transform=axis.transAxes)
            continue
        for family in (name for name in (*behind, *families) if name != rule):
            points = front(own[own["family"] == family])
            beyond = points["target"] - np.interp(points["source"], *yardstick.to_numpy().T)
            if family in behind:
                axis.plot(points["source"], beyond, **BEHIND)
            else:
                style = look(family) | {"markersize": 5, "linewidth": 0.8}  # between two settings nothing was measured
                (lines[family],) = axis.plot(points["source"], beyond, **style)
        _zoom(axis, yardstick["source"])
        named[axis] = lines
    for axis in axes.flat[len(pairs) :]:
        axis.axis("off")
    name_curves(named)
    return figure


def _zoom(axis: Axes, along: pd.Series) -> None:
    """Limits of `axis` around what its lines with markers have from the least of the values `along` on.

    The axis is stretched towards the best source accuracy, as WiSE-FT falls steeply there and settings crowd.
    """
    points = np.concatenate([line.get_xydata() for line in axis.get_lines()[1:]])
    least, most = along.min(), max(along.max(), points[:, 0].max())
    shown = points[points[:, 0] >= least, 1]
    low, high = min(shown.min(initial=0), 0), max(shown.max(initial=0), 0)
    room = 0.04 * (most - least)
    end = most + room
    axis.set_xscale("function", functions=(lambda x: -np.log(np.maximum(end - x, 1e-9)), lambda x: end - np.exp(-x)))
    ticks = end - (end - least) * np.geomspace(1, 0.05, 7)
    axis.set_xticks(np.unique(np.round(ticks, 0 if most - least > 5 else 1)))
    axis.minorticks_off()
    axis.set_xlim(least - room, most + room / 4)
    axis.set_ylim(low - 0.08 * (high - low), high + 0.08 * (high - low))
