"""What protocols and baselines share: their registry, and how a network answers for one of two tasks."""

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from maskutils.models import TaskHeads, head_name

Train = Callable[..., list[dict[str, float]]]
History = list[dict[str, float]]
PROTOCOLS: dict[str, Callable[..., Any]] = {}


def answer(model: nn.Module, task: str, images: Tensor) -> Tensor:
    """Logits of `model` for `task`; where one head serves both tasks, simply its logits."""
    head = model.get_submodule(head_name(model))
    if not isinstance(head, TaskHeads):
        return model(images)
    before, head.active = head.active, task
    try:
        return model(images)
    finally:
        head.active = before
