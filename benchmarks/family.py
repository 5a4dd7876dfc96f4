"""Masks of networks of other families, without pretrained weights. docs/guides/photos.md has both tables.

`python -m benchmarks.family digits` learns masks by the defaults in four small networks, in about fifteen minutes of a core. `photographs`
takes a ResNet-18 of 11 million weights, twenty minutes, and the images of that page.
"""

import sys

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
DENSITY, SEED = 0.3, 0
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


def of_digits() -> tuple[TensorDataset, TensorDataset]:
    """The packaged digits, to train and to test, of 32 pixels and three channels."""
    source = load_pair("mnist_to_digits", SEED).source
    sides = [some(side, len(side), SEED) for side in (source.train, source.test)]
    train, test = (TensorDataset(F.interpolate(x, 32).repeat(1, 3, 1, 1), y) for x, y in sides)
    return train, test


def digits(steps: int = 300) -> None:
    """Train each of `NETWORKS`, and print the accuracy through masks of `learn_mask` in percent: a row of Markdown for each."""
    train, test = of_digits()
    for make, source_steps in NETWORKS.items():
        torch.manual_seed(SEED)
        network = make()
        fit(network, train, steps=source_steps, lr=1e-3, seed=SEED)
        told = [make.__name__, f"{sum(p.numel() for p in network.parameters()) / 1e6:.2f}"]
        for density, name in ((1.0, ""), (0.5, MASKS[1]), (0.3, MASKS[1]), (0.5, MASKS[0]), (0.3, MASKS[0])):
            mask = learn_mask(network, train, name, density=density, steps=steps) if name else None
            told.append(f"{100 * evaluate(mask.apply(network) if mask else network, test):.1f}")
        print(f"| {' | '.join(told)} |", flush=True)


def photographs(source_steps: int = 600, steps: int = 150, lr: float = 3e-4) -> None:
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
    for chosen in sys.argv[1:] or ["digits", "photographs"]:
        {"digits": digits, "photographs": photographs}[chosen]()
