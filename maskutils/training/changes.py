"""Approaches that store a change tau = theta - theta_0 of the source network: taken off, the source network is back bit for bit.

theta_0 are the parameters that both tasks use, as the source left them. A head of the target's own is trained whole and is no
part of the change. Norm layers keep the source's statistics. What is stored of a change is rounded to float16. An output channel is an
index of a weight's first dimension, which in a transposed convolution counts inputs.
"""

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F
from torch.optim import AdamW, Optimizer

from maskutils.core.checks import fraction, positive
from maskutils.core.seeds import stream
from maskutils.core.storage import changes, signs
from maskutils.core.tensors import Tensors
from maskutils.masks.mask import Mask
from maskutils.masks.rankings import gradient, magnitude, sensitivity
from maskutils.models.parts import owner_of
from maskutils.training.base import History, Transfer, halves, joined, protocol, put, rounded, shared
from maskutils.training.loop import Penalty, fit

DENSITIES = (0.003, 0.01, 0.03, 0.1, 0.3)  # fractions of the entries that may change


@protocol(
    "baseline", place=50, colour="#006400", marker=(7, 0, 0), known="intact", bits=changes, knobs={"density": 0.03},
    grid=DENSITIES,
)  # fmt: skip
def sparse_change(t: Transfer, density: float) -> History:
    """Fine-tune for half of the steps, cut tau to its top `density` by |tau|, and train those alone for the other half.

    At least one entry of each tensor is kept. Source: LoTA, Panda et al. 2024 (arXiv 2406.16797), which begins the second training at
    theta_0, gives both their full length and rounds nothing. To go on from the cut tau is the stronger rival in half of the steps:
    37 against 4 % of `mnist_to_inverted` on validation, at a density of 0.03.
    """
    fraction("density", density)
    first, theta_0, tau = _first_half(t)
    mask = _largest(tau, density)
    put(t.model, {n: before + tau[n] * mask.bits[n] for n, before in theta_0.items()})
    second = _train_only(t, mask, partial(t.fit, **_second_half(t)))
    return joined(first, t.store_change(theta_0, second))


@protocol("baseline", place=51, colour="#8b0000", marker=(7, 1, 0), known="intact", bits=signs)
def sign_change(t: Transfer) -> History:
    """Fine-tune for half of the steps, keep the sign of tau, and train a scale for each output channel for the other half.

    Scales start at the mean |tau| of their channel; a vector is one channel. A tau of 0 counts as positive. Source: BitDelta, Liu et
    al. 2024 (arXiv 2402.10193), which has a scale for each matrix, fits it to the logits of the fine-tuned network, and leaves
    vectors as they are.
    """
    first, theta_0, tau = _first_half(t)
    sign = {n: torch.ones_like(c).where(c >= 0, -1.0) for n, c in tau.items()}
    scale = {n: nn.Parameter(_by_channel(c.abs())) for n, c in tau.items()}

    def values() -> Tensors:
        return {n: theta_0[n] + scale[n] * sign[n] for n in tau}

    def stored() -> Tensors:
        return {n: theta_0[n] + rounded(scale[n]) * sign[n] for n in tau}

    return joined(first, _train_code(t, scale, values, stored, t.training.lr))


@protocol(
    "baseline", place=52, colour="#4b0082", marker=(6, 0, 30), known="intact", bits=changes, knobs={"strength": 3e-5},
    grid=(1e-6, 1e-5, 3e-5, 1e-4, 3e-4),
)  # fmt: skip
def change_mask(t: Transfer, strength: float) -> History:
    """Fine-tune for half of the steps, then learn a mask on tau: loss + strength * sum_i g_i at theta_0 + g tau, g = sigmoid(s).

    s starts at 5 on the top 1e-5 of |tau| (at least one entry of each tensor) and at -5 elsewhere. At the end g is rounded.
    Source: Localize-and-Stitch, He et al. 2024 (arXiv 2408.13656). They take ten full-batch steps of rate 1e7, which suit the tiny
    gradients at |s| = 5; Adam, here, needs no such rate. Their code rewards s for leaving 0 either way, where the paper, and this,
    pay for g.
    """
    positive("strength", strength)
    first, theta_0, tau = _first_half(t)
    score = {n: nn.Parameter(torch.where(b, 5.0, -5.0)) for n, b in _largest(tau, 1e-5).bits.items()}

    def values() -> Tensors:
        return {n: theta_0[n] + score[n].sigmoid().to(c.dtype) * c for n, c in tau.items()}

    def stored() -> Tensors:
        return {n: theta_0[n] + rounded(tau[n]) * (score[n] > 0) for n in tau}

    def pay(x: Tensor, logits: Tensor, progress: float) -> Tensor:
        return strength * torch.stack([s.sigmoid().sum() for s in score.values()]).sum()

    return joined(first, _train_code(t, score, values, stored, MASK_RATE, pay))


