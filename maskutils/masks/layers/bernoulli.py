"""Bernoulli supermasks."""

import torch
from torch import Tensor

from maskutils.masks.layers.base import MaskLayer, layer, through_sigmoid


@layer("bernoulli", place=6, colour="#56b4e9", marker="h")
class Bernoulli(MaskLayer):
    """m ~ Bernoulli(sigma(s)), with the gradient of sigma(s); hard: s > 0. Penalty: sum of sigma(s).

    Source: Zhou et al. 2019 (arXiv 1905.01067), section 5. The paper masks random networks from s = 0, without a penalty, and
    also samples in evaluation. Ours is trained, so s begins at 2 (P = 0.88), the hard mask keeps what is more probable than
    not, and there is a penalty, without which the mask stays whole.
    """

    lr, strength, start = 0.3, 1e-5, 2.0

    def draw(self, scores: Tensor) -> tuple[Tensor, Tensor]:
        """A binary mask whose entries are 1 with probability sigma(s), and sigma(s)."""
        probability = torch.sigmoid(scores)
        return torch.rand_like(probability).lt_(probability), probability

    def pull(self, gradient: Tensor, kept: Tensor, progress: float) -> Tensor:
        """That of sigma(s)."""
        return through_sigmoid(gradient, kept)

    def penalty(self) -> Tensor:
        """Sum of sigma(s), the expected number of kept weights."""
        return torch.sigmoid(self.scores).sum()

    @staticmethod
    def probability(scores: Tensor) -> Tensor:
        """sigma(s)."""
        return torch.sigmoid(scores)
