"""Protection: holding the weights that a mask keeps bit-identical, in anybody's training loop.

Owns the one mechanism, restoring after every optimiser step. Zeroing gradients instead leaks: weight decay and the
momentum of a re-used Adam still move what has no gradient.
"""

import contextlib
from collections.abc import Iterable, Iterator

import torch
from torch import nn
from torch.optim import Optimizer
from torch.optim.optimizer import register_optimizer_step_post_hook

from maskutils.mask import Mask
from maskutils.models import check_prefixes, unwrapped


@contextlib.contextmanager
def protect(
    model: nn.Module, mask: Mask, train: Iterable[str] = (), optimizer: Optimizer | None = None
) -> Iterator[None]:
    """Inside the block, every weight of `model` that `mask` keeps stays as it was on entry, bit for bit.

    So does everything that the mask does not speak of (biases, norm layers and their statistics, the head), but for
    parameters and buffers whose names begin with one of `train`: name a fresh head there. Works with any loop: what may
    not move is restored after each step of `optimizer` (of every optimiser in the process, if none is given), and once
    more on leaving the block.

    Raises `ValueError` if the mask is of another network, or if a name in `train` matches nothing.

    >>> model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    >>> mask = Mask({"0.weight": torch.tensor([[True, False], [True, True]])})
    >>> with protect(model, mask, train=["1."]):
    ...     pass  # your loop
    """
    model = unwrapped(model)
    mask.check(model)
    tensors = dict(model.named_parameters()) | dict(model.named_buffers())
    train = tuple(train)
    check_prefixes(train, tensors)
    kept = {name: bits.to(tensors[name].device) for name, bits in mask.bits.items()}
    held = {
        name: t.detach().clone() for name, t in tensors.items() if name in kept or not name.startswith(train or "\0")
    }

    @torch.no_grad()
    def restore(*_: object) -> None:
        for name, before in held.items():
            tensor = tensors[name]
            tensor.copy_(torch.where(kept[name], before, tensor) if name in kept else before)

    register = optimizer.register_step_post_hook if optimizer is not None else register_optimizer_step_post_hook
    hook = register(restore)
    try:
        yield
    finally:
        hook.remove()
        restore()
