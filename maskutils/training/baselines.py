"""Baselines that need no mask, or none that is binary.

Each function's body is its difference from fine-tuning. `strength` is the knob that trades retention for adaptation.
"""

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from maskutils.core.checks import fraction as check_fraction
from maskutils.core.checks import positive, register
from maskutils.core.seeds import generator
from maskutils.data.batches import batches
from maskutils.data.pair import Pair, subset
from maskutils.masks import protection
from maskutils.masks.mask import Mask
from maskutils.masks.rankings import Scores
from maskutils.models.parts import head_name, head_parameters, norm_layers, own_head
from maskutils.training.base import PROTOCOLS, History, Train, answer
from maskutils.training.loop import Penalty, fit


def anchor(model: nn.Module, strength: float, importance: Scores | None = None) -> Penalty:
    """strength * sum_i importance_i (theta_i - theta_0,i)^2, theta_0 the parameters as they are now; importance 1 if none.

    Parameters without an importance (a head of the target's own) are not held, nor is an idle head of the source's own: it
    has no gradient, and one of 0 would let weight decay at it. Raises `BadParameter` unless `strength` is above 0.
    """
    positive("strength", strength)
    idle = f"{head_name(model)}.source."
    names = [
        n for n, _ in model.named_parameters() if not n.startswith(idle) and (importance is None or n in importance)
    ]
    theta_0 = {n: model.get_parameter(n).detach().clone() for n in names}
    worth = {n: importance[n].to(theta_0[n].device) for n in names} if importance is not None else {}

    def penalty(x: Tensor, logits: Tensor, progress: float) -> Tensor:
        terms = ((model.get_parameter(n) - before).square() * worth.get(n, 1) for n, before in theta_0.items())
        return strength * sum(term.sum() for term in terms)

    return penalty


@register(PROTOCOLS)
def l2_sp(model: nn.Module, train: Train, strength: float = 0.1) -> History:
    """Loss + strength / 2 * |theta - theta_0|^2. Source: Li et al. 2018 (arXiv 1802.01483), eq. 3.

    A fresh head is drawn to where it began instead of to 0, which is as near.
    """
    return train(penalty=anchor(model, strength / 2))


@register(PROTOCOLS)
def ewc(model: nn.Module, train: Train, importance: Scores, strength: float = 100.0) -> History:
    """Loss + strength / 2 * sum_i F_i (theta_i - theta_0,i)^2. Source: Kirkpatrick et al. 2017 (arXiv 1612.00796), eq. 3.

    `importance` is the exact Fisher diagonal F of the source network (`rankings.fisher_information`).
    """
    return train(penalty=anchor(model, strength / 2, importance))


@register(PROTOCOLS)
def elastic_mask(model: nn.Module, train: Train, importance: Scores, strength: float = 0.1) -> History:
    """Loss + strength * sum_i p_i (theta_i - theta_0,i)^2, p_i the probability that weight i carries the source. Ours.

    `importance` is p, from a learnt mask's scores, and 1 where nothing is maskable. With p = 1 it is L2-SP of strength 2s.
    """
    return train(penalty=anchor(model, strength, importance))


@register(PROTOCOLS)
def lwf(model: nn.Module, train: Train, strength: float = 1.0, temperature: float = 2.0) -> History:
    """Loss + strength * T^2 KL(p_0 || p) of the source answers on the target's images, T = 2.

    Source: Li & Hoiem 2017 (arXiv 1606.09282), eq. 2-3, with the factor T^2 of Hinton et al. 2015 and without their warm-up of the new
    head.
    """
    positive("strength", strength)
    teacher = _frozen(model)

    def distil(x: Tensor, logits: Tensor, progress: float) -> Tensor:
        with torch.no_grad():
            before = F.log_softmax(answer(teacher, "source", x) / temperature, dim=1)
        after = F.log_softmax(answer(model, "source", x) / temperature, dim=1)
        return strength * temperature**2 * F.kl_div(after, before, log_target=True, reduction="batchmean")

    return train(penalty=distil)


