"""Pictures of masks, and of what they do: filters, layers, scores, accuracy through masks, images that flip."""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from maskutils.core.approaches import find
from maskutils.results.analysis import ideal, with_family
from maskutils.results.fronts import front
from maskutils.results.plots.labels import name_curves
from maskutils.results.plots.style import STAR, density_axis, framed, look, short, styled, visible
from maskutils.results.records import on_grid

DROPPED = "#d9d9d9"
KEPT = "#0173b2"
DRAWN = "#d55e00"  # one draw of many
RARE = 0.05  # the share of weights below which a linear axis would not show them
CURVES = {  # family and reading of the source -> what it is called
    ("random", "known"): "random mask, task known",
    ("gumbel_sigmoid", "known"): "learnt mask, task known",
    ("oft", "known"): "oft, task known",
    ("gumbel_sigmoid", "full"): "learnt mask, task unknown",
    ("ewc", "full"): "ewc",
    ("replay", "full"): "replay",
}

PAIR_TITLES = {  # of the packaged pairs; elsewhere figures have their code names, as tables do
    "mnist_to_digits": "MNIST → UCI digits",
    "mnist_to_rotated": "MNIST → rotated digits",
    "mnist_to_inverted": "MNIST → inverted digits",
    "mnist_low_to_high": "MNIST 0 to 4 → 5 to 9",
}
Filters = tuple[np.ndarray, np.ndarray]  # weights (n, h, w), and which of them are kept


@styled()
def filters(rows: Mapping[str, Filters]) -> Figure:
    """Filters of a convolution, a row for each of `rows` (name -> weights and which are kept): kept weights coloured, dropped ones grey.

    Red is above zero, blue below.
    """
    n = max(len(weights) for weights, _ in rows.values())
    figure, axes = plt.subplots(len(rows), n, figsize=(0.75 * n + 2.4, 0.8 * len(rows)), squeeze=False)
    for row, (name, own) in zip(axes, rows.items(), strict=True):
        draw_filters(row, own)
        row[0].set_ylabel(f"{name}\n{own[1].mean():.0%} kept", rotation=0, ha="right", va="center", fontsize=9)
    return figure


def draw_filters(axes: Sequence[Axes], filters: Filters) -> None:
    """One filter on each of `axes`, all in one scale of colours; axes that are left over are empty."""
    weights, kept = filters
    top, colours = np.abs(weights).max() or 1.0, plt.get_cmap("RdBu_r").with_extremes(bad=DROPPED)
    for axis, weight, own in zip(axes, weights, kept, strict=False):
        axis.imshow(np.ma.masked_array(weight, ~own), cmap=colours, vmin=-top, vmax=top)
        framed(axis)
    for axis in axes[len(weights) :]:
        axis.axis("off")


@styled()
def talk(filters: Filters, density: float, records: pd.DataFrame, pair: str) -> Figure:
    """Left: filters of the first layer, kept weights coloured, of a mask of `density`.

    Right: source kept against target reached on `pair`, six named curves. Each curve joins the settings of a family that no other
    of its settings beats on validation, in means over seeds. With the task known curves are solid, else dashed. The target axis
    begins at 25 %. The star is the `ideal` point; the corner around it stands once more, enlarged.
    """
    figure = plt.figure(figsize=(10, 4.6))
    parts: Any = figure.subfigures(1, 2, width_ratios=(1, 2.1))
    draw_filters([*parts[0].subplots(4, 2).flat], filters)
    parts[0].suptitle(f"kept: {density:.0%} of all weights,\n{filters[1].mean():.0%} of the first layer", fontsize=10)
    parts[0].supxlabel("red above zero, blue below, grey not kept", fontsize=8)
    axis, rows = parts[1].subplots(), with_family(on_grid(records[records["pair"] == pair]))
    lines = _draw_readings(axis, rows)
    axis.set(title=f"{PAIR_TITLES.get(pair, short(pair))}: up and right is better", xlim=(0, 108), ylim=(25, 103))
    axis.set_xticks(range(0, 101, 20))
    axis.set(xlabel="source accuracy after transfer (%)", ylabel="target accuracy (%)")
    axis.text(0.49, 0.1, "solid: task known\ndashed: task unknown", transform=axis.transAxes, fontsize=9)
    left, bottom = (100 * value - 8.5 for value in ideal(rows))
    if not np.isnan([left, bottom]).any():
        _enlarge(axis, rows, left, bottom)
    name_curves({axis: lines})
    return figure


