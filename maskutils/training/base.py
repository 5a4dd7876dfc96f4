"""What protocols and baselines share: the transfer that they are given, their registry, and how a network answers for one of two tasks."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from maskutils.core.approaches import Kind, filed
from maskutils.core.checks import BadSetting, known, positive
from maskutils.data.pair import Pair
from maskutils.masks.mask import Mask
from maskutils.masks.protection import protect
from maskutils.models.copies import copied
from maskutils.models.heads import TaskHeads, head_name, logits_of, own_head
from maskutils.training.loop import NORMS, Penalty, check_training, fit

History = list[dict[str, float]]
Protocol = Callable[..., History]
PROTOCOLS: dict[str, Protocol] = {}


def protocol(kind: Kind = "protocol", **about: Any) -> Callable[[Protocol], Protocol]:
    """A decorator that files a protocol under its function's name; `about` are fields of its `Approach`.

    The function is called with a `Transfer`, what the description `needs`, and its `knobs`; it changes the network of the transfer and
    returns its history.
    """
    return filed(PROTOCOLS, kind, **about)


@dataclass(frozen=True)
class Training:
    """How a network is trained on a target: the same for all approaches that are compared."""

    steps: int = 300  # optimiser steps
    lr: float = 2e-3
    batch_size: int = 32  # images a step
    seed: int = 0
    norm: str = "eval"  # norm layers keep the source's statistics; "train": they follow the target
    precision: str = "float32"
    mask_steps: int = 300  # optimiser steps where a mask is learnt during the transfer, or kept weights are retrained

    def __post_init__(self) -> None:
        check_training(self.steps, self.lr, self.batch_size, self.seed, self.precision)
        positive("mask_steps", self.mask_steps, whole=True)
        known(self.norm, NORMS, "norm")


@dataclass(frozen=True)
class Transfer:
    """One transfer, as a protocol is given it: a copy of the source network that it may change, the pair, and how to train."""

    model: nn.Module
    pair: Pair
    training: Training
    watch: Callable[..., dict[str, float]] | None = None  # again=True: in the place of its last reading

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

    def holding(self, mask: Mask) -> AbstractContextManager[Any]:
        """`protect` with `mask`, but for a head of the target's own, which is trained."""
        return protect(self.model, mask, train=own_head(self.model))

    def own_parameters(self) -> list[nn.Parameter]:
        """The parameters of the target's own head; none where one head serves both tasks."""
        head = tuple(own_head(self.model))
        return [p for n, p in self.model.named_parameters() if n.startswith(head)]

    def fit_stored(self, **given: Any) -> History:
        """`fit`, and then what it changed of the parameters that both tasks use rounded to float16, as it is stored."""
        before = {name: p.clone() for name, p in shared(self.model).items()}
        return self.store_change(before, self.fit(**given))

    def store_change(self, before: Mapping[str, Tensor], rows: History) -> History:
        """Round what changed of the shared parameters since `before`; `rows` then ends with the network that is stored."""
        put(self.model, {name: rounded_change(before[name], p) for name, p in shared(self.model).items()})
        return self.read_stored(rows)

    def read_stored(self, rows: History) -> History:
        """`rows`, the last of which now tells of the network as it is: with values that were rounded after training."""
        if self.watch is not None:
            rows[-1] |= self.watch(again=True)
        return rows


def joined(first: History, second: History) -> History:
    """One history of two trainings, one after the other."""
    return first + [row | {"step": first[-1]["step"] + row["step"]} for row in second]


def frozen(model: nn.Module) -> nn.Module:
    """A copy of `model` that answers as it does now, in evaluation mode."""
    return copied(model).eval().requires_grad_(False)


def halves(steps: int) -> tuple[int, int]:
    """The steps of the two trainings that share `steps`, as 4 and 5 of 9. Raises `BadSetting` unless there is one for each."""
    if steps < 2:
        raise BadSetting(f"steps = {steps} must be 2 or more: this approach trains twice, for half of the steps each")
    return steps // 2, steps - steps // 2


def shared(model: nn.Module) -> dict[str, Tensor]:
    """The parameters that both tasks use and that train, tied ones once: all, or all but the heads where each task has its own."""
    heads = (f"{head_name(model)}.",) if own_head(model) else ()
    return {n: p.detach() for n, p in model.named_parameters() if p.requires_grad and not n.startswith(heads)}


def put(model: nn.Module, values: Mapping[str, Tensor]) -> None:
    """Write `values` over the parameters of their names."""
    with torch.no_grad():
        for name, value in values.items():
            model.get_parameter(name).copy_(value)


def rounded(values: Tensor) -> Tensor:
    """Each value as float16 keeps it, of the type that it had."""
    return values.half().to(values.dtype)


def rounded_change(before: Tensor, after: Tensor) -> Tensor:
    """`before` plus the `rounded` change to `after`; what did not change keeps its bits."""
    return before.where(after == before, before + rounded(after - before))


@contextmanager
def answering(model: nn.Module, task: str) -> Iterator[None]:
    """Inside the block `model` itself answers for `task`; where one head serves both tasks, it always does."""
    head = model.get_submodule(head_name(model))
    if not isinstance(head, TaskHeads):
        yield
        return
    before, head.active = head.active, task
    try:
        yield
    finally:
        head.active = before


def answer(model: nn.Module, task: str, images: Tensor) -> Tensor:
    """Logits of `model` for `task`."""
    with answering(model, task):
        return logits_of(model(images))
