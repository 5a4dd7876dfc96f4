"""Learning a mask: which weights does a network do its task with? Every network that is given is left as it was."""

from collections.abc import Callable, Iterable, Mapping
from functools import reduce
from typing import Any, cast

import torch
from torch import Tensor, nn

from maskutils.core.approaches import Approach, describe, names
from maskutils.core.checks import BadSetting, fraction, known, number, yes_or_no
from maskutils.core.seeds import seeded
from maskutils.data.batches import Batches
from maskutils.masks.layers import LAYERS, MaskLayer, attach, detach
from maskutils.masks.mask import Mask
from maskutils.masks.rankings import RANKINGS
from maskutils.models.copies import check_values, copied, unwrapped, with_gradients
from maskutils.models.heads import head_checked
from maskutils.models.parts import chosen, maskable
from maskutils.training.annealing import CONSTANT, check_carried, learns_density, level_of, told_apart
from maskutils.training.evaluation import check_answer
from maskutils.training.loop import Penalty, check_training, fit

describe(
    Approach("shuffled", "control", place=13, colour="#999999", marker="X", method="gumbel_sigmoid", learns_mask=True)
)  # fmt: skip


def learn_mask(
    model: nn.Module,
    data: Batches,
    method: str = "gumbel_sigmoid",
    *,
    density: float | None = None,
    per_layer: bool = False,
    steps: int = 300,
    lr: float | None = None,
    strength: float | None = None,
    batch_size: int = 64,
    seed: int = 0,
    precision: str = "float32",
    start: str | None = None,
    **options: float | str,
) -> Mask:
    """The mask of the weights with which `model` does its task on `data`; `model` is left as it was.

    `method` is a mask layer (scores are learnt on the frozen network, with norm layers in evaluation mode), a ranking
    (no training), or "shuffled": the mask of the method `of` (default gumbel_sigmoid), permuted within each layer.
    `density` in (0, 1] is the fraction kept, chosen by the method's ranking (`edge_popup` learns for that density);
    None gives the method's native mask, which a ranking has not. `lr`, `strength` (of the density penalty; 0 with a ranking
    as `start`) and `options` default to those of the layer. The mask carries its scores and its history.

    `start` is what scores begin from: "constant", as in the papers, or the name of a ranking, whose order they begin in.
    Then the density falls from 1 to `density` (None: 0.5) while the scores are learnt, by Adam. By
    default networks of 200,000 weights or more begin from "fisher" (but for `winning_subnetwork`), smaller ones from
    "constant".

    A warning says so if the network loses much of the task through a learnt mask, and what may help.

    Raises `BadSetting` for an unknown method or option, `ValueError` for a bad density, `FloatingPointError` if
    training diverges. In distributed training, let one process learn it and all load it: each would find another.

    >>> from maskutils import build_model, load_pair
    >>> learn_mask(build_model("mlp"), load_pair("mnist_to_digits").source.train, "magnitude", density=0.1)
    Mask(2 layers, 151,040 weights, density 0.100)
    """
    known(method, names("mask", "control"), "method")
    check_values(model)
    _check(strength, density, per_layer, start, steps, lr, batch_size, seed, precision)
    settings: dict[str, Any] = {"steps": steps, "lr": lr, "strength": strength, "batch_size": batch_size, "seed": seed}
    settings |= {"precision": precision, "start": start} | options
    if method == "shuffled":
        base = str(settings.pop("of", "gumbel_sigmoid"))
        mask = learn_mask(model, data, base, density=density, per_layer=per_layer, **settings)
        return mask.shuffled(seed).learnt_on(model)
    if method in RANKINGS:
        no_use = [name for name in ("lr", "strength", "start") if settings[name] is not None]
        return _ranked(model, data, method, density, per_layer, seed, [*options, *no_use])
    if LAYERS[method].trains_weights:
        raise BadSetting(
            f"method {method!r} learns the weights too, so a mask alone says nothing; use learn_subnetwork"
        )
    learns = learns_density(model, method, start)
    settings |= {"density": density if learns else None, "per_layer": per_layer and (learns or density is None)}
    native = learn_subnetwork(model, data, method, **settings)[1]
    mask = (native if density is None else native.at_density(density, per_layer)).learnt_on(model)
    check_carried(model, data, mask, seed)
    return mask


