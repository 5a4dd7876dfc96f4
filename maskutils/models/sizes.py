"""From which size on a network is treated as a large one."""

from collections.abc import Iterable

from torch import nn

LARGE = 1_000_000  # weights


def is_large(model: nn.Module) -> bool:
    """Whether `model` has a million parameters or more.

    Then masks begin from a ranking instead of a constant, since a few hundred steps cannot order so many scores; small layers are kept
    whole; and the Fisher information is computed by batches.
    """
    return many(p.numel() for p in model.parameters())


def many(sizes: Iterable[int]) -> bool:
    """Whether tensors of these numbers of weights are a large network's."""
    return sum(sizes) >= LARGE
