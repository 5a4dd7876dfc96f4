"""Adapters: what is trained is a few values for each layer, merged into plain weights when the transfer is over.

All three adapt linear layers and convolutions, a shared head too; a head of the target's own is trained whole. Layers with groups,
those of `nn.MultiheadAttention` and those that share their weights stay whole, untrained (peft cannot merge the first, the second
read their weights past any adapter, the third would have two). So do frozen and parametrised weights, embeddings, biases and norm layers,
with their statistics. The values of `lora` and `oft` are rounded to float16, as they are stored.
"""

import math
import re
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from maskutils.core.checks import BadSetting, needs, number
from maskutils.core.seeds import seeded
from maskutils.core.storage import VALUE, Kept
from maskutils.models.heads import TaskHeads
from maskutils.training.base import History, Transfer, protocol, rounded


def adapted(model: nn.Module) -> dict[str, nn.Module]:
    """Name -> layer, for the layers of `model` that adapters train. Raises `ValueError` for a network without any."""
    apart = tuple(f"{n}." for n, m in model.named_modules() if isinstance(m, TaskHeads | nn.MultiheadAttention))
    kinds = nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d
    layers: dict[str, nn.Module] = {
        n: m
        for n, m in model.named_modules()
        if n and isinstance(m, kinds) and m.weight.requires_grad and not n.startswith(apart)
    }
    owners = Counter(id(p) for m in model.modules() for p in m.parameters(recurse=False))
    if layers := {n: m for n, m in layers.items() if getattr(m, "groups", 1) == 1 and owners[id(m.weight)] == 1}:
        return layers
    raise ValueError(
        f"{type(model).__name__} has no linear layer or convolution to adapt (without groups, and with weights of its own that train)"
    )


def _matrices(kept: Kept) -> Iterable[tuple[int, int]]:
    """Rows and columns of each weight that an adapter moved: a convolution's columns are its channels times its kernel."""
    shapes = (kept.shapes[name] for name in kept.moved)
    return [(shape[0], math.prod(shape[1:])) for shape in shapes if len(shape) > 1]


def low_rank(kept: Kept) -> float:
    """A value for each entry of A (rank x in) and B (out x rank)."""
    return VALUE * sum(kept.knobs["rank"] * (rows + columns) for rows, columns in _matrices(kept))


def rotations(kept: Kept) -> float:
    """A value for each entry above the diagonal of a skew-symmetric block."""
    sizes = [(columns, block_of(columns, int(kept.knobs["block"]))) for _, columns in _matrices(kept)]
    return VALUE * sum(columns * (size - 1) / 2 for columns, size in sizes)


@protocol(
    "baseline", place=29, colour="#ff7f0e", marker=(3, 1, 0), rival=True, known="intact", bits=low_rank, knobs={"rank": 4},
    grid=(1, 2, 4, 8, 16), library="peft",
)  # fmt: skip
def lora(t: Transfer, rank: int) -> History:
    """W0 + B A, with B (out x rank) and A (rank x in) trained: the alpha of the paper is the rank. By peft.

    Source: Hu et al. 2021 (arXiv 2106.09685). B begins at 0, A as peft draws it, from a stream of its own. Raises `BadSetting`
    unless `rank` is a whole number above 0.
    """
    if number("rank", rank, whole=True) < 1:
        raise BadSetting(f"rank = {rank} must be 1 or more")
    with needs("study"):
        from peft import LoraConfig  # here, for it takes seconds
        from peft.tuners.lora import LoraModel
    free = [p for p in t.model.parameters() if p.requires_grad]
    config = LoraConfig(r=rank, lora_alpha=rank, target_modules="|".join(map(re.escape, adapted(t.model))))
    with seeded(t.training.seed, "lora"):
        tuner = LoraModel(t.model, config, "default")
    factors = [p for p in t.model.parameters() if p.requires_grad]
    for p in free:
        p.requires_grad_(True)  # peft froze them, the target's own head too; `fit` trains what it is given
    history = _stored(t, factors, t.fit(params=[*factors, *t.own_parameters()], norm="eval"))
    tuner.merge_and_unload()
    return history


def block_of(columns: int, block: int) -> int:
    """The divisor of `columns` that is nearest to `block`, of two the smaller: the size of the blocks that peft would take.

    >>> block_of(25, 4), block_of(72, 64), block_of(512, 32)
    (5, 72, 32)
    """
    return min((d for d in range(1, columns + 1) if columns % d == 0), key=lambda d: (abs(d - block), d))


