"""Learning a mask: which weights does a network do its task with? Every network that is given is left as it was."""

import inspect
from collections.abc import Iterable, Mapping
from functools import partial, reduce
from typing import Any

import torch
from torch import Tensor, nn

from maskutils.core.approaches import Approach, describe, names
from maskutils.core.checks import BadSetting, fraction, known, number, positive
from maskutils.core.seeds import seeded
from maskutils.data.batches import Batches
from maskutils.masks.layers import LAYERS, MaskLayer, attach, detach
from maskutils.masks.mask import Mask
from maskutils.masks.rankings import RANKINGS
from maskutils.models.copies import copied, unwrapped
from maskutils.models.parts import check_head, check_prefixes, head_name, maskable
from maskutils.training.loop import fit

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
    **options: float | str,
) -> Mask:
    """The mask of the weights with which `model` does its task on `data`; `model` is left as it was.

    `method` is a mask layer (scores are learnt on the frozen network, with norm layers in evaluation mode), a ranking
    (no training), or "shuffled": the mask of the method `of` (default gumbel_sigmoid), permuted within each layer.
    `density` in (0, 1] is the fraction kept, chosen by the method's ranking (`edge_popup` learns for that density);
    None gives the method's native mask, which a ranking has not. `lr`, `strength` (of the density penalty) and
    `options` default to those of the layer. The mask carries its scores and its history.

    Raises `BadSetting` for an unknown method or option, `ValueError` for a bad density, `FloatingPointError` if
    training diverges. In distributed training, let one process learn it and all load it: each would find another.

    >>> from maskutils import build_model, load_pair
    >>> learn_mask(build_model("mlp"), load_pair("mnist_to_digits").source.train, "magnitude", density=0.1)
    Mask(2 layers, 151,040 weights, density 0.100)
    """
    known(method, names("mask", "control"), "method")
    _check(steps, lr, strength, batch_size, seed, density, per_layer)
    settings: dict[str, Any] = {"steps": steps, "lr": lr, "strength": strength, "batch_size": batch_size, "seed": seed}
    settings |= {"precision": precision} | options
    if method == "shuffled":
        base = str(settings.pop("of", "gumbel_sigmoid"))
        return (
            learn_mask(model, data, base, density=density, per_layer=per_layer, **settings)
            .shuffled(seed)
            .learnt_on(model)
        )
    if method in RANKINGS:
        return _ranked(model, data, method, density, per_layer, seed, options)
    if LAYERS[method].trains_weights:
        raise BadSetting(
            f"method {method!r} learns the weights too, so a mask alone says nothing; use learn_subnetwork"
        )
    if LAYERS[method].learns_density and density is not None:
        settings["density"] = density
    native = learn_subnetwork(model, data, method, **settings)[1]
    return (native if density is None else native.at_density(density, per_layer)).learnt_on(model)


def usual(method: str | None) -> dict[str, Any]:
    """The options that `method` takes, and their defaults.

    >>> usual("gumbel_sigmoid")
    {'tau': 1.0, 'init': None, 'lr': 0.3, 'strength': 2e-06}
    """
    if method is None or method not in LAYERS:
        return {"of": "gumbel_sigmoid"} if method == "shuffled" else {}
    cls = LAYERS[method]
    taken = {name: p.default for name, p in inspect.signature(cls).parameters.items() if name != "weight"}
    return taken | {"lr": cls.lr, "strength": cls.strength}


def unusual(method: str | None, options: Mapping[str, float | str]) -> dict[str, float | str]:
    """Those of `options` that are not what `method` does anyway: two ways to ask for one mask have one name.

    >>> unusual("gumbel_sigmoid", {"tau": 1.0, "lr": 1.0})
    {'lr': 1.0}
    """
    defaults = usual(method)
    return {name: value for name, value in options.items() if name not in defaults or defaults[name] != value}


def mask_batch(batch_size: int) -> int:
    """Images a step when a mask is learnt, where a network is trained on `batch_size`: twice as many, but not above 64."""
    return min(64, 2 * batch_size)


