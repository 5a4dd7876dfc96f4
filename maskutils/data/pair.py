"""What a pair of domains is, how its images lie in memory and are split, and the registry of pairs."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Protocol, TypeGuard, cast

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor
from torch.utils.data import Dataset, Subset, TensorDataset

from maskutils.core.checks import BadSetting, known, needs, number
from maskutils.core.seeds import stream
from maskutils.core.shown import table

FIXED = 0  # the seed of what is the same for every seed: the test splits
IN_MEMORY = 2**30  # a domain with more bytes of images than this is streamed; 8-bit images take a byte a value
IMAGENET = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])  # mean and std of its colours, for networks pretrained there


class Examples(Protocol):
    """A dataset that has a length. Its items are an image (C, H, W) and a label. torch's `TensorDataset` is one."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> tuple[Tensor, Any]: ...


@dataclass(frozen=True)
class Loading:
    """How images are read that are not part of a package. Raises `BadSetting` for a value that is not allowed.

    Images are brought to `size` pixels a side and to 1 or 3 `channels`; 0
    leaves them as they are, if all agree. A `transform` (PIL image -> tensor) replaces both, and the normalisation. Damaged
    images are an error, or left out if `damaged` is "skip". They are normalised by the mean and std of the "source", or by those of
    "imagenet", which networks pretrained there expect. `classes` is "all", or "common" for those of both sides only.
    `workers` processes load streamed images.
    """

    size: int = 0
    channels: int = 0
    transform: Callable[[Any], Tensor] | None = None
    damaged: str = "refuse"
    normalise: str = "source"
    classes: str = "all"
    workers: int = 0

    def __post_init__(self) -> None:
        known(self.damaged, ("refuse", "skip"), "damaged")
        known(self.normalise, ("source", "imagenet"), "normalise")
        if self.normalise == "imagenet" and self.channels != 3:
            raise BadSetting(
                f"normalise = 'imagenet' is for colour images, and channels = {self.channels}: set channels to 3"
            )
        known(self.classes, ("all", "common"), "classes")
        if self.channels not in (0, 1, 3):
            raise BadSetting(f"channels = {self.channels!r} is not 1 (grey), 3 (colour) or 0 (as the images are)")
        if number("size", self.size, whole=True) < 0:
            raise BadSetting(f"size = {self.size!r} is not a side in pixels, or 0 (as the images are)")


@dataclass(frozen=True)
class Domain:
    """One domain: three disjoint datasets of (image (C, H, W), label), and the names of its classes."""

    name: str
    train: Examples
    val: Examples
    test: Examples
    classes: tuple[str, ...]


