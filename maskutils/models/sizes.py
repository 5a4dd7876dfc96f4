"""From which size on a network is treated as a large one."""

import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import nn

LARGE = 200_000  # weights: above the networks of the study on digits, below a pretrained network that is cut
FALL = 5  # times LARGE, over which the usual learning rate falls to a twentieth, and from which on all threads are used


def is_large(model: nn.Module) -> bool:
    """Whether `model` has 200,000 parameters or more.

    Then masks begin from a ranking instead of a constant, since a few hundred steps cannot order so many scores, and the Fisher
    information is computed by batches.
    """
    return _times(model) >= 1


def _times(model: nn.Module) -> float:
    """How many times `LARGE` the parameters of `model` are."""
    return sum(p.numel() for p in model.parameters()) / LARGE


def usual_lr(model: nn.Module) -> float:
    """A learning rate for AdamW that `model` bears: 2e-3 up to 200,000 parameters, 1e-4 from a million on.

    Between the two it falls as a power of the number of parameters: without a step, so that networks of nearly the same size have nearly
    the same rate. A pretrained MobileNetV2 keeps most of what it knows at 1e-4; at 4e-4 it loses both tasks. Cut to 0.54 million
    parameters, it learns photographs at 3e-4 and loses much at 2e-3. A large network with random weights bears ten times as much.
    """
    return round(2e-3 / math.pow(min(max(_times(model), 1), FALL), math.log(20, FALL)), 6)


def many(sizes: Iterable[int]) -> bool:
    """Whether tensors of these numbers of weights are a large network's."""
    return sum(sizes) >= LARGE


@contextmanager
def fitting_threads(model: nn.Module) -> Iterator[None]:
    """Inside the block torch computes a network of less than a million parameters with one thread; afterwards with as many as before.

    For such a network it costs more to hand work to a second thread than it saves: on two idle cores a step took five times as long
    with both, and more where something else ran. Larger networks keep the threads that torch has.
    """
    threads = torch.get_num_threads()
    alone = threads > 1 and _times(model) < FALL
    try:
        if alone:
            torch.set_num_threads(1)
        yield
    finally:
        if alone:
            torch.set_num_threads(threads)
