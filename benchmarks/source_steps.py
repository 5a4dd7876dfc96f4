"""Does a learnt mask lead LoRA because learning it trains more on the source? On sketches to cartoons, where it adds most.

`python -m benchmarks.source_steps` takes about half an hour of a core, with one thread (OMP_NUM_THREADS=1), and the images and weights
of docs/guides/photos.md. Learning the mask takes 150 steps of 64 images on the source. LoRA's source network is therefore also trained
for 300 steps of 32 more, and the mask is learnt for that network too.
"""

import pandas as pd

from maskutils.batch.plan import make_plan
from maskutils.results.statistics import t_interval
from maskutils.study import experiment
from maskutils.study.setup import Setup

PAIR, DENSITY, RANK = "pacs:sketch:cartoon", 0.3, 4  # density and rank are those of the finding on photographs
MORE = 300  # source steps of as many images as learning the mask takes


def source_steps() -> None:
    """Print a row of Markdown for each approach and each number of source steps, and the differences; accuracies in percent."""
    masks = (run.parameters for run in make_plan("photos") if run.notebook.stem == "04_edge_popup")
    parameters = next(masks) | {"pair": PAIR}
    parameters = {name: parameters[name] for name in Setup.model_fields if name in parameters}
    setup = experiment.configure(parameters | {"densities": [DENSITY], "alphas": [1.0]})
    found: dict[tuple[str, int], pd.Series] = {}
    for steps in (setup.source_steps, setup.source_steps + MORE):
        own = setup.changed(source_steps=steps)
        mask = experiment.run_method(own, "edge_popup")
        lora = experiment.run_protocol(own, "lora", rank=RANK)
        for name, table, reading in (("edge_popup", mask, "source_acc_masked"), ("lora", lora, "source_acc_before")):
            by_seed = table.set_index("seed")
            found[name, steps] = 50 * (by_seed[reading] + by_seed["target_acc"])
            means = 100 * by_seed[["source_acc_before", reading, "target_acc"]].mean()
            told = " | ".join(f"{value:.1f}" for value in [*means, found[name, steps].mean()])
            print(f"| {name} | {steps} | {told} |", flush=True)
    few, many = setup.source_steps, setup.source_steps + MORE
    for mask_steps, lora_steps in ((few, few), (few, many), (many, many)):
        difference = (found["edge_popup", mask_steps] - found["lora", lora_steps]).to_numpy()
        low, high = t_interval(difference)
        print(f"edge_popup at {mask_steps} - lora at {lora_steps}: {difference.mean():+.1f} [{low:+.1f}, {high:+.1f}]")


if __name__ == "__main__":
    source_steps()
