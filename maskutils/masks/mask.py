"""The Mask value: which weights carry the source task.

The set algebra of masks, their making from a ranking, and what they do to a network.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from maskutils.core.checks import fraction, some_of, warn, yes_or_no
from maskutils.core.seeds import generator
from maskutils.masks.files import coded, digest, packed, read_mask, write_mask
from maskutils.masks.interchange import Interchange
from maskutils.masks.selection import filled, highest, kept_whole
from maskutils.masks.shown import Shown
from maskutils.models.copies import copied, unwrapped
from maskutils.models.heads import TaskHeads, with_head_of
from maskutils.models.made import where_absent
from maskutils.models.parts import owner_of


@dataclass(frozen=True, eq=False)
class Mask(Shown, Interchange):
    """Which weights the source task keeps, hence which are protected.

    `a & b`, `a | b`, `~a` and `a == b` need the same names and shapes. They keep the bits alone.

    >>> a = Mask({"w": torch.tensor([True, False])})
    >>> (a | ~a).density
    1.0
    """

    bits: Mapping[str, Tensor]  # name of parameter -> bool tensor of its shape; True is kept
    scores: Mapping[str, Tensor] | None = None  # same names, float, where a method learnt them; higher is kept sooner
    history: tuple[dict[str, float], ...] = field(default=(), repr=False)  # of its learning
    state: Mapping[str, Tensor] = field(default_factory=dict, repr=False)  # what else the task needs: see `with_state`
    fingerprint: str = field(default="", repr=False)  # tells the kept weights of its network: see `learnt_on`
    rest: Mapping[str, Sequence[int]] = field(default_factory=dict, repr=False)  # shapes of all else: see `learnt_on`

    def __post_init__(self) -> None:
        given = self.bits if isinstance(self.bits, Mapping) else {}
        odd = [n for n, b in given.items() if not isinstance(b, Tensor) or b.dtype != torch.bool or b.is_meta]
        if odd or not given:
            no_bits = f"the bits of {some_of(odd)} are no bool tensor with values; compare first, as with > 0"
            what = no_bits if odd else "there are none"
            raise ValueError(f"a mask needs a bool tensor for each weight it speaks of: {what}")
        if self.scores is not None and _shapes(self.scores) != _shapes(self.bits):
            unlike = some_of(sorted({n for n, _ in _shapes(self.scores).items() ^ _shapes(self.bits).items()}))
            raise ValueError(f"the scores of a mask must have the names and shapes of its bits; {unlike} have not")

    @classmethod
    def from_scores(
        cls, scores: Mapping[str, Tensor], density: float, per_layer: bool = False, floor: float = 0.01
    ) -> "Mask":
        """The mask of round(density * n) highest scores, over all layers or (`per_layer`) in each.

        Over all layers each one keeps at least a share `floor` of its weights, so that none is cut off; never more than `density`,
        so up to that density every layer keeps the same share. In large networks the smallest layers are kept whole besides (see
        `masks.selection.kept_whole`), unless `floor` is 0; up to the density `floor` that adds up to a quarter to what is kept. Equal
        scores are kept in order of position. Each layer keeps at least one weight, so many tiny layers may keep more than `density`.
        Raises `ValueError` for a density outside (0, 1], and for scores that are nan or none.
        """
        fraction("density", density)
        yes_or_no("per_layer", per_layer)
        if not scores:
            raise ValueError("there are no scores to make a mask of")
        own = {name: s.detach().clone() for name, s in scores.items()}
        flat = {name: s.flatten().to(torch.promote_types(s.dtype, torch.float32)) for name, s in own.items()}
        if unordered := [name for name, s in flat.items() if s.isnan().any()]:
            raise ValueError(f"scores of {', '.join(unordered)} hold nan; did the training diverge?")
        share = density if per_layer else min(floor, density)
        total = round(density * sum(s.numel() for s in flat.values()))
        counts = {name: max(1, round(share * s.numel())) for name, s in flat.items()}
        if not per_layer and sum(counts.values()) > total:  # rounding up each floor would go beyond the density
            counts = {name: max(1, int(share * s.numel())) for name, s in flat.items()}
        if floor and not per_layer:
            sizes = {name: s.numel() for name, s in flat.items()}
            counts |= {name: sizes[name] for name in kept_whole(sizes, total)}
        bits = {name: highest(s, counts[name]) for name, s in flat.items()}
        if not per_layer:
            bits = filled(flat, bits, total)
        return cls({name: bits[name].view_as(s) for name, s in own.items()}, own)

    def at_density(self, density: float, per_layer: bool = False) -> "Mask":
        """The mask of this ranking at another density; see `from_scores`. Raises `ValueError` if it carries no scores."""
        if self.scores is None:
            raise ValueError("this mask carries no scores to rank weights by; learn_mask gives one that does")
        return replace(self, bits=Mask.from_scores(self.scores, density, per_layer).bits, fingerprint="")

    def shuffled(self, seed: int = 0) -> "Mask":
        """A control: bits and scores permuted within each layer, no state. Source: Frankle et al. 2021 (arXiv 2009.08576)."""
        order = {
            name: torch.randperm(b.numel(), generator=generator(seed, f"shuffle/{name}"), device="cpu")
            for name, b in self.bits.items()
        }

        def permuted(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
            return {name: t.flatten()[order[name].to(t.device)].view_as(t) for name, t in tensors.items()}

        return Mask(permuted(self.bits), permuted(self.scores) if self.scores is not None else None)

    @property
    def size(self) -> int:
        """Number of weights that the mask speaks of, kept or not."""
        return sum(b.numel() for b in self.bits.values())

    @property
    def kept(self) -> int:
        """Number of weights kept."""
        return sum(int(b.sum()) for b in self.bits.values())

    @property
    def density(self) -> float:
        """Fraction of weights kept, in [0, 1]."""
        return self.kept / max(1, self.size)

    def iou(self, other: "Mask") -> float:
        """Intersection over union with `other`, in [0, 1]; 1 for two empty masks. Raises `ValueError` for one of another network."""
        union = (self | other).kept
        return (self & other).kept / union if union else 1.0

    def with_state(self, model: nn.Module) -> "Mask":
        """This mask with a copy of all that it does not cover in `model`: biases, norm layers and their statistics, the head.

        With it, `apply` gives the task back whatever the network has become, even where another task has changed those.
        """
        model = unwrapped(model)
        self.check(model)
        tensors = dict(model.named_parameters()) | dict(model.named_buffers())  # tied ones once
        passing = {id(m._buffers[leaf]) for m in model.modules() for leaf in m._non_persistent_buffers_set}
        rest = {n: t.detach().clone() for n, t in tensors.items() if id(t) not in passing and n not in self.bits}
        return replace(self.learnt_on(model), state=rest)

    def learnt_on(self, model: nn.Module) -> "Mask":
        """This mask with a fingerprint of the weights that it keeps in `model`: `apply` and `protect` warn where they find others.

        Of each layer, those kept among the first 65,536 weights are read. Another density needs another fingerprint. The shapes of what
        it does not cover are noted too: `protect` holds no fresh head of another size.
        """
        model = unwrapped(model)
        shapes = {n: tuple(p.shape) for n, p in model.named_parameters() if n not in self.bits}
        return replace(self, fingerprint=_fingerprint(self.bits, model), rest=shapes)

    @property
    def stored_bits(self) -> int:
        """Bits of the mask as `save` writes it, without its state and the header of the file: about n H2(density) of n weights."""
        return 8 * sum(t.numel() for t in coded(self.bits).values())

    def apply(self, model: nn.Module, task: str | None = "source") -> nn.Module:
        """A copy of `model` with every weight that is not kept set to zero: the network *through the mask*, without wrappers.

        What the mask carries as `state` takes its place too, a head for another number of classes included. Where `transfer` gave the
        network a head for each task, the copy has that of `task` ("source" or "target") alone; None leaves both.
        """
        self.check(model)
        self.recognise(model)
        model = copied(unwrapped(model))
        # the head that is carried is the source's: of two, the others stay as they are
        apart = () if task == "source" else tuple(f"{n}." for n, m in model.named_modules() if isinstance(m, TaskHeads))
        if task is not None:
            with_head_of(model, task)
        _put(model, {name: t for name, t in self.state.items() if not name.startswith(apart)})
        carried = {n for n in (*self.state, *self.bits) if not n.startswith(apart)} if self.state else set()
        layers = {name.rpartition(".")[0] for name in carried}
        if new := [n for n, _ in model.named_parameters() if n not in carried and n.rpartition(".")[0] in layers]:
            raise ValueError(f"{some_of(new)}: the network had none when the mask was learnt; take it out of its layer")
        with torch.no_grad():
            for name, b in self.bits.items():
                weight = model.get_parameter(name)
                weight.masked_fill_(~b.to(weight.device), 0)
        return model

    def check(self, model: nn.Module) -> None:
        """Raise `ValueError` unless every name is a parameter of `model` of the same shape; lists those that are not."""
        shapes = {name: tuple(p.shape) for name, p in unwrapped(model, sharded=True).named_parameters()}
        wrong = [
            f"{n} {tuple(b.shape)} (network: {shapes.get(n) or where_absent(n, shapes)})"
            for n, b in self.bits.items()
            if shapes.get(n) != tuple(b.shape)
        ]
        if wrong:
            raise ValueError(
                f"the mask is of another network; {len(wrong)} of {len(self.bits)} parameters differ: {', '.join(wrong[:5])}"
            )

    def save(self, path: str | Path, scores: bool = False) -> None:
        """Write the bits, entropy-coded, and the state to a safetensors file, atomically; with `scores` also float32 scores and history."""
        ranked = self.scores if scores and self.scores is not None else {}
        write_mask(path, self.bits, ranked, self.state, self.history if scores else (), self.fingerprint, self.rest)

    @classmethod
    def load(cls, path: str | Path) -> "Mask":
        """The mask that `save` wrote. Raises `FileNotFoundError`, or `DamagedFile` for anything that is not one or has another checksum."""
        return cls(**read_mask(path))

    def recognise(self, model: nn.Module) -> None:
        """Warn if the weights that this mask keeps are others in `model` than in the network that it is of."""
        model = unwrapped(model, sharded=True)
        sharded = any(hasattr(p, "device_mesh") for p in model.parameters())
        if self.fingerprint and not sharded and self.fingerprint != _fingerprint(self.bits, model):
            warn(
                f"the mask was learnt on other weights than this {type(model).__name__} has where it keeps them. That is fine if the "
                "network was fine-tuned since: mask = mask.learnt_on(model) says so, and ends this warning. If not, it is another network"
            )

    def checksum(self) -> str:
        """16 hex digits that tell this mask's bits from others of the same shapes."""
        return digest(packed(self.bits))

    def __and__(self, other: "Mask") -> "Mask":
        return self._with(other, torch.logical_and) if isinstance(other, Mask) else NotImplemented

    def __or__(self, other: "Mask") -> "Mask":
        return self._with(other, torch.logical_or) if isinstance(other, Mask) else NotImplemented

    def __invert__(self) -> "Mask":
        return Mask({name: ~b for name, b in self.bits.items()})

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Mask):
            return NotImplemented
        return self.bits.keys() == other.bits.keys() and all(
            torch.equal(b, other.bits[n].to(b.device)) for n, b in self.bits.items()
        )

    def __repr__(self) -> str:
        return f"Mask({len(self.bits)} layers, {self.size:,} weights, density {self.density:.3f})"

    def _with(self, other: "Mask", operation: Callable[[Tensor, Tensor], Tensor]) -> "Mask":
        if _shapes(self.bits) != _shapes(other.bits):
            odd = some_of(sorted({n for n, _ in _shapes(self.bits).items() ^ _shapes(other.bits).items()}))
            raise ValueError(f"masks of different networks: {odd} have other shapes in one, or are missing")
        return Mask({name: operation(b, other.bits[name].to(b.device)) for name, b in self.bits.items()})


