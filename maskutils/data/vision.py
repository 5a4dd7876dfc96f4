"""Pairs of torchvision's data sets, read from the data root in its layout, and downloaded to it on first use."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import Dataset

from maskutils.core import paths
from maskutils.core.checks import BadSetting, enter, needs
from maskutils.data.embedded import DIGITS, domain, mnist_5k, packaged_domain
from maskutils.data.pair import IMAGENET, PAIRS, Domain, Loading, Maker, Pair, split, subset

IDX = "{0}/raw/ with train-images-idx3-ubyte.gz, train-labels-idx1-ubyte.gz, t10k-images-idx3-ubyte.gz and t10k-labels-idx1-ubyte.gz"
CIFAR10_STL10 = ("airplane", "automobile", "bird", "cat", "deer", "dog", "horse", "ship", "truck")  # in both sets
HANDWRITTEN = ("mnist", "usps", "svhn")  # whose classes are digits
Half = tuple[Tensor, np.ndarray]  # images (N, C, H, W), uint8, and labels (N,)
Opener = Callable[[Any, Path, bool, bool], Any]  # torchvision.datasets, root, train, download -> the data set
TORCHVISION: dict[str, tuple[Opener, str]] = {  # and the files of the set
    "mnist": (lambda tv, r, t, d: tv.MNIST(r, t, download=d), IDX.format("MNIST")),
    "fashion": (lambda tv, r, t, d: tv.FashionMNIST(r, t, download=d), IDX.format("FashionMNIST")),
    "kmnist": (lambda tv, r, t, d: tv.KMNIST(r, t, download=d), IDX.format("KMNIST")),
    "usps": (lambda tv, r, t, d: tv.USPS(r, t, download=d), "usps.bz2 and usps.t.bz2"),
    "svhn": (lambda tv, r, t, d: tv.SVHN(r, _half(t), download=d), "train_32x32.mat and test_32x32.mat"),
    "cifar10": (lambda tv, r, t, d: tv.CIFAR10(r, t, download=d), "cifar-10-python.tar.gz"),
    "cifar100": (lambda tv, r, t, d: tv.CIFAR100(r, t, download=d), "cifar-100-python.tar.gz"),
    "stl10": (lambda tv, r, t, d: tv.STL10(r, _half(t), download=d), "stl10_binary.tar.gz"),
    "imagenet": (lambda tv, r, t, d: tv.ImageNet(r, "val"), "ILSVRC2012_img_val.tar and ILSVRC2012_devkit_t12.tar.gz"),
    "flowers102": (lambda tv, r, t, d: tv.Flowers102(r, _half(t), download=d), "flowers-102/ (102flowers.tgz and two .mat)"),
    "pets": (lambda tv, r, t, d: tv.OxfordIIITPet(r, "trainval" if t else "test", download=d), "oxford-iiit-pet/ (images, annotations)"),
    "dtd": (lambda tv, r, t, d: tv.DTD(r, _half(t), download=d), "dtd/ (dtd-r1.0.1.tar.gz)"),
    "eurosat": (lambda tv, r, t, d: tv.EuroSAT(r, download=d), "eurosat/ (EuroSAT.zip)"),
}  # fmt: skip
UNSPLIT = ("imagenet", "eurosat")  # have no test half


def open_set(name: str, train: bool) -> Any:
    """torchvision's data set `name`, training or test half; downloaded if missing. `BadSetting` says which files to put where."""
    with needs("study"):
        from filelock import FileLock
        from torchvision import datasets  # here, for the import takes a second

    opener, files = TORCHVISION[name]
    root = paths.data_root()
    try:
        return opener(datasets, root, train, False)
    except (RuntimeError, FileNotFoundError):  # torchvision raises either if the set is not there
        pass
    try:
        root.mkdir(parents=True, exist_ok=True)
        with FileLock(root / ".lock"):  # one download at a time
            return opener(datasets, root, train, True)
    except (OSError, RuntimeError) as error:
        found = f"data set {name!r} is not at {root} and cannot be downloaded ({error}); put {files} there"
        raise BadSetting(f"{found}, or name another folder with --data-root or $MASKUTILS_DATA_ROOT") from None


def _half(train: bool) -> str:
    return "train" if train else "test"


def labels_of(data: Any) -> Any:
    """The labels (N,) of a data set of torchvision's, without reading its images."""
    return next(getattr(data, name) for name in ("targets", "labels", "_labels") if hasattr(data, name))


def arrays(data: Any) -> tuple[Tensor, np.ndarray]:
    """Images (N, C, H, W), uint8, and labels (N,) of a data set of torchvision's that is in memory."""
    x = torch.as_tensor(data.data)
    if x.ndim == 3:  # MNIST and its kind, USPS
        x = x[:, None]
    return (x.permute(0, 3, 1, 2) if x.shape[-1] == 3 else x), np.asarray(labels_of(data))


