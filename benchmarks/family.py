"""Masks of a network of another family, without pretrained weights: a ResNet-18 of 11 million weights, from scratch.

`python -m benchmarks.family` takes about twenty minutes of a core, and the images of docs/guides/photos.md, which has the table.
"""

import torch

from maskutils.data.load import load_pair
from maskutils.data.pair import Loading
from maskutils.models.networks import build_model
from maskutils.training.learn import learn_mask
from maskutils.training.loop import fit
from maskutils.training.transfer import score, transfer

SIZE = 72  # pixels: with 64 or fewer a ResNet keeps its full resolution, and takes ten times as long
MASKS = ("edge_popup", "gumbel_sigmoid", "fisher", "magnitude", "random")
DENSITY, SEED = 0.3, 0
READINGS = ("source_acc_before", "source_acc_masked", "source_acc_full", "target_acc")


def family(source_steps: int = 600, steps: int = 150, lr: float = 3e-4) -> None:
    """Learn sketches, then cartoons under each mask and without one; print a row of Markdown for each, accuracies in percent."""
    pair = load_pair("pacs:sketch:cartoon", SEED, Loading(size=SIZE, channels=3))
    network = build_model("resnet18", len(pair.source.classes), 3, SIZE, SEED).to(memory_format=torch.channels_last)
    data = pair.source.train
    fit(network, data, steps=source_steps, lr=1e-3, seed=SEED)
    for name in ("", *MASKS):
        mask = learn_mask(network, data, name, density=DENSITY, steps=steps, seed=SEED) if name else None
        protocol = "protect" if name else "finetune"
        adapted = transfer(network, pair, protocol, mask=mask, steps=steps, lr=lr, seed=SEED)
        found = score(network, adapted, pair, mask)
        told = ["–" if (value := found[reading]) is None else f"{100 * value:.1f}" for reading in READINGS]
        print(f"| {name or protocol} | {' | '.join(told)} |", flush=True)


if __name__ == "__main__":
    family()
