"""Figures of what is behind the trade-off: training curves, layers, overlaps, storage and images."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from maskutils.core.approaches import every, find, names
from maskutils.results.plots.labels import BEHIND, name_curves
from maskutils.results.plots.style import BESIDE, density_axis, framed, look, styled, visible, within
from maskutils.results.records import at_density, summarise

# named in the storage figures, beside the best other
STORING = ["gumbel_sigmoid", "edge_popup", "two_networks", "replay", "fisher"]
DEEP = 0.08  # below the best, of the mean of both tasks, the storage figures begin
History = Sequence[Mapping[str, float]]  # a row for each step that was noted


@styled()
def learning(
    histories: Mapping[str, History], values: Mapping[str, str], percent: bool = True, title: str = ""
) -> Figure:
    """Each of `values` (column -> label) through training, a panel each, a line for each of `histories` (name -> rows).

    `percent` says that the values are fractions, to be shown in percent. Approaches are named beside their lines, others in a legend.
    """
    factor, unit = (100, " (%)") if percent else (1, "")
    figure, axes = plt.subplots(1, len(values), figsize=(4.2 * len(values) + 1.5, 3.4), squeeze=False)
    figure.suptitle(title)
    named: dict[Axes, dict[str, Line2D]] = {axis: {} for axis in axes[0]}
    for axis, (column, label) in zip(axes[0], values.items(), strict=True):
        for name, rows in histories.items():
            curve, about = pd.DataFrame(list(rows)), find(name)
            style = look(name) if about and about.colour else {"marker": "."}
            if about and about.kind == "reference":  # references are all black, so their dashes differ
                style = {"color": "black", "linestyle": ["-", "--", "-.", ":"][names("reference").index(name) % 4]}
            (named[axis][name],) = axis.plot(curve["step"], factor * curve[column], label=name, **style)
        axis.set(xlabel="optimiser steps", ylabel=label + unit)
        if column == "density":
            axis.set_ylim(0, 1.03)
    if all(map(find, histories)):
        name_curves(named)
    elif len(histories) > 1:
        figure.legend(*axes[0][0].get_legend_handles_labels(), loc="outside right center")
    return figure


@styled()
def layer_densities(masks: Mapping[str, Mapping[str, float]], title: str = "") -> Figure:
    """Fraction of weights kept in each layer, a bar for each of `masks` (name -> layer -> density)."""
    rows = [{"mask": name, "layer": layer, "density": d} for name, own in masks.items() for layer, d in own.items()]
    figure, axis = plt.subplots(figsize=(7, 3.2))
    own, spare = {a.name: a.colour for a in every() if a.colour}, sns.color_palette("deep", len(masks))
    palette = [own.get(name, colour) for name, colour in zip(masks, spare, strict=True)]
    sns.barplot(pd.DataFrame(rows), x="layer", y="density", hue="mask", palette=palette, saturation=1, ax=axis)
    axis.set(title=title, xlabel="layer (input to output)", ylabel="density (fraction kept)", ylim=(0, 1))
    axis.legend(title=None, **BESIDE)
    return figure


@styled()
def forgetting_split(records: pd.DataFrame, density: float = 0.1) -> Figure:
    """Source accuracy lost by each mask of `density`: its masking cost and drift, and the forgetting of the full network.

    The mask that costs least stands first.
    """
    rows, protections = at_density(records, density), [a.name for a in every() if a.named_by_mask or a.variant_of]
    rows = rows[rows["protocol"].isin(protections) & (rows["alpha"] == 1)]
    means = summarise(rows, ["approach"]).set_index("approach")
    means = 100 * means.sort_values("masking_cost")
    figure, axis = plt.subplots(figsize=(8, 0.36 * len(means) + 1.4))
    axis.barh(means.index, means["masking_cost"], color="#4c72b0", label="masking cost (through the mask)")
    begin, label = means["masking_cost"], "drift (through the mask)"
    axis.barh(means.index, means["drift"], left=begin, color="#dd8452", label=label)
    axis.plot(means["forgetting"], means.index, "k|", markersize=12, label="forgetting (full network)")
    axis.set(xlabel=f"source accuracy lost at density {density:g} (points, left is better)")
    axis.margins(x=0.03, y=0.02)
    axis.invert_yaxis()
    figure.legend(loc="outside upper center", ncols=3, fontsize=9)
    return figure


@styled()
def differences(tables: Mapping[str, pd.DataFrame], xlabel: str, margin: float | None = None) -> Figure:
    """Paired differences in points with their 95 % intervals, a panel for each of `tables` (title -> `statistics.paired`).

    The first column of a table names its rows, the largest difference of the first table on top.
    The grey line is zero, the dotted one minus `margin` (a fraction).
    """
    found = [table.sort_values("difference", ascending=False).iloc[:, 0] for table in tables.values()]
    rows = list(dict.fromkeys(pd.concat(found)))
    size = (4.2 * len(tables) + 1.5, 0.32 * len(rows) + 1.3)
    figure, axes = plt.subplots(1, len(tables), figsize=size, sharey=True, squeeze=False)
    for axis, (title, table) in zip(axes[0], tables.items(), strict=True):
        for name, middle, low, high in table[[table.columns[0], "difference", "low", "high"]].itertuples(index=False):
            style = look(name) | {"markersize": 7, "markeredgewidth": 1.5, "capsize": 3}
            ends = [[100 * (middle - low)], [100 * (high - middle)]]
            axis.errorbar(100 * middle, rows.index(name), xerr=ends, **style)
        axis.axvline(0, color="#666666", linewidth=1)
        if margin is not None:
            axis.axvline(-100 * margin, color="#666666", linewidth=1, linestyle=":")
        axis.set(title=title, xlabel=xlabel)
    axes[0][0].set_yticks(range(len(rows)), rows)
    axes[0][0].invert_yaxis()
    return figure


@styled()
def lines(table: pd.DataFrame, xlabel: str, ylabel: str) -> Figure:
    """Each column of `table` (fractions) in percent against its index, on a logarithmic axis."""
    figure, axis = plt.subplots(figsize=(7, 3.6))
    for name in table:
        axis.plot(table.index, 100 * table[name], label=name, **look(name))
    axis.set(xlabel=xlabel, ylabel=ylabel)
    density_axis(axis, list(table.index))
    within(axis)
    axis.legend(**BESIDE)
    return figure


@styled()
def matrix(table: pd.DataFrame, label: str, title: str = "") -> Figure:
    """A square `table` (names by names, values in [0, 1]) as a heat map with its numbers."""
    figure, axis = plt.subplots(figsize=(0.75 * len(table) + 2.2, 0.6 * len(table) + 1.4))
    sns.heatmap(table, annot=True, fmt=".2f", cmap="viridis", vmin=0, vmax=1, cbar_kws={"label": label}, ax=axis)
    axis.set(title=title, xlabel="", ylabel="")
    axis.grid(False)
    axis.set_xticks(axis.get_xticks(), table.columns, rotation=40, ha="right", rotation_mode="anchor")
    return figure


@styled()
def storage(records: pd.DataFrame) -> Figure:
    """What each approach stores for the second task, as sorted bars, beside the mean accuracy of both tasks when the task is known.

    `records` are those of `analysis.for_storage`.
    """
    means = summarise(records, ["approach"], ["stored_bits", "source", "target_acc"]).set_index("approach")
    means = means.assign(both=50 * (means["source"] + means["target_acc"]), kbit=means["stored_bits"] / 1e3)
    means = means.sort_values(["kbit", "both"], ascending=[True, False])
    figure, axes = plt.subplots(1, 2, figsize=(10, 0.27 * len(means) + 1.2), sharey=True)
    bars = axes[0].barh(means.index, means["kbit"], color="#8da9c4", height=0.65)
    axes[0].bar_label(bars, [f"{kbit:,.0f}" for kbit in means["kbit"]], padding=3, fontsize=8)
    for name, both in means["both"].items():
        axes[1].plot([both], [name], markersize=7, linestyle="", **look(str(name)))
    _kbit_axis(axes[0], means["kbit"].max())
    axes[0].set_xlim(0, 5 * means["kbit"].max() + 1)
    axes[1].set(xlabel="mean of both tasks, task known (%, right is better)")
    axes[0].margins(y=0.02)
    axes[0].invert_yaxis()
    return figure


@styled()
def storage_fronts(table: pd.DataFrame) -> Figure:
    """Mean accuracy of both tasks, the task known, against bits stored: a curve through the best settings of each family.

    `table` is that of `analysis.storage_front`. Six families have names: those of `STORING`, then those that reach most. The others are
    grey. Families that store nothing stand at 0. The axis begins at most `DEEP` below the best.
    """
    figure, axis = plt.subplots(figsize=(7, 4.5))
    name_curves({axis: storage_panel(axis, table)})
    return figure


def storage_panel(axis: Axes, table: pd.DataFrame) -> dict[str, Line2D]:
    """`storage_fronts` in `axis`, without the names; returns the lines to be named."""
    stores = table[table["stored_bits"] > 0]
    shown, lines = pd.concat([stores, table[~table["family"].isin(stores["family"])]]), {}
    least, most = shown["both"].min(), shown["both"].max()
    low = max(least, most - DEEP)
    best = shown[shown["both"] >= low].groupby("family")["both"].max().sort_values(ascending=False, kind="stable")
    named = [*(n for n in STORING if n in best.index), *(n for n in best.index if n not in STORING)][:6]
    for name, own in shown.sort_values("stored_bits").groupby("family"):
        x, y = own["stored_bits"] / 1e3, 100 * own["both"]
        if name in named:
            (lines[name],) = axis.plot(x, y, markersize=5, label=name, **look(name))
        else:
            axis.plot(x, y, **BEHIND)
    _kbit_axis(axis, shown["stored_bits"].max() / 1e3)
    axis.set_xlim(-2, 1.6 * shown["stored_bits"].max() / 1e3)
    axis.set(ylabel="mean of both tasks (%, up is better)", ylim=(100 * low - 0.5, 100 * most + 0.7))
    return lines


def _kbit_axis(axis: Axes, most: float) -> None:
    """An axis of kbit that begins at 0 and is logarithmic from 10 on, with ticks up to `most`."""
    axis.set_xscale("symlog", linthresh=10)
    ticks = [0, *(10**k for k in range(1, 9) if 10**k <= max(most, 10))]
    axis.set_xticks(ticks, [f"{kbit:,}" for kbit in ticks])
    axis.set_xlabel("stored for the second task (kbit, left is better)")


@styled()
def leaks(table: pd.DataFrame) -> Figure:
    """How far held weights moved, and what that cost the source: a row for each recipe of an audit, top to bottom.

    `table` has the columns recipe, change (largest, of a weight) and leak_cost (a fraction). A hollow dot is an exact zero.
    """
    figure, axes = plt.subplots(1, 2, figsize=(9, 0.28 * len(table) + 1.2), sharey=True)
    places, moved = np.arange(len(table)), (table["change"] > 0).to_numpy()
    axes[0].plot(table["change"][moved], places[moved], "o", color="#d55e00")
    axes[0].plot(np.zeros(sum(~moved)), places[~moved], "o", color="#029e73", fillstyle="none")
    least = 10 ** np.floor(np.log10(table["change"][moved].min()))
    axes[0].set_xscale("symlog", linthresh=least)  # linear from 0 to there
    axes[0].set(xlabel="largest change of a held weight", ylim=(len(table) - 0.5, -0.5))
    axes[0].set_yticks(places, table["recipe"])
    bars = axes[1].barh(places, 100 * table["leak_cost"], color="#d55e00", height=0.6)
    axes[1].bar_label(bars, [f"{100 * lost:.1f}" if lost > 0.005 else "" for lost in table["leak_cost"]], padding=3)
    axes[1].set(xlabel="points of source accuracy lost by the leak")
    axes[1].margins(x=0.12)
    return figure


@styled()
def gallery(images: Mapping[str, Sequence[np.ndarray]]) -> Figure:
    """The images of each domain in `images` (name -> arrays (C, H, W), grey or RGB), a row each."""
    n = max(map(len, images.values()))
    figure, axes = plt.subplots(len(images), n, figsize=(0.8 * n, 0.9 * len(images)), squeeze=False)
    for row, (name, pictures) in zip(axes, images.items(), strict=True):
        for axis, picture in zip(row, pictures, strict=False):
            axis.imshow(visible(picture), cmap="gray")
            framed(axis)
        row[0].set_ylabel(name, rotation=0, ha="right", va="center")
    return figure
