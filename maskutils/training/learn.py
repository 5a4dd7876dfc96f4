"""Learning a mask: which weights does a network do its task with? Every network that is given is left as it was."""

import inspect
import warnings
from collections.abc import Iterable, Mapping
from functools import partial, reduce
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from maskutils.core.approaches import Approach, describe, names
from maskutils.core.checks import BadSetting, fraction, known, number, positive
from maskutils.core.seeds import seeded
from maskutils.data.batches import Batches, some
from maskutils.masks.layers import LAYERS, MaskLayer, attach, detach
from maskutils.masks.mask import Mask
from maskutils.masks.rankings import RANKINGS
from maskutils.models.copies import copied, unwrapped
from maskutils.models.parts import check_head, check_prefixes, device_of, head_name, logits_of, maskable
from maskutils.models.sizes import is_large
from maskutils.training.annealing import Annealing
from maskutils.training.loop import fit

CONSTANT = "constant"  # what scores begin from in the papers
NATIVE = 0.5  # the density of a mask that begins from a ranking, where none is asked for
CARRIED = 0.5  # nats: how much greater the loss through a mask may be that carries the task

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
    None gives the method's native mask, which a ranking has not. `lr`, `strength` (of the density penalty) and
    `options` default to those of the layer. The mask carries its scores and its history.

    `start` is what scores begin from: "constant", as in the papers, or the name of a ranking, whose order they begin in. Then the
    density falls from 1 to `density` (None: 0.5) while the scores are learnt, by Adam and without a penalty. By default networks of a million
    weights or more begin from "fisher" (but for `winning_subnetwork`), smaller ones from "constant".

    Raises `BadSetting` for an unknown method or option, `ValueError` for a bad density, `FloatingPointError` if
    training diverges. In distributed training, let one process learn it and all load it: each would find another.

    >>> from maskutils import build_model, load_pair
    >>> learn_mask(build_model("mlp"), load_pair("mnist_to_digits").source.train, "magnitude", density=0.1)
    Mask(2 layers, 151,040 weights, density 0.100)
    """
    known(method, names("mask", "control"), "method")
    _check(steps, lr, strength, batch_size, seed, density, per_layer)
    settings: dict[str, Any] = {"steps": steps, "lr": lr, "strength": strength, "batch_size": batch_size, "seed": seed}
    settings |= {"precision": precision, "start": start} | options
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
    if learns_density(model, method, start):
        settings |= {"density": density, "per_layer": per_layer}
    native = learn_subnetwork(model, data, method, **settings)[1]
    return (native if density is None else native.at_density(density, per_layer)).learnt_on(model)


def learns_density(model: nn.Module, method: str, start: str | None = None) -> bool:
    """Whether the mask layer `method` learns on `model` for one density, rather than one ranking for all."""
    return LAYERS[method].learns_density or _start(model, method, start) != CONSTANT


def _start(model: nn.Module, method: str, start: str | None) -> str:
    """What scores of `method` begin from on `model`. Raises `BadSetting` for an unknown `start`."""
    if start is None:
        return "fisher" if is_large(model) and not LAYERS[method].trains_weights else CONSTANT
    return known(start, (CONSTANT, *RANKINGS), "start")


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
    density: float | None = None,
    per_layer: bool = False,
    steps: int = 300,
    lr: float | None = None,
    strength: float | None = None,
    batch_size: int = 64,
    seed: int = 0,
    precision: str = "float32",
    start: str | None = None,
    train: Iterable[str] = (),
    **options: float | str,
) -> tuple[nn.Module, Mask]:
    """A copy of `model` and the native mask of the mask layer `method`, learnt on it; `model` is left as it was.

    The copy is frozen but for parameters whose names begin with one of `train` (a fresh head), and the weights themselves
    where the method learns them together with the scores (`winning_subnetwork`). Dropout stays on, where Csordas et al. switch it
    off. `density` is only for methods that learn for one (`learns_density`). See `learn_mask` for the rest.
    """
    cls = LAYERS[known(method, LAYERS, "mask layer")]
    _check(steps, lr, strength, batch_size, seed, density, per_layer)
    model = copied(unwrapped(model)).requires_grad_(False)
    train = check_prefixes(train, [n for n, _ in model.named_parameters()])
    annealing, lr = _annealing(model, data, method, start, density, per_layer, seed), cls.lr if lr is None else lr
    strength = (0.0 if annealing else cls.strength) if strength is None else strength
    options |= {"density": density} if density is not None and not annealing else {}
    head = head_name(model)

    def penalty(x: Tensor, logits: Tensor, progress: float) -> Tensor:
        return strength * cls.ramp(progress) * reduce(torch.add, [layer.penalty() for layer in layers.values()])

    with seeded(seed, f"mask/{method}"), model.register_forward_hook(lambda m, _, output: check_head(m, head, output)):
        names = maskable(model) if cls.trains_weights else []
        weights: list[nn.Parameter] = [p for n, p in model.named_parameters() if n in names or n.startswith(train)]
        layers = attach(model, method, annealing.ranking if annealing else None, **options)
        if annealing:
            annealing.begin(layers, lr)
        params = [*(layer.scores for layer in layers.values()), *nn.ParameterList(weights).requires_grad_()]
        history = fit(
            model, data, steps=steps, lr=lr, batch_size=batch_size, seed=seed, params=params,
            optimizer="adam" if annealing else cls.optimizer,
            penalty=penalty if strength else None, begin_step=partial(_advance, layers, annealing), norm="eval", precision=precision,
            watch=lambda: {"density": Mask(_hard(layers, annealing)).density},
        )  # fmt: skip
    scores = _told_apart({n: layer.ranking() for n, layer in layers.items()})
    mask = annealing.mask(history) if annealing else Mask(_hard(layers), scores, tuple(history))
    detach(model)
    if annealing:
        _warn_unless_carried(model, data, mask, steps, seed)
    return model.requires_grad_(), mask.learnt_on(model)


def _annealing(
    model: nn.Module, data: Batches, method: str, start: str | None, density: float | None, per_layer: bool, seed: int
) -> Annealing | None:
    """How `method` is guided on `model`; None where it begins from a constant. Raises `BadSetting` for a density it does not learn for."""
    if learns_density(model, method, start):
        start = _start(model, method, start)
        return (
            None if start == CONSTANT else Annealing(RANKINGS[start](model, data, seed), density or NATIVE, per_layer)
        )
    if density is not None:
        raise BadSetting(
            f"density = {density}: {method} learns one ranking for all densities; take mask.at_density(density), or learn_mask"
        )
    return None


def _warn_unless_carried(model: nn.Module, data: Batches, mask: Mask, steps: int, seed: int) -> None:
    """Warn if the network has a much greater loss through the mask in the last tenth of its learning than it has whole."""
    images, labels = some(data, 100, seed)
    with torch.no_grad():
        whole = F.cross_entropy(logits_of(model.eval()(images.to(device_of(model)))).cpu(), labels.cpu()).item()
    through = mask.history[-1]["loss"]
    if through > whole + CARRIED:
        warnings.warn(
            f"the mask does not carry the task yet: at density {mask.density:.2f} the loss through it is {through:.2f}, of the whole "
            f"network {whole:.2f}; more steps= than {steps} or a higher density= may help",
            stacklevel=4,
        )


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


def _advance(layers: Mapping[str, MaskLayer], annealing: Annealing | None, progress: float) -> None:
    for layer in layers.values():
        layer.progress = progress
    if annealing:
        annealing(progress)


def _hard(layers: Mapping[str, MaskLayer], annealing: Annealing | None = None) -> dict[str, Tensor]:
    return {name: layer.harden() for name, layer in layers.items()} | (annealing.whole if annealing else {})