def brought_to(x: Tensor, size: int, channels: int) -> Tensor:
    """Images (N, C, H, W), uint8, as float32 (N, channels, size, size) in [0, 1]."""

    def resized(x: Tensor) -> Tensor:
        x, side = x.float() / 255, (size, size)
        return x if x.shape[-2:] == side else F.interpolate(x, side, mode="bilinear", antialias=True).clamp(0, 1)

    x = torch.cat([resized(part) for part in x.split(10_000)])
    if channels == 1 and x.shape[1] == 3:
        return (x * torch.tensor([0.299, 0.587, 0.114]).view(3, 1, 1)).sum(1, keepdim=True)  # ITU-R 601, as in PIL
    return x.expand(-1, channels, -1, -1) if x.shape[1] == 1 else x


def _halves(name: str, keep: tuple[str, ...] = ()) -> tuple[list[Half], tuple[str, ...]]:
    """The training and the test half of a set, with the classes `keep` (all, if empty) in that order, and the class names."""
    opened = [open_set(name, train) for train in (True, False)]
    return [_kept(half, keep) for half in opened], DIGITS if name in HANDWRITTEN else keep or tuple(opened[0].classes)


def _kept(data: Any, keep: tuple[str, ...]) -> Half:
    x, y = arrays(data)
    if not keep:
        return x, y
    number = {{"car": "automobile"}.get(c, c): i for i, c in enumerate(data.classes)}
    label = np.full(len(data.classes), -1)
    label[[number[c] for c in keep]] = np.arange(len(keep))
    return x[label[y] >= 0], label[y][label[y] >= 0]


def _splits(name: str, halves: list[Half], size: int, channels: int, seed: int) -> list[tuple[Tensor, Tensor]]:
    """Images in [0, 1] and labels of train, val and test; the test half is the test split of every seed."""
    (x, y), held = ((brought_to(images, size, channels), torch.as_tensor(labels)) for images, labels in halves)
    train, val, _ = split(y, seed, f"{name}/train", test=0)
    return [(x[train], y[train]), (x[val], y[val]), held]


def _in_memory(source: str, target: str, seed: int, loading: Loading) -> Pair:
    """A pair of sets in memory: at the source's size, with the most channels, normalised as the source's training images."""
    keep = CIFAR10_STL10 if target == "stl10" else ()
    (first, classes), (second, target_classes) = (_halves(name, keep) for name in (source, target))
    channels = loading.channels or max(half[0].shape[1] for half in (first[0], second[0]))
    size = loading.size or first[0][0].shape[-1]
    own = _splits(source, first, size, channels, seed)
    std, mean = torch.std_mean(own[0][0], (0, 2, 3), keepdim=True)
    side = domain(target, _splits(target, second, size, channels, seed), target_classes, mean, std)
    return Pair(f"{source}_to_{target}", domain(source, own, classes, mean, std), side)


@dataclass(frozen=True, eq=False)
class Photographs(Dataset[tuple[Tensor, int]]):
    """A data set of torchvision's, read image by image; `workers` processes load it."""

    data: Any
    transform: Callable[[Any], Tensor]
    workers: int

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, i: int) -> tuple[Tensor, int]:
        image, label = self.data[i]
        return self.transform(image.convert("RGB")), label


def _streamed(source: str, target: str, seed: int, loading: Loading) -> Pair:
    """A pair of sets of photographs, read image by image, in the form that ImageNet's networks expect."""
    with needs("study"):
        from torchvision.transforms import v2

    side = loading.size or 224
    usual = [v2.PILToTensor(), v2.ToDtype(torch.float32, scale=True), v2.Normalize(*IMAGENET)]
    transform = loading.transform or v2.Compose([v2.Resize(side * 8 // 7), v2.CenterCrop(side), *usual])

    def one(name: str) -> Domain:
        data = open_set(name, True)
        train, val, test = split(labels_of(data), seed, name, test=0.25 if name in UNSPLIT else 0)
        images = Photographs(data, transform, loading.workers)
        held = subset(images, test) if name in UNSPLIT else replace(images, data=open_set(name, False))
        return Domain(name, subset(images, train), subset(images, val), held, tuple(map(str, data.classes)))

    return Pair(f"{source}_to_{target}", one(source), one(target))


def _mnist5k_to_fashion(seed: int, loading: Loading) -> Pair:
    """5,000 packaged MNIST images, then the 70,000 of Fashion-MNIST. The classes differ, so each task has its own head."""
    halves, classes = _halves("fashion")
    target = domain("fashion", _splits("fashion", halves, 28, 1, seed), classes)
    return Pair("mnist5k_to_fashion", packaged_domain("mnist", *mnist_5k(), seed), target)


TARGETS = {"mnist": ("usps", "svhn", "fashion", "kmnist"), "svhn": ("mnist",), "cifar10": ("cifar100", "stl10")}
for _source, _target in ((source, target) for source, targets in TARGETS.items() for target in targets):
    enter(PAIRS, f"{_source}_to_{_target}", Maker(partial(_in_memory, _source, _target), ("size", "channels")))
for _target in ("flowers102", "pets", "dtd", "eurosat"):
    _make = partial(_streamed, "imagenet", _target)
    enter(PAIRS, f"imagenet_to_{_target}", Maker(_make, ("size", "workers", "transform")))
enter(PAIRS, "mnist5k_to_fashion", Maker(_mnist5k_to_fashion))
