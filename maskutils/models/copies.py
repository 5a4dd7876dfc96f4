"""The network inside its wrappers, and copies that compute with their own weights."""

import copy
from types import FunctionType

from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

WRAPPERS = (nn.DataParallel, nn.parallel.DistributedDataParallel, AveragedModel)


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
    check_values(model)
    while True:
        if isinstance(model, WRAPPERS):
            model = model.module
        elif "_orig_mod" in model._modules:  # by name, for the type takes two seconds to import
            model = model.get_submodule("_orig_mod")
        else:
            return model


def check_values(model: nn.Module) -> None:
    """Raise `ValueError` for a network on the meta device."""
    if any(p.is_meta for p in model.parameters()):
        raise ValueError(
            f"the weights of {type(model).__name__} are on the meta device, without values; load them first"
        )


def copied(model: nn.Module) -> nn.Module:
    """A copy of `model` that computes with its own weights, even where `forward` was replaced on the instance, as by
    `net.forward = torch.compile(net.forward)`; the copy is not compiled.

    Raises `ValueError` where `forward` was replaced by a function, for a copy of it would go on to use the weights of `model`.
    """
    replaced = {
        n: m.__dict__["forward"]
        for n, m in model.named_modules()
        if "forward" in m.__dict__ and "_orig_mod" not in m._modules
    }
    for name, forward in replaced.items():
        compiled = hasattr(forward, "_torchdynamo_orig_callable")
        while compiled and isinstance(forward, FunctionType):  # the method is some wrappers further in
            forward = replaced[name] = next(
                filter(None, (getattr(forward, n, None) for n in ("_torchdynamo_orig_callable", "__wrapped__")))
            )
        if isinstance(forward, FunctionType):
            raise ValueError(
                f"the forward of {name or type(model).__name__!r} was replaced by a function, which a copy would share; make it a "
                "method of a subclass, or undo it with: del module.forward"
            )
    made = [t for m in model.modules() for t in vars(m).values() if isinstance(t, Tensor) and not t.is_leaf]
    memo: dict[int, object] = {
        id(t): t.detach().clone() for t in made
    }  # as a pruned weight, which each forward pass makes again
    other = copy.deepcopy(model, memo)
    for name, forward in replaced.items():
        other.get_submodule(name).forward = copy.deepcopy(forward, memo)  # bound to the copy
    return other
