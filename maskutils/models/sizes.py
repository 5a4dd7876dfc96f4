"""From which size on a network is treated as a large one."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import nn

LARGE = 1_000_000  # weights


def is_large(model: nn.Module) -> bool:
    """Whether `model` has a million parameters or more.

    Then masks begin from a ranking instead of a constant, since a few hundred steps cannot order so many scores; small layers are kept
    whole; and the Fisher information is computed by batches.
    """
    return many(p.numel() for p in model.parameters())


def usual_lr(model: nn.Module) -> float:
    """A learning rate for AdamW that `model` bears: 2e-3 for a small network, 1e-4 for one of a million parameters or more.

    A pretrained MobileNetV2 keeps most of what it knows at 1e-4; at 4e-4 it loses both tasks. A large network with random weights bears
    ten times as much.
    """
    return 1e-4 if is_large(model) else 2e-3


def many(sizes: Iterable[int]) -> bool:
    """Whether tensors of these numbers of weights are a large network's."""
    return sum(sizes) >= LARGE


@contextmanager
def fitting_threads(model: nn.Module) -> Iterator[None]:
    """Inside the block torch computes a small network with one thread; afterwards with as many as before.

    For a small network it costs more to hand work to a second thread than it saves: on two idle cores a step took five times as long
    with both, and more where something else ran. Large networks keep the threads that torch has.
    """
    threads = torch.get_num_threads()
    alone = threads > 1 and not is_large(model)
    try:
        if alone:
            torch.set_num_threads(1)
        yield
    finally:
        if alone:
            torch.set_num_threads(threads)