def _enlarge(axis: Axes, rows: pd.DataFrame, left: float, bottom: float) -> None:
    """Draw the square of 10 points above and right of (`left`, `bottom`) once more, in the empty part of `axis`."""
    zoom = axis.inset_axes((0.05, 0.1, 0.4, 0.52))
    _draw_readings(zoom, rows)
    zoom.set(xlim=(left, left + 10), ylim=(bottom, bottom + 10))
    zoom.set_title("the corner with the ideal", fontsize=9)
    zoom.tick_params(labelsize=8)
    axis.indicate_inset((left, bottom, 10, 10), edgecolor="#666666")


def _draw_readings(axis: Axes, rows: pd.DataFrame) -> dict[str, Line2D]:
    """`CURVES` of the `rows` of a pair, and the ideal: lines by their names."""
    lines: dict[str, Line2D] = {}
    for (family, reading), label in CURVES.items():
        points = front(rows[rows["family"] == family], reading)
        style: dict[str, Any] = look(family) | {"linestyle": "-" if reading == "known" else "--", "markersize": 5}
        if len(points):
            (lines[label],) = axis.plot(points["source"], points["target"], **style)
    (lines["ideal"],) = axis.plot(*([100 * v] for v in ideal(rows)), **STAR)
    return lines


@styled()
def layer_images(images: Mapping[str, np.ndarray]) -> Figure:
    """The mask of a linear layer for each of `images` (name -> bool (outputs, inputs)): blue is kept, white dropped."""
    figure, axes = plt.subplots(
        1, len(images), figsize=(3.2 * len(images), 2.4), squeeze=False, sharex=True, sharey=True
    )
    colours = ListedColormap(["white", KEPT])
    for axis, (name, kept) in zip(axes[0], images.items(), strict=True):
        axis.imshow(kept, cmap=colours, vmin=0, vmax=1, aspect="auto", interpolation="antialiased")
        axis.set(title=f"{name}, {kept.mean():.1%} kept", xlabel="input")
        axis.grid(False)
    axes[0][0].set_ylabel("output")
    return figure


@styled()
def idea(
    responses: Mapping[str, Mapping[str, np.ndarray]], scores: np.ndarray, draw: Mapping[str, np.ndarray] | None = None
) -> Figure:
    """What a score does, for each of `responses` (name -> `masks.shown.response` of `scores`): what is kept, and what it learns.

    `draw` is a single training step (`masks.shown.one_draw`), in orange.
    """
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.1))
    shades = [KEPT] if len(responses) == 1 else ["#9ecae1", "#4292c6", "#08306b"]
    for colour, (name, made) in zip(shades, responses.items(), strict=False):
        axes[0].plot(scores, made["training"], color=colour, label=name or "in training (mean)")
        axes[1].plot(scores, made["gradient"], color=colour, label=name)
    if draw is not None:
        for axis, part in zip(axes, ("training", "gradient"), strict=True):
            axis.plot(scores, draw[part], color=DRAWN, linewidth=1.2, label="one draw")
    axes[0].plot(scores, made["end"], color="black", linestyle="--", linewidth=1, label="in the end")
    axes[0].set(ylabel="part of the weight that is used", title="what is kept")
    axes[1].set(ylabel="gradient of the score", title="what a score learns from a gradient of 1")
    axes[1].set_ylim(bottom=min(0.0, axes[1].get_ylim()[0]))
    for axis in axes:
        axis.set_xlabel("score of a weight")
        axis.locator_params(axis="x", nbins=6)
    axes[0].legend(fontsize=8)
    return figure


@styled()
def score_histogram(scores: np.ndarray, threshold: float) -> Figure:
    """How many weights have which score (array (N,)): those kept, from `threshold` up, in blue, and the rest in grey.

    The vertical axis is logarithmic where few are kept or few are dropped.
    """
    low, high = np.quantile(scores, [0.001, 0.999])
    step = (max(high, threshold) - min(low, threshold)) / 60 or 1.0
    kept = scores >= threshold
    # a hundredth of a bar is rounding, and no bar of its own
    below, above = (int(np.ceil(far / step - 0.01)) for far in (threshold - low, high - threshold))
    below = max(below, int(not kept.all()))
    edges = threshold + step * np.arange(-below, max(above, 1) + 1)  # no bar holds both kinds
    figure, axis = plt.subplots(figsize=(6.5, 2.8))
    few = 0 < min(kept.mean(), 1 - kept.mean()) < RARE
    axis.hist([scores[~kept], scores[kept]], bins=edges.tolist(), stacked=True, color=["#b0b0b0", KEPT], log=few)
    axis.axvline(threshold, color="black", linestyle="--", linewidth=1)
    low, high = axis.get_ylim()
    axis.set(xlabel="score after learning", ylabel="weights (logarithmic)" if few else "weights")
    axis.set_ylim(low, high * (high / low) ** 0.2 if few else 1.2 * high)  # room for the labels
    beside = {"dropped": (-6, "right", "#666666", 1 - kept.mean()), "kept": (6, "left", KEPT, kept.mean())}
    for name, (off, side, colour, share) in beside.items():
        where: dict[str, Any] = {"xycoords": ("data", "axes fraction"), "textcoords": "offset points", "fontsize": 9}
        axis.annotate(f"{name} {share:.0%}", (threshold, 0.89), (off, 0), color=colour, ha=side, **where)
    return figure


