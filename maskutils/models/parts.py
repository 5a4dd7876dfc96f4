"""Parts of any network: its head (or one per task), its maskable weights, its norm layers."""

from collections.abc import Collection, Iterable, Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from maskutils.core.checks import known, needs
from maskutils.core.seeds import seeded
from maskutils.models.copies import copied

if TYPE_CHECKING:
    import pandas as pd

UNMASKED = (nn.Embedding, nn.EmbeddingBag, nn.LayerNorm, nn.RMSNorm)  # whatever the dimensions of their weight


def head_name(model: nn.Module) -> str:
    """Name of the head; of the last one, where a network has several. See `heads`."""
    return heads(model)[-1]


def heads(model: nn.Module) -> list[str]:
    """Names of the heads: what the network says in an attribute `head_name`, or in timm's `get_classifier()`; else the module, last in
    definition order, that owns a weight of two or more dimensions, and linear layers beside it that are called heads too and have its
    size, as those of distilled networks.

    A `TaskHeads` counts as one. Raises `ValueError` for a network without any such weight, or without the module it names.
    """
    if isinstance(found := getattr(model, "head_name", ""), str) and found:
        known(found, [n for n, _ in model.named_modules() if n], "head_name")
        return [found]
    last = _last_with_weight(model)
    for prefix, module in model.named_modules():
        if last.startswith(prefix) and callable(getattr(module, "get_classifier", None)):
            told = module.get_classifier()
            told = told if isinstance(told, (tuple, list)) else (told,)
            if names := [n for n, m in model.named_modules() if any(m is t and [*t.parameters()] for t in told)]:
                return names
    owner, _, _ = last.rpartition(".")
    head, prefix = model.get_submodule(last), f"{owner}." if owner else ""

    def twin(name: str, module: nn.Module) -> bool:
        called = "head" in name or "classifier" in name
        return (
            called
            and isinstance(module, nn.Linear)
            and isinstance(head, nn.Linear)
            and module.weight.shape == head.weight.shape
        )

    return [prefix + n for n, m in model.get_submodule(owner).named_children() if m is not head and twin(n, m)] + [last]


def _last_with_weight(model: nn.Module) -> str:
    found = ""
    for name, module in model.named_modules():
        inside_found = isinstance(model.get_submodule(found), TaskHeads) and found and name.startswith(found + ".")
        weight = getattr(module, "weight", None)
        if not inside_found and (isinstance(module, TaskHeads) or (isinstance(weight, Tensor) and weight.ndim > 1)):
            found = name
    if not found:
        raise ValueError(
            f"{type(model).__name__} has no submodule with a weight of two or more dimensions, hence no head and nothing to mask"
        )
    return found


def logits_of(output: object) -> Tensor:
    """The logits (N, classes) in what a network returned: a tensor, or something with `.logits`, as networks of transformers give."""
    logits = output.get("logits") if isinstance(output, Mapping) else getattr(output, "logits", output)
    if not isinstance(logits, Tensor):
        raise ValueError(
            f"the network returned a {type(output).__name__}; it must be a tensor of logits, or have .logits"
        )
    return logits


def check_head(model: nn.Module, name: str, output: object) -> None:
    """Raise `ValueError` if `name`, the head of `model`, is a linear layer that cannot have given the logits (N, classes) of `output`."""
    head, logits = model.get_submodule(name), logits_of(output)
    if isinstance(head, nn.Linear) and head.out_features != logits.shape[1]:
        raise ValueError(
            f"{name!r}, defined last in {type(model).__name__}, gives {head.out_features} values and the network "
            f"{logits.shape[1]}, so it is not the head; say which is, before anything else: network.head_name = '...'"
        )


def head_parameters(model: nn.Module) -> list[nn.Parameter]:
    """The parameters of the head; of the active one where there is one per task."""
    head = model.get_submodule(head_name(model))
    return list((head[head.active] if isinstance(head, TaskHeads) else head).parameters())


def maskable(model: nn.Module) -> list[str]:
    """Names of the parameters that a mask covers: weights of two or more dimensions, outside head and embeddings; tied
    ones once.

    Raises `ValueError` for a network that has none.
    """
    for name, module in model.named_modules():
        if hasattr(module, "get_base_layer"):  # of peft
            raise ValueError(
                f"{name} has adapters of peft, whose weights are no network's own; call model.merge_and_unload() first"
            )
        if _weight_norm(module):
            raise ValueError(
                f"the weight of {name!r} is made by the old weight_norm, from weight_g and weight_v; call "
                "torch.nn.utils.remove_weight_norm on it first"
            )
    if names := _covered(model):
        return names
    raise ValueError(
        f"{type(model).__name__} has nothing to mask: no weight of two or more dimensions beside its head (parametrised ones do "
        "not count)"
    )


