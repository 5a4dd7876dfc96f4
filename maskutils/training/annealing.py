"""How a mask is learnt in a large network: from the order of a ranking, and down to one density.

The papers begin with equal scores and reach their density by a penalty. A few hundred steps order a hundred thousand weights so, but
not half a million: the noise of a mask that drops weights at random everywhere breaks a pretrained network before it has learnt which
to keep.
"""

from collections.abc import Callable, Collection, Iterable, Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from maskutils.core.checks import BadSetting, some_of, warn
from maskutils.data.batches import Batches, some
from maskutils.masks.layers import LAYERS, MaskLayer
from maskutils.masks.mask import Mask
from maskutils.masks.rankings import RANKINGS
from maskutils.masks.selection import kept_whole, kth, places
from maskutils.models.copies import copied, unwrapped
from maskutils.models.heads import logits_of
from maskutils.models.inputs import device_of, taken_by
from maskutils.models.sizes import is_large

CONSTANT = "constant"  # what scores begin from in the papers
NATIVE = 0.5  # the density of a mask that begins from a ranking, where none is asked for
CARRIED = 0.5  # nats: how much greater the loss through a mask may be that carries the task
FALLS = 0.6  # the part of training in which the density falls
CHECKED = 100  # images on which the loss through a mask is compared with that of the network
UPDATES = 50  # times that scores are moved to the density of the moment


def density_at(progress: float, density: float) -> float:
    """The density at `progress` in [0, 1]: from 1 down to `density` by a cubic, over the first six tenths.

    Source: Zhu and Gupta 2017 (arXiv 1710.01878), eq. 1, for the pruning of weights.

    >>> [round(density_at(p, 0.2), 2) for p in (0, 0.3, 0.6, 1)]
    [1.0, 0.3, 0.2, 0.2]
    """
    return density + (1 - density) * max(0.0, 1 - progress / FALLS) ** 3


class Level:
    """The scores of mask layers where they move as the method itself has it: begun from a constant, and kept above the layer's boundary.

    `names` are the weights that get a layer, all if None; `whole` the bits of those that are kept without one; `options` go to the
    layers. `optimizer` and `strength` (of the penalty) are what they are learnt with by default.
    """

    names: Collection[str] | None = None

    def __init__(self, optimizer: str, strength: float, options: Mapping[str, float]) -> None:
        self.optimizer, self.strength, self.options = optimizer, strength, options
        self.layers: dict[str, MaskLayer] = {}
        self.whole: dict[str, Tensor] = {}

    def begin(self, layers: Mapping[str, MaskLayer], lr: float) -> None:
        """Take charge of `layers`, by name of weight, before they are learnt at `lr`."""
        self.layers.update(layers)

    def __call__(self, progress: float) -> None:
        """Tell the layers the `progress` of the training, in [0, 1), before each step."""
        for layer in self.layers.values():
            layer.progress = progress

    def hard(self) -> dict[str, Tensor]:
        """The bits of the moment."""
        return {name: layer.harden() for name, layer in self.layers.items()} | self.whole

    def noted(self, watch: Callable[[Mask], object]) -> dict[str, float]:
        """What the history says of the mask of the moment, which `watch` is given."""
        moment = Mask({name: b.clone() for name, b in self.hard().items()})
        watch(moment)
        return {"density": moment.density}

    def mask(self, history: Iterable[dict[str, float]] = ()) -> Mask:
        """The mask that was learnt, with its scores. Raises `ValueError` if all are equal."""
        scores = told_apart({name: layer.ranking() for name, layer in self.layers.items()})
        return Mask(self.hard(), scores, tuple(history))


