"""Gumbel-sigmoid masks."""

import torch
from torch import Tensor

from maskutils.core.checks import positive
from maskutils.masks.layers.base import MaskLayer, layer, logistic_noise, through_sigmoid


@layer("gumbel_sigmoid", place=1, colour="#0173b2", marker="o")
class GumbelSigmoid(MaskLayer):
    """m = 1[r > 1/2], r = sigma((s + n) / tau), n ~ Logistic(0, 1), with the gradient of r; hard: s > 0. Penalty: sum
    of s.

    Source: Csordas et al. 2021 (arXiv 2010.02066), section 2. P(m = 1) = sigma(s). s begins at 2. We draw n as
    logit(u), one uniform, which has the law of their difference of two Gumbel samples, and one mask per step instead of
    4; lr is 30 times theirs, for a hundredth of their steps. Our uniform is clamped to [1e-6, 1 - 1e-6], so that |n| < 13.9; theirs adds
    1e-10 inside each logarithm. Their evaluation keeps s >= 0 and their exported masks s > 0; ours keeps s > 0 in both.
    """

    lr, strength, start = 0.3, 2e-6, 2.0

    def __init__(self, weight: Tensor, tau: float = 1.0, init: float | None = None) -> None:
        self.tau = positive("tau", tau)
        super().__init__(weight, init)

    def draw(self, scores: Tensor) -> tuple[Tensor, Tensor]:
        """A binary mask whose entries are 1 with probability sigma(s), and r."""
        heated = logistic_noise(scores).add_(scores)
        soft = (heated if self.tau == 1 else heated.div_(self.tau)).sigmoid_()
        return torch.gt(soft, 0.5, out=torch.empty_like(soft)), soft

    def pull(self, gradient: Tensor, kept: Tensor, progress: float) -> Tensor:
        """That of r."""
        gradient = through_sigmoid(gradient, kept)
        return gradient if self.tau == 1 else gradient.div_(self.tau)

    def penalty(self) -> Tensor:
        """Sum of s, linear in the logits as in the paper's code: it pulls the score of a weight that nothing needs down
        for ever.
        """
        return self.scores.sum()

    @staticmethod
    def probability(scores: Tensor) -> Tensor:
        """sigma(s)."""
        return torch.sigmoid(scores)
