"""What a mask layer costs: against a threshold pass and its textbook formula, and in a training step.

`python -m benchmarks.layers` measures the steps of a deep network alone, masked and protected, against a dense one.
"""

import copy
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks import timing
from benchmarks.timing import best_of, row
from maskutils.masks.layers import LAYERS, MaskLayer, attach
from maskutils.masks.mask import Mask
from maskutils.masks.protection import protect
from maskutils.models.networks import build_model
from maskutils.models.parts import maskable

NETWORKS = {  # whose weights are masked: arguments of `build_model`, rounds, calls a round, and whether the textbook is timed too
    "0.15 M": (("mlp",), 3, 30, True),
    "11 M": (("resnet18", 10, 3, 32), 3, 1, True),
    "86 M": (("vit_b_16", 10, 3, 224), 1, 1, False),
}
DEEP, BATCH = ("resnet18", 10, 3, 32), 64
COSTLIEST = ("gumbel_sigmoid", "hard_concrete", "edge_popup")
NOISY = ("bernoulli", "gumbel_sigmoid", "hard_concrete")
TARGETS = {"edge_popup": 3.0, "winning_subnetwork": 3.0}  # 2 for all others
EPS = 1e-10


class FullSort(torch.autograd.Function):
    """The mask of the edge-popup paper: all scores sorted, then zeros and ones written."""

    @staticmethod
    def forward(ctx, scores: Tensor, density: float) -> Tensor:
        mask, order = torch.empty_like(scores).flatten(), scores.flatten().sort().indices
        dropped = int((1 - density) * scores.numel())
        mask[order[:dropped]], mask[order[dropped:]] = 0, 1
        return mask.view_as(scores)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient, None


class StraightThrough(torch.autograd.Function):
    """The value of `hard` with the gradient of `soft`."""

    @staticmethod
    def forward(ctx, soft: Tensor, hard: Tensor) -> Tensor:
        return hard.to(soft.dtype)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient, None


def threshold(scores: Tensor) -> Tensor:
    """The plainest mask there is, which everything is compared to."""
    return StraightThrough.apply(scores, scores.detach() > 0.005)


def gumbel_sigmoid(scores: Tensor) -> Tensor:
    """Two uniforms, as in the paper."""
    u, v = torch.rand_like(scores), torch.rand_like(scores)
    soft = torch.sigmoid(scores - torch.log(torch.log(v + EPS) / torch.log(u + EPS) + EPS))
    return (soft > 0.5).float().sub(soft).detach() + soft


def hard_concrete(scores: Tensor) -> Tensor:
    """Eq. 10-12 of the paper."""
    u = torch.rand_like(scores).clamp(1e-6, 1 - 1e-6)
    return (torch.sigmoid((torch.log(u) - torch.log(1 - u) + scores) / (2 / 3)) * 1.2 - 0.1).clamp(0, 1)


def bernoulli(scores: Tensor) -> Tensor:
    """A Bernoulli draw, straight through its probability."""
    p = torch.sigmoid(scores)
    return (torch.bernoulli(p) - p).detach() + p


TEXTBOOK: dict[str, Callable[[Tensor], Tensor]] = {
    "bernoulli": bernoulli,
    "continuous_sparsification": lambda scores: torch.sigmoid(1.0 * scores),  # at the first temperature
    "edge_popup": lambda scores: FullSort.apply(scores.abs(), 0.5),
    "gumbel_sigmoid": gumbel_sigmoid,
    "hard_concrete": hard_concrete,
    "piggyback": threshold,
    "winning_subnetwork": lambda scores: FullSort.apply(scores.abs(), 0.5),
}


def passes() -> list[list[str]]:
    """Forward and backward through the masks of a whole network, on frozen weights."""
    return [line for size, settings in NETWORKS.items() for line in _at(size, *settings)]


def _at(size: str, network: tuple, rounds: int, many: int, textbook: bool) -> list[list[str]]:
    with torch.device("meta"):
        model = build_model(*network)
    weights = [torch.randn(model.get_parameter(n).shape) for n in maskable(model)]
    upstream, rows = [torch.randn_like(w) for w in weights], []
    for name in [*LAYERS, "edge_popup, equal scores"]:
        method, _, equal = name.partition(", ")
        layers = [LAYERS[method](w).train() for w in weights]
        if equal:
            [layer.scores.data.fill_(0.5) for layer in layers]
        calls = [partial(_ours, layers, weights), partial(_plain, threshold, layers, weights)]
        times = best_of(*(_back(c, upstream, layers) for c in calls), repeats=rounds, steps=many)
        kind = "a threshold pass"
        if textbook and method in TEXTBOOK:  # no target hangs on it, so once will do
            formula = partial(_plain, TEXTBOOK[method], layers, weights)
            (taken,) = best_of(_back(formula, upstream, layers), repeats=1, steps=many)
            kind += f"; the textbook takes {taken / times[1]:.1f} of them"
        rows.append(row(f"{name}, {size} weights", *times, kind, target=TARGETS.get(method, 2.0)))
    return [*rows, _draw(size, upstream, times[1], rounds)]


