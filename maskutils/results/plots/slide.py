"""The figure for a talk: what a mask keeps, and what that is worth."""

from typing import Any

import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from maskutils.results.analysis import ideal, with_family
from maskutils.results.fronts import front
from maskutils.results.plots.labels import name_curves
from maskutils.results.plots.masks import Filters, draw_filters
from maskutils.results.plots.style import STAR, look, short, styled
from maskutils.results.records import on_grid

CURVES = {  # family and reading of the source -> what it is called
    ("random", "known"): "random, task known",
    ("gumbel_sigmoid", "known"): "learnt, task known",
    ("gumbel_sigmoid", "full"): "learnt, task unknown",
    ("random", "full"): "random, task unknown",
    ("wise_ft", "full"): "wise_ft",
    ("ewc", "full"): "ewc",
}

TITLES = {  # of the packaged pairs; elsewhere figures have their code names, as tables do
    "mnist_to_digits": "MNIST → UCI digits",
    "mnist_to_rotated": "MNIST → rotated digits",
    "mnist_to_inverted": "MNIST → inverted digits",
    "mnist_low_to_high": "MNIST 0 to 4 → 5 to 9",
}


@styled()
def talk(filters: Filters, density: float, records: pd.DataFrame, pair: str) -> Figure:
    """Left: filters of the first layer, kept weights coloured, of a mask of `density`.

    Right: source kept against target reached on `pair`, six named curves. Each curve joins the settings of a family that no other
    of its settings beats on validation, in means over seeds. With the task known curves are solid, else dashed. The target axis
    begins at 25 %. The star is the `ideal` point.
    """
    figure = plt.figure(figsize=(10, 4.6))
    parts: Any = figure.subfigures(1, 2, width_ratios=(1, 2.1))
    draw_filters([*parts[0].subplots(4, 2).flat], filters)
    parts[0].suptitle(f"kept: {density:.0%} of all weights,\n{filters[1].mean():.0%} of the first layer", fontsize=10)
    parts[0].supxlabel("red above zero, blue below, grey dropped", fontsize=8)
    axis, lines = parts[1].subplots(), dict[str, Line2D]()
    rows = with_family(on_grid(records[records["pair"] == pair]))
    for (family, reading), label in CURVES.items():
        points = front(rows[rows["family"] == family], reading)
        style: dict[str, Any] = look(family) | {"linestyle": "-" if reading == "known" else "--", "markersize": 5}
        if len(points):
            (lines[label],) = axis.plot(points["source"], points["target"], **style)
    (lines["ideal"],) = axis.plot(*([100 * v] for v in ideal(rows)), **STAR)
    axis.set(title=f"{TITLES.get(pair, short(pair))}: up and right is better", xlim=(0, 108), ylim=(25, 103))
    axis.set_xticks(range(0, 101, 20))
    axis.set(xlabel="source accuracy after transfer (%)", ylabel="target accuracy (%)")
    name_curves({axis: lines})
    return figure
