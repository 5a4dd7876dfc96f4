"""The figures: one function draws each of them from records. A method looks the same in all, as its description says."""

from maskutils.results.plots.curves import by_density, fronts, readings, task_unknown, tradeoff, tradeoff_by_pair
from maskutils.results.plots.details import (
    differences,
    forgetting_split,
    gallery,
    layer_densities,
    leaks,
    learning,
    lines,
    matrix,
    settings_tried,
)
from maskutils.results.plots.diagrams import hypervolume_drawn, two_readings, what_is_stored
from maskutils.results.plots.masks import (
    accuracy_curves,
    filters,
    flipped,
    idea,
    kept_by_size,
    layer_images,
    score_histogram,
    talk,
)
from maskutils.results.plots.storing import storage, storage_fronts
from maskutils.results.plots.style import in_order, look, save_figure
