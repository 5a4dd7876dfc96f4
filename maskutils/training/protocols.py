"""Bounds, and the protocols that a mask gives rise to."""

from typing import Any

from torch import nn

from maskutils.core.checks import register
from maskutils.data.pair import Pair
from maskutils.masks import protection
from maskutils.masks.mask import Mask
from maskutils.models.parts import head_parameters, own_head
from maskutils.training.base import PROTOCOLS, History, Train
from maskutils.training.learn import learn_subnetwork, mask_batch


@register(PROTOCOLS)
def source_only(model: nn.Module, train: Train) -> None:
    """No training on the target at all: retention is whole, and a target head of its own stays untrained."""


@register(PROTOCOLS)
def finetune(model: nn.Module, train: Train) -> History:
    """Every parameter trained on the target: the usual reference for adaptation, and for forgetting."""
    return train()


@register(PROTOCOLS)
def linear_probe(model: nn.Module, train: Train) -> History:
    """Only the head trained: what the source features are worth on the target."""
    return train(params=head_parameters(model))


@register(PROTOCOLS)
def protect(model: nn.Module, train: Train, mask: Mask) -> History:
    """What the source mask keeps, and everything no mask covers, held bit-identical; the other weights trained.

    Our reading of arXiv 2308.13957, whose abstract names no protocol. A head of the target's own is trained.
    """
    with protection.protect(model, mask, train=own_head(model)):
        return train()


@register(PROTOCOLS)
def protect_weights(model: nn.Module, train: Train, mask: Mask) -> History:
    """`protect` without holding what no mask covers: biases, norm layers and a shared head are trained on the target too.

    An ablation: the source through the mask then drifts.
    """
    with protection.protect(model, mask, train=[n for n, _ in model.named_parameters() if n not in mask.bits]):
        return train()


@register(PROTOCOLS)
def select(model: nn.Module, train: Train, mask: Mask) -> History:
    """Only what the source mask keeps is trained, and a head of the target's own: the weights that matter are re-used."""
    with protection.protect(model, ~mask, train=own_head(model)):
        return train()


@register(PROTOCOLS)
def exclusive(model: nn.Module, train: Train, pair: Pair, mask: Mask, mask_steps: int) -> History:
    """What the target's mask keeps and the source's does not is trained, as in ExSSNeT (arXiv 2210.10209).

    The target's mask is learnt first, on the frozen source network, as a Gumbel-sigmoid mask of the density of `mask`.
    """
    data, head = pair.target.train, own_head(model)
    learnt, target = learn_subnetwork(model, data, "gumbel_sigmoid", train=head, **_to_learn(train, mask_steps))
    model.load_state_dict(learnt.state_dict())
    with protection.protect(model, ~(target.at_density(mask.density) & ~mask), train=head):
        return train()


@register(PROTOCOLS)
def piggyback(model: nn.Module, train: Train, pair: Pair, mask_steps: int, density: float = 0.0) -> History:
    """All weights frozen; a mask of the *target* is learnt and left in the weights (Mallya et al. 2018, arXiv 1801.06519).

    The mask is the method piggyback's own, native (`density` 0) or of a given density. Taking it off gives the source
    network back bit for bit; the full network is the masked one.
    """
    head = own_head(model)
    learnt, mask = learn_subnetwork(model, pair.target.train, "piggyback", train=head, **_to_learn(train, mask_steps))
    model.load_state_dict((mask.at_density(density) if density else mask).apply(learnt).state_dict())
    return []


def _to_learn(train: Train, mask_steps: int) -> dict[str, Any]:
    """How a target's mask is learnt where the network is trained as `train` does it."""
    own = train.keywords
    size = mask_batch(own["batch_size"])
    return {"steps": mask_steps, "seed": own["seed"], "precision": own["precision"], "batch_size": size}