@styled()
def kept_by_size(masks: Mapping[str, tuple[np.ndarray, np.ndarray]]) -> Figure:
    """Which share of the weights of each size is kept, a panel for each of `masks` (name -> `Mask.by_size`).

    A mask of the largest weights would keep all that lies right of the dashed line, and nothing else.
    """
    figure, axes = plt.subplots(1, len(masks), figsize=(3.9 * len(masks), 2.8), squeeze=False, sharey=True)
    edges = np.linspace(0, 1, 21)
    for axis, (name, (sizes, kept)) in zip(axes[0], masks.items(), strict=True):
        line = 1 - kept.mean()
        shares = np.histogram(sizes[kept], edges)[0] / np.maximum(np.histogram(sizes, edges)[0], 1)
        axis.bar(edges[:-1], 100 * shares, width=0.05, align="edge", color=KEPT)
        axis.axvline(line, color="black", linestyle="--", linewidth=1)
        axis.set_title(f"{name}: {(sizes[kept] > line).mean():.0%} of the kept\nare right of the line", fontsize=10)
        axis.set(xlabel="place by size in its layer\n(0 smallest, 1 largest)", ylim=(0, 103))
    axes[0][0].set_ylabel("kept (%)")
    return figure


@styled()
def accuracy_curves(table: pd.DataFrame, whole: float) -> Figure:
    """Source accuracy through masks against density, a curve for each column of `table` (fractions); masks that learnt nothing are grey.

    The dotted line is the `whole` network.
    """
    figure, axis = plt.subplots(figsize=(7, 3.4))
    ends = [table.index[0] / 1.3, 1.1 * table.index[-1]]
    (line,) = axis.plot(ends, 2 * [100 * whole], color="black", linewidth=0.8, linestyle=":", zorder=1)
    greys, named = iter(["-", "--", ":", "-."] * 3), {"whole network": line}
    for name in table:
        about = find(name)
        style = look(name) if about and about.kind == "mask" else {"color": "#8c8c8c", "linestyle": next(greys)}
        (named[name],) = axis.plot(table.index[::-1], 100 * table[name].iloc[::-1], **style)
    axis.set(xlabel="density (fraction of weights kept)", ylabel="source accuracy\nthrough the mask (%)")
    axis.set_ylim(0, 118)  # and above 100
    density_axis(axis, list(table.index))
    axis.set_yticks(range(0, 101, 20))
    axis.set_xlim(*ends)
    name_curves({axis: named})
    return figure


@styled()
def flipped(flips: Mapping[str, Any], classes: Sequence[str]) -> Figure:
    """Images on which two networks differ (`anatomy.flips`): each network's answer above, in red if it is wrong."""
    n, names = max(1, len(flips["images"])), list(flips["said"])
    figure, axes = plt.subplots(1, n, figsize=(1.25 * n + 0.4, 1.95), squeeze=False)
    heights = {name: 1.05 + 0.17 * line for line, name in enumerate(reversed(names))}
    text: dict[str, Any] = {"xycoords": "axes fraction", "fontsize": 9}
    for i, (axis, picture) in enumerate(zip(axes[0], flips["images"], strict=False)):
        axis.imshow(visible(picture), cmap="gray")
        framed(axis)
        for name in names:
            said = flips["said"][name][i]
            mark, colour = ("✓", "#029e73") if said == flips["truth"][i] else ("✗", "#c0392b")
            axis.annotate(f"{classes[said]} {mark}", (0.5, heights[name]), ha="center", color=colour, **text)
    for name in names:
        axes[0][0].annotate(name, (-0.15, heights[name]), ha="right", **text)
    axes[0][0].set_xlabel(f"{flips['count']} such images", fontsize=9)
    return figure
