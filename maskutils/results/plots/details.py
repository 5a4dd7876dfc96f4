"""Figures of what is behind the trade-off: training curves, layers, overlaps, differences and images."""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from maskutils.core.approaches import every, find, names
from maskutils.results.plots.labels import name_curves
from maskutils.results.plots.style import LEGEND_BESIDE, MANY, density_axis, framed, look, styled, visible, within
from maskutils.results.records import at_density, summarise, usual_density
from maskutils.results.wording import interval

# Of the curves of references in training, with their dashes.
SHADES = [("#8c8c8c", "-"), ("#8c8c8c", "--"), ("black", "-."), ("#505050", ":")]
History = Sequence[Mapping[str, float]]  # a row for each step that was noted


@styled()
def learning(
    histories: Mapping[str, History], values: Mapping[str, str], percent: bool = True, title: str = ""
) -> Figure:
    """Each of `values` (column -> label) through training, a panel each, a line for each of `histories` (name -> rows).

    `percent` says that the values are fractions, to be shown in percent. Approaches are named at the ends of their lines, others in a
    legend.
    """
    factor, unit = (100, " (%)") if percent else (1, "")
    figure, axes = plt.subplots(1, len(values), figsize=(4.2 * len(values) + 1.5, 3.4), squeeze=False)
    figure.suptitle(title)
    named: dict[Axes, dict[str, Line2D]] = {axis: {} for axis in axes[0]}
    for axis, (column, label) in zip(axes[0], values.items(), strict=True):
        for name, rows in histories.items():
            curve, about = pd.DataFrame(list(rows)), find(name)
            style = look(name) if about and about.colour else {"marker": "."}
            if about and about.kind == "reference":  # all have one colour elsewhere, so shades and dashes differ
                shade, dash = SHADES[names("reference").index(name) % len(SHADES)]
                style = {"color": shade, "linestyle": dash}
            (named[axis][name],) = axis.plot(curve["step"], factor * curve[column], label=name, **style)
        axis.set(xlabel="optimiser steps", ylabel=label + unit)
        if column == "density":
            axis.set_ylim(0, 1.03)
    if all(map(find, histories)):
        _name_ends(named)
    elif len(histories) > 1:
        figure.legend(*axes[0][0].get_legend_handles_labels(), loc="outside right center")
    return figure


def _name_ends(named: Mapping[Axes, Mapping[str, Line2D]]) -> None:
    """Name lines (axes -> name -> line) at their last points, with room for the names on the right and above."""
    for axis in named:
        first, final = axis.dataLim.intervalx
        axis.margins(y=0.12)
        axis.set_xticks([tick for tick in axis.get_xticks() if first <= tick <= final])
        axis.set_xlim(first - 0.04 * (final - first), final + 0.38 * (final - first))
    name_curves(named, last=True)


@styled()
def layer_densities(masks: Mapping[str, Mapping[str, float]]) -> Figure:
    """Fraction of weights kept in each layer, a bar for each of `masks` (name -> layer -> density)."""
    rows = [{"mask": name, "layer": layer, "density": d} for name, own in masks.items() for layer, d in own.items()]
    figure, axis = plt.subplots(figsize=(7, 3.2))
    own, spare = {a.name: a.colour for a in every() if a.colour}, sns.color_palette("deep", len(masks))
    palette = [own.get(name, colour) for name, colour in zip(masks, spare, strict=True)]
    sns.barplot(pd.DataFrame(rows), x="layer", y="density", hue="mask", palette=palette, saturation=1, ax=axis)
    axis.set(xlabel="layer (input to output)", ylabel="density (fraction kept)", ylim=(0, 1))
    axis.legend(title=None, **LEGEND_BESIDE)
    return figure


@styled()
def forgetting_split(records: pd.DataFrame, density: float | None = None) -> Figure:
    """Source accuracy lost by each mask of `density`: its masking cost and drift, and the forgetting of the full network.

    Without `density` it is `usual_density`. The mask that costs least stands first.
    """
    density = density or usual_density(records)
    rows, protections = at_density(records, density), [a.name for a in every() if a.named_by_mask or a.variant_of]
    rows = rows[rows["protocol"].isin(protections) & (rows["alpha"] == 1)]
    means = summarise(rows, ["approach"]).set_index("approach")
    means = 100 * means.sort_values("masking_cost")
    figure, axis = plt.subplots(figsize=(8, 0.36 * len(means) + 1.4))
    axis.barh(means.index, means["masking_cost"], color="#4c72b0", label="masking cost (through the mask)")
    if means["drift"].any():  # what protects a mask whole has none
        begin, label = means["masking_cost"], "drift (through the mask)"
        axis.barh(means.index, means["drift"], left=begin, color="#dd8452", label=label)
    axis.plot(means["forgetting"], means.index, "k|", markersize=12, label="forgetting (full network)")
    axis.set(xlabel=f"source accuracy lost at density {density:g} (points, left is better)")
    axis.margins(x=0.03, y=0.02)
    axis.invert_yaxis()
    figure.legend(loc="outside upper center", ncols=3, fontsize=9)
    return figure


