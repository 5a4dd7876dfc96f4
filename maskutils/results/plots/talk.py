"""The figure for a talk: what a mask keeps, and what that is worth."""

from typing import Any

import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from maskutils.core.approaches import the
from maskutils.results.analysis import CANDIDATE, source_read, with_family
from maskutils.results.metrics import pareto_front
from maskutils.results.plots.masks import Filters, draw_filters
from maskutils.results.plots.style import look, styled
from maskutils.results.records import on_grid, summarise

# Six curves: family -> reading of the source, and how it is called.
CURVES = {
    ("gumbel_sigmoid", "known"): "learnt mask, task known",
    ("random", "known"): "random mask, task known",
    ("gumbel_sigmoid", "full"): "learnt mask, task unknown",
    ("random", "full"): "random mask, task unknown",
    ("wise_ft", "full"): "weight averaging",
    ("ewc", "full"): "EWC",
}


@styled()
def talk(filters: Filters, records: pd.DataFrame, pair: str) -> Figure:
    """Left: filters of the first layer, kept weights coloured. Right: source kept against target reached on `pair`, six named curves.

    Each curve joins the settings of a family that no other of its settings beats, in means over seeds. The star is the ideal point:
    the source as before the transfer, the target as after free fine-tuning.
    """
    figure = plt.figure(figsize=(10, 4.4))
    parts: Any = figure.subfigures(1, 2, width_ratios=(1, 1.9))
    left, right = parts
    draw_filters([*left.subplots(4, 2).flat], filters)
    left.suptitle(f"first layer: {filters[1].mean():.0%} kept, grey is dropped", fontsize=10)
    axis = right.subplots()
    rows = with_family(on_grid(records[records["pair"] == pair]))
    ends = {}
    for (family, reading), label in CURVES.items():
        front = _front(rows[rows["family"] == family], reading)
        if front.empty:
            continue
        style: dict[str, Any] = look(family) | {"linestyle": "-" if reading == "known" else "--", "markersize": 4}
        axis.plot(front["source"], front["target"], **style)
        ends[label] = (*front.iloc[-1], style["color"])
    free = rows[rows["approach"] == the("free")]
    ideal = 100 * free["source_acc_before"].mean(), 100 * free["target_acc"].mean()
    axis.plot(*ideal, "*", color="black", markersize=14, zorder=5)
    axis.annotate("ideal", ideal, xytext=(6, 8), textcoords="offset points", fontsize=9)
    axis.set(xlabel="source accuracy after transfer (%)", ylabel="target accuracy (%)", xlim=(-70, 104), ylim=(0, 106))
    axis.set_xticks(range(0, 101, 20))
    order = sorted(ends, key=lambda label: -ends[label][1])
    for place, label in enumerate(order):  # a column on the left, for the ends lie too close together
        x, y, colour = ends[label]
        line = {"arrowstyle": "-", "color": colour, "linewidth": 0.7, "alpha": 0.6, "shrinkB": 3, "relpos": (1, 0.5)}
        axis.annotate(
            label, (x, y), (-12, 101 - 8 * place), color=colour, ha="right", va="center", fontsize=9, arrowprops=line
        )
    return figure


def _front(rows: pd.DataFrame, reading: str) -> pd.DataFrame:
    """The best means of `rows` in percent, columns source and target, from the highest source to the lowest."""
    means = summarise(rows.assign(source=source_read(rows, reading)), CANDIDATE, ["source", "target_acc"])
    points = means[["source", "target_acc"]].dropna().itertuples(index=False, name=None)
    return 100 * pd.DataFrame(pareto_front([*points]), columns=["source", "target"])