@register(PROTOCOLS)
def replay(model: nn.Module, train: Train, pair: Pair, seed: int, fraction: float = 0.01) -> History:
    """Loss on the target + loss on a batch from a buffer, of equal weight; the buffer is a random `fraction` of the source.

    Source: Chaudhry et al. 2019 (arXiv 1902.10486).
    """
    n, share = len(pair.source.train), check_fraction("fraction", fraction)
    kept = torch.randperm(n, generator=generator(seed, "replay"), device="cpu")[: max(1, round(share * n))]
    source = batches(subset(pair.source.train, kept), train.keywords["batch_size"], seed + 1)

    def rehearse(x: Tensor, logits: Tensor, progress: float) -> Tensor:
        images, labels = (t.to(x.device) for t in next(source))
        return F.cross_entropy(answer(model, "source", images), labels)

    return train(penalty=rehearse)


@register(PROTOCOLS)
def joint(model: nn.Module, train: Train, pair: Pair, seed: int) -> History:
    """Replay of the whole source: the upper bound where source data may be kept."""
    return replay(model, train, pair, seed, fraction=1.0)


@register(PROTOCOLS)
def lp_ft(model: nn.Module, train: Train) -> History:
    """The head alone for half of the steps, then everything for the other half. Source: Kumar et al. 2022 (arXiv 2202.10054)."""
    half = train.keywords["steps"] // 2
    probe = train(params=head_parameters(model), steps=max(1, half))
    rest = train(steps=max(1, train.keywords["steps"] - half), seed=train.keywords["seed"] + 1)
    return probe + [row | {"step": row["step"] + half} for row in rest]


@register(PROTOCOLS)
def bias_only(model: nn.Module, train: Train) -> History:
    """Only parameters of one dimension (biases, norm layers) and a head of the target's own are trained.

    Source: Ben Zaken et al. 2022 (BitFit, arXiv 2106.10199).
    """
    head = tuple(own_head(model))
    return train(params=[p for n, p in model.named_parameters() if p.ndim == 1 or n.startswith(head)])


@register(PROTOCOLS)
def bn_only(model: nn.Module, train: Train) -> History:
    """Only the scales and shifts of norm layers and a head of the target's own are trained.

    Source: Frankle et al. 2021 (arXiv 2003.00152), there on random features. Raises `ValueError` for a network without norm layers.
    """
    norms = {id(p) for module in norm_layers(model) for p in module.parameters()}
    if not norms:
        raise ValueError(f"bn_only: {type(model).__name__} has no norm layers with parameters; use bias_only")
    head = tuple(own_head(model))
    return train(params=[p for n, p in model.named_parameters() if id(p) in norms or n.startswith(head)])


@register(PROTOCOLS)
def packnet(model: nn.Module, train: Train, pair: Pair, mask: Mask, seed: int, retrain_steps: int = 150) -> History:
    """Prune to `mask`, retrain what it keeps on the source, then protect that and train the rest on the target.

    Source: Mallya & Lazebnik 2018 (arXiv 1711.05769), whose mask is magnitude per layer. Pruned weights begin at 0.
    """
    mask = Mask(mask.bits)  # what it may carry besides is of no use here
    model.load_state_dict(mask.apply(model).state_dict())
    settings = {name: train.keywords[name] for name in ("batch_size", "precision")}
    _retrain(model, pair, mask, steps=retrain_steps, seed=seed, **settings)
    with protection.protect(model, mask, train=own_head(model)):
        return train()


def _retrain(model: nn.Module, pair: Pair, mask: Mask, **settings: Any) -> None:
    """Train what `mask` keeps on the source, through whichever head is the source's."""
    source = _SourceView(model)
    with protection.protect(model, ~mask):
        fit(source, pair.source.train, lr=5e-4, norm="eval", **settings)


class _SourceView(nn.Module):
    """A network that always answers for the source."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        return answer(self.model, "source", images)


def _frozen(model: nn.Module) -> nn.Module:
    return copy.deepcopy(model).eval().requires_grad_(False)