class Annealing(Level):
    """Moves the scores of mask layers through training, so that the fraction kept is that of `density_at`.

    `ranking` is what the scores begin in the order of, `density` in (0, 1] what is kept in the end. All scores move by as much, or in each
    layer by its own amount (`per_layer`): their order is learnt, their level is given. `whole` holds the layers that are kept
    whole (see `masks.selection.kept_whole`) and have no scores to learn.
    """

    def __init__(self, ranking: Mapping[str, Tensor], density: float, per_layer: bool = False) -> None:
        super().__init__("adam", 0.0, {})
        sizes = {name: s.numel() for name, s in ranking.items()}
        self.density, self.per_layer, self.total, self.updated = density, per_layer, sum(sizes.values()), -1
        chosen = set() if per_layer else kept_whole(sizes, round(density * self.total))
        self.whole = {name: torch.ones_like(s, dtype=torch.bool) for name, s in ranking.items() if name in chosen}
        self.ranking = {name: s for name, s in ranking.items() if name not in chosen}
        self.names = list(self.ranking)
        self.order = list(ranking)

    def begin(self, layers: Mapping[str, MaskLayer], lr: float) -> None:
        """Put the scores of `layers` into the order of the ranking: each begins at its place among all, (rank - 1/2) / n in (0, 1)."""
        super().begin(layers, lr)
        flat = torch.cat([s.detach().flatten() for s in self.ranking.values()])
        parts = ((places(flat) + 0.5) / len(flat)).split([s.numel() for s in self.ranking.values()])
        for (name, scores), part in zip(self.ranking.items(), parts, strict=True):
            layers[name].begin(part.view_as(scores).to(layers[name].scores.device), lr)

    def __call__(self, progress: float) -> None:
        """Move the scores besides, if a fiftieth of the training has passed since that was last done."""
        super().__call__(progress)
        if int(progress * UPDATES) > self.updated:
            self.updated = int(progress * UPDATES)
            self._move(density_at(progress, self.density))

    def _move(self, density: float) -> None:
        """Move the scores so that a fraction `density` of the weights is kept."""
        scored = sum(s.numel() for s in self.ranking.values())
        free = density if self.per_layer else 1 - (1 - density) * self.total / scored
        layers = list(self.layers.values())
        for group in [[layer] for layer in layers] if self.per_layer else [layers]:
            flat = torch.cat([layer.ranking().flatten() for layer in group])
            kept = max(1, round(free * len(flat)))
            dropped = kth(flat, kept + 1) if kept < len(flat) else flat.min() - 1e-3 * (flat.max() - flat.min())
            for layer in group:
                layer.lift(float(dropped))

    def mask(self, history: Iterable[dict[str, float]] = ()) -> Mask:
        """The mask of the highest scores; layers that are kept whole have scores above all others."""
        scores = {name: layer.ranking() for name, layer in self.layers.items()}
        top, like = max(float(s.max()) for s in scores.values()) + 1, next(iter(scores.values()))
        scores |= {name: like.new_full(bits.shape, top) for name, bits in self.whole.items()}
        found = Mask.from_scores({name: scores[name].detach() for name in self.order}, self.density, self.per_layer)
        if cut := [name for name, layer in self.layers.items() if not layer.harden().any()]:
            warn(
                f"{some_of(cut)} kept no weight while the scores were learnt, so these tell little; the mask keeps a hundredth of each "
                f"layer. Take a higher density{'' if self.per_layer else ', or per_layer=True'}"
            )
        return Mask(found.bits, found.scores, tuple(history))


def check_carried(model: nn.Module, data: Batches, mask: Mask, seed: int) -> None:
    """Warn if the network has a much greater loss through `mask` than it has whole, on some images of `data`; `model` is left as it was.

    Nothing is said of data that give no such images: an iterator that the learning has used up, or token ids of many lengths.
    """
    try:
        images, labels = some(data, CHECKED, seed)
    except ValueError:
        return
    own = copied(unwrapped(model))
    with torch.random.fork_rng([]):  # an answer may draw
        through, whole = _loss(mask.apply(own, task=None), images, labels), _loss(own, images, labels)
    if through > whole + CARRIED:
        warn(
            f"the mask does not carry the task yet: at density {mask.density:.2f} the loss through it is {through:.2f}, of the whole "
            f"network {whole:.2f}; more steps= than {mask.history[-1]['step']:g}, a higher density= or another method may help"
        )


@torch.no_grad()
def _loss(model: nn.Module, images: Tensor, labels: Tensor) -> float:
    """The mean loss of `model` on `images`, in evaluation mode, in which it is left."""
    logits = logits_of(model.eval()(taken_by(model, images).to(device_of(model), copy=True)))
    return F.cross_entropy(logits.cpu(), labels.cpu()).item()


def learns_density(model: nn.Module, method: str, start: str | None = None) -> bool:
    """Whether the mask layer `method` learns on `model` for one density, rather than one ranking for all."""
    return LAYERS[method].learns_density or start_of(model, method, start) != CONSTANT


def start_of(model: nn.Module, method: str, start: str | None) -> str:
    """What scores of `method` begin from on `model`: `start`, if one is given."""
    if start is None:
        return "fisher" if is_large(model) and not LAYERS[method].trains_weights else CONSTANT
    return start


def level_of(
    model: nn.Module, data: Batches, method: str, start: str | None, density: float | None, per_layer: bool, seed: int
) -> Level:
    """How the scores of `method` are led on `model`. Raises `BadSetting` for a density that it does not learn for."""
    if (density is not None or per_layer) and not learns_density(model, method, start):
        what = f"density = {density}" if density is not None else "per_layer=True without a density"
        raise BadSetting(
            f"{what}: {method} learns one ranking for all densities; take mask.at_density(density, per_layer), or learn_mask with both"
        )
    if (start := start_of(model, method, start)) == CONSTANT:
        cls = LAYERS[method]
        return Level(cls.optimizer, cls.strength, {} if density is None else {"density": density})
    return Annealing(told_apart(RANKINGS[start](model, data, seed)), density or NATIVE, per_layer)


def told_apart(scores: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """`scores` themselves. Raises `ValueError` if all are equal, as where the answer does not depend on the weights that are masked."""
    ends = [end for s in scores.values() for end in (s.min(), s.max())]
    if all(end == ends[0] for end in ends):
        raise ValueError(
            f"all scores are equal ({float(ends[0]):g}), so they rank no weight: no gradient reached the masked weights; check that the "
            "forward pass uses them (it may be bound to another network) and that lr is not too small"
        )
    return scores
