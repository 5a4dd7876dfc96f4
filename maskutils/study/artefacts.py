"""Source networks, masks and importances: made once, cached, used by many transfers.

A cached file is named by a hash of all that it depends on. These are settings, library versions, the version of its stage (see
`provenance.STAGES`), the code of the approach itself, and the names of what it was made from.
"""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import nn

from maskutils.core import paths
from maskutils.core.approaches import Approach, described, names
from maskutils.core.caches import cached
from maskutils.core.checks import BadSetting, content_key, known
from maskutils.core.tensors import Tensors, cached_tensors
from maskutils.data.load import check_loading, check_pair, load_pair
from maskutils.data.pair import Loading, Pair, on
from maskutils.masks.information import fisher_information
from maskutils.masks.layers import LAYERS
from maskutils.masks.mask import Mask
from maskutils.masks.rankings import RANKINGS
from maskutils.models.heads import own_head, with_target_head
from maskutils.models.networks import build_model, check_head_fits, check_model, pretrained_transform
from maskutils.study.inputs import stamps
from maskutils.study.provenance import STAGES, own_code, versions
from maskutils.study.setup import NESTED, OF_TRANSFERS, Setup
from maskutils.training.annealing import learns_density
from maskutils.training.learn import learn_mask, learn_subnetwork, mask_batch
from maskutils.training.loop import fit


@lru_cache(maxsize=3)  # a large one takes gigabytes, a small one a tenth of a second
def _pair(name: str, seed: int, how: Loading, at: torch.device) -> Pair:
    return on(load_pair(name, seed, how), at)


def source_pair(setup: Setup, seed: int) -> Pair:
    """The pair of `setup`, split by `seed`, on the GPU if there is one and it fits; the last few stay in memory."""
    return _pair(setup.pair, seed, loading(setup), device(setup))


def loading(setup: Setup) -> Loading:
    """How the images of `setup` are read: its `images`, and the transforms of its pretrained weights."""
    return Loading(transform=pretrained_transform(setup.model, setup.weights), **dict(setup.images))


def check_names(setup: Setup) -> Setup:
    """`setup` itself if its pair and model are known, and the pair heeds its `images`; else `BadSetting`."""
    check_pair(setup.pair)
    check_model(setup.model)
    check_loading(setup.pair, loading(setup))
    return setup


def source_network(setup: Setup, seed: int) -> nn.Module:
    """The network trained on the source of `setup.pair` from `seed`; cached. With `weights` and no `source_steps`, as it comes."""
    pair = source_pair(setup, seed)
    channels, size, _ = pair.image_shape
    trained = bool(setup.source_steps)  # otherwise the head must come with the weights
    model = build_model(setup.model, len(pair.source.classes), channels, size, seed, setup.weights, trained)
    model = model.to(device(setup))
    if setup.compute.channels_last or device(setup).type == "cpu":  # there a small convolution takes a fifth less
        model = model.to(memory_format=torch.channels_last)
    if setup.weights and not trained:
        check_head_fits(setup.model, setup.weights, len(pair.source.classes))
        return model.eval()  # it does the source task already

    def make() -> Tensors:
        fit(
            model, pair.source.train, steps=setup.source_steps, lr=setup.source_lr, batch_size=setup.batch_size, seed=seed,
            norm=setup.source_norm, precision=setup.compute.precision,
        )  # fmt: skip
        return model.state_dict()

    path = _path("source", source_key(setup, seed))
    return _with_weights(model, cached_tensors(path, make, like=model.state_dict()))


def source_mask(setup: Setup, method: str, seed: int, density: float | None = None, **options: Any) -> Mask:
    """The mask of `method` for the source network of `seed`; its learning is cached, its density is not learnt again.

    `density` and `options` are those of `learn_mask`; "shuffled" permutes the (cached) mask of the method `of`.
    """
    return source_subnetwork(setup, method, seed, density, **options)[1]


def source_subnetwork(
    setup: Setup, method: str, seed: int, density: float | None = None, **options: Any
) -> tuple[nn.Module, Mask]:
    """The source network of `seed` and the mask of `method` for it; where the method trains weights too, with its own."""
    model = source_network(setup, seed)
    if base := _method(method).method:  # a control made of the mask of another method
        base, options = options.get("of", base), {n: v for n, v in options.items() if n != "of"}
        return model, source_mask(setup, base, seed, density, **options).shuffled(seed)
    cls = LAYERS.get(method)
    trains_weights = cls is not None and cls.trains_weights
    if cls is not None and density is not None:
        options |= _learnt_for(setup, model, method, density, options.get("start"))
    key, data = mask_key(setup, method, seed, options), source_pair(setup, seed).source.train
    settings = mask_settings(setup, seed) | options

    def make() -> Mask:
        if cls is None:  # a ranking: any density will do
            return learn_mask(model, data, method, density=0.5, **settings)
        learnt, mask = learn_subnetwork(model, data, method, **settings)
        return replace(mask, state=learnt.state_dict()) if trains_weights else mask  # in one file what is of one making

    mask = _cached_mask(_path("subnetwork" if trains_weights else "mask", key), make)
    if trains_weights:
        model, mask = _with_weights(model, dict(mask.state)), replace(mask, state={})
    return model, mask if density is None else mask.at_density(density, setup.per_layer)


def _method(name: str) -> Approach:
    """The description of a mask layer or a control. Raises `BadSetting` for another name."""
    return described(known(name, names("mask", "control"), "method"))


