"""References, and the protocols that a mask gives rise to."""

from torch import nn

from maskutils.core.storage import changes, mask_only, pattern, whole_network, whole_tensors
from maskutils.masks import protection
from maskutils.masks.mask import Mask
from maskutils.models.heads import head_parameters, own_head
from maskutils.training.annealing import learns_density
from maskutils.training.base import History, Transfer, protocol
from maskutils.training.learn import learn_subnetwork, mask_batch


@protocol("reference", place=40, colour="black", marker="s", role="untrained", trains=False)
def source_only(t: Transfer) -> History:
    """No training on the target at all: retention is whole, and a target head of its own stays untrained."""
    return []


@protocol("reference", place=42, colour="black", marker="o", role="free", family="wise_ft")
def finetune(t: Transfer) -> History:
    """Every parameter trained on the target: the usual reference for adaptation, and for forgetting."""
    return t.fit()


@protocol("reference", place=44, colour="black", marker="P", known="intact", bits=whole_network, rival=True)
def two_networks(t: Transfer) -> History:
    """Fine-tuning, with the source network kept beside the new one: the dearest way to lose nothing of the source."""
    return t.fit_stored()


@protocol("reference", place=41, colour="black", marker="D", known="intact", bits=whole_tensors)
def linear_probe(t: Transfer) -> History:
    """Only the head trained: what the source features are worth on the target."""
    return t.fit_stored(params=head_parameters(t.model), norm="eval")


@protocol(needs=("mask",), named_by_mask=True, known="masked", bits=mask_only)
def protect(t: Transfer, mask: Mask) -> History:
    """What the source mask keeps, and everything no mask covers, held bit-identical; the other weights trained.

    Our reading of arXiv 2308.13957, whose abstract names no protocol. A head of the target's own is trained.
    """
    with t.holding(mask):
        return t.fit()


@protocol(needs=("mask",), known="masked", bits=mask_only, variant_of="protect")
def protect_weights(t: Transfer, mask: Mask) -> History:
    """`protect` without holding what no mask covers: biases, norm layers and a shared head are trained on the target too.

    An ablation: the source through the mask then drifts.
    """
    with protection.protect(t.model, mask, train=[n for n, _ in t.model.named_parameters() if n not in mask.bits]):
        return t.fit()


@protocol(needs=("mask",), method="gumbel_sigmoid", known="intact", bits=changes)
def select(t: Transfer, mask: Mask) -> History:
    """Only what the source mask keeps is trained, and a head of the target's own: the weights that matter are re-used."""
    if not mask.kept:
        raise ValueError("select: the mask keeps no weight, so none would be trained")
    with t.holding(~mask):
        return t.fit_stored()


@protocol(needs=("mask",), method="gumbel_sigmoid", learns_mask=True, known="intact", bits=changes)
def exclusive(t: Transfer, mask: Mask) -> History:
    """What the target's mask keeps and the source's does not is trained, after ExSSNeT (arXiv 2210.10209).

    The target's mask is learnt first, on the frozen source network, as a Gumbel-sigmoid mask of the density of `mask`. In ExSSNeT the
    network is random, and every task is read through its own mask; here the target is read with all weights.
    """
    learnt, target = _for_target(t, "gumbel_sigmoid", mask.density)
    t.model.load_state_dict(learnt.state_dict())
    with t.holding(~(target.at_density(mask.density) & ~mask)):
        return t.fit_stored()


@protocol(
    knobs={"density": 0.0}, learns_mask=True, trains=False, known="intact", bits=pattern
)  # fmt: skip
def target_mask(t: Transfer, density: float) -> History:
    """All weights frozen; a mask of the *target* is learnt and left in the weights (Mallya et al. 2018, arXiv 1801.06519).

    The mask is a piggyback mask, native (`density` 0) or of a given density. Taking it off gives the source network back bit for bit;
    the full network is the masked one.
    """
    learnt, mask = _for_target(t, "piggyback", density)
    mask = mask.at_density(density) if density else mask
    t.model.load_state_dict(mask.apply(learnt, task=None).state_dict())
    return []


def _for_target(t: Transfer, method: str, density: float) -> tuple[nn.Module, Mask]:
    """The network of `t` with a target head of its own trained, and the native mask of `method` learnt with it: for `density` (0: none),
    if it is learnt for one.
    """
    given = t.training
    one = density if density and learns_density(t.model, method) else None
    return learn_subnetwork(
        t.model, t.pair.target.train, method, density=one, train=own_head(t.model), steps=given.mask_steps, seed=given.seed,
        precision=given.precision, batch_size=mask_batch(given.batch_size),
    )  # fmt: skip
