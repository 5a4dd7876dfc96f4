"""Figures of source accuracy kept against target accuracy reached."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from maskutils.core.approaches import every, names, the
from maskutils.results.analysis import CANDIDATE, of_one_network, source_read
from maskutils.results.metrics import pareto_front
from maskutils.results.plots.style import PAIR_ORDER, PANELS, in_order, legend, look, ordered, short, styled, within
from maskutils.results.records import of_masks, on_grid, summarise

TARGET = "target accuracy (%)"


@styled()
def tradeoff(records: pd.DataFrame, title: str = "") -> Figure:
    """Source accuracy after the transfer against target accuracy, averaged over pairs: the headline, a panel for each reading.

    A solid curve is a mask over its densities, with 95 % intervals over seeds. A dotted one is a method without masks over
    its own knob. Letters are references; with the task known, a change is taken off and a second network is loaded.
    The dashed lines cross at the ideal: nothing forgotten, target as with fine-tuning.
    """
    figure, axes = plt.subplots(1, 2, figsize=(11, 4.8), sharey=True)
    for axis, (reading, label) in zip(axes, PANELS.items(), strict=True):
        _tradeoff_panel(axis, records, reading)
        axis.set(title=label, xlabel="source accuracy after transfer (%, right is better)")
    axes[0].set_ylabel("target accuracy (%, up is better)")
    legend(figure, _in_tradeoff(records))
    if title:
        figure.suptitle(title)
    return figure


@styled()
def tradeoff_by_pair(records: pd.DataFrame) -> Figure:
    """`tradeoff` for each pair of domains: a column per pair, a row per reading."""
    pairs = ordered(records["pair"].unique(), PAIR_ORDER)
    figure, axes = plt.subplots(2, len(pairs), figsize=(3.6 * len(pairs) + 1.5, 7.4), squeeze=False)
    for row, (reading, label) in zip(axes, PANELS.items(), strict=True):
        for axis, pair in zip(row, pairs, strict=True):
            _tradeoff_panel(axis, records[records["pair"] == pair], reading)
            title = short(pair) if axis.get_subplotspec().is_first_row() else ""
            axis.set(title=title, xlabel="source accuracy after transfer (%)")
        row[0].set_ylabel(f"{label}\n{TARGET}")
    legend(figure, _in_tradeoff(records))
    return figure


def _in_tradeoff(records: pd.DataFrame) -> pd.DataFrame:
    """The rows that a trade-off figure shows: references, masks at equal density over all layers, and headline opponents."""
    rows = on_grid(records)
    masks = of_masks(rows) & (rows["alpha"] == 1)
    return rows[masks | rows["approach"].isin([a.name for a in every() if a.kind == "reference" or a.headline])]


def _tradeoff_panel(axis: Axes, records: pd.DataFrame, reading: str) -> None:
    records = _in_tradeoff(records)
    references, free = records[records["approach"].isin(names("reference"))], the("free")
    full = reading == "source_acc_full"
    references = of_one_network(references) if full else references
    references = references.assign(source=source_read(references, "full" if full else "known"))
    summary = summarise(references, ["approach"], ["source", "source_acc_before", "target_acc"]).set_index("approach")
    for name in in_order(summary.index):
        x, y = 100 * summary.loc[name, ["source", "target_acc"]]
        axis.plot(x, y, **look(name), markersize=9, linestyle="", zorder=4)
    if free in summary.index:
        ideal: dict[str, Any] = {"color": "black", "linestyle": "--", "linewidth": 0.8, "alpha": 0.5}
        axis.axvline(100 * summary.loc[free, "source_acc_before"], **ideal)
        axis.axhline(100 * summary.loc[free, "target_acc"], **ideal)
    for name, curve in summarise(records[of_masks(records)], ["approach", "density"]).groupby("approach"):
        at, style = 100 * curve.sort_values("density").set_index("approach"), look(name)
        axis.plot(at[reading], at["target_acc"], **style, markersize=5, linewidth=1.5, zorder=3)
        bars = {"fmt": "none", "ecolor": style["color"], "alpha": 0.3, "linewidth": 1, "zorder": 2}
        axis.errorbar(at[reading], at["target_acc"], at["target_acc_ci"], at[f"{reading}_ci"], **bars)
    if full:  # baselines have no mask to be read through
        for name, curve in _opponents(records):
            style = look(name) | {"linestyle": ":", "markersize": 5}
            axis.plot(100 * curve["source_acc_full"], 100 * curve["target_acc"], **style, zorder=3)
    axis.margins(0.06)
    within(axis, "x")
    within(axis, "y")


def _opponents(records: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    """Each headline opponent that `records` hold, and its means along its knob.

    An interpolation runs from the source network to free fine-tuning.
    """
    untrained, free = the("untrained"), the("free")
    drawn = sorted((a for a in every() if a.headline), key=lambda a: a.headline)
    for about in (a for a in drawn if a.name in set(records["approach"])):
        ends = [untrained, free] if about.knob == "alpha" else []
        rows = records[records["approach"].isin([about.name, *ends])]
        rows = rows.assign(alpha=rows["alpha"].where(rows["approach"] != untrained, 0.0))
        yield about.name, summarise(rows, [about.knob]).sort_values(about.knob)


@styled()
def by_density(records: pd.DataFrame, values: Mapping[str, str]) -> Figure:
    """Each of `values` (column -> label) against density, with 95 % intervals over seeds: a panel for each mask, the others grey behind.

    Values are rows and masks columns; values of a single mask stand side by side.
    """
    rows = on_grid(records).query("alpha == 1")
    points = summarise(rows[of_masks(rows)], ["approach", "density"])
    shown = in_order(points["approach"].unique())
    alone = len(shown) == 1
    height, width = (1, len(values)) if alone else (len(values), len(shown))
    size = (4.2 * width, 3.3) if alone else (max(1.55 * width, 4) + 0.8, 1.7 * height + 0.4)
    figure, axes = plt.subplots(height, width, figsize=size, sharey=False if alone else "row", squeeze=False)
    panels = [(axes[0, i] if alone else axes[i, j], v, n) for i, v in enumerate(values) for j, n in enumerate(shown)]
    for axis, column, name in panels:
        for other in shown:
            curve = points[points["approach"] == other].sort_values("density")
            if other != name:
                axis.plot(curve["density"], 100 * curve[column], color="#cccccc", linewidth=0.8, zorder=1)
                continue
            size_of: dict[str, Any] = {"markersize": 5, "capsize": 2, "linewidth": 1.5, "zorder": 3}
            axis.errorbar(curve["density"], 100 * curve[column], 100 * curve[f"{column}_ci"], **look(name), **size_of)
        _density_axis(axis, sorted(points["density"].unique()), "density" if not alone else "density (fraction kept)")
        first = axis.get_subplotspec()
        axis.set_ylabel(f"{values[column]} (%)" if alone or first.is_first_col() else "")
        if first.is_first_row():
            axis.set_title(name, fontsize=9, color=look(name)["color"])
    return figure


def _density_axis(axis: Axes, densities: Sequence[float], label: str) -> None:
    """A logarithmic axis of densities, with a tick at each, and the first and last of many named."""
    axis.set(xlabel=label, xscale="log")
    within(axis, "y")
    named = densities if len(densities) < 3 else [densities[0], densities[len(densities) // 2], densities[-1]]
    axis.set_xticks(densities, [f"{d:g}" if d in named else "" for d in densities])
    axis.minorticks_off()


@styled()
def fronts(records: pd.DataFrame, families: Sequence[str], title: str = "") -> Figure:
    """Full-network source accuracy against target accuracy, a panel for each pair: one front for each of `families`.

    `records` need the column `family`. A front joins the settings that no other setting of the family beats in both means.
    """
    values, pairs = ["source_acc_full", "target_acc"], ordered(records["pair"].unique(), PAIR_ORDER)
    figure, axes = plt.subplots(1, len(pairs), figsize=(3.6 * len(pairs) + 1.8, 3.8), squeeze=False)
    for axis, pair in zip(axes[0], pairs, strict=True):
        for family in families:
            rows = records[(records["family"] == family) & (records["pair"] == pair)]
            means = summarise(rows, CANDIDATE, values)[values]
            front = pd.DataFrame(pareto_front([*means.itertuples(index=False, name=None)]), columns=values)
            style = look(family) | {"markersize": 5}
            axis.plot(100 * front["source_acc_full"], 100 * front["target_acc"], label=family, **style)
        axis.set(title=short(pair), xlabel="source accuracy, full network (%)")
    axes[0][0].set_ylabel(TARGET)
    figure.legend(*axes[0][0].get_legend_handles_labels(), loc="outside right center")
    if title:
        figure.suptitle(title)
    return figure