def _ours(layers: list[MaskLayer], weights: list[Tensor]) -> list[Tensor]:
    return [layer(w) for layer, w in zip(layers, weights, strict=True)]


def _plain(mask: Callable[[Tensor], Tensor], layers: list[MaskLayer], weights: list[Tensor]) -> list[Tensor]:
    return [w * mask(layer.scores) for layer, w in zip(layers, weights, strict=True)]


def _back(call: Callable[[], list[Tensor]], upstream: list[Tensor], layers: list[MaskLayer]) -> Callable[[], None]:
    def both() -> None:
        torch.autograd.backward(call(), upstream)
        for layer in layers:
            layer.scores.grad = None

    return both


def _draw(size: str, buffers: list[Tensor], reference: float, rounds: int) -> list[str]:
    """What no formula of a noisy layer can do without: a uniform number, its logit and a logistic function for each weight."""

    def floor() -> None:
        for b in buffers:
            b.uniform_().logit_(1e-6).sigmoid_()

    times = best_of(floor, repeats=rounds, steps=1)
    return row(f"noise alone (draw, logit, sigmoid), {size}", *times, reference, "a threshold pass")


def stepper(
    model: nn.Module, params: list[nn.Parameter], images: Tensor, labels: Tensor, layers: list = ()
) -> Callable[[], None]:
    """One training step of `params`, with the penalty of `layers`."""
    optim = torch.optim.Adam(params, 1e-3, fused=True)

    def step() -> None:
        optim.zero_grad()
        penalty = sum(layer.strength * layer.penalty() for layer in layers if layer.strength)
        (F.cross_entropy(model(images), labels) + penalty).backward()
        optim.step()

    return step


def masked(model: nn.Module, name: str, images: Tensor, labels: Tensor) -> Callable[[], None]:
    """One step of the scores of the mask layers `name` on a copy of `model`."""
    own = copy.deepcopy(model).requires_grad_(False)
    layers = list(attach(own, name).values())
    return stepper(own, [layer.scores for layer in layers], images, labels, layers)


def steps() -> list[list[str]]:
    """A training step of every layer on a small network, of the costliest and under `protect` on a deep one, against a dense one."""
    model, images, labels = build_model("cnn"), torch.randn(32, 1, 28, 28), torch.arange(32) % 10
    calls = [masked(model, name, images, labels) for name in LAYERS]
    *ours, dense = best_of(*calls, _dense(model, images, labels), repeats=min(timing.REPEATS, 3))
    kind = "a step of the dense network, cnn"
    rows = [row(f"a step of {name}", time, dense, kind) for name, time in zip(LAYERS, ours, strict=True)]
    return [*rows, _protected(model, images, labels, "cnn"), *_deep()]


def _deep() -> list[list[str]]:
    model, images, labels = build_model(*DEEP), torch.randn(BATCH, 3, 32, 32), torch.arange(BATCH) % 10
    calls = [masked(model, name, images, labels) for name in COSTLIEST]
    *ours, dense = best_of(*calls, _dense(model, images, labels), repeats=min(timing.REPEATS, 2), steps=1)
    kind = f"a step of the dense network, {DEEP[0]}, {BATCH} images"
    rows = [row(f"a step of {n}, {DEEP[0]}", t, dense, kind, target=1.1) for n, t in zip(COSTLIEST, ours, strict=True)]
    return [*rows, _protected(model, images, labels, DEEP[0], 1, 2)]


def _dense(model: nn.Module, images: Tensor, labels: Tensor) -> Callable[[], None]:
    own = copy.deepcopy(model)
    return stepper(own, list(own.parameters()), images, labels)


def _protected(
    model: nn.Module, images: Tensor, labels: Tensor, name: str, many: int | None = None, repeats: int | None = None
) -> list[str]:
    """`many` steps inside the block, which is entered beforehand, against as many free ones."""
    held = copy.deepcopy(model).eval()
    mask = Mask.from_scores({n: held.get_parameter(n).detach().abs() for n in maskable(held)}, 0.1)
    inside = stepper(held, list(held.parameters()), images, labels)
    with protect(held, mask, optimizer=None):
        free = copy.deepcopy(model).eval()
        outside = stepper(free, list(free.parameters()), images, labels)
        times = best_of(inside, outside, repeats=repeats, steps=many)
    return row(f"a step under protect, {name}", *times, "a free step", target=1.05)


if __name__ == "__main__":
    torch.set_num_threads(1)
    for line in _deep():
        print(" | ".join(line))
