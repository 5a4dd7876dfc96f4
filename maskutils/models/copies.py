"""The network inside its wrappers, and copies that compute with their own weights."""

import copy
from types import FunctionType

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.optim.swa_utils import AveragedModel

from maskutils.core.checks import BadSetting

INNER = {"_orig_mod", "_forward_module"}  # of torch.compile, and of Fabric
WRAPPERS = (nn.DataParallel, nn.parallel.DistributedDataParallel, AveragedModel)


def unwrapped(model: nn.Module, sharded: bool = False) -> nn.Module:
    """The module inside wrappers that put a prefix before its names: of `torch.compile`, data parallelism, averaging and Lightning's
    Fabric.

    Raises `ValueError` for what is no module, or one whose weights are sharded over processes (unless `sharded` says that DTensors
    will do), flattened or without values.
    """
    check_values(model)
    if any(type(m).__name__ == "FullyShardedDataParallel" for m in model.modules()):
        raise ValueError(
            f"{type(model).__name__} is FullyShardedDataParallel, which flattens weights so that no mask fits them; use fully_shard"
        )
    if not sharded and any(hasattr(p, "device_mesh") for p in model.parameters()):
        raise ValueError(
            f"the weights of {type(model).__name__} are sharded over processes (FSDP): only protect works on them; learn and apply the "
            "mask before fully_shard, or on a network that is whole"
        )
    while True:
        if isinstance(model, WRAPPERS):
            model = model.module
        elif inner := INNER & model._modules.keys():  # by name, for the types take seconds to import
            model = model.get_submodule(inner.pop())
        else:
            return model


def check_values(model: nn.Module) -> None:
    """Raise `ValueError` for what is no network, or one that is scripted or has no values yet."""
    if not isinstance(model, nn.Module):
        raise BadSetting(f"model is a {type(model).__name__}; it must be a torch.nn.Module")
    if isinstance(model, torch.jit.ScriptModule):
        raise ValueError(
            "the network is TorchScript, which cannot be copied or masked; give the module that it was made from"
        )
    if any(is_lazy(p) for p in model.parameters()):
        raise ValueError(f"{type(model).__name__} has lazy layers without weights yet; give it one batch first")
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
    values = [v for m in model.modules() for v in vars(m).values()]  # a list in nn.LSTM, a dict in timm's LeViT
    kept = [t for v in values for t in (v if isinstance(v, list) else v.values() if isinstance(v, dict) else [v])]
    made = [t for t in kept if isinstance(t, Tensor) and not t.is_leaf]
    memo: dict[int, object] = {
        id(t): t.detach().clone() for t in made
    }  # as a pruned weight, which each forward pass makes again
    other = copy.deepcopy(model, memo)
    other._apply(
        lambda t: t
    )  # as `to` does: modules forget what they computed from their weights, which may change in a copy
    for name, forward in replaced.items():
        other.get_submodule(name).forward = copy.deepcopy(forward, memo)  # bound to the copy
    return other