def _weight_norm(module: nn.Module) -> bool:
    return any(type(hook).__name__ == "WeightNorm" for hook in module._forward_pre_hooks.values())


def _covered(model: nn.Module) -> list[str]:
    head = tuple(f"{name}." for name in heads(model))

    def covered(name: str, parameter: nn.Parameter) -> bool:
        owner, _, leaf = name.rpartition(".")
        is_weight = parameter.ndim > 1 and "weight" in leaf and not isinstance(model.get_submodule(owner), UNMASKED)
        return is_weight and not name.startswith(head) and not _weight_norm(model.get_submodule(owner))

    return [name for name, parameter in model.named_parameters() if covered(name, parameter)]


def summary(model: nn.Module) -> "pd.DataFrame":
    """One row per parameter: name, shape, weights, and whether a mask covers it or why not."""
    with needs("study"):
        import pandas as pd  # here, for masks do without

    head, names = tuple(f"{name}." for name in heads(model)), set(_covered(model))

    def role(name: str) -> str:
        if name in names or name.startswith(head):
            return "masked" if name in names else "head"
        other = "not masked: parametrised, see torch.nn.utils.parametrize.remove_parametrizations"
        return other if ".parametrizations." in f".{name}" else "not masked: bias, norm or embedding"

    rows = [
        {"parameter": n, "shape": "x".join(map(str, p.shape)), "weights": p.numel(), "role": role(n)}
        for n, p in model.named_parameters()
    ]
    return pd.DataFrame(rows)


def norm_layers(model: nn.Module) -> list[nn.Module]:
    """Layers with running statistics (batch and instance norm of any dimension)."""
    return [module for module in model.modules() if isinstance(module, _NormBase)]


def check_prefixes(train: str | Iterable[str], names: Collection[str]) -> tuple[str, ...]:
    """The prefixes in `train`, which may be one. Raises `ValueError` for one with which none of `names` begins."""
    prefixes = (train,) if isinstance(train, str) else tuple(train)
    for prefix in prefixes:
        if not any(name.startswith(prefix) for name in names):
            raise ValueError(f"train={prefix!r} matches no parameter or buffer; there are {', '.join(names)}")
    return prefixes


def device_of(model: nn.Module) -> torch.device:
    """The device of the model's parameters."""
    return next(model.parameters()).device


class TaskHeads(nn.ModuleDict):
    """One head per task behind one name; `active` says which one answers. For pairs whose classes differ."""

    active = "source"

    def forward(self, x: Tensor) -> Tensor:
        """Logits of the active task."""
        logits: Tensor = self[self.active](x)
        return logits


def with_target_head(model: nn.Module, n_classes: int, seed: int = 0) -> nn.Module:
    """A copy of `model` whose head became `TaskHeads`: the old one as "source", a fresh one of `n_classes` as "target",
    active.
    """
    model = copied(model)
    name = head_name(model)
    old = model.get_submodule(name)
    if not isinstance(old, nn.Linear):
        raise ValueError(f"the head {name!r} is a {type(old).__name__}; a head per task needs a Linear one")
    with seeded(seed, "target head"):
        new = nn.Linear(old.in_features, n_classes).to(old.weight)
    heads = TaskHeads({"source": old, "target": new})
    heads.active = "target"
    set_submodule(model, name, heads)
    return model


def own_head(model: nn.Module) -> list[str]:
    """The prefix of the parameters of the target's own head, in a list; empty where one head serves both tasks."""
    name = head_name(model)
    return [f"{name}.target."] if isinstance(model.get_submodule(name), TaskHeads) else []


def for_task(model: nn.Module, task: str) -> nn.Module:
    """A plain copy of `model` that answers for `task` ("source" or "target"); just a copy where one head serves both."""
    model = copied(model)
    name = head_name(model)
    heads = model.get_submodule(name)
    if isinstance(heads, TaskHeads):
        set_submodule(model, name, heads[known(task, heads, "task")])
    return model


def set_submodule(model: nn.Module, name: str, module: nn.Module) -> None:
    """Put `module` in the place of the submodule `name`; mutates `model`."""
    parent, _, leaf = name.rpartition(".")
    setattr(model.get_submodule(parent), leaf, module)
