"""Which values are the highest.

Layers and masks select by the same function, which is exact where values are equal.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from maskutils.models.sizes import many


def highest(values: Tensor, k: int) -> Tensor:
    """Bool tensor of the shape of `values` that is True for the `k` highest of them; of equal ones the first by position.

    By selection instead of a sort; on a CPU by numpy's, which takes a sixth of the time of torch's. No value may be nan.
    """
    flat = values.detach().flatten()
    flat = flat.float() if flat.element_size() < 4 else flat  # numpy has no bf16
    k = min(k, flat.numel())
    if k <= 0:
        return torch.zeros_like(values, dtype=torch.bool)
    if torch.compiler.is_compiling():  # neither numpy nor a count would stay in one graph
        kept = torch.zeros_like(flat, dtype=torch.bool)
        return kept.scatter_(0, flat.argsort(descending=True, stable=True)[:k], True).view_as(values)
    array: Any = flat  # numpy's on a CPU
    count: Callable[[Any], Any] = torch.count_nonzero
    if flat.device.type == "cpu":
        array, count = flat.numpy(), np.count_nonzero
    least = kth(flat, k)
    above = array >= least
    kept, surplus = torch.as_tensor(above, device=flat.device), int(count(above)) - k
    if surplus > 0:  # equal to the least, and too many: the last of them are dropped
        kept[torch.as_tensor(array == least, device=flat.device).nonzero()[-surplus:]] = False
    return kept.view_as(values)


def kth(flat: Tensor, k: int) -> Any:
    """The `k`-th highest of the values in `flat` (n,), for k in [1, n]: a number of numpy's on a CPU, else a tensor."""
    return np.partition(flat.numpy(), -k)[-k] if flat.device.type == "cpu" else flat.topk(k).values[-1]


def places(flat: Tensor) -> Tensor:
    """The place of each of the values in `flat` (n,) from the lowest, 0, to the highest, n - 1; of equal ones the first is lower."""
    return flat.argsort(stable=True).argsort()


def kept_whole(sizes: Mapping[str, int], total: int) -> set[str]:
    """The layers of a large network that are kept whole: the smallest ones that together hold a quarter of the `total` to keep, at most.

    They are depthwise and first convolutions. A few of their weights are worth more than many of another layer's, and each output
    depends on few. None in networks of fewer than 200,000 weights.
    """
    whole, budget = set(), total / 4 if many(sizes.values()) else 0
    for name in sorted(sizes, key=lambda n: (sizes[n], n)):  # the same layers in whatever order they come
        if (budget := budget - sizes[name]) >= 0:
            whole.add(name)
    return whole


def filled(scores: Mapping[str, Tensor], kept: Mapping[str, Tensor], total: int) -> dict[str, Tensor]:
    """Bits that are `kept`, and those of the highest `scores` among the rest, up to `total` in all; all tensors are (N,)."""
    already = torch.cat(list(kept.values()))
    rest = (~already).nonzero().flatten()
    already[rest[highest(torch.cat(list(scores.values()))[rest], total - int(already.sum()))]] = True
    return dict(zip(scores, already.split([s.numel() for s in scores.values()]), strict=True))
