"""Baselines that need no mask, or none that is binary.

Each function's body is its difference from fine-tuning. `strength` is the knob that trades retention for adaptation.
"""

from functools import reduce

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from maskutils.core.checks import fraction as check_fraction
from maskutils.core.checks import positive
from maskutils.core.seeds import generator, stream
from maskutils.core.storage import mask_only, whole_tensors
from maskutils.core.tensors import Tensors
from maskutils.data.batches import batches, images_and_labels
from maskutils.data.pair import subset
from maskutils.masks import protection
from maskutils.masks.mask import Mask
from maskutils.models.heads import head_name, head_parameters, own_head
from maskutils.models.inputs import taken_by
from maskutils.models.parts import norm_layers
from maskutils.training.base import History, Transfer, answer, answering, frozen, halves, joined, protocol
from maskutils.training.learn import mask_batch
from maskutils.training.loop import Penalty, fit


def anchor(model: nn.Module, strength: float, importance: Tensors | None = None) -> Penalty:
    """strength * sum_i importance_i (theta_i - theta_0,i)^2, theta_0 the parameters as they are now; importance 1 if none.

    Parameters without an importance (a head of the target's own) are not held, nor is an idle head of the source's own: it
    has no gradient, and one of 0 would let weight decay at it. Raises `BadSetting` unless `strength` is above 0.
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
        return strength * reduce(torch.add, [term.sum() for term in terms])

    return penalty


@protocol(
    "baseline", place=21, colour="#9467bd", marker=(8, 1, 0), rival=True, knobs={"strength": 0.1}, grid=(0.001, 0.01, 0.1, 1.0, 10.0)
)  # fmt: skip
def l2_sp(t: Transfer, strength: float) -> History:
    """Loss + strength / 2 * |theta - theta_0|^2. Source: Li et al. 2018 (arXiv 1802.01483), eq. 3.

    A fresh head is drawn to where it began instead of to 0, which is as near.
    """
    return t.fit(penalty=anchor(t.model, strength / 2))


@protocol(
    "baseline", place=22, colour="#2ca02c", marker=(4, 1, 0), rival=True, headline=2, needs=("importance",), importance="information",
    knobs={"strength": 100.0}, grid=(10.0, 100.0, 1000.0, 10000.0, 100000.0),
)  # fmt: skip
def ewc(t: Transfer, importance: Tensors, strength: float) -> History:
    """Loss + strength / 2 * sum_i F_i (theta_i - theta_0,i)^2. Source: Kirkpatrick et al. 2017 (arXiv 1612.00796), eq. 3.

    `importance` is the exact Fisher diagonal F of the source network (`masks.information`).
    """
    return t.fit(penalty=anchor(t.model, strength / 2, importance))


@protocol(
    "baseline", place=23, colour="#ff1493", marker="H", headline=4, needs=("importance",), importance="probability",
    method="gumbel_sigmoid", learns_mask=True, knobs={"strength": 0.1}, grid=(0.1, 1.0, 10.0, 100.0, 1000.0),
)  # fmt: skip
def elastic_mask(t: Transfer, importance: Tensors, strength: float) -> History:
    """Loss + strength * sum_i p_i (theta_i - theta_0,i)^2, p_i the probability that weight i carries the source. Ours.

    `importance` is p, from a learnt mask's scores, and 1 where nothing is maskable. With p = 1 it is L2-SP of strength 2s.
    """
    return t.fit(penalty=anchor(t.model, strength, importance))


@protocol(
    "baseline", place=24, colour="#17becf", marker=(5, 1, 180), knobs={"strength": 1.0, "temperature": 2.0},
    grid=(0.003, 0.01, 0.03, 0.1, 0.3),
)  # fmt: skip
def lwf(t: Transfer, strength: float, temperature: float) -> History:
    """Loss + strength * T^2 KL(p_0 || p) of the source answers on the target's images, T = 2.

    Source: Li & Hoiem 2017 (arXiv 1606.09282), eq. 2-3, with the factor T^2 of Hinton et al. 2015 and without their warm-up of the new
    head.
    """
    positive("strength", strength)
    positive("temperature", temperature)
    model, teacher, apart = t.model, frozen(t.model), bool(own_head(t.model))

    def distil(x: Tensor, logits: Tensor, progress: float) -> Tensor:
        with torch.no_grad():
            before = F.log_softmax(answer(teacher, "source", x) / temperature, dim=1)
        after = F.log_softmax((answer(model, "source", x) if apart else logits) / temperature, dim=1)
        return strength * temperature**2 * F.kl_div(after, before, log_target=True, reduction="batchmean")

    return t.fit(penalty=distil)


@protocol(
    "baseline", place=25, colour="#bcbd22", marker=(6, 1, 0), rival=True, headline=3, knobs={"fraction": 0.01},
    grid=(0.0025, 0.005, 0.01, 0.02, 0.05),
)  # fmt: skip
def replay(t: Transfer, fraction: float) -> History:
    """Loss on the target + loss on a batch from a buffer, of equal weight; the buffer is a random `fraction` of the source.

    Source: Chaudhry et al. 2019 (arXiv 1902.10486).
    """
    data, seed = t.pair.source.train, t.training.seed
    n = max(1, round(check_fraction("fraction", fraction) * len(data)))
    kept = torch.randperm(len(data), generator=generator(seed, "replay"), device="cpu")[:n]
    source = batches(subset(data, kept), t.training.batch_size, stream(seed, "replay"))

    def rehearse(x: Tensor, logits: Tensor, progress: float) -> Tensor:
        images, labels = (part.to(x.device) for part in images_and_labels(next(source)))
        return F.cross_entropy(answer(t.model, "source", taken_by(t.model, images)), labels)

    return t.fit(penalty=rehearse)


@protocol("reference", place=43, colour="black", marker="X", choosable=False)
def joint(t: Transfer) -> History:
    """Replay of the whole source: the reference where source data may be kept."""
    return replay(t, fraction=1.0)


@protocol("baseline", place=27, colour="#7f7f7f", marker="+")
def lp_ft(t: Transfer) -> History:
    """The head alone for half of the steps, then everything for the other half. Source: Kumar et al. 2022 (arXiv 2202.10054)."""
    first, second = halves(t.training.steps)
    probe = t.fit(params=head_parameters(t.model), steps=first)
    return joined(probe, t.fit(steps=second, seed=stream(t.training.seed, "lp_ft")))


@protocol("baseline", place=28, colour="#7f7f7f", marker="x", known="intact", bits=whole_tensors)
def bias_only(t: Transfer) -> History:
    """Only parameters of one dimension (biases, norm layers) and a head of the target's own are trained.

    Source: Ben Zaken et al. 2022 (BitFit, arXiv 2106.10199), who train no scales of norm layers. Raises `ValueError` for a network
    with none of these.
    """
    head = tuple(own_head(t.model))
    params = [p for n, p in t.model.named_parameters() if p.ndim == 1 or n.startswith(head)]
    if not params:
        raise ValueError(f"bias_only: {type(t.model).__name__} has no parameters of one dimension")
    return t.fit_stored(params=params, norm="eval")  # statistics that followed the target could not be taken off


@protocol("baseline", known="intact", bits=whole_tensors, only_for="norm layers")
def bn_only(t: Transfer) -> History:
    """Only the scales and shifts of batch and instance norm and a head of the target's own are trained.

    Source: Frankle et al. 2021 (arXiv 2003.00152), there on random features. Raises `ValueError` for a network without such layers.
    """
    norms = {id(p) for module in norm_layers(t.model) for p in module.parameters()}
    if not norms:
        raise ValueError(
            f"bn_only: {type(t.model).__name__} has no batch or instance norm with parameters; use bias_only"
        )
    head = tuple(own_head(t.model))
    params = [p for n, p in t.model.named_parameters() if id(p) in norms or n.startswith(head)]
    return t.fit_stored(params=params, norm="eval")


@protocol(
    "baseline", place=26, colour="#7f7f7f", marker="8", rival=True, needs=("mask",), method="magnitude", per_layer=True,
    known="masked", bits=mask_only, retrains=True,
)  # fmt: skip
def packnet(t: Transfer, mask: Mask) -> History:
    """Prune to `mask`, retrain what it keeps on the source, then protect that and train the rest on the target.

    Source: Mallya & Lazebnik 2018 (arXiv 1711.05769), whose mask is magnitude per layer. Pruned weights begin at 0. Retraining takes
    `mask_steps` steps, as many images a step as learning a mask does, and the rate that `fit` takes for the source.
    """
    mask = Mask(mask.bits)  # what it may carry besides is of no use here
    t.model.load_state_dict(mask.apply(t.model, task=None).state_dict())
    _retrain(t, mask)
    with t.holding(mask):
        return t.fit()


def _retrain(t: Transfer, mask: Mask) -> None:
    """Train what `mask` keeps on the source, through whichever head is the source's."""
    own = t.training
    with protection.protect(t.model, ~mask), answering(t.model, "source"):
        fit(
            t.model, t.pair.source.train, steps=own.mask_steps, batch_size=mask_batch(own.batch_size), seed=own.seed, norm="eval",
            precision=own.precision,
        )  # fmt: skip
