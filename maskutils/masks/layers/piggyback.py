"""Piggyback masks."""

import torch
from torch import Tensor

from maskutils.masks.layers.base import MaskLayer, layer


@layer("piggyback", place=4, colour="#d55e00", marker="D")
class Piggyback(MaskLayer):
    """m = 1[s > 0.005], with the identity for a gradient: dL/ds = g w.

    Source: Mallya et al. 2018 (arXiv 1801.06519), eq. 1-3. s begins at 0.01, so the network begins whole; there is no
    penalty, and the density comes out as it does. Adam as in the paper; lr is 20 times theirs, for a hundredth of their
    steps.
    """

    lr, start = 2e-3, 1e-2

    def __init__(self, weight: Tensor, threshold: float = 5e-3, init: float | None = None) -> None:
        self.boundary = threshold
        super().__init__(weight, init)

    def draw(self, scores: Tensor) -> tuple[Tensor, None]:
        """The mask itself: nothing is random."""
        return torch.gt(scores, self.boundary, out=torch.empty_like(scores)), None
