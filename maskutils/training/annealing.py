"""How a mask is learnt in a large network: from the order of a ranking, and down to one density.

The papers begin with equal scores and reach their density by a penalty. A few hundred steps order a hundred thousand weights so, but
not millions: the noise of a mask that drops weights at random everywhere breaks a pretrained network before it has learnt which to keep.
"""

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from maskutils.masks.layers import MaskLayer
from maskutils.masks.mask import Mask
from maskutils.masks.selection import kept_whole, kth

FALLS = 0.6  # the part of training in which the density falls
UPDATES = 50  # times that scores are moved to the density of the moment


def density_at(progress: float, density: float) -> float:
    """The density at `progress` in [0, 1]: from 1 down to `density` by a cubic, over the first six tenths.

    Source: Zhu and Gupta 2017 (arXiv 1710.01878), eq. 1, for the pruning of weights.

    >>> [round(density_at(p, 0.2), 2) for p in (0, 0.3, 0.6, 1)]
    [1.0, 0.3, 0.2, 0.2]
    """
    return density + (1 - density) * max(0.0, 1 - progress / FALLS) ** 3


class Annealing:
    """Moves the scores of mask layers through training, so that the fraction kept is that of `density_at`.

    `ranking` is what the scores begin in the order of, `density` in (0, 1] what is kept in the end. All scores move by as much, or in each
    layer by its own amount (`per_layer`): their order is learnt, their level is given. `whole` holds the layers that are kept
    whole (see `masks.selection.kept_whole`) and have no scores to learn.
    """

    def __init__(self, ranking: Mapping[str, Tensor], density: float, per_layer: bool = False) -> None:
        sizes = {name: s.numel() for name, s in ranking.items()}
        self.density, self.per_layer, self.total, self.updated = density, per_layer, sum(sizes.values()), -1
        chosen = set() if per_layer else kept_whole(sizes, round(density * self.total))
        self.whole = {name: torch.ones_like(s, dtype=torch.bool) for name, s in ranking.items() if name in chosen}
        self.ranking = {name: s for name, s in ranking.items() if name not in chosen}
        self.layers: Mapping[str, MaskLayer] = {}

    def begin(self, layers: Mapping[str, MaskLayer], lr: float) -> None:
        """Put the scores of `layers`, by name of weight, into the order of the ranking."""
        self.layers = layers
        for name, ranks in _ranks(self.ranking).items():
            layers[name].begin(ranks.to(layers[name].scores.device), lr)

    def __call__(self, progress: float) -> None:
        """Move the scores, if a fiftieth of the training has passed since that was last done."""
        if int(progress * UPDATES) > self.updated:
            self.updated = int(progress * UPDATES)
            self._move(density_at(progress, self.density))

    def _move(self, density: float) -> None:
        """Move the scores so that a fraction `density` of the weights is kept."""
        free = (
            density if self.per_layer else 1 - (1 - density) * self.total / sum(map(torch.numel, self.ranking.values()))
        )
        layers = list(self.layers.values())
        for group in [[layer] for layer in layers] if self.per_layer else [layers]:
            flat = torch.cat([layer.ranking().flatten() for layer in group])
            kept = round(free * len(flat))
            dropped = kth(flat, kept + 1) if kept < len(flat) else flat.min() - 1e-3 * (flat.max() - flat.min())
            for layer in group:
                layer.lift(float(dropped))

    def mask(self, history: Iterable[dict[str, float]] = ()) -> Mask:
        """The mask of the highest scores; layers that are kept whole have scores above all others."""
        scores = {name: layer.ranking() for name, layer in self.layers.items()}
        top = max(float(s.max()) for s in scores.values()) + 1
        scores |= {name: torch.full_like(bits, top, dtype=torch.float) for name, bits in self.whole.items()}
        found = Mask.from_scores({name: scores[name].detach() for name in scores}, self.density, self.per_layer)
        return Mask(found.bits, found.scores, tuple(history))


def _ranks(scores: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The place of each score among all of them, in (0, 1): (its rank - 1/2) / n."""
    flat = torch.cat([s.detach().flatten() for s in scores.values()])
    ranks = torch.empty(len(flat), device=flat.device)
    ranks[flat.argsort(stable=True)] = (torch.arange(len(flat), device=flat.device) + 0.5) / len(flat)
    parts = ranks.split([s.numel() for s in scores.values()])
    return {name: part.view_as(scores[name]) for name, part in zip(scores, parts, strict=True)}
