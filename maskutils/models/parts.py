"""Parts of any network: its head (or one per task), its maskable weights, its norm layers."""

import copy
from collections.abc import Collection, Iterable
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.optim.swa_utils import AveragedModel

from maskutils.core.checks import known, needs
from maskutils.core.seeds import seeded

if TYPE_CHECKING:
    import pandas as pd

UNMASKED = (nn.Embedding, nn.EmbeddingBag, nn.LayerNorm, nn.RMSNorm)  # whatever the dimensions of their weight
WRAPPERS = (nn.DataParallel, nn.parallel.DistributedDataParallel, AveragedModel)


def head_name(model: nn.Module) -> str:
    """Name of the head: what the network says in an attribute `head_name`, else the module, last in definition order, that owns a
    weight of two or more dimensions.

    A `TaskHeads` counts as one. Raises `ValueError` for a network without any such weight, or without the module it names.
    """
    if isinstance(found := getattr(model, "head_name", ""), str) and found:
        known(found, [n for n, _ in model.named_modules() if n], "head_name")
        return found
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


def check_head(model: nn.Module, name: str, logits: Tensor) -> None:
    """Raise `ValueError` if `name`, the head of `model`, is a linear layer that cannot have given these `logits` (N, classes)."""
    head = model.get_submodule(name)
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
    if names := _covered(model):
        return names
    raise ValueError(
        f"{type(model).__name__} has nothing to mask: no weight of two or more dimensions beside its head (parametrised ones do "
        "not count)"
    )


def _covered(model: nn.Module) -> list[str]:
    head = head_name(model) + "."

    def covered(name: str, parameter: nn.Parameter) -> bool:
        owner, _, leaf = name.rpartition(".")
        is_weight = parameter.ndim > 1 and "weight" in leaf and not isinstance(model.get_submodule(owner), UNMASKED)
        return is_weight and not name.startswith(head)

    return [name for name, parameter in model.named_parameters() if covered(name, parameter)]


def summary(model: nn.Module) -> "pd.DataFrame":
    """One row per parameter: name, shape, weights, and whether a mask covers it or why not."""
    with needs("study"):
        import pandas as pd  # here, for masks do without

    head, names = head_name(model) + ".", set(_covered(model))

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


def unwrapped(model: nn.Module, sharded: bool = False) -> nn.Module:
    """The module inside wrappers that put a prefix before its names: of `torch.compile`, data parallelism and averaging.

    Raises `ValueError` for one whose weights are sharded over processes (unless `sharded` says that DTensors will do), flattened
    or without values.
    """
    if any(type(m).__name__ == "FullyShardedDataParallel" for m in model.modules()):
        raise ValueError(
            f"{type(model).__name__} is FullyShardedDataParallel, which flattens weights so that no mask fits them; use fully_shard"
        )
    if not sharded and any(hasattr(p, "device_mesh") for p in model.parameters()):
        raise ValueError(
            f"the weights of {type(model).__name__} are sharded over processes (FSDP): only protect works on them; learn and apply the "
            "mask before fully_shard, or on a network that is whole"
        )
    if any(p.is_meta for p in model.parameters()):
        raise ValueError(
            f"the weights of {type(model).__name__} are on the meta device, without values; load them first"
        )
    while True:
        if isinstance(model, WRAPPERS):
            model = model.module
        elif "_orig_mod" in model._modules:  # by name, for the type takes two seconds to import
            model = model._modules["_orig_mod"]
        else:
            return model


def device_of(model: nn.Module) -> torch.device:
    """The device of the model's parameters."""
    return next(model.parameters()).device


class TaskHeads(nn.ModuleDict):
    """One head per task behind one name; `active` says which one answers. For pairs whose classes differ."""

    active = "source"

    def forward(self, x: Tensor) -> Tensor:
        """Logits of the active task."""
        return self[self.active](x)


def with_target_head(model: nn.Module, n_classes: int, seed: int = 0) -> nn.Module:
    """A copy of `model` whose head became `TaskHeads`: the old one as "source", a fresh one of `n_classes` as "target",
    active.
    """
    model = copy.deepcopy(model)
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
    model = copy.deepcopy(model)
    name = head_name(model)
    heads = model.get_submodule(name)
    if isinstance(heads, TaskHeads):
        set_submodule(model, name, heads[known(task, heads, "task")])
    return model


def set_submodule(model: nn.Module, name: str, module: nn.Module) -> None:
    """Put `module` in the place of the submodule `name`; mutates `model`."""
    parent, _, leaf = name.rpartition(".")
    setattr(model.get_submodule(parent), leaf, module)
