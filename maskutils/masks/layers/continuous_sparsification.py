"""Continuous sparsification."""

from torch import Tensor

from maskutils.masks.layers.base import MaskLayer, layer, through_sigmoid


@layer("continuous_sparsification", place=5, colour="#cc78bc", marker="p")
class ContinuousSparsification(MaskLayer):
    """m = sigma(beta_t s), beta_t = 200^progress, with its exact gradient; hard: s > 0, the limit of infinite beta. Penalty: sum of m.

    Source: Savarese et al. 2020 (arXiv 1912.04427), section 4. No noise and no straight-through: a soft mask that becomes
    hard. The paper divides by sigma(s_0), which its weights absorb as they are trained too; ours are frozen, so we do
    not, and s begins above 0, where the hard mask is whole. Adam instead of SGD.
    """

    lr, strength, start = 0.1, 1e-4, 0.3
    final_beta = 200.0

    def draw(self, scores: Tensor) -> tuple[Tensor, Tensor]:
        """The soft mask at the present temperature, in (0, 1), twice."""
        mask = (self.final_beta**self.progress * scores).sigmoid_()
        return mask, mask

    def pull(self, gradient: Tensor, kept: Tensor, progress: float) -> Tensor:
        """The exact one, at the temperature of the draw."""
        return through_sigmoid(gradient, kept).mul_(self.final_beta**progress)

    def penalty(self) -> Tensor:
        """Sum of m, the L1 norm of the soft mask."""
        return self.sample().sum()
