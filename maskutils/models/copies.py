"""The network inside its wrappers, and copies that compute with their own weights."""

import copy
from collections.abc import Iterable, Iterator
from functools import partial
from types import CellType, FunctionType

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.nn.utils import parametrize
from torch.optim.swa_utils import AveragedModel

from maskutils.core.checks import BadSetting

INNER = {"_orig_mod", "_forward_module"}  # of torch.compile, and of Fabric
WRAPPERS = (nn.DataParallel, nn.parallel.DistributedDataParallel, AveragedModel)


def unwrapped(model: nn.Module, sharded: bool = False) -> nn.Module:
    """The module inside the wrappers of `torch.compile`, data parallelism, weight averaging and Lightning's Fabric.

    Raises `ValueError` for what is no module, or one whose weights are sharded over processes (unless `sharded` says that DTensors
    will do), flattened or without values.
    """
    check_values(model)
    _check_scripted(model)
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
    """Raise `ValueError` for what is no network, or one that has no values yet."""
    if not isinstance(model, nn.Module):
        raise BadSetting(f"model is a {type(model).__name__}; it must be a torch.nn.Module")
    if any(is_lazy(t) for t in (*model.parameters(), *model.buffers())):
        raise ValueError(f"{type(model).__name__} has lazy layers without weights yet; give it one batch first")
    if any(p.is_meta for p in model.parameters()):
        raise ValueError(
            f"the weights of {type(model).__name__} are on the meta device, without values; load them first"
        )


def _check_scripted(model: nn.Module) -> None:
    """Raise `ValueError` for a network that is TorchScript, whole or in part."""
    for name, module in model.named_modules():
        if isinstance(module, torch.jit.ScriptModule):
            raise ValueError(
                f"{name or 'the network'} is TorchScript, which cannot be copied or masked; give the module that it was made from"
            )


def copied(model: nn.Module) -> nn.Module:
    """A copy of `model` that computes with its own weights. `net.forward = torch.compile(net.forward)` is undone in the copy.

    Raises `ValueError` where `forward` was replaced by a function, or where an attribute or hook is a function that holds a part of
    `model`. A copy would go on to use the weights of `model`.
    """
    _check_scripted(model)
    _check_functions(model)
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
    kept = [t for v in values for t in (v, *_inside(v))]
    made = [t for t in kept if isinstance(t, Tensor) and not t.is_leaf]  # as a pruned weight, made in each forward pass
    memo: dict[int, object] = {id(t): t.detach().clone() for t in made}
    other = copy.deepcopy(model, memo)
    other._apply(lambda t: t)  # as `to` does: modules forget what they computed from weights that may change in a copy
    for name, forward in replaced.items():
        other.get_submodule(name).forward = copy.deepcopy(forward, memo)  # bound to the copy
    for module in other.modules():
        if parametrize.is_parametrized(module):  # by a property of its class, which a deep copy shares
            shared = type(module)
            module.__class__ = type(shared.__name__, shared.__bases__, dict(vars(shared)))
    return other


def _check_functions(model: nn.Module) -> None:
    """Raise `ValueError` for a function in an attribute or hook of a module that holds a part of `model`, in its closure or a default."""
    parts = {id(part) for part in (*model.modules(), *model.parameters(), *model.buffers())}
    for name, module in model.named_modules():
        own = vars(module)
        passed = {"forward", "_compiled_call_impl"} | {key for key in own if key.endswith("_hooks")}
        held = [(f"attribute {key}", v) for key, v in own.items() if key not in passed]
        hooks = [hook for kind in ("_forward_pre_hooks", "_forward_hooks") for hook in own[kind].values()]
        for what, value in held + [(f"hook {getattr(hook, '__qualname__', '')}", hook) for hook in hooks]:
            if any(id(used) in parts for used in _used_by(value, set())):
                raise ValueError(
                    f"{what} of {name or type(model).__name__!r} is a function that holds a part of the network, and a copy would compute "
                    "with the weights of this one; make it a method or a module, or remove it first, as by the remove() of a hook's handle"
                )


def _used_by(value: object, seen: set[tuple[int, bool]], by_function: bool = False) -> Iterator[object]:
    """What functions in `value` hold by closure, default or as a global, and what is in that; `value` too if held `by_function`."""
    if (id(value), by_function) in seen:
        return
    seen.add((id(value), by_function))
    if by_function:
        yield value
    inside = _inside(value)
    if isinstance(value, FunctionType):
        for name in value.__code__.co_names:
            around = value.__globals__.get(name)
            yield from (around, *_inside(around))
        cells = [cell.cell_contents for cell in value.__closure__ or () if cell != CellType()]  # not empty
        inside, by_function = [*cells, *(value.__defaults__ or ()), *(value.__kwdefaults__ or {}).values()], True
    for inner in inside:
        yield from _used_by(inner, seen, by_function)


def _inside(value: object) -> Iterable[object]:
    """What is in a list, tuple, set or dict, or is called by a `partial`."""
    if isinstance(value, (list, tuple, set)):
        return value
    return value.values() if isinstance(value, dict) else [value.func] if isinstance(value, partial) else ()


def with_gradients(model: nn.Module) -> nn.Module:
    """`model` with gradients on for all floating-point parameters."""
    for p in model.parameters():
        p.requires_grad_(p.is_floating_point() or p.is_complex())
    return model
