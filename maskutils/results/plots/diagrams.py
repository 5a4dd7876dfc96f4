"""Diagrams that explain words of the glossary: the two readings of a network, what is stored for the second task, and hypervolume."""

from collections.abc import Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from maskutils.results.fronts import pareto_front
from maskutils.results.plots.style import styled

FRAME: dict[str, Any] = {"boxstyle": "round,pad=0.4", "facecolor": "#eef3f8", "edgecolor": "#0173b2"}
ARROW: dict[str, Any] = {"arrowstyle": "->", "color": "#444444"}


@styled()
def two_readings() -> Figure:
    """The two readings: with the task known an image goes through its own part of the network, else through all of it."""
    figure, axes = plt.subplots(1, 2, figsize=(9.5, 2.5))
    images = ["source image\n+ its task", "target image\n+ its task"]
    _boxes(axes[0], "task known", images, ["through the mask", "full network"])
    _boxes(axes[1], "task unknown", ["source image", "target image"], ["full network"])
    return figure


def _boxes(axis: Axes, title: str, images: Sequence[str], networks: Sequence[str]) -> None:
    axis.set(title=title, xlim=(0, 1), ylim=(0, 1))
    axis.axis("off")
    heights = (0.78, 0.22)
    middles = heights if len(networks) > 1 else (0.5, 0.5)
    for image, height, at in zip(images, heights, middles, strict=True):
        axis.annotate("", (0.45, at), (0.24, height), arrowprops=ARROW)
        axis.annotate("", (0.84, height), (0.76, at), arrowprops=ARROW)
        axis.text(0.12, height, image, ha="center", va="center", bbox=FRAME | {"facecolor": "white"}, fontsize=9)
        axis.text(0.92, height, "answer", ha="center", va="center", fontsize=9)
    for name, at in zip(networks, middles, strict=False):
        axis.text(0.6, at, name, ha="center", va="center", bbox=FRAME, fontsize=9)


@styled()
def what_is_stored() -> Figure:
    """One weight matrix four times: what a mask, a low-rank adapter, an orthogonal one and a second network store, in blue.

    Pale is a bit, dark a value of 16 bits.
    """
    side, at = 8, np.arange(8)
    mask = np.isin(np.arange(side * side), [2, 9, 12, 21, 24, 31, 38, 43, 53, 58]).reshape(side, side)
    blocks = at[:, None] // 4 == at // 4
    none, tall, wide = np.zeros((side, side), bool), np.ones((side, 1), bool), np.ones((1, side), bool)
    drawn = {
        "a mask\nat most one bit a weight": [((0, 0), ~none)],
        "lora, rank 1\ntwo thin matrices": [((0, 0), none), ((9, 0), tall), ((0, 9), wide)],
        "oft, block 4\nsix angles for each rotation": [((0, 0), np.triu(blocks, 1))],
        "a second network\nevery weight once more": [((0, 0), ~none)],
    }
    figure, axes = plt.subplots(1, len(drawn), figsize=(10, 3.2))
    for axis, (title, parts) in zip(axes, drawn.items(), strict=True):
        for (left, top), cells in parts:
            for (y, x), stored in np.ndenumerate(cells):
                colour = ("#9ecae1" if axis is axes[0] else "#0173b2") if stored else "#dddddd"
                axis.add_patch(Rectangle((left + x, top + y), 0.9, 0.9, facecolor=colour, edgecolor="none"))
        axis.set(xlim=(-0.5, 10.5), ylim=(10.5, -0.5), aspect="equal")
        axis.set_title(title, fontsize=9)
        axis.axis("off")
    for (y, x), kept in np.ndenumerate(mask):  # a bit is stored for each weight, kept or not
        axes[0].text(x + 0.45, y + 0.45, int(kept), ha="center", va="center", fontsize=7)
    for corner in (0, 4):  # the rest of a block follows from its angles
        axes[2].add_patch(Rectangle((corner - 0.05, corner - 0.05), 4, 4, fill=False, edgecolor="#444444"))
    return figure


@styled()
def hypervolume_drawn() -> Figure:
    """Hypervolume: the shaded share of the box from chance on both tasks to 100 % that the best of four points cover.

    A hollow point is beaten on both tasks and adds nothing.
    """
    points, corner = [(95, 35), (85, 75), (55, 90), (50, 60)], (10, 10)
    figure, axis = plt.subplots(figsize=(4.2, 3.8))
    front = pareto_front(points)
    for x, y in points:
        if (x, y) in front:
            axis.fill_between([corner[0], x], corner[1], y, color="#9ecae1", linewidth=0)
        axis.plot(x, y, "o", color="#0173b2", markerfacecolor="#0173b2" if (x, y) in front else "white")
    box = [*zip(corner, (100, corner[1]), (100, 100), (corner[0], 100), corner, strict=True)]
    axis.plot(*box, color="#444444", linewidth=1)
    axis.annotate("chance", corner, xytext=(4, 5), textcoords="offset points", fontsize=9)
    axis.annotate("perfect", (100, 100), xytext=(-4, -12), textcoords="offset points", ha="right", fontsize=9)
    axis.set(xlabel="source accuracy (%)", ylabel="target accuracy (%)", xlim=(0, 103), ylim=(0, 103))
    return figure