def _ranked(
    model: nn.Module,
    data: Batches,
    method: str,
    density: float | None,
    per_layer: bool,
    seed: int,
    options: Iterable[str],
) -> Mask:
    for option in options:
        known(option, (), f"option of {method}")
    if density is None:
        raise ValueError(
            f"method {method!r} ranks weights and has no native density; pass density=, the fraction to keep"
        )
    scores = _told_apart(RANKINGS[method](unwrapped(model), data, seed))
    return Mask.from_scores(scores, density, per_layer).learnt_on(model)


def learn_subnetwork(
    model: nn.Module,
    data: Batches,
    method: str,
    *,
    steps: int = 300,
    lr: float | None = None,
    strength: float | None = None,
    batch_size: int = 64,
    seed: int = 0,
    precision: str = "float32",
    train: Iterable[str] = (),
    **options: float | str,
) -> tuple[nn.Module, Mask]:
    """A copy of `model` and the native mask of the mask layer `method`, learnt on it; `model` is left as it was.

    The copy is frozen but for parameters whose names begin with one of `train` (a fresh head), and the weights themselves
    where the method learns them together with the scores (`winning_subnetwork`). Dropout stays on, where Csordas et al. switch it
    off. See `learn_mask` for the rest.
    """
    cls = LAYERS[known(method, LAYERS, "mask layer")]
    _check(steps, lr, strength, batch_size, seed)
    model = copied(unwrapped(model)).requires_grad_(False)
    train = check_prefixes(train, [n for n, _ in model.named_parameters()])
    strength, head = cls.strength if strength is None else strength, head_name(model)

    def penalty(x: Tensor, logits: Tensor, progress: float) -> Tensor:
        return strength * cls.ramp(progress) * reduce(torch.add, [layer.penalty() for layer in layers.values()])

    with seeded(seed, f"mask/{method}"), model.register_forward_hook(lambda m, _, output: check_head(m, head, output)):
        names = maskable(model) if cls.trains_weights else []
        weights: list[nn.Parameter] = [p for n, p in model.named_parameters() if n in names or n.startswith(train)]
        layers = attach(model, method, **options)
        params = [*(layer.scores for layer in layers.values()), *nn.ParameterList(weights).requires_grad_()]
        history = fit(
            model, data, steps=steps, lr=cls.lr if lr is None else lr, batch_size=batch_size, seed=seed, optimizer=cls.optimizer,
            params=params, penalty=penalty if strength else None, begin_step=partial(_advance, layers), norm="eval", precision=precision,
            watch=lambda: {"density": Mask(_hard(layers)).density},
        )  # fmt: skip
    mask = Mask(_hard(layers), _told_apart({n: layer.ranking() for n, layer in layers.items()}), tuple(history))
    detach(model)
    return model.requires_grad_(), mask.learnt_on(model)


def _check(
    steps: int,
    lr: float | None,
    strength: float | None,
    batch_size: int,
    seed: int,
    density: float | None = None,
    per_layer: bool = False,
) -> None:
    """Raise `BadSetting` for a setting of the wrong type or out of range, before any work."""
    for name, value in {"steps": steps, "batch_size": batch_size}.items():
        positive(name, number(name, value, whole=True))
    number("seed", seed, whole=True)
    if lr is not None:
        positive("lr", number("lr", lr))
    if strength is not None and number("strength", strength) < 0:
        raise BadSetting(f"strength = {strength!r} must be 0 or greater")
    if density is not None:
        fraction("density", number("density", density))
    if not isinstance(per_layer, bool):
        raise BadSetting(f"per_layer = {per_layer!r} must be True or False")


def _told_apart(scores: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """`scores` themselves. Raises `ValueError` if all are equal, as where the answer does not depend on the weights that are masked."""
    ends = [end for s in scores.values() for end in (s.min(), s.max())]
    if all(end == ends[0] for end in ends):
        raise ValueError(
            f"all scores are equal ({float(ends[0]):g}), so they rank no weight: no gradient reached the masked weights; check that the "
            "forward pass uses them (it may be bound to another network) and that lr is not too small"
        )
    return scores


def _advance(layers: Mapping[str, MaskLayer], progress: float) -> None:
    for layer in layers.values():
        layer.progress = progress


def _hard(layers: Mapping[str, MaskLayer]) -> dict[str, Tensor]:
    return {name: layer.harden() for name, layer in layers.items()}
