"""Weights that are no parameters but made from others, as by weight norm."""

from collections.abc import Collection, Iterable
from typing import Any

from torch import Tensor, nn

PLAIN = "torch.nn.utils.parametrize.remove_parametrizations(layer, 'weight'), or remove_weight_norm(layer) after the old weight_norm"


def made(module: nn.Module) -> list[str]:
    """Names of the tensors of `module` that are made from others."""
    hooks: Iterable[Any] = module._forward_pre_hooks.values()
    old = [hook.name for hook in hooks if type(hook).__name__ == "WeightNorm"]
    return [*getattr(module, "parametrizations", ()), *old] if "_orig_mod" not in module._modules else []


def makes_in(model: nn.Module, name: str) -> str | None:
    """The layer of `model` that makes another tensor from its parameter or buffer `name`; None if none does."""
    if ".parametrizations." in f".{name}":
        return f".{name}".partition(".parametrizations.")[0].lstrip(".")
    owner, _, leaf = name.rpartition(".")
    return owner if leaf[:-2] in made(model.get_submodule(owner)) else None  # weight_g and weight_v


def dimensions(module: nn.Module, leaf: str) -> int:
    """Dimensions of the tensor `leaf` of `module`, 0 if it has none. A tensor that is made is not read: spectral norm counts readings."""
    if leaf in getattr(module, "parametrizations", ()) and "_orig_mod" not in module._modules:
        made = module.get_submodule(f"parametrizations.{leaf}")
        return max(p.ndim for p in [*made.parameters(recurse=False), *made.buffers(recurse=False)])
    tensor = getattr(module, leaf, None)
    return tensor.ndim if isinstance(tensor, Tensor) else 0


def where_absent(name: str, names: Collection[str]) -> str:
    """Why a parameter `name` is not among the `names` of a network."""
    owner, _, leaf = f".{name}".rpartition(".")
    made = f"{name}_orig" in names or f"{name}_v" in names  # by prune, or the old weight_norm
    if made or any(f".{n}".startswith(f"{owner}.parametrizations.{leaf}.") for n in names):
        return "pruned or parametrised since"
    inner = next((n.removesuffix(f".{name}") for n in names if n.endswith(f".{name}")), None)
    return "absent" if inner is None else f"in its {inner!r}: give that module"
