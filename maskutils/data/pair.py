"""What a pair of domains is, how a domain is split, and the registry of pairs."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, Subset, TensorDataset

from maskutils.core.checks import needs
from maskutils.core.seeds import stream

IN_MEMORY = 2**30  # bytes of float32 images that a domain may hold in memory; a larger one is streamed


@dataclass(frozen=True)
class Loading:
    """How images are read where they are not part of a package.

    `root` holds data sets in torchvision's layout. `size` is the side in pixels that images are brought to, `channels` 1 or 3
    (0 for either: as they are, if all agree). `transform` (PIL image -> tensor) stands for both, and for the normalisation.
    `damaged` is "refuse" or "skip", `classes` "all" or "common" (those of both sides only), `workers` the processes that load
    streamed images.
    """

    root: Path | None = None
    size: int = 0
    channels: int = 0
    transform: Callable[[object], Tensor] | None = None
    damaged: str = "refuse"
    classes: str = "all"
    workers: int = 0


@dataclass(frozen=True)
class Domain:
    """One domain: three disjoint datasets of (image (C, H, W), label) and the names of its classes."""

    name: str
    train: Dataset
    val: Dataset
    test: Dataset
    classes: tuple[str, ...]


@dataclass(frozen=True)
class Pair:
    """A source and a target domain. `shared_head` says whether one head serves both: it does where the classes are the
    same.
    """

    name: str
    source: Domain
    target: Domain

    @property
    def shared_head(self) -> bool:
        """Whether source and target have the same classes."""
        return self.source.classes == self.target.classes

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(C, H, W) of the images."""
        return tuple(self.source.train[0][0].shape)


PAIRS: dict[str, Callable[[int, Loading], Pair]] = {}


def subset(data: Dataset, indices: Tensor | Sequence[int]) -> Dataset:
    """The images of `data` at `indices` (N,); in memory if `data` is, else streamed by as many workers."""
    indices = torch.as_tensor(indices, device="cpu")
    if isinstance(data, TensorDataset):
        return TensorDataset(*data[indices])
    part = Subset(data, indices.tolist())
    part.workers = getattr(data, "workers", 0)
    return part


def split(labels: Sequence[int], seed: int, name: str, test: float = 0.25, val: float = 0.1) -> tuple[np.ndarray, ...]:
    """Indices of train, val and test, stratified by class and drawn by the stream `name` of `seed`; `test` may be 0.

    `test` and `val` are shares of all images.
    """
    with needs("study"):
        from sklearn.model_selection import train_test_split  # here, for it takes a second to import

    labels, state = np.asarray(labels), stream(seed, f"split/{name}") % 2**32
    divide = partial(train_test_split, random_state=state)
    rest, held = (
        divide(np.arange(len(labels)), test_size=test, stratify=labels) if test else (np.arange(len(labels)), [])
    )
    train, validation = divide(rest, test_size=val / (1 - test), stratify=labels[rest])
    return train, validation, np.asarray(held, dtype=int)
