"""Baselines that hold the network to its source by its features, or by the optimiser's step."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import AdamW

from maskutils.core.checks import positive
from maskutils.models.heads import heads, logits_of
from maskutils.training.base import History, Transfer, frozen, protocol


@protocol(
    "baseline", place=32, colour="#1b7837", marker=(3, 1, 180), rival=True, knobs={"strength": 10.0},
    grid=(1.0, 10.0, 100.0, 1000.0, 10000.0),
)  # fmt: skip
def ldifs(t: Transfer, strength: float) -> History:
    """Loss + strength * mean over layers of the mean squared difference of normalised features to those of the source network.

    Features are what linear layers and convolutions beside the head give on the target's images, of length 1 over the channels.
    Source: Mukhoti et al. 2024 (arXiv 2308.13320) and their `loss/ldifs.py`, which takes the mean over channels and places too.
    """
    positive("strength", strength)
    source = frozen(t.model)
    if not _layers(t.model):
        raise ValueError(f"ldifs: {type(t.model).__name__} has no linear layer or convolution beside its head")

    def distance(x: Tensor, logits: Tensor, progress: float) -> Tensor:
        with torch.no_grad():
            logits_of(source(x))
        terms = [F.mse_loss(normalised(now[n], d), normalised(before[n], d)) for n, d in channels.items() if n in now]
        return strength * torch.stack(terms).mean()

    with _features(t.model) as (now, channels), _features(source) as (before, _):
        return t.fit(penalty=distance)


def normalised(features: Tensor, channels: int) -> Tensor:
    """`features` of length 1 along the dimension `channels`, or of length 0 where they are 0."""
    features = features.float()
    length: Tensor = torch.linalg.vector_norm(features, dim=channels, keepdim=True)
    return features / (length + 1e-10)


def _layers(model: nn.Module) -> dict[str, nn.Module]:
    head, kinds = tuple(f"{name}." for name in heads(model)), nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d
    return {n: m for n, m in model.named_modules() if isinstance(m, kinds) and not f"{n}.".startswith(head)}


@contextmanager
def _features(model: nn.Module) -> Iterator[tuple[dict[str, Tensor], dict[str, int]]]:
    """Inside the block the first dict holds what each layer gave in the last forward pass; the second says where its channels are."""
    found: dict[str, Tensor] = {}
    layers = _layers(model)

    def keep(name: str) -> Callable[[nn.Module, Any, Tensor], None]:
        return lambda module, given, made: found.update({name: made})

    with ExitStack() as hooks:
        for name, module in layers.items():
            hooks.enter_context(module.register_forward_hook(keep(name)))
        yield found, {name: -1 if isinstance(module, nn.Linear) else 1 for name, module in layers.items()}


@protocol(
    "baseline", place=33, colour="#e6550d", marker=(7, 1, 0), rival=True, knobs={"strength": 3.0}, grid=(0.3, 1.0, 3.0, 10.0, 30.0)
)  # fmt: skip
def spd(t: Transfer, strength: float) -> History:
    """Fine-tuning by `SelectiveDecay`, in the place of AdamW and its decay towards 0.

    Source: Tian et al. 2024 (arXiv 2411.01713), algorithm 1. A fresh head is held to where it began, as in L2-SP.
    """
    positive("strength", strength)
    return t.fit(optimizer=lambda params, lr: SelectiveDecay(params, lr, strength))


class SelectiveDecay(AdamW):
    """AdamW whose decay draws a tensor back to where it began, and only where the loss would have it back: AdamSPD.

    After Adam's step from theta to theta~: where <gradient, theta - theta_0> > 0, theta~ -= strength * r (theta~ - theta_0), and r is
    the share of |theta~ - theta_0| that the step added, at least 0. theta_0 is what `params` are when it is made.
    """

    def __init__(self, params: Iterable[nn.Parameter], lr: float, strength: float) -> None:
        super().__init__(params, lr, weight_decay=0.0, fused=True)
        self.strength = strength
        self.origin = {p: p.detach().clone() for group in self.param_groups for p in group["params"]}

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """One step of Adam, and the decay."""
        gone = {p: p - origin for p, origin in self.origin.items() if p.grad is not None}
        loss = super().step(closure)
        for p, tau in gone.items():
            new = p - self.origin[p]
            r = ((new.norm() - tau.norm()) / new.norm().clamp_min(1e-30)).clamp(0, 1)
            p.sub_(self.strength * r * ((p.grad * tau).sum() > 0) * new)
        return loss
