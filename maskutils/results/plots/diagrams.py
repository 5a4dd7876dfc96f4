"""Diagrams that explain words of the glossary: the two readings of a network, and hypervolume."""

from collections.abc import Sequence
from typing import Any

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from maskutils.core.metrics import pareto_front
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
def hypervolume_drawn() -> Figure:
    """Hypervolume: the shaded share of the box from chance on both tasks to (1, 1) that the best of four points cover.

    A hollow point is beaten on both tasks and adds nothing.
    """
    points, corner = [(0.95, 0.35), (0.85, 0.75), (0.55, 0.9), (0.5, 0.6)], (0.1, 0.1)
    figure, axis = plt.subplots(figsize=(4.2, 3.8))
    front = pareto_front(points)
    for x, y in points:
        if (x, y) in front:
            axis.fill_between([corner[0], x], corner[1], y, color="#9ecae1", linewidth=0)
        axis.plot(x, y, "o", color="#0173b2", markerfacecolor="#0173b2" if (x, y) in front else "white")
    box = [*zip(corner, (1, corner[1]), (1, 1), (corner[0], 1), corner, strict=True)]
    axis.plot(*box, color="#444444", linewidth=1)
    axis.annotate("chance", corner, xytext=(4, 5), textcoords="offset points", fontsize=9)
    axis.annotate("ideal", (1, 1), xytext=(-4, -12), textcoords="offset points", ha="right", fontsize=9)
    axis.set(xlabel="source accuracy", ylabel="target accuracy", xlim=(0, 1.03), ylim=(0, 1.03))
    return figure
