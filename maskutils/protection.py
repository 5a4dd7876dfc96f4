"""Protection: holding the weights that a mask keeps bit-identical, in anybody's training loop.

Owns the one mechanism, restoring after every optimiser step. Zeroing gradients instead leaks: weight decay and the
momentum of a re-used Adam still move what has no gradient.
"""

import contextlib
import warnings
from collections.abc import Iterable, Iterator, Mapping

import torch
from torch import Tensor, nn
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

    Raises `ValueError` if the mask is of another network, if a name in `train` matches nothing, or if a head would be held that is not
    the one the mask carries. Warns where norm layers that are held train with the statistics of the batch.

    >>> model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    >>> mask = Mask({"0.weight": torch.tensor([[True, False], [True, True]])})
    >>> with protect(model, mask, train=["1."]):
    ...     pass  # your loop
    """
    model, train = unwrapped(model), tuple(train)
    mask.check(model)
    tensors = dict(model.named_parameters()) | dict(model.named_buffers())
    check_prefixes(train, tensors)
    held = {n: t.detach().clone() for n, t in tensors.items() if n in mask.bits or not n.startswith(train or "\0")}
    _check_shapes(mask, held)
    kept = {n: bits.to(held[n].device) for n, bits in mask.bits.items()}
    owners = {n: model.get_submodule(n.rpartition(".")[0]) for n in held}
    norms = [m for n, m in owners.items() if n.endswith("running_mean")]

    @torch.no_grad()
    def restore(*_: object) -> None:
        _warn_once(norms)
        for name, owner in owners.items():
            tensor = getattr(owner, name.rpartition(".")[2])  # looked up anew: the module may have been moved
            if held[name].device != tensor.device:
                held[name], kept[name] = (t.to(tensor.device) for t in (held[name], kept.get(name, held[name])))
            before = held[name].to(tensor.dtype)
            tensor.copy_(torch.where(kept[name], before, tensor) if name in mask.bits else before)

    register = optimizer.register_step_post_hook if optimizer is not None else register_optimizer_step_post_hook
    hook = register(restore)
    try:
        yield
    finally:
        hook.remove()
        restore()


def _check_shapes(mask: Mask, held: Mapping[str, Tensor]) -> None:
    """Raise `ValueError` if something held is not what the mask's task left there, as a fresh head for other classes is not."""
    for name, before in mask.state.items():
        if name in held and held[name].shape != before.shape:
            raise ValueError(
                f"{name} is {tuple(held[name].shape)} here and {tuple(before.shape)} in the task that the mask carries, and would be held "
                f"untrained; name it in train=, as train=[{name!r}]"
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
