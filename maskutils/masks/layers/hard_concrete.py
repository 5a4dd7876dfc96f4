"""Hard concrete masks."""

import math

import torch
from torch import Tensor

from maskutils.masks.layers.base import MaskLayer, layer, logistic_noise, through_sigmoid


@layer("hard_concrete", place=2, colour="#de8f05", marker="s")
class HardConcrete(MaskLayer):
    """m = clip(zeta' sigma((s + n) / beta) + gamma, 0, 1), zeta' = zeta - gamma, n ~ Logistic(0, 1); gradient pathwise;
    hard: s > 0.

    Source: Louizos et al. 2018 (arXiv 1712.01312), eq. 10-12; on a frozen network Cao et al. 2021 (arXiv 2104.03514).
    beta = 2/3, gamma = -0.1, zeta = 1.1, s begins at log(5) (gate 0.9). Penalty: the mean of P(m > 0) in each layer,
    with Cao's schedule. Their masks stay continuous in evaluation; ours are made binary where the noiseless gate passes
    one half, and measured so. Their lambda multiplies the mean of the layers' penalties, ours the sum. The uniform behind n is clamped
    to [1e-6, 1 - 1e-6], as in the code of Louizos et al.; that of Cao et al. clamps to [1e-4, 1 - 1e-4]. Louizos et al. also clamp s to
    +-log(100) after each step; neither Cao et al. nor we do.
    """

    lr, strength, start = 0.2, 10.0, 1.6094
    beta, gamma, zeta = 2 / 3, -0.1, 1.1

    def draw(self, scores: Tensor) -> tuple[Tensor, Tensor]:
        """A mask in [0, 1], exactly 0 or 1 with positive probability, and sigma((s + n) / beta)."""
        y = logistic_noise(scores).add_(scores).div_(self.beta).sigmoid_()
        return self._stretch(y).clamp_(0, 1), y

    def pull(self, gradient: Tensor, kept: Tensor, progress: float) -> Tensor:
        """The pathwise one: none where the mask was clipped."""
        torch.ops.aten.hardtanh_backward(gradient, self._stretch(kept), 0.0, 1.0, grad_input=gradient)
        return through_sigmoid(gradient.mul_(self.zeta - self.gamma), kept).div_(self.beta)

    def penalty(self) -> Tensor:
        """Mean of P(m > 0) = sigma(s - beta log(-gamma / zeta)), in (0, 1)."""
        return self.probability(self.scores).mean()

    @classmethod
    def probability(cls, scores: Tensor) -> Tensor:
        """P(m > 0) = sigma(s - beta log(-gamma / zeta)), the expected L0 norm of the gate."""
        return (scores - cls.beta * math.log(-cls.gamma / cls.zeta)).sigmoid_()

    @staticmethod
    def ramp(progress: float) -> float:
        """Nothing for a quarter of the training, then linear, then 1 for the last quarter (Cao et al.)."""
        return min(max((progress - 0.25) / 0.5, 0.0), 1.0)

    @classmethod
    def _stretch(cls, y: Tensor) -> Tensor:
        return (y * (cls.zeta - cls.gamma)).add_(cls.gamma)