@dataclass(frozen=True)
class Pair:
    """A source and a target domain; and `others` of the same classes that take no part, which show what else a network forgets."""

    name: str
    source: Domain
    target: Domain
    others: tuple[Domain, ...] = ()

    @property
    def shared_head(self) -> bool:
        """Whether one head serves both domains, which is so if they have the same classes."""
        return tuple(self.source.classes) == tuple(self.target.classes)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(C, H, W) of the images."""
        channels, height, width = self.source.train[0][0].shape
        return channels, height, width

    def __repr__(self) -> str:
        shape, head = self.source.train[0][0].shape, "one head" if self.shared_head else "a head for each"
        classes = f"{len(self.source.classes)} and {len(self.target.classes)} classes"
        return f"Pair({self.name}: {classes}, {head}, images {'x'.join(map(str, shape))})"

    def _repr_html_(self) -> str:
        sides = {"source": self.source, "target": self.target}
        rows = [
            (side, ", ".join(map(str, d.classes)), *(f"{len(part):,}" for part in (d.train, d.val, d.test)))
            for side, d in sides.items()
        ]
        return table(repr(self), ["domain", "classes", "train", "val", "test"], rows)


@dataclass(frozen=True)
class Maker:
    """How a registered pair is made from a seed and a `Loading`, and the fields of `Loading` that it `heeds`."""

    make: Callable[[int, Loading], Pair]
    heeds: tuple[str, ...] = ()


PAIRS: dict[str, Maker] = {}


class Pixels(TensorDataset):
    """Images that stay in memory as 8-bit values, and become normalised floats a batch at a time.

    Item i is row i of `rows` of `images` (M, C, H, W), uint8, as (x / 255 - mean) / std of float32, and its label. Parts share the images,
    which thus lie in memory once, whatever the number of splits and seeds. `mean` and `std` are numbers or (C, 1, 1). An index may be a
    number, a slice, a list or a tensor.
    """

    def __init__(
        self, images: Tensor, rows: Tensor, labels: Tensor, mean: Tensor | float = 0.0, std: Tensor | float = 1.0
    ) -> None:
        super().__init__(rows, labels)
        self.images, self.mean, self.std = images, mean, std

    def __getitem__(self, index: Any) -> tuple[Tensor, Tensor]:
        rows, labels = (t[index] for t in self.tensors)
        return self.images[rows].float().div_(255).sub_(self.mean).div_(self.std), labels

    def part(self, index: Tensor) -> "Pixels":
        """The items at `index` (N,)."""
        rows, labels = self.tensors
        return Pixels(self.images, rows[index], labels[index], self.mean, self.std)

    def normalised(self, mean: Tensor, std: Tensor) -> "Pixels":
        """The same images, normalised by `mean` and `std` (C, 1, 1)."""
        rows, labels = self.tensors
        return Pixels(self.images, rows, labels, mean, std)

    def on(self, device: torch.device, images: Tensor) -> "Pixels":
        """The same items with everything on `device`, where `images` are already."""
        rows, labels = (t.to(device) for t in self.tensors)
        mean, std = (v.to(device) if isinstance(v, Tensor) else v for v in (self.mean, self.std))
        return Pixels(images, rows, labels, mean, std)


class Part(Subset[Any]):
    """The items of a dataset at some indices, loaded by as many workers as the dataset itself."""

    @property
    def workers(self) -> int:
        """The number of worker processes; 0 if the dataset has no attribute `workers`."""
        return int(getattr(self.dataset, "workers", 0))


def sliced(data: object) -> TypeGuard[TensorDataset]:
    """Whether an index of `data` may name many items: a `TensorDataset`, but for one that makes its items itself, as by augmentation."""
    return getattr(type(data), "__getitem__", None) in (TensorDataset.__getitem__, Pixels.__getitem__)


def subset(data: Examples, indices: ArrayLike) -> Examples:
    """The items of `data` at `indices` (N,); in memory if `data` is, else a `Part`."""
    picked = torch.as_tensor(indices, device="cpu")
    if isinstance(data, Pixels):
        return data.part(picked)
    if sliced(data):
        return TensorDataset(*data[picked])
    return Part(cast(Dataset[Any], data), picked.tolist())  # torch's annotation asks for more than `Subset` needs


def on(pair: Pair, device: torch.device) -> Pair:
    """`pair` with its images in the memory of a GPU, if they are in memory at all and fit into half of what is free there."""
    domains = (pair.source, pair.target, *pair.others)
    in_memory = [data for d in domains for data in (d.train, d.val, d.test) if sliced(data)]
    images = [data.images if isinstance(data, Pixels) else data.tensors[0] for data in in_memory]
    whole = {id(t): t for t in images}  # parts of a domain may share their images
    if device.type != "cuda" or 2 * sum(t.nbytes for t in whole.values()) > torch.cuda.mem_get_info(device)[0]:
        return pair
    there = {key: t.to(device) for key, t in whole.items()}

    def moved(data: Examples) -> Examples:
        if isinstance(data, Pixels):
            return data.on(device, there[id(data.images)])
        if sliced(data):
            return TensorDataset(there[id(data.tensors[0])], *(t.to(device) for t in data.tensors[1:]))
        return data

    source, target, *others = (replace(d, train=moved(d.train), val=moved(d.val), test=moved(d.test)) for d in domains)
    return replace(pair, source=source, target=target, others=tuple(others))


def split(labels: ArrayLike, seed: int, name: str, test: float = 0.25) -> tuple[np.ndarray, ...]:
    """Indices of train, val and test, stratified by class; `test` is a share, which may be 0, and val has a tenth.

    The test split is the same for every seed: `name` alone draws it. `seed` then draws train and val from the rest.
    """
    y = np.asarray(labels)
    rest = np.arange(len(y))
    rest, held = parted(y, test, FIXED, f"test/{name}") if test else (rest, rest[:0])
    train, validation = parted(y[rest], 0.1 / (1 - test), seed, f"split/{name}")
    return rest[train], rest[validation], held


def parted(labels: ArrayLike, share: float, seed: int, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Indices of two parts, stratified by class and drawn by the stream `name` of `seed`; the second is a `share` of all."""
    with needs("study"):
        from sklearn.model_selection import train_test_split  # here, for the import takes a second

    y, state = np.asarray(labels), stream(seed, name) % 2**32
    first, second = train_test_split(np.arange(len(y)), test_size=share, stratify=y, random_state=state)
    return first, second