@protocol(
    "baseline", place=30, colour="#e377c2", marker=(4, 1, 45), rival=True, known="intact", bits=rotations, knobs={"block": 16},
    grid=(4, 8, 16, 32, 64), library="peft",
)  # fmt: skip
def oft(t: Transfer, block: int) -> History:
    """W0 R: the inputs of each layer rotated in blocks of size `block`, or of the nearest size that divides their number.

    Source: Qiu et al. 2023 (arXiv 2306.07280); R is peft's, the exact Cayley transform of a skew-symmetric matrix, which begins at 0.
    It rotates the weight, of a convolution as a matrix (out, in * kernel), as peft does when it merges. peft's own layer rotates the
    images, which is not the same where patches overlap (0.21.2): there a fresh adapter changes the network. Raises `BadSetting`
    unless `block` is a whole number above 1 that fits a layer.
    """
    if number("block", block, whole=True) < 2:
        raise BadSetting(f"block = {block} must be 2 or more: a block of 1 cannot rotate")
    sizes = {n: block_of(t.model.get_parameter(f"{n}.weight")[0].numel(), block) for n in adapted(t.model)}
    if max(sizes.values()) < 2:
        raise BadSetting(
            f"block = {block} fits no layer of {type(t.model).__name__}: the numbers of inputs have no divisor near it"
        )
    with needs("study"):
        from peft.tuners.oft.layer import OFTRotationModule  # here, for it takes seconds

    def rotation(name: str, weight: Tensor) -> nn.Module:
        size, columns = sizes[name], weight[0].numel()
        # The Neumann series, peft's default, is orthogonal only in the limit.
        module = OFTRotationModule(columns // size, size * (size - 1) // 2, size, columns, use_cayley_neumann=False)
        nn.init.zeros_(module.weight)
        return _Rotated(module)

    return _reparametrised(t, [n for n, size in sizes.items() if size > 1], rotation, stored=True)


@protocol(
    "baseline", place=31, colour="#8c6d31", marker=(6, 1, 30), rival=True, knobs={"share": 0.5}, grid=(0.1, 0.3, 0.5, 0.7, 0.9)
)  # fmt: skip
def osf(t: Transfer, share: float) -> History:
    """The first `share` of the singular directions of each layer frozen; U, S and V of the rest trained, orthogonal to it.

    Source: Nayak et al. 2025 (arXiv 2504.07097) and peft's `tuners/osf`, which takes linear layers only. A convolution is the matrix
    (out, in * kernel). peft projects the gradients; a step of Adam, which scales each entry, leaves the subspace all the same. Here
    U and V themselves are projected, with the same gradients, so that no step does. Raises `BadSetting` for a share outside (0, 1).
    """
    if not 0 < number("share", share) < 1:
        raise BadSetting(f"share = {share} must lie between 0 and 1, without either")
    return _reparametrised(t, adapted(t.model), lambda _, weight: _Spared(weight, share))


class _Rotated(nn.Module):
    """weight -> weight R, of float32 in automatic mixed precision too."""

    def __init__(self, rotation: nn.Module) -> None:
        super().__init__()
        self.rotation = rotation

    def forward(self, weight: Tensor) -> Tensor:
        with torch.autocast(weight.device.type, enabled=False):
            rotated: Tensor = self.rotation(weight.flatten(1)).view_as(weight)
        return rotated


class _Spared(nn.Module):
    """weight -> weight + (U S V - U_0 S_0 V_0), U and V orthogonal to the first singular directions; exactly `weight` at first."""

    u_high: Tensor
    v_high: Tensor
    start: Tensor

    def __init__(self, weight: Tensor, share: float) -> None:
        super().__init__()
        u, s, v = torch.linalg.svd(weight.detach().flatten(1).float(), full_matrices=False)
        k = int(share * len(s))
        self.register_buffer("u_high", u[:, :k].clone())
        self.register_buffer("v_high", v[:k].clone())
        self.u, self.s, self.v = (nn.Parameter(part.clone()) for part in (u[:, k:], s[k:], v[k:]))
        self.register_buffer("start", self.low().detach())

    def low(self) -> Tensor:
        """U S V of the directions that are trained."""
        u = self.u - self.u_high @ (self.u_high.T @ self.u)
        v = self.v - (self.v @ self.v_high.T) @ self.v_high
        return (u * self.s) @ v

    def forward(self, weight: Tensor) -> Tensor:
        with torch.autocast(weight.device.type, enabled=False):
            return weight + (self.low() - self.start).view_as(weight).to(weight.dtype)


def _reparametrised(
    t: Transfer, names: Iterable[str], make: Callable[[str, Tensor], nn.Module], stored: bool = False
) -> History:
    """Train `make(name, weight)` in the place of the weight of each layer, then leave what it gives as a plain parameter."""
    layers = {name: t.model.get_submodule(name) for name in names}
    trained = []
    for name, layer in layers.items():
        weight = t.model.get_parameter(f"{name}.weight")
        made = make(name, weight).to(weight.device)
        trained += list(made.parameters())
        parametrize.register_parametrization(layer, "weight", made)
    history = t.fit(params=[*trained, *t.own_parameters()], norm="eval")
    history = _stored(t, trained, history) if stored else history
    plain(t.model)
    return history


def _stored(t: Transfer, values: Iterable[nn.Parameter], history: History) -> History:
    """Round the `values` of an adapter as they are stored; `history` then ends with the network that they give."""
    with torch.no_grad():
        for value in values:
            value.copy_(rounded(value))
    return t.read_stored(history)


def plain(model: nn.Module) -> nn.Module:
    """`model` with what `oft` and `osf` make of its weights as plain parameters, and without hooks of this package; mutates it."""
    for module in [*model.modules()]:
        for key, hook in [*module._forward_hooks.items()]:
            if getattr(hook, "__module__", "").startswith("maskutils."):
                del module._forward_hooks[key]
        made: Any = getattr(module, "parametrizations", {})
        if "weight" in made and isinstance(made["weight"][0], _Rotated | _Spared):
            parametrize.remove_parametrizations(module, "weight")
            moved = module._parameters.pop("weight")
            module._parameters = {"weight": moved, **module._parameters}  # first again, as it was
    return model
