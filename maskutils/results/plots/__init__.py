"""The figures: one function draws each of them from records. A method looks the same in all, as its description says."""

from maskutils.core.checks import needs

with needs("study"):
    from maskutils.results.plots.details import (
        brought_back,
        differences,
        filters,
        forgetting_split,
        gallery,
        layer_densities,
        leaks,
        learning,
        lines,
        matrix,
        storage,
        storage_fronts,
    )
    from maskutils.results.plots.style import in_order, look, save_figure
    from maskutils.results.plots.tradeoff import by_density, fronts, tradeoff, tradeoff_by_pair

__all__ = ["brought_back", "by_density", "differences", "filters", "forgetting_split", "fronts", "gallery", "in_order"]
__all__ += [
    "layer_densities",
    "leaks",
    "learning",
    "lines",
    "look",
    "matrix",
    "save_figure",
    "storage",
    "storage_fronts",
]
__all__ += ["tradeoff", "tradeoff_by_pair"]
