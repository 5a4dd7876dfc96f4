"""Masks for the eye: layers by names that people know, tables, filters, and what a mask layer makes of a score."""

from collections import Counter
from collections.abc import Mapping
from math import isqrt
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from maskutils.core.seeds import seeded
from maskutils.core.shown import table
from maskutils.masks.layers import LAYERS
from maskutils.masks.selection import places

KINDS = {2: "linear", 3: "conv", 4: "conv", 5: "conv"}  # dimensions of a weight -> what its layer is called


def layer_names(weights: Mapping[str, Tensor]) -> dict[str, str]:
    """Name of a parameter -> name of its layer. A layer that has only a number is called by its kind and its place among that kind.

    >>> layer_names({"0.weight": torch.ones(8, 1, 5, 5), "7.weight": torch.ones(4, 2), "fc.weight": torch.ones(2, 2)})
    {'0.weight': 'conv1', '7.weight': 'linear1', 'fc.weight': 'fc'}
    """
    found, seen = {}, Counter[str]()
    taken = {name.removesuffix(".weight") for name in weights}
    for name, weight in weights.items():
        layer = name.removesuffix(".weight")
        if layer.isdigit():
            kind = KINDS.get(weight.ndim, "layer")
            seen[kind] += 1
            while (layer := f"{kind}{seen[kind]}") in taken:
                seen[kind] += 1
        found[name] = layer
    return found


class Shown:
    """What `Mask` shows of itself in a notebook, and for figures."""

    bits: Mapping[str, Tensor]
    scores: Mapping[str, Tensor] | None

    @property
    def densities(self) -> dict[str, float]:
        """Fraction of weights kept in each layer."""
        return {name: b.float().mean().item() for name, b in self.bits.items()}

    @property
    def layers(self) -> dict[str, float]:
        """Fraction of weights kept in each layer, by the names that people know ("conv1")."""
        names = layer_names(self.bits)
        return {names[name]: density for name, density in self.densities.items()}

    def first_filters(self, model: nn.Module, n: int = 8) -> tuple[np.ndarray, np.ndarray]:
        """The first `n` filters of the first layer in `model`: weights (n, h, w), and which of them are kept (bool).

        Of a convolution colours are averaged. A row of a linear layer is a square, where it has a square number of inputs.
        """
        name, bits = next(iter(self.bits.items()))
        weight, kept = model.get_parameter(name).detach().cpu()[:n], bits.cpu()[:n]
        if weight.ndim == 4:
            return weight.mean(1).numpy(), kept.any(1).numpy()
        side = isqrt(weight[0].numel())
        shape = (len(weight), -1, side if side * side == weight[0].numel() else weight.shape[-1])
        return weight.reshape(shape).numpy(), kept.reshape(shape).numpy()

    def image(self) -> np.ndarray:
        """The bits of the largest layer, as (outputs, inputs)."""
        largest = max(self.bits.values(), key=lambda b: b.numel())
        return largest.cpu().flatten(1).numpy()

    def by_size(self, model: nn.Module) -> tuple[np.ndarray, np.ndarray]:
        """Of each weight of `model`: its place by size in its layer, from 0 (smallest) to 1, and whether it is kept (bool); both (N,)."""
        sizes = [model.get_parameter(name).detach().abs().flatten().cpu() for name in self.bits]
        found = torch.cat([(places(layer) + 0.5) / len(layer) for layer in sizes])
        return found.numpy(), torch.cat([bits.flatten().cpu() for bits in self.bits.values()]).numpy()

    def ranked(self) -> tuple[np.ndarray, float]:
        """The scores of all layers in one array (N,), and the lowest of those that are kept (inf if none is).

        Raises `ValueError` without scores.
        """
        if not self.scores:
            raise ValueError("this mask carries no scores; learn_mask gives one that does")
        scores = torch.cat([s.flatten().float().cpu() for s in self.scores.values()]).numpy()
        kept = torch.cat([self.bits[name].flatten().cpu() for name in self.scores]).numpy()
        return scores, float(scores[kept].min(initial=np.inf))

    def _repr_html_(self) -> str:
        names, densities = layer_names(self.bits), self.densities
        rows = [
            (names[n], "x".join(map(str, b.shape)), f"{b.numel():,}", f"{densities[n]:.3f}")
            for n, b in self.bits.items()
        ]
        return table(repr(self), ["layer", "shape", "weights", "density"], rows)


def response(method: str, scores: np.ndarray, draws: int = 400, progress: float = 0.0) -> dict[str, Any]:
    """What a mask layer of `method` makes of each of `scores` (N,), for weights of 1, at `progress` in [0, 1) of its training.

    `training`: the mean mask of a training step; `end`: the mask in the end; `gradient`: the mean gradient that a score gets where the
    masked weight gets 1. All are arrays (N,). Noise is drawn `draws` times.
    """
    weight = torch.ones(1, len(scores))  # of a linear layer with one output
    total = torch.zeros_like(weight)
    with seeded(0, "response"):
        layer = LAYERS[method](weight)
        layer.scores.data.copy_(torch.as_tensor(scores))
        layer.progress = progress
        for _ in range(draws):
            masked = layer(weight)
            total += masked.detach()
            masked.sum().backward()
    gradient = torch.zeros_like(weight) if layer.scores.grad is None else layer.scores.grad
    values = {"training": total / draws, "end": layer.harden().float(), "gradient": gradient / draws}
    return {name: value[0].numpy() for name, value in values.items()}


def one_draw(method: str, scores: np.ndarray) -> dict[str, np.ndarray]:
    """`response` in a single training step, in which all `scores` meet the same noise."""
    made = [response(method, scores[i : i + 1], 1) for i in range(len(scores))]
    return {name: np.concatenate([each[name] for each in made]) for name in made[0]}
