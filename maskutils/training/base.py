"""What protocols and baselines share: their registry, and how a network answers for one of two tasks."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

from torch import Tensor, nn

from maskutils.models.parts import TaskHeads, head_name

Train = Callable[..., list[dict[str, float]]]
History = list[dict[str, float]]
PROTOCOLS: dict[str, Callable[..., Any]] = {}


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
        return model(images)