@protocol(
    "baseline", place=53, colour="#556b2f", marker=(3, 1, 0), known="intact", bits=changes, knobs={"density": 0.1},
    grid=DENSITIES,
)  # fmt: skip
def spu(t: Transfer, density: float) -> History:
    """Only the top `density` of each weight's entries is trained, by |gradient| of the mean squared length of the logits.

    Source: Zhang et al. 2024 (arXiv 2308.12462), `trainer/spu.py`: a quarter of the target's batches, and the first layer of each MLP
    alone. Here 500 images and every maskable weight. Their weight decay moves what is not chosen too; here nothing else moves.
    """
    fraction("density", density)
    found = _target_gradient(t, lambda logits, labels: logits.square().sum())
    mask = Mask.from_scores({n: g.abs() for n, g in found.items()}, density, per_layer=True)
    return _train_only(t, mask, t.fit_stored)


@protocol(
    "baseline", place=54, colour="#556b2f", marker=(3, 1, 180), known="intact", bits=changes, knobs={"density": 0.1},
    grid=DENSITIES,
)  # fmt: skip
def talos(t: Transfer, density: float) -> History:
    """Only the `density` of lowest sensitivity on the target is trained (`rankings.sensitivity`), over all weights.

    Source: Iurada et al. 2025 (arXiv 2504.02620), `vision/pruners.py`, which scores biases and norm layers too, and scores four times,
    with what is not chosen so far scaled by 0.1. Here it is done once. Weights that no image reaches come first and learn nothing.
    """
    fraction("density", density)
    found = sensitivity(t.model, t.pair.target.train, t.training.seed)
    return _train_only(t, Mask.from_scores({n: -s for n, s in found.items()}, density, floor=0.0), t.fit_stored)


@protocol(
    "baseline", place=55, colour="#556b2f", marker=(3, 1, 90), known="intact", bits=changes, knobs={"density": 0.01},
    grid=DENSITIES,
)  # fmt: skip
def gps(t: Transfer, density: float) -> History:
    """Only the top `density` of each neuron's entries is trained, at least one, by |gradient| of the target's loss.

    Source: Zhang et al. 2024 (arXiv 2312.10136), `utils/pruning.py`: a number of entries instead of a fraction, biases and head whole,
    and for a fresh head a contrastive loss in place of the cross-entropy, which 500 images give here.
    """
    fraction("density", density)
    found = _target_gradient(t, partial(F.cross_entropy, reduction="sum"))
    return _train_only(t, Mask({n: _top_of_rows(g.abs(), density) for n, g in found.items()}), t.fit_stored)


@protocol(
    "baseline", place=56, colour="#556b2f", marker=(3, 1, 270), known="intact", bits=changes,
    knobs={"density": 0.1, "bottom": 0.0}, grid=DENSITIES,
)  # fmt: skip
def super_tuning(t: Transfer, density: float, bottom: float) -> History:
    """Only the top `density` of each weight's entries by |w| is trained; the lowest, if `bottom` is not 0.

    Source: Super-Tuning, 2026 (arXiv 2607.09287), without its weighting by activations.
    """
    fraction("density", density)
    sign = -1 if bottom else 1
    found = magnitude(t.model, t.pair.target.train, t.training.seed)
    mask = Mask.from_scores({n: sign * s for n, s in found.items()}, density, per_layer=True)
    return _train_only(t, mask, t.fit_stored)


# What they share

