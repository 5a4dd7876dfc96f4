"""Figures of what approaches store for the second task, and what they reach for it."""

from collections.abc import Collection
from typing import Any

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from maskutils.results.analysis import CANDIDATE
from maskutils.results.plots.labels import BEHIND, name_curves
from maskutils.results.plots.style import BARS, half_width, look, styled
from maskutils.results.records import summarise
from maskutils.results.wording import settings

# named in the storage figures, beside the best other
STORING = ["gumbel_sigmoid", "edge_popup", "two_networks", "replay", "fisher"]
DEEP = 0.08  # below the best, of the mean of both tasks, the storage figures begin


@styled()
def storage(records: pd.DataFrame) -> Figure:
    """What each approach stores for the second task, fewest bits on top, beside the mean accuracy of both tasks when the task is known.

    `records` are those of `analysis.for_storage`: an approach is named with its setting. Thin lines are 95 % intervals over seeds.
    Below the panels stands what lies more than `DEEP` below the best.
    """
    means = summarise(records, ["family", *CANDIDATE], ["stored_bits", "both"]).sort_values(["stored_bits", "both"])
    told = [(row["approach"], settings(row)) for _, row in means.iterrows()]
    means = means.assign(name=[f"{name} ({of})" if of else name for name, of in told], kbit=means["stored_bits"] / 1e3)
    far = means[means["both"] < means["both"].max() - DEEP]
    means = means.drop(far.index).reset_index(drop=True)
    figure, axes = plt.subplots(1, 2, figsize=(10, 0.27 * len(means) + 1.4), sharey=True)
    for place, row in means.iterrows():
        style: dict[str, Any] = look(row["approach"]) | {"markersize": 7, "linestyle": ""}
        axes[0].plot([row["kbit"]], [place], **style)
        axes[0].annotate(
            f"{row['kbit']:,.0f}", (row["kbit"], place), (7, 0), textcoords="offset points", va="center", fontsize=8
        )
        axes[1].plot([100 * row["both"]], [place], **style)
    colours = [look(name)["color"] for name in means["approach"]]
    axes[1].errorbar(100 * means["both"], means.index, xerr=half_width(means, "both"), ecolor=colours, **BARS)
    _kbit_axis(axes[0], means["kbit"].max())
    axes[0].set_xlim(0.6 * means["kbit"].min() - 0.5, 2.5 * means["kbit"].max() + 1)
    axes[1].set(xlabel="mean of both tasks, task known (%, right is better)")
    axes[0].set_yticks(means.index, means["name"])
    axes[0].set_ylim(len(means) - 0.5, -0.5)
    if len(far):
        below = ", ".join(f"{row['name']} {100 * row['both']:.0f} %" for _, row in far.iterrows())
        figure.supxlabel(f"not shown, more than {100 * DEEP:g} points below the best: {below}", fontsize=8)
    return figure


@styled()
def storage_fronts(table: pd.DataFrame) -> Figure:
    """Mean accuracy of both tasks, the task known, against bits stored: a curve through the best settings of each family.

    `table` is that of `analysis.storage_front`. Six families have names: those of `STORING`, then those that reach most. The others are
    grey. Thin lines are 95 % intervals over seeds. Families that store nothing stand at 0. The axis begins at most `DEEP` below the best.
    """
    figure, axis = plt.subplots(figsize=(7, 4.5))
    name_curves({axis: storage_panel(axis, table, most_telling(table))})
    return figure


def most_telling(table: pd.DataFrame) -> list[str]:
    """The families that `storage_fronts` names."""
    shown, low = _shown(table)
    best = shown[shown["both"] >= low].groupby("family")["both"].max().sort_values(ascending=False, kind="stable")
    return [*(n for n in STORING if n in best.index), *(n for n in best.index if n not in STORING)][:6]


def _shown(table: pd.DataFrame) -> tuple[pd.DataFrame, float]:
    """The points that are drawn, of a family that stores none of 0 bits, and the least accuracy of the axis."""
    stores = table[table["stored_bits"] > 0]
    shown = pd.concat([stores, table[~table["family"].isin(stores["family"])]])
    return shown, max(shown["both"].min(), shown["both"].max() - DEEP)


def storage_panel(axis: Axes, table: pd.DataFrame, named: Collection[str]) -> dict[str, Line2D]:
    """`storage_fronts` in `axis`, without the names; returns the lines of those of the families `named` that are there."""
    (shown, low), lines = _shown(table), {}
    for name, own in shown.sort_values("stored_bits").groupby("family"):
        x, y = own["stored_bits"] / 1e3, 100 * own["both"]
        if name in named:
            (lines[name],) = axis.plot(x, y, markersize=5, label=name, **look(name))
            axis.errorbar(x, y, half_width(own, "both"), ecolor=look(name)["color"], **BARS)
        else:
            axis.plot(x, y, **BEHIND)
    _kbit_axis(axis, shown["stored_bits"].max() / 1e3)
    axis.set_xlim(-2, 1.6 * shown["stored_bits"].max() / 1e3)
    axis.set(ylabel="mean of both tasks (%, up is better)", ylim=(100 * low - 0.5, 100 * shown["both"].max() + 0.7))
    return lines


def _kbit_axis(axis: Axes, most: float) -> None:
    """An axis of kbit that begins at 0 and is logarithmic from 10 on, with ticks up to `most`."""
    axis.set_xscale("symlog", linthresh=10)
    ticks = [0, *(10**k for k in range(1, 9) if 10**k <= max(most, 10))]
    axis.set_xticks(ticks, [f"{kbit:,}" for kbit in ticks])
    axis.set_xlabel("stored for the second task (kbit, left is better)")
