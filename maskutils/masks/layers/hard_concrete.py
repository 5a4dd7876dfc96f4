"""Hard concrete masks."""

import math

import torch
from torch import Tensor

from maskutils.masks.layers.base import MaskLayer, layer, logistic_noise


@layer("hard_concrete", place=2, colour="#de8f05", marker="s")
class HardConcrete(MaskLayer):
    """m = clip(zeta' sigma((s + n) / beta) + gamma, 0, 1), zeta' = zeta - gamma, n ~ Logistic(0, 1); gradient pathwise;
    hard: s > 0.

    Source: Louizos et al. 2018 (arXiv 1712.01312), eq. 10-12; on a frozen network Cao et al. 2021 (arXiv 2104.03514).
    beta = 2/3, gamma = -0.1, zeta = 1.1, s begins at log(5) (gate 0.9). Penalty: the mean of P(m > 0) in each layer,
    with Cao's schedule. Their masks stay continuous in evaluation; ours are made binary where the noiseless gate passes
    one half, and measured so. Their lambda multiplies the mean of the layers' penalties, ours the sum.
    """

    lr, strength, start = 0.2, 10.0, 1.6094
    beta, gamma, zeta = 2 / 3, -0.1, 1.1

    def sample(self) -> Tensor:
        """A mask in [0, 1], exactly 0 or 1 with positive probability."""
        return self._stretch((self.scores + logistic_noise(self.scores)) / self.beta)

    def gate(self) -> Tensor:
        """The paper's noiseless gate, clip(zeta' sigma(s) + gamma, 0, 1), in [0, 1]; `harden` is gate > 1/2."""
        return self._stretch(self.scores.detach())

    def harden(self) -> Tensor:
        """s > 0, where the noiseless gate is above one half."""
        return self.scores.detach() > 0

    def penalty(self) -> Tensor:
        """Mean of P(m > 0) = sigma(s - beta log(-gamma / zeta)), in (0, 1)."""
        return self.probability(self.scores).mean()

    @classmethod
    def probability(cls, scores: Tensor) -> Tensor:
        """P(m > 0) = sigma(s - beta log(-gamma / zeta)), the expected L0 norm of the gate."""
        return torch.sigmoid(scores - cls.beta * math.log(-cls.gamma / cls.zeta))

    @staticmethod
    def ramp(progress: float) -> float:
        """Nothing for a quarter of the training, then linear, then 1 for the last quarter (Cao et al.)."""
        return min(max((progress - 0.25) / 0.5, 0.0), 1.0)

    def _stretch(self, logits: Tensor) -> Tensor:
        return (torch.sigmoid(logits) * (self.zeta - self.gamma) + self.gamma).clamp(0, 1)
