"""Edge-popup masks."""

import math

import torch
from torch import Tensor, nn

from maskutils.core.checks import fraction, known
from maskutils.masks.layers.base import MaskLayer, layer, top_fraction
from maskutils.masks.selection import places


@layer("edge_popup", place=3, colour="#029e73", marker="^")
class EdgePopup(MaskLayer):
    """m = 1 for the fraction `density` of highest |s| in the layer, with the identity for a gradient: dL/ds = sign(s) g
    w.

    Source: Ramanujan et al. 2020 (arXiv 1911.13299), eq. 3-6. The paper masks random networks and begins with
    Kaiming-uniform s (`init="kaiming"`); on a trained network that throws away what the magnitudes know, so ours begins
    with s = |w| (`init="weight"`, density by magnitude at step 0), scaled to the spread of the Kaiming init. The density is the
    fraction kept of each layer while it learns, or of all where scores begin in one order; `learn_mask` then keeps the best of all.
    """

    optimizer, lr = "sgd", 3.0
    learns_density = True
    ordered = False  # whether the scores of all layers began on one scale

    def __init__(self, weight: Tensor, density: float = 0.5, init: str = "weight") -> None:
        self.density = fraction("density", density)
        super().__init__(weight, known(init, ("kaiming", "weight"), "init of edge_popup"))

    def initial(self, weight: Tensor) -> Tensor:
        """Kaiming-uniform with a = sqrt(5), or |w| of the same root mean square."""
        weight = weight.float()
        uniform = nn.init.kaiming_uniform_(torch.empty_like(weight), a=math.sqrt(5))
        if self.init == "kaiming":
            return uniform
        return weight.abs() * (uniform.square().mean() / weight.square().mean().clamp(min=1e-12)).sqrt()

    def draw(self, scores: Tensor) -> tuple[Tensor, Tensor]:
        """The mask itself: nothing is random. And the scores, for their signs."""
        sizes = scores.abs()
        return sizes.copy_(top_fraction(sizes, self.density)), scores

    def pull(self, gradient: Tensor, kept: Tensor, progress: float) -> Tensor:
        """The identity, times sign(s)."""
        return gradient.mul_(kept.sign())

    @torch.no_grad()
    def begin(self, ranks: Tensor, lr: float) -> None:
        """As other layers begin, but above 0; the selection is over all layers then."""
        super().begin(ranks, lr)
        self.scores.sub_(10 * lr * math.log(1e-4))
        self.ordered = True

    def lift(self, dropped: float) -> None:
        """Keep as many weights of this layer as have |s| above `dropped`."""
        self.density = max(1, int((self.scores.detach().abs() > dropped).sum())) / self.scores.numel()

    def harden(self) -> Tensor:
        """The round(density n) highest |s| of the layer, found by selection instead of the paper's full sort."""
        return top_fraction(self.scores.detach().abs(), self.density)

    def ranking(self) -> Tensor:
        """Rank of |s| within its layer, in (0, 1]: the method has no scale in common between layers, so equal shares of
        each are kept. Where `begin` gave them one scale, it is |s|.
        """
        if self.ordered:
            return self.scores.detach().abs()
        ranks = (places(self.scores.detach().abs().flatten()) + 1) / self.scores.numel()
        return ranks.view_as(self.scores)
