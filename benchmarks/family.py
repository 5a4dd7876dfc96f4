"""Masks of networks of other families, without pretrained weights. docs/guides/photos.md has both tables.

`python -m benchmarks.family digits` learns masks by the defaults in four small networks, in about half an hour of a core. `photographs`
takes a ResNet-18 of 11 million weights, about an hour, and the images of that page. Both take two seeds.
"""

import sys
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import TensorDataset
from torchvision import models
from torchvision.models.convnext import CNBlockConfig
from torchvision.models.resnet import BasicBlock

from maskutils.data.batches import some
from maskutils.data.load import load_pair
from maskutils.data.pair import Loading
from maskutils.models.networks import build_model
from maskutils.training.evaluation import evaluate
from maskutils.training.learn import learn_mask
from maskutils.training.loop import fit
from maskutils.training.transfer import score, transfer

SIZE = 72  # pixels: with 64 or fewer a ResNet keeps its full resolution, and takes ten times as long
MASKS = ("edge_popup", "gumbel_sigmoid", "fisher", "magnitude", "random")
DENSITY, SEEDS = 0.3, (0, 1)
Row = tuple[str, Sequence[float | None]]  # its name, and accuracies
READINGS = ("source_acc_before", "source_acc_masked", "source_acc_full", "target_acc")


def vit() -> nn.Module:
    """Four layers of attention, 0.32 million weights."""
    return models.VisionTransformer(32, 8, num_layers=4, num_heads=4, hidden_dim=96, mlp_dim=192, num_classes=10)


def convnext() -> nn.Module:
    """Six blocks, 0.41 million weights."""
    blocks = [CNBlockConfig(32, 64, 2), CNBlockConfig(64, 128, 2), CNBlockConfig(128, None, 2)]
    return models.ConvNeXt(blocks, num_classes=10)


def resnet() -> nn.Module:
    """The first half of a ResNet-18, 0.68 million weights."""
    model = models.ResNet(BasicBlock, [2, 2, 0, 0])
    model.layer3, model.layer4, model.fc = nn.Identity(), nn.Identity(), nn.Linear(128, 10)
    return model


def densenet() -> nn.Module:
    """Three dense blocks, 0.36 million weights."""
    return models.DenseNet(16, (4, 8, 8), 32, num_classes=10)


NETWORKS = {
    vit: 900,
    convnext: 300,
    resnet: 300,
    densenet: 300,
}  # and their steps on the source: attention learns slowly


def of_digits(seed: int) -> tuple[TensorDataset, TensorDataset]:
    """The packaged digits, to train and to test, of 32 pixels and three channels."""
    source = load_pair("mnist_to_digits", seed).source
    sides = [some(side, len(side), seed) for side in (source.train, source.test)]
    train, test = (TensorDataset(F.interpolate(x, 32).repeat(1, 3, 1, 1), y) for x, y in sides)
    return train, test


def digits(seed: int, steps: int = 300) -> Iterator[Row]:
    """Train each of `NETWORKS`: the accuracy whole, and through two masks of `learn_mask` at two densities."""
    train, test = of_digits(seed)
    for make, source_steps in NETWORKS.items():
        torch.manual_seed(seed)
        network = make()
        fit(network, train, steps=source_steps, lr=1e-3, seed=seed)
        found = [evaluate(network, test)]
        for name in (MASKS[1], MASKS[0]):
            for density in (0.5, DENSITY):
                mask = learn_mask(network, train, name, density=density, steps=steps, seed=seed)
                found.append(evaluate(mask.apply(network), test))
        yield f"{make.__name__}, {sum(p.numel() for p in network.parameters()) / 1e6:.2f} million weights", found


def photographs(seed: int, source_steps: int = 600, steps: int = 150, lr: float = 3e-4) -> Iterator[Row]:
    """Learn sketches, then cartoons under each mask and without one: `READINGS` of each."""
    pair = load_pair("pacs:sketch:cartoon", seed, Loading(size=SIZE, channels=3))
    network = build_model("resnet18", len(pair.source.classes), 3, SIZE, seed).to(memory_format=torch.channels_last)
    data = pair.source.train
    fit(network, data, steps=source_steps, lr=1e-3, seed=seed)
    for name in ("", *MASKS):
        mask = learn_mask(network, data, name, density=DENSITY, steps=steps, seed=seed) if name else None
        protocol = "protect" if name else "finetune"
        adapted = transfer(network, pair, protocol, mask=mask, steps=steps, lr=lr, seed=seed)
        found = score(network, adapted, pair, mask)
        yield name or protocol, [found[reading] for reading in READINGS]


def table(rows: Callable[[int], Iterator[Row]], seeds: Sequence[int] = SEEDS) -> None:
    """Print a row of Markdown for each of the `rows` of each seed as it comes, then their means, all in percent."""
    found: dict[str, list[Sequence[float | None]]] = {}
    for seed in seeds:
        for name, values in rows(seed):
            found.setdefault(name, []).append(values)
            print(f"| seed {seed} | {name} | {' | '.join(map(percent, values))} |", flush=True)
    for name, of_seeds in found.items():
        means = [None if None in column else sum(column) / len(column) for column in zip(*of_seeds, strict=True)]
        print(f"| mean | {name} | {' | '.join(map(percent, means))} |")


def percent(value: float | None) -> str:
    """`value` in percent, or a dash."""
    return "–" if value is None else f"{100 * value:.1f}"


if __name__ == "__main__":
    for chosen in sys.argv[1:] or ["digits", "photographs"]:
        table({"digits": digits, "photographs": photographs}[chosen])
