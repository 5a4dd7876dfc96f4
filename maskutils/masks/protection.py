"""Protection: holding the weights that a mask keeps bit-identical, in anybody's training loop.

Owns the one mechanism, restoring after every optimiser step. Zeroing gradients instead leaks: weight decay and the
momentum of a re-used Adam still move what has no gradient.
"""

import contextlib
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.optimizer import register_optimizer_step_post_hook

from maskutils.masks.mask import Mask
from maskutils.models.parts import check_prefixes, unwrapped


@contextlib.contextmanager
def protect(
    model: nn.Module, mask: Mask, train: Iterable[str] = (), optimizer: Optimizer | None = None
) -> Iterator[Callable[[], None]]:
    """Inside the block, every weight of `model` that `mask` keeps stays as it was on entry, bit for bit.

    So does everything that the mask does not speak of (biases, norm layers and their statistics, the head), but for
    parameters and buffers whose names begin with one of `train`: name a fresh head there. Works with any loop that trains by
    `torch.optim`: what may not move is restored after each step of `optimizer` (of every optimiser that trains a parameter of `model`,
    if none is given), and once more on leaving the block. A loop that writes weights itself, as from master copies in another
    precision, calls what the block gives after it does: `with protect(...) as restore`. Takes two copies of the weights in memory.

    Raises `ValueError` if the mask is of another network, if a name in `train` matches nothing, or if a head would be held that is of
    another shape than the one the mask carries. Warns where norm layers that are held train with the statistics of the batch or are
    not as the mask carries them, and on leaving the block if held weights were moved by something else than a step, or steps trained
    something else.

    >>> model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    >>> mask = Mask({"0.weight": torch.tensor([[True, False], [True, True]])})
    >>> with protect(model, mask, train=["1."]):
    ...     pass  # your loop
    """
    model = unwrapped(model)
    mask.check(model)
    tensors = dict(model.named_parameters()) | dict(model.named_buffers())
    train = check_prefixes(train, tensors)
    held = {n: t.detach().clone() for n, t in tensors.items() if n in mask.bits or not n.startswith(train)}
    _check_state(mask, held)
    owners = {n: model.get_submodule(n.rpartition(".")[0]) for n in held}
    norms = [m for n, m in owners.items() if n.endswith("running_mean")]
    holds = [_hold(m, n.rpartition(".")[2], held[n], mask.bits.get(n)) for n, m in owners.items()]

    restored, others = False, 0  # steps of optimisers that train none of our parameters

    @torch.no_grad()
    def restore() -> None:
        nonlocal restored
        restored = True
        _warn_once(norms)
        for hold in holds:
            hold()

    def after_step(stepped: Optimizer, *_: object) -> None:
        nonlocal others
        if stepped is optimizer or _trains(stepped, model):
            restore()
        else:
            others += 1

    register = optimizer.register_step_post_hook if optimizer is not None else register_optimizer_step_post_hook
    hook = register(after_step)
    try:
        yield restore
        _tell([p for n, p in model.named_parameters() if n in held], restore, 0 if restored else others)
    finally:
        hook.remove()
        restore()


def _hold(owner: nn.Module, leaf: str, before: Tensor, bits: Tensor | None) -> Callable[[], None]:
    """What gives the tensor `leaf` of `owner` its entries at `bits` (all of them, if None) as they are in `before`, which it keeps."""
    if bits is not None:
        before.masked_fill_(~bits.to(before.device), 0)  # every bit of what may move is 0
    kind, fixed, free = None, before, before

    def hold() -> None:
        nonlocal kind, fixed, free
        tensor = getattr(owner, leaf)  # looked up anew: it may have been moved or converted
        if kind != (tensor.device, tensor.dtype):
            kind, fixed = (tensor.device, tensor.dtype), before.to(tensor)
            if bits is not None:
                free = torch.zeros_like(_bits(tensor)).masked_fill_(~bits.to(tensor.device), -1)  # -1 has every bit set
        if bits is None:
            tensor.copy_(fixed)
        else:
            _bits(tensor).bitwise_and_(free).bitwise_or_(_bits(fixed))

    return hold


def _trains(optimizer: Optimizer, model: nn.Module) -> bool:
    ours = {id(p) for p in model.parameters()}
    return any(id(p) in ours for group in optimizer.param_groups for p in group["params"])


def _bits(tensor: Tensor) -> Tensor:
    """The memory of `tensor` as integers of the same width: exact whatever is there, and several times as quick as `torch.where`."""
    return tensor.detach().view({1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}[tensor.element_size()])


def _check_state(mask: Mask, held: Mapping[str, Tensor]) -> None:
    """Raise `ValueError` if something held is not what the mask's task left there, as a fresh head for other classes is not; warn if
    it has other values.
    """
    changed = []
    for name, before in mask.state.items():
        if name in held and held[name].shape != before.shape:
            raise ValueError(
                f"{name} is {tuple(held[name].shape)} here and {tuple(before.shape)} in the task that the mask carries, and would be held "
                f"untrained; name it in train=, as train=[{name!r}]"
            )
        if name in held and not torch.equal(held[name], before.to(held[name])):
            changed.append(name)
    if changed:
        warnings.warn(
            f"{', '.join(changed[:5])}{' and others' * (len(changed) > 5)} will be held as they are now, not as they were in the task that "
            "the mask carries; name in train= what is to be trained, as a fresh head",
            stacklevel=5,
        )


def _tell(weights: Iterable[Tensor], restore: Callable[[], None], others: int) -> None:
    """Warn, at the end of the block, if its loop was not one that is protected: if `restore` finds something to do, or `others` were
    the only ones to step.
    """
    left, what = [(p, p.detach().clone()) for p in weights], ""
    restore()
    if any(not torch.equal(_bits(p), _bits(was)) for p, was in left):
        what = (
            "held weights were changed by something else than a step of an optimiser that trains them (a copy of master weights, "
            "another optimiser than `optimizer`, weights that were loaded): they are as on entry now, but the rest was trained beside "
            "the changed ones"
        )
    elif others > 0:
        what = (
            f"{others} optimiser steps were taken inside protect, but none trains the network it was given: a copy of it (deepcopy, "
            "torch.load) is another network, and has to be protected itself"
        )
    if what:
        warnings.warn(
            f"{what}. What the block gives restores them at any time: with protect(...) as restore", stacklevel=4
        )


def _warn_once(norms: list[nn.Module]) -> None:
    """Warn, the first time, if norm layers that are held compute with the statistics of the batch. Empties `norms`."""
    if any(norm.training for norm in norms):
        norms.clear()
        warnings.warn(
            "norm layers train with the statistics of each batch, but those they evaluate with are held at the source's: put them in "
            "evaluation mode, or name them in train= (and give the mask its own with with_state)",
            stacklevel=4,
        )
