"""Records in, figures out: one function per figure.

Owns how a method looks: its colour and its marker, the same in every figure. It knows the columns of records, not torch.
"""

from maskutils.core.checks import needs

with needs("study"):
    from maskutils.results.plots.details import (
        differences,
        forgetting_split,
        gallery,
        layer_densities,
        learning,
        lines,
        matrix,
        storage,
    )
    from maskutils.results.plots.style import BOUNDS, COLOURS, MARKERS, ORDER, save_figure
    from maskutils.results.plots.tradeoff import by_density, fronts, tradeoff, tradeoff_by_pair

__all__ = [
    "BOUNDS",
    "COLOURS",
    "MARKERS",
    "ORDER",
    "by_density",
    "differences",
    "forgetting_split",
    "fronts",
    "gallery",
    "layer_densities",
]
__all__ += ["learning", "lines", "matrix", "save_figure", "storage", "tradeoff", "tradeoff_by_pair"]
