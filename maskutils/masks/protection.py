"""Protection: the weights that a mask keeps stay bit-identical, in anybody's training loop.

What may not move is restored after every optimiser step. Zeroing gradients instead leaks: weight decay and the momentum
of a re-used Adam still move what has no gradient.
"""

import contextlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook

from maskutils.core.checks import BadSetting
from maskutils.masks.guard import Guard
from maskutils.masks.mask import Mask
from maskutils.models.copies import unwrapped


def mask_checked(mask: Mask, model: nn.Module) -> Mask:
    """`mask` itself. Raises `BadSetting` if it is no mask, `ValueError` if it is one of another network than `model`."""
    if not isinstance(mask, Mask):
        raise BadSetting(f"mask is a {type(mask).__name__}; it must be a Mask, as learn_mask or Mask.load(path) gives")
    mask.check(model)
    return mask


@contextlib.contextmanager
def protect(
    model: nn.Module, mask: Mask, train: Iterable[str] = (), optimizer: Optimizer | None = None
) -> Iterator[Callable[[], None]]:
    """Inside the block, every weight of `model` that `mask` keeps stays as it was on entry, bit for bit.

    So does everything that the mask does not cover: biases, norm layers and their statistics, the head. `train` names parameters, buffers
    or modules that are free: a fresh head, say, but not what the mask keeps. It works with any loop that trains by `torch.optim`. After
    each step of an optimiser (of `optimizer` alone, if given), what that optimiser trains and all buffers are restored, and everything once
    more on leaving the block. A closure that is given to a step leaves no gradient on held entries, so that the line search of LBFGS runs
    on the weights that it will find again. Takes at most one copy of what is held, and a byte for each bit of the mask.

    A loop that writes weights itself, or by a hook after the step that was registered inside the block, calls what the block gives
    after it does so: `with protect(...) as restore`. An average of weights (`AveragedModel`) rounds, so it can drift by an ulp from what
    is held; protect the average too, and restore it after each `update_parameters`.

    Under DistributedDataParallel and FSDP2 (`fully_shard`), give the wrapped or sharded network, in every process.

    Raises `ValueError` if the mask is of another network or differs between processes, or if a name in `train` matches nothing. It does so
    too if a head would be held whose shape is not that in the mask, and at the first step of an optimiser that cannot be protected. Warns
    where the outcome may surprise. Norm layers may train with the statistics of the batch. Held tensors may be replaced, parametrised,
    rounded, or moved by something else than a step. Steps may train nothing, or another network.

    >>> model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    >>> mask = Mask({"0.weight": torch.tensor([[True, False], [True, True]])})
    >>> with protect(model, mask, train=["1"]):
    ...     pass  # your loop
    """
    inside = unwrapped(model, sharded=True)
    mask_checked(mask, inside).recognise(inside)
    _check_processes(model, mask)
    watched = None if optimizer is None else _steppers(optimizer)
    guard = Guard(inside, mask, train, watched)
    ended = False

    def restore() -> None:
        if ended:
            raise ValueError(
                "the block of protect has ended, and what it held is free: call restore inside the block alone"
            )
        guard.restore()

    with contextlib.ExitStack() as stack:
        stack.callback(guard.restore)  # last of all
        hooks: list[Any] = [(register_optimizer_step_pre_hook, register_optimizer_step_post_hook)]  # of any optimiser
        if watched is not None:
            hooks = [(o.register_step_pre_hook, o.register_step_post_hook) for o in watched]
        for before, after in hooks:
            stack.enter_context(before(guard.before_step))
            stack.enter_context(after(guard.after_step))
        try:
            yield restore
        finally:
            ended = True
        guard.tell()


def _steppers(optimizer: object) -> list[Optimizer]:
    """`optimizer` and the optimisers inside it, as in SAM, Lookahead, accelerate and Lightning. Raises `BadSetting` if there is none."""
    found: list[object] = [optimizer]
    for each in found:  # which grows
        inside = getattr(each, "__dict__", {}).values()
        found += [o for o in inside if isinstance(o, Optimizer) and not any(o is f for f in found)]
    if steppers := [o for o in found if isinstance(o, Optimizer) and "_optimizer_step_post_hooks" in vars(o)]:
        return steppers
    raise BadSetting(
        f"optimizer is a {type(optimizer).__name__}, which is no torch.optim.Optimizer and cannot be watched; leave it out, and restore "
        "after each step: with protect(model, mask) as restore"
    )


def _check_processes(model: nn.Module, mask: Mask) -> None:
    """Raise `ValueError`, in every process, if those that share `model` have different masks."""
    meshes = {p.device_mesh for p in model.parameters() if hasattr(p, "device_mesh")}
    groups = [group for mesh in meshes for group in mesh.get_all_groups()]
    groups += [m.process_group for m in model.modules() if isinstance(m, nn.parallel.DistributedDataParallel)]
    for group in groups:
        found = [""] * group.size()
        torch.distributed.all_gather_object(found, mask.checksum(), group)
        if len(set(found)) > 1:
            raise ValueError(
                "the processes have different masks, and their copies of the network would drift apart; learn the mask in one process, "
                "save it, and load it in all"
            )
