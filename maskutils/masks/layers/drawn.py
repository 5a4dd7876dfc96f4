"""Masked weights in few passes over memory.

Fresh memory costs a CPU more than the arithmetic on it, since the system clears every page. So the mask becomes the masked weight
in place, and the gradient of the mask that of the scores. Autograd would keep a tensor for every operation.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from maskutils.masks.layers.base import MaskLayer


class Drawn(MaskLayer):
    """A mask layer that gives its gradient in closed form: `draw` and `pull` instead of `sample`.

    A subclass that gives `sample` all the same is trained through it, by autograd.
    """

    def draw(self, scores: Tensor) -> tuple[Tensor, Tensor | None]:
        """A mask of one training step, and the one tensor that its gradient needs. The mask may be overwritten if it is another tensor."""
        raise NotImplementedError

    def pull(self, gradient: Tensor, kept: Any, progress: float) -> Tensor:
        """dL/ds from `gradient`, dL/dm, which may be overwritten; `progress` is that of the draw. The identity by default."""
        return gradient

    def sample(self) -> Tensor:
        """The mask of one training step, differentiable in the scores."""
        mask: Tensor = _Masked.apply(self, self.scores, None)
        return mask

    def forward(self, weight: Tensor) -> Tensor:
        """The masked weight: sampled in training, hard in evaluation."""
        if self.training and type(self).sample is Drawn.sample:
            masked: Tensor = _Masked.apply(self, self.scores, weight)
            return masked
        return super().forward(weight)


class _Masked(torch.autograd.Function):
    """The mask that a layer draws, times a weight if there is one."""

    @staticmethod
    def forward(ctx: Any, layer: Drawn, scores: Tensor, weight: Tensor | None) -> Tensor:
        mask, kept = layer.draw(scores)
        ctx.layer, ctx.progress, ctx.dtype = layer, layer.progress, scores.dtype
        if weight is None:
            ctx.save_for_backward(kept, None, None)
            return mask
        mask, trained = mask.to(weight.dtype), ctx.needs_input_grad[2]
        ctx.save_for_backward(kept, weight, mask if trained else None)
        in_place = mask is not kept and not trained and mask.stride() == weight.stride()
        return mask.mul_(weight) if in_place else weight * mask

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[None, Tensor | None, Tensor | None]:
        kept, weight, mask = ctx.saved_tensors
        to_scores = to_weight = None
        if ctx.needs_input_grad[1]:
            to_mask = gradient.clone() if weight is None else gradient * weight
            to_scores = ctx.layer.pull(to_mask.to(ctx.dtype), kept, ctx.progress)
        if mask is not None:
            to_weight = gradient * mask
        return None, to_scores, to_weight


def through_sigmoid(gradient: Tensor, y: Tensor) -> Tensor:
    """`gradient` times y (1 - y), in its own memory: back through y = sigma(x)."""
    torch.ops.aten.sigmoid_backward(gradient, y, grad_input=gradient)
    return gradient