@styled()
def differences(
    tables: Mapping[str, pd.DataFrame], xlabel: str, margin: float | None = None, least: float = -1.0
) -> Figure:
    """Paired differences in points with their 95 % intervals, a panel for each of `tables` (title -> `statistics.paired`).

    The first column of a table names its rows, the largest difference on top. The grey line is zero, the dotted one minus `margin` (a
    fraction). Rows below `least` (a fraction) are arrows with their numbers, so that the others have room.
    """
    size = (5 * len(tables), 0.32 * max(map(len, tables.values())) + 1.3)
    figure, axes = plt.subplots(1, len(tables), figsize=size, squeeze=False)
    for axis, (title, table) in zip(axes[0], tables.items(), strict=True):
        ranked = table.sort_values("difference", ascending=False, kind="stable")
        columns = ranked[[ranked.columns[0], "difference", "low", "high"]]
        for place, (name, middle, low, high) in enumerate(columns.itertuples(index=False)):
            style = look(name) | {"markersize": 7, "markeredgewidth": 1.5, "capsize": 3}
            ends = [[100 * (middle - low)], [100 * (high - middle)]]
            if middle >= least:
                axis.errorbar(100 * middle, place, xerr=ends, **style)
            else:
                told = f"← {interval(middle, low, high, '+')}"
                paper = {"facecolor": "white", "edgecolor": "none", "pad": 1}
                where: dict[str, Any] = {"transform": axis.get_yaxis_transform(), "va": "center", "fontsize": 9}
                axis.text(0.01, place, told, color="#444444", bbox=paper, **where)
        axis.axvline(0, color="#666666", linewidth=1)
        if margin is not None:
            axis.axvline(-100 * margin, color="#666666", linewidth=1, linestyle=":")
        axis.set(title=title, xlabel=xlabel, ylim=(len(ranked) - 0.5, -0.5))
        axis.set_yticks(range(len(ranked)), columns.iloc[:, 0])
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
    axis.legend(**LEGEND_BESIDE)
    return figure


@styled()
def settings_tried(table: pd.DataFrame) -> Figure:
    """Every setting of each mask layer in `table` (`experiment.layer_settings`), best first: a panel for each, the default ringed.

    Hollow dots are settings whose native mask costs too much.
    """
    layers = list(dict.fromkeys(table["method"]))
    height = -(-len(layers) // 2)
    figure, axes = plt.subplots(height, 2, figsize=(10, 1.75 * height), squeeze=False)
    for axis, name in zip(axes.flat, layers, strict=False):
        own = table[table["method"] == name].reset_index(drop=True)
        for place, row in own.iterrows():
            style: dict[str, Any] = {"color": look(name)["color"], "marker": "o", "linestyle": ""}
            axis.plot([100 * row["val_acc"]], [place], fillstyle="full" if row["affordable"] else "none", **style)
            if row["default"]:
                axis.plot(
                    [100 * row["val_acc"]], [place], **style | {"fillstyle": "none", "markersize": 13, "color": "black"}
                )
        axis.set_yticks(own.index, own["setting"], fontsize=9)
        axis.set(title=name, ylim=(len(own) - 0.5, -0.5))
        middle, half = 50 * own["val_acc"].agg(["min", "max"]).sum(), max(55 * np.ptp(own["val_acc"]), 2.5)
        axis.set_xlim(middle - half, middle + half)
    for axis in axes.flat[len(layers) :]:
        axis.remove()
    for axis in axes.flat[max(len(layers) - 2, 0) : len(layers)]:
        axis.set_xlabel("source accuracy through the mask (%, validation)")
    return figure


@styled()
def matrix(table: pd.DataFrame, label: str, title: str = "") -> Figure:
    """A `table` of names by names, with values in [0, 1], as a heat map with its numbers."""
    figure, axis = plt.subplots(figsize=(0.75 * len(table.columns) + 2.2, 0.6 * len(table) + 1.4))
    sns.heatmap(table, annot=True, fmt=".2f", cmap="viridis", vmin=0, vmax=1, cbar_kws={"label": label}, ax=axis)
    axis.set(title=title, xlabel="", ylabel="")
    axis.grid(False)
    axis.set_xticks(axis.get_xticks(), table.columns, rotation=40, ha="right", rotation_mode="anchor")
    axis.tick_params(axis="y", rotation=0)
    return figure


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
    n, names = max(map(len, images.values())), 0.1 * max(map(len, images))  # inches
    size, dots = (names + 0.65 * n, 0.7 * len(images)), MANY if len(images) > 2 else None
    figure, axes = plt.subplots(len(images), n, figsize=size, dpi=dots, squeeze=False)
    for row, (name, pictures) in zip(axes, images.items(), strict=True):
        for axis, picture in zip(row, pictures, strict=False):
            axis.imshow(visible(picture), cmap="gray")
            framed(axis)
        row[0].set_ylabel(name, rotation=0, ha="right", va="center")
    return figure
