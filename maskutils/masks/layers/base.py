"""What every mask layer is, and what several share.

Notation in all layers: w a weight, s its score, m its mask, g = dL/d(w m), sigma the logistic function.

A mask becomes the masked weight in place, and the gradient of the mask that of the scores: fresh memory costs a CPU more than the
arithmetic on it, since the system clears every page, and autograd would keep a tensor for every operation.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from maskutils.core.approaches import filed
from maskutils.core.shown import table
from maskutils.masks.selection import highest

LAYERS: dict[str, type["MaskLayer"]] = {}


def layer(name: str, **about: Any) -> Callable[[type["MaskLayer"]], type["MaskLayer"]]:
    """File a mask layer under the name that is its parameter value, legend key and table row; `about` are fields of `Approach`."""
    return filed(LAYERS, "mask", name, learns_mask=True, **about)


class MaskLayer(nn.Module):
    """Scores of a weight's shape, and the masked weight they give; a parametrization of that weight while scores are
    learnt.

    A subclass gives `draw`, and where they differ `pull`, `harden`, `initial`, `penalty`, `ranking` and `ramp`. Class
    attributes are its defaults for `learn_mask`: `optimizer`, `lr`, `strength` (weight of the summed penalties in the
    loss), `start` (every score to begin with), and whether the method learns for one given density (then it takes an
    option `density`) or gives one ranking for all.
    """

    optimizer, lr, strength, start = "adam", 0.1, 0.0, 0.0
    learns_density = False
    boundary = 0.0  # a weight is kept if its score is above
    trains_weights = False  # whether the weights are learnt together with the scores
    progress = 0.0  # of the training, in [0, 1); set by the learner at every step

    def __init__(self, weight: Tensor, init: float | str | None = None) -> None:
        super().__init__()
        self.init = self.start if init is None else init
        self.scores = nn.Parameter(self.initial(weight.detach()))

    def extra_repr(self) -> str:
        """What `print` says of the layer: its weights, and how many of them it would keep now."""
        kept = self.harden().float().mean().item()
        return f"{'x'.join(map(str, self.scores.shape))} = {self.scores.numel():,} weights, density {kept:.3f}"

    def _repr_html_(self) -> str:
        scores = self.scores.detach()
        rows = [
            (name, f"{value:.3g}")
            for name, value in (("least", scores.min()), ("mean", scores.mean()), ("most", scores.max()))
        ]
        return table(f"{type(self).__name__}: {self.extra_repr()}", ["score", ""], rows)

    def __init_subclass__(cls, **about: Any) -> None:
        super().__init_subclass__(**about)
        if "sample" in vars(cls):  # it would be ignored in training
            raise TypeError(f"{cls.__name__} defines sample; define draw and pull, which training uses")

    def initial(self, weight: Tensor) -> Tensor:
        """Scores to begin with, float32 of the shape of `weight`: `init` everywhere (`start` if none is given)."""
        return torch.full_like(weight, float(self.init), dtype=torch.float32)

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

    def harden(self) -> Tensor:
        """The boolean mask of the method itself, without noise: what has a score above the boundary."""
        return self.scores.detach() > self.boundary

    def forward(self, weight: Tensor) -> Tensor:
        """The masked weight: sampled in training, hard in evaluation."""
        if self.training:
            masked: Tensor = _Masked.apply(self, self.scores, weight)
            return masked
        return weight * self.harden().to(weight.dtype)

    def penalty(self) -> Tensor:
        """The cost of density, a scalar; none by default."""
        return self.scores.new_zeros(())

    def ranking(self) -> Tensor:
        """Scores by which weights of all layers are compared, higher is kept sooner."""
        return self.scores.detach()

    @staticmethod
    def probability(scores: Tensor) -> Tensor:
        """The probability, in [0, 1], that a weight of these `scores` carries the task; where a method has none, its ranks."""
        ranks = torch.empty(scores.numel(), device=scores.device)
        ranks[scores.flatten().argsort(stable=True)] = torch.linspace(0, 1, scores.numel(), device=scores.device)
        return ranks.view_as(scores)

    @torch.no_grad()
    def begin(self, ranks: Tensor, lr: float) -> None:
        """Begin in the order of `ranks`, in (0, 1): s = boundary + 10 lr logit(rank), 10 lr being what some ten to thirty steps move."""
        self.scores.copy_(self.boundary + 10 * lr * torch.logit(ranks.clamp(1e-4, 1 - 1e-4)))

    @torch.no_grad()
    def lift(self, dropped: float) -> None:
        """Keep what has a `ranking` above `dropped`: move all scores by as much."""
        self.scores.sub_(dropped - self.boundary)

    @staticmethod
    def ramp(progress: float) -> float:
        """Factor of the penalty's strength at `progress` in [0, 1] of the training; constant by default."""
        return 1.0


class _Masked(torch.autograd.Function):
    """The mask that a layer draws, times a weight if there is one."""

    @staticmethod
    def forward(ctx: Any, layer: MaskLayer, scores: Tensor, weight: Tensor | None) -> Tensor:
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


def logistic_noise(like: Tensor) -> Tensor:
    """Logistic(0, 1) samples of the shape of `like`, drawn in float32 as logit(u); the law of the difference of two
    Gumbel samples.
    """
    return torch.rand_like(like, dtype=torch.float).logit_(1e-6).to(like.dtype)


def top_fraction(values: Tensor, density: float) -> Tensor:
    """Bool tensor that is True for the round(density n) highest of `values` (at least one); of equal ones the first."""
    return highest(values, max(1, round(density * values.numel())))