def _shapes(tensors: Mapping[str, Tensor]) -> dict[str, torch.Size]:
    return {name: t.shape for name, t in tensors.items()}


def _fingerprint(bits: Mapping[str, Tensor], model: nn.Module) -> str:
    """16 hex digits of the weights at `bits` among the first of each layer, as float32."""
    kept = {}
    for name, b in bits.items():
        weight, chosen = (t.detach().flatten()[:65_536] for t in (model.get_parameter(name), b))
        kept[name] = weight[chosen.to(weight.device)].float()
    return digest(kept)


def _put(model: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Put tensors in the place of parameters and buffers of `model`, whatever their shape was. Mutates `model`."""
    for name, tensor in state.items():
        try:
            module, leaf = owner_of(model, name)
            before = getattr(module, leaf)
            value = tensor.detach().clone().to(before.device, before.dtype)
        except AttributeError:  # also where it is None, as a bias that was switched off
            raise ValueError(
                f"the mask carries {name!r}, which {type(model).__name__} does not have: it is of another network"
            ) from None
        if before.shape == value.shape:
            before.detach().copy_(value)  # in place: a tied tensor stays tied
            continue
        setattr(module, leaf, nn.Parameter(value) if isinstance(before, nn.Parameter) else value)
        if leaf == "weight" and isinstance(module, nn.Linear):
            module.out_features, module.in_features = value.shape
        if leaf == "weight" and isinstance(module, nn.Conv2d):  # a head, as that of a SqueezeNet
            module.out_channels = len(value)