MASK_RATE = 0.3  # of the scores of `change_mask`: 0.1 opens half as many entries in 150 steps, 1.0 adapts no better


def _train_only(t: Transfer, mask: Mask, fit: Callable[..., History]) -> History:
    """Train what `mask` keeps and a head of the target's own, by `fit` of `t`; nothing else moves."""
    with t.holding(~mask):
        return fit(norm="eval")


def _largest(tau: Tensors, density: float) -> Mask:
    """The `density` of largest |tau| over all tensors, at least one entry of each."""
    return Mask.from_scores({n: c.abs() for n, c in tau.items()}, density, floor=0.0)


def _top_of_rows(scores: Tensor, density: float) -> Tensor:
    """Bool tensor that is True for the `density` of highest scores of each output channel, at least one."""
    rows = scores.flatten(1)
    best = rows.topk(max(1, round(density * rows.shape[1]))).indices
    return torch.zeros_like(rows, dtype=torch.bool).scatter(1, best, True).view_as(scores)


def _target_gradient(t: Transfer, loss: Callable[[Tensor, Tensor], Tensor]) -> Tensors:
    return gradient(t.model, t.pair.target.train, loss, t.training.seed)


def _first_half(t: Transfer) -> tuple[History, Tensors, Tensors]:
    """Fine-tune for half of the steps, then put theta_0 back: the history, theta_0 and tau."""
    theta_0 = {n: p.clone() for n, p in shared(t.model).items()}
    rows = t.fit(steps=halves(t.training.steps)[0], norm="eval")
    tau = {n: p - theta_0[n] for n, p in shared(t.model).items()}
    put(t.model, theta_0)
    return rows, theta_0, tau


def _second_half(t: Transfer) -> dict[str, Any]:
    """The rest of the steps, and the seed of other batches than those of the first half."""
    return {"steps": halves(t.training.steps)[1], "seed": stream(t.training.seed, "second half")}


def _by_channel(values: Tensor) -> Tensor:
    """The mean of each output channel, of a shape that broadcasts."""
    inner = tuple(range(min(1, values.ndim - 1), values.ndim))
    return values.mean(inner, keepdim=True)


class _Coded(nn.Module):
    """A network that computes with `values()` in the place of its own parameters; where several modules share one, in each of them."""

    def __init__(self, model: nn.Module, values: Callable[[], Tensors]) -> None:
        super().__init__()
        self.model, self.values = model, values
        own, self.places = {id(model.get_parameter(n)): n for n in shared(model)}, dict[Any, tuple[str, str]]()
        # once for each place: a module may have two names, and torch would put back what it put there itself
        for name, p in model.named_parameters(remove_duplicate=False):
            if id(p) in own:
                self.places.setdefault((id(owner_of(model, name)[0]), name.rpartition(".")[2]), (name, own[id(p)]))

    def forward(self, images: Tensor) -> Any:
        values = self.values()
        given = {place: values[name] for place, name in self.places.values()}
        return functional_call(self.model, given, (images,), tie_weights=False)


def _train_code(
    t: Transfer, code: dict[str, nn.Parameter], values: Callable[[], Tensors], stored: Callable[[], Tensors], rate: float,
    penalty: Penalty | None = None,
) -> History:  # fmt: skip
    """Train `code`, through the `values` that it gives the network, and a head of the target's own; `stored` is put back."""
    head = t.own_parameters()

    def make(params: Iterable[nn.Parameter], lr: float) -> Optimizer:
        scored: dict[str, Any] = {"params": list(code.values()), "lr": rate, "weight_decay": 0.0, "eps": 1e-15}
        return AdamW([scored, {"params": head}], lr, weight_decay=0.01, fused=True)

    def watch() -> dict[str, float]:
        put(t.model, stored())
        return t.watch() if t.watch else {}

    rows = fit(
        _Coded(t.model, values), t.pair.target.train, lr=t.training.lr, batch_size=t.training.batch_size, optimizer=make,
        params=[*code.values(), *head], penalty=penalty, norm="eval", precision=t.training.precision, watch=watch, **_second_half(t),
    )  # fmt: skip
    put(t.model, stored())
    return rows
