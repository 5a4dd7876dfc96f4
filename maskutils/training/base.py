"""What protocols and baselines share: the transfer that they are given, their registry, and how a network answers for one of two tasks."""

import contextlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer

from maskutils.core.approaches import Approach, Kind, describe
from maskutils.core.checks import known, number, positive, register
from maskutils.data.pair import Pair
from maskutils.models.parts import TaskHeads, head_name, logits_of
from maskutils.training.loop import NORMS, Penalty, check_training, fit

History = list[dict[str, float]]
Protocol = Callable[..., History]
PROTOCOLS: dict[str, Protocol] = {}


def protocol(kind: Kind = "protocol", **about: Any) -> Callable[[Protocol], Protocol]:
    """A decorator that files a protocol under its function's name; `about` are fields of its `Approach`.

    The function is called with a `Transfer`, what the description `needs`, and its `knobs`; it changes the network of the transfer and
    returns its history.
    """

    def add(function: Protocol) -> Protocol:
        describe(Approach(function.__name__, kind, **about))
        return register(PROTOCOLS)(function)

    return add


@dataclass(frozen=True)
class Training:
    """How a network is trained on a target: the same for all approaches that are compared."""

    steps: int = 300  # optimiser steps
    lr: float = 2e-3
    batch_size: int = 32  # images a step
    seed: int = 0
    norm: str = "eval"  # norm layers keep the source's statistics; "train": they follow the target
    precision: str = "float32"
    mask_steps: int = 300  # optimiser steps where a mask of the target is learnt

    def __post_init__(self) -> None:
        check_training(self.steps, self.lr, self.batch_size, self.seed, self.precision)
        positive("mask_steps", number("mask_steps", self.mask_steps, whole=True))
        known(self.norm, NORMS, "norm")


@dataclass(frozen=True)
class Transfer:
    """One transfer, as a protocol is given it: a copy of the source network that it may change, the pair, and how to train."""

    model: nn.Module
    pair: Pair
    training: Training
    watch: Callable[[], dict[str, float]] | None = None

    def fit(
        self,
        params: Iterable[nn.Parameter] | None = None,
        penalty: Penalty | None = None,
        optimizer: str | Callable[..., Optimizer] = "adamw",
        **changes: Any,
    ) -> History:
        """Train the network on the target; `changes` to `training` are for this call, as steps=150. See `training.loop.fit`."""
        t = replace(self.training, **changes)
        return fit(
            self.model, self.pair.target.train, steps=t.steps, lr=t.lr, batch_size=t.batch_size, seed=t.seed, norm=t.norm,
            precision=t.precision, optimizer=optimizer, params=params, penalty=penalty, watch=self.watch,
        )  # fmt: skip


@contextlib.contextmanager
def answering(model: nn.Module, task: str) -> Iterator[nn.Module]:
    """Inside the block `model` itself answers for `task`; where one head serves both tasks, it always does."""
    head = model.get_submodule(head_name(model))
    before = getattr(head, "active", "")
    try:
        if isinstance(head, TaskHeads):
            head.active = task
        yield model
    finally:
        if isinstance(head, TaskHeads):
            head.active = before


def answer(model: nn.Module, task: str, images: Tensor) -> Tensor:
    """Logits of `model` for `task`."""
    with answering(model, task):
        return logits_of(model(images))
