"""Retention against adaptation: the headline and its relatives."""

from collections.abc import Iterator, Mapping, Sequence

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from maskutils.core.approaches import every, names, the
from maskutils.results import records as rec
from maskutils.results.metrics import pareto_front
from maskutils.results.plots.style import PAIR_ORDER, PANELS, in_order, legend, look, ordered, short, styled, within


def tradeoff(records: pd.DataFrame, title: str = "") -> Figure:
    """The headline: source accuracy after transfer against target accuracy, a panel for each reading, averaged over
    pairs.

    A curve per method over density, its mean and 95 % interval over seeds; dotted ones are what needs no mask, over its
    own knob; letters are the bounds; dashed lines are no trade-off at all.
    """
    with styled():
        figure, axes = plt.subplots(1, 2, figsize=(11, 4.8), sharey=True)
        for axis, (reading, label) in zip(axes, PANELS.items(), strict=True):
            _tradeoff_panel(axis, records, reading)
            axis.set(title=label, xlabel="source accuracy after transfer (%, right is better)")
        axes[0].set_ylabel("target accuracy (%, up is better)")
        legend(figure, _in_tradeoff(records))
        if title:
            figure.suptitle(title)
        return figure


def tradeoff_by_pair(records: pd.DataFrame) -> Figure:
    """`tradeoff` for each pair of domains: a column per pair, a row per reading."""
    pairs = ordered(records["pair"].unique(), PAIR_ORDER)
    with styled():
        figure, axes = plt.subplots(2, len(pairs), figsize=(3.6 * len(pairs) + 1.5, 7.4), squeeze=False)
        for row, (reading, label) in zip(axes, PANELS.items(), strict=True):
            for axis, pair in zip(row, pairs, strict=True):
                _tradeoff_panel(axis, records[records["pair"] == pair], reading)
                axis.set(
                    title=short(pair) if reading == "source_acc_masked" else "",
                    xlabel="source accuracy after transfer (%)",
                )
            row[0].set_ylabel(f"{label}\ntarget accuracy (%)")
        legend(figure, _in_tradeoff(records))
        return figure


def _in_tradeoff(records: pd.DataFrame) -> pd.DataFrame:
    """The rows that a trade-off figure shows: references, masks at equal density over all layers, and headline opponents."""
    rows = rec.on_grid(records)
    masks = rec.of_masks(rows) & (rows["alpha"] == 1)
    return rows[masks | rows["approach"].isin([a.name for a in every() if a.kind == "reference" or a.headline])]


def _tradeoff_panel(axis: Axes, records: pd.DataFrame, reading: str) -> None:
    records = _in_tradeoff(records)
    references = records[records["approach"].isin(names("reference"))]
    summary, free = rec.summarise(references, ["approach"]).set_index("approach"), the("free")
    for name in in_order(summary.index):
        x, y = 100 * summary.loc[name, ["source_acc_full", "target_acc"]]
        axis.plot(x, y, **look(name), markersize=9, linestyle="", zorder=4)
    if free in summary.index:
        ideal = {"color": "black", "linestyle": "--", "linewidth": 0.8, "alpha": 0.5}
        axis.axvline(100 * summary.loc[free, "source_acc_before"], **ideal)
        axis.axhline(100 * summary.loc[free, "target_acc"], **ideal)
    masks = records[rec.of_masks(records)]
    points = rec.summarise(masks, ["approach", "density"])
    for name, curve in points.groupby("approach"):
        curve = curve.sort_values("density")
        style = look(name)
        axis.plot(100 * curve[reading], 100 * curve["target_acc"], **style, markersize=5, linewidth=1.5, zorder=3)
        axis.errorbar(100 * curve[reading], 100 * curve["target_acc"], 100 * curve["target_acc_ci"], 100 * curve[f"{reading}_ci"],
                      fmt="none", ecolor=style["color"], alpha=0.3, linewidth=1, zorder=2)  # fmt: skip
    if reading == "source_acc_full":  # baselines have no mask to be read through
        for name, curve in _opponents(records):
            style = look(name) | {"linestyle": ":", "markersize": 5}
            axis.plot(100 * curve["source_acc_full"], 100 * curve["target_acc"], **style, zorder=3)
    axis.margins(0.06)
    within(axis, "x")
    within(axis, "y")


def _opponents(records: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    """Each headline opponent that `records` hold, and its points along its knob.

    An interpolation runs from the source network to free fine-tuning.
    """
    untrained, free = the("untrained"), the("free")
    drawn = sorted((a for a in every() if a.headline), key=lambda a: a.headline)
    for about in (a for a in drawn if a.name in set(records["approach"])):
        ends = [untrained, free] if about.knob == "alpha" else []
        rows = records[records["approach"].isin([about.name, *ends])]
        rows = rows.assign(alpha=rows["alpha"].where(rows["approach"] != untrained, 0.0))
        yield about.name, rec.summarise(rows, [about.knob]).sort_values(about.knob)


def by_density(records: pd.DataFrame, values: Mapping[str, str]) -> Figure:
    """Each of `values` (column -> label) against density, a panel each, a curve per method, mean and 95 % interval over
    seeds.
    """
    shown = rec.on_grid(records)
    masks = shown[rec.of_masks(shown) & (shown["alpha"] == 1)]
    points = rec.summarise(masks, ["approach", "density"])
    with styled():
        figure, axes = plt.subplots(1, len(values), figsize=(4.2 * len(values) + 1.5, 3.6), squeeze=False)
        for axis, (column, label) in zip(axes[0], values.items(), strict=True):
            size = {"markersize": 5, "capsize": 2, "linewidth": 1.5}
            for name, curve in points.groupby("approach"):
                axis.errorbar(curve["density"], 100 * curve[column], 100 * curve[f"{column}_ci"], **look(name), **size)
            axis.set(xlabel="density (fraction of weights kept)", ylabel=f"{label} (%)", xscale="log")
            within(axis, "y")
            axis.set_xticks(sorted(points["density"].unique()), minor=False)
            axis.xaxis.set_major_formatter("{x:g}")
            axis.xaxis.set_minor_formatter("")
        legend(figure, masks)
        return figure


def fronts(records: pd.DataFrame, families: Sequence[str], title: str = "") -> Figure:
    """Full-network source accuracy against target accuracy: one front for each of `families`, over strengths and interpolation.

    `records` carry a column `family`. The points of a family that no other of its points beats in both means are joined.
    """
    values = ["source_acc_full", "target_acc"]
    pairs = ordered(records["pair"].unique(), PAIR_ORDER)
    with styled():
        figure, axes = plt.subplots(1, len(pairs), figsize=(3.6 * len(pairs) + 1.8, 3.8), squeeze=False)
        for axis, pair in zip(axes[0], pairs, strict=True):
            for family in families:
                rows = records[(records["family"] == family) & (records["pair"] == pair)]
                means = rec.summarise(rows, ["approach", "density", "strength", "fraction", "alpha"], values)
                front = pd.DataFrame(pareto_front([tuple(row) for row in means[values].to_numpy()]), columns=values)
                style = look(family) | {"markersize": 5}
                axis.plot(100 * front["source_acc_full"], 100 * front["target_acc"], label=family, **style)
            axis.set(title=short(pair), xlabel="source accuracy, full network (%)")
        axes[0][0].set_ylabel("target accuracy (%)")
        figure.legend(*axes[0][0].get_legend_handles_labels(), loc="outside right center")
        if title:
            figure.suptitle(title)
        return figure