def mask_batch(batch_size: int) -> int:
    """Images a step when a mask is learnt, where a network is trained on `batch_size`: twice as many, but not above 64."""
    return min(64, 2 * batch_size)


def _ranked(
    model: nn.Module, data: Batches, method: str, density: float | None, per_layer: bool, seed: int, options: Iterable[str]
) -> Mask:  # fmt: skip
    for option in options:
        known(option, (), f"option of {method}")
    if density is None:
        raise ValueError(
            f"method {method!r} ranks weights and has no native density; pass density=, the fraction to keep"
        )
    inner = unwrapped(model)
    with seeded(seed, f"ranking/{method}"):  # for networks that draw in evaluation mode too
        with head_checked(inner):
            scores = told_apart(RANKINGS[method](inner, data, seed))
        check_answer(inner, data)  # for rankings that ask for none
    return Mask.from_scores(scores, density, per_layer).learnt_on(model)


@torch.inference_mode(False)
def learn_subnetwork(
    model: nn.Module, data: Batches, method: str, *, density: float | None = None, per_layer: bool = False, steps: int = 300,
    lr: float | None = None, strength: float | None = None, batch_size: int = 64, seed: int = 0, precision: str = "float32",
    start: str | None = None, train: Iterable[str] = (), watch: Callable[[Mask], object] = lambda mask: None, **options: float | str,
) -> tuple[nn.Module, Mask]:  # fmt: skip
    """A copy of `model` and the native mask of the mask layer `method`, learnt on it; `model` is left as it was.

    The copy is frozen but for the parameters or modules that `train` names (a fresh head), and the weights themselves
    where the method learns them together with the scores (`winning_subnetwork`). Dropout stays on, where Csordas et al. switch it
    off. `density` is only for methods that learn for one (`learns_density`). `watch` is given the mask of the moment ten times. See
    `learn_mask` for the rest.
    """
    cls = LAYERS[known(method, LAYERS, "mask layer")]
    _check(strength, density, per_layer, start, steps, lr, batch_size, seed, precision)
    model = copied(unwrapped(model)).requires_grad_(False)
    free = chosen(train, [n for n, _ in model.named_parameters()])
    level = level_of(model, data, method, start, density, per_layer, seed)
    lr = cls.lr if lr is None else lr
    penalty = _penalty(level.layers, cls.ramp, level.strength if strength is None else strength)
    with seeded(seed, f"mask/{method}"), head_checked(model):
        names = maskable(model) if level.names is None else level.names
        free |= set(names if cls.trains_weights else ())
        weights = [cast(nn.Parameter, p.requires_grad_()) for n, p in model.named_parameters() if n in free]
        level.begin(attach(model, method, names, **level.options, **options), lr)
        history = fit(
            model, data, steps=steps, lr=lr, batch_size=batch_size, seed=seed, norm="eval", precision=precision,
            params=[*(layer.scores for layer in level.layers.values()), *weights],
            optimizer=level.optimizer, penalty=penalty, begin_step=level, watch=lambda: level.noted(watch),
        )  # fmt: skip
    mask = level.mask(history)
    detach(model)
    return with_gradients(model), mask.learnt_on(model)


def _penalty(layers: Mapping[str, MaskLayer], ramp: Callable[[float], float], strength: float) -> Penalty | None:
    """The penalties of all `layers`, times `strength` and the `ramp` of the moment; None for a strength of 0."""

    def penalty(x: Tensor, logits: Tensor, progress: float) -> Tensor:
        total: Tensor = strength * ramp(progress) * reduce(torch.add, [layer.penalty() for layer in layers.values()])
        return total

    return penalty if strength else None


def _check(strength: float | None, density: float | None, per_layer: bool, start: str | None, *training: Any) -> None:
    """Raise `BadSetting` for a setting of the wrong type or out of range, before any work; `training` is for `check_training`."""
    check_training(*training)
    if strength is not None and not 0 <= number("strength", strength) < float("inf"):
        raise BadSetting(f"strength = {strength!r} must be 0 or greater, and finite")
    if density is not None:
        fraction("density", density)
    yes_or_no("per_layer", per_layer)
    if start is not None:
        known(start, (CONSTANT, *RANKINGS), "start")
