"""Which values are the highest.

Owns the one way to select, exact where values are equal. It must not know what the values stand for.
"""

import numpy as np
import torch
from torch import Tensor


def highest(values: Tensor, k: int) -> Tensor:
    """Bool tensor of the shape of `values` that is True for the `k` highest of them; of equal ones the first by position.

    By selection instead of a sort; on a CPU by numpy's, which takes a sixth of the time of torch's. No value may be nan.
    """
    flat = values.detach().flatten()
    flat = flat.float() if flat.element_size() < 4 else flat  # numpy has no bf16
    if k <= 0:
        return torch.zeros_like(values, dtype=torch.bool)
    cpu = flat.device.type == "cpu"
    least = torch.from_numpy(np.partition(flat.numpy(), -k))[-k] if cpu else flat.topk(k).values[-1]
    kept = flat >= least
    surplus = int(kept.sum()) - k
    if surplus > 0:  # equal to the least, and too many
        kept[(flat == least).nonzero().flatten()[-surplus:]] = False
    return kept.view_as(values)