def target_mask(setup: Setup, method: str, seed: int, density: float) -> Mask:
    """The mask with which the frozen source network of `seed` would do the *target*; a head of its own is learnt with it."""
    pair, model = source_pair(setup, seed), source_network(setup, seed)
    model = model if pair.shared_head else with_target_head(model, len(pair.target.classes), seed)

    options = _learnt_for(setup, model, method, density)

    def make() -> Mask:
        settings = mask_settings(setup, seed) | options
        return learn_subnetwork(model, pair.target.train, method, train=own_head(model), **settings)[1]

    path = _path("mask", mask_key(setup, method, seed, {"task": "target"} | options))
    return _cached_mask(path, make).at_density(density, setup.per_layer)


def _learnt_for(
    setup: Setup, model: nn.Module, method: str, density: float, start: str | None = None
) -> dict[str, Any]:
    """The options of a mask that is learnt for one density; none for one that is a ranking for all."""
    if not learns_density(model, method, start):
        return {}
    return {"density": density} | ({"per_layer": True} if setup.per_layer else {})


def mask_settings(setup: Setup, seed: int) -> dict[str, Any]:
    """How a mask is learnt in the study."""
    size = mask_batch(setup.batch_size)
    return {"steps": setup.mask_steps, "seed": seed, "precision": setup.compute.precision, "batch_size": size}


def source_importance(setup: Setup, protocol: str, method: str | None, seed: int, **options: Any) -> Tensors:
    """What each parameter of the source network is worth: name -> float tensor, for protocols that anchor them.

    For `ewc` the exact Fisher diagonal. For `elastic_mask` the probability that a weight carries the source, from the mask of
    `method`; "shuffled" and rankings are its controls, with the probabilities of Gumbel-sigmoid permuted within each layer or dealt
    out in the order of the ranking. What no mask covers has importance 1. `options` are those of the mask that is learnt.
    """
    model = source_network(setup, seed)
    about = described(protocol)
    if about.importance == "information":
        key = content_key("fisher", source_key(setup, seed), STAGES["fisher"])
        data = source_pair(setup, seed).source.train
        found = cached_tensors(_path("fisher", key), lambda: fisher_information(model, data, seed=seed))
        return {n: t.to(device(setup)) for n, t in found.items()}
    method = method or about.method
    base = method if method in LAYERS else about.method
    mask = source_mask(setup, base, seed, **options)
    mask = mask.shuffled(seed) if _method(method).method else mask
    p = {name: LAYERS[base].probability(scores.to(device(setup))) for name, scores in (mask.scores or {}).items()}
    if method in RANKINGS:
        p = _dealt(p, RANKINGS[method](model, source_pair(setup, seed).source.train, seed))
    return {n: torch.ones_like(t) for n, t in model.named_parameters()} | p


def _dealt(values: Tensors, order: Tensors) -> Tensors:
    """The entries of `values` over all layers, dealt out so that they rise with `order`."""
    ranks = torch.cat([o.flatten() for o in order.values()]).argsort(stable=True)
    dealt = torch.empty_like(torch.cat([v.flatten() for v in values.values()]))
    dealt[ranks] = torch.cat([v.flatten() for v in values.values()]).sort().values
    parts = dealt.split([v.numel() for v in values.values()])
    return {name: part.view_as(values[name]) for name, part in zip(values, parts, strict=True)}


def device(setup: Setup) -> torch.device:
    """The device of `setup.compute`; "auto" is CUDA, else MPS, else the CPU.

    Raises `BadSetting` if it is not there.
    """
    present = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    name = setup.compute.device
    if name == "auto":
        name = next(n for n in ("cuda", "mps", "cpu") if present[n])
    if not present[name]:
        raise BadSetting(f"device {name!r} is not there; present: {', '.join(n for n in present if present[n])}")
    if name == "cuda" and setup.compute.precision == "bf16" and not torch.cuda.is_bf16_supported(False):
        raise BadSetting("this GPU only emulates bf16, which is slower than float32; set compute: {precision: float32}")
    return torch.device(name)


def source_key(setup: Setup, seed: int) -> str:
    """Names the content of a source network."""
    stage = {name: str(value) if name in NESTED else value for name, value in setup if name not in OF_TRANSFERS}
    if stage["source_norm"] == "train":
        del stage["source_norm"]  # as it was before there was a choice
    machine = [device(setup).type, torch.get_num_threads(), versions()]  # another number of threads, other last bits
    return content_key("source", stage, seed, machine, stamps(setup.pair, setup.weights), STAGES["source"])


def mask_key(setup: Setup, method: str, seed: int, options: Mapping[str, Any]) -> str:
    """Names the content of a mask of a source network."""
    approach: Any = (LAYERS | RANKINGS).get(method)
    made_of = [mask_key(setup, options.get("of", base), seed, {})] if (base := _method(method).method) else []
    own = [STAGES["mask"], own_code(approach), *made_of]
    return content_key("mask", source_key(setup, seed), method, setup.mask_steps, unusual(method, options), *own)


def _cached_mask(path: Path, make: Callable[[], Mask]) -> Mask:
    return cached(path, make, lambda mask, p: mask.save(p, scores=True), Mask.load)


def _path(kind: str, key: str) -> Path:
    return paths.cache_dir(kind) / f"{key}.safetensors"


def _with_weights(model: nn.Module, weights: Tensors) -> nn.Module:
    model.load_state_dict(weights)
    return model.eval()


def usual(method: str | None) -> dict[str, Any]:
    """The options that `method` takes, and their defaults.

    >>> usual("gumbel_sigmoid")
    {'tau': 1.0, 'init': None, 'lr': 0.3, 'strength': 2e-06}
    """
    if method is None or method not in LAYERS:
        about = described(method) if method in names("control") else None
        return {"of": about.method} if about and about.learns_mask else {}
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
