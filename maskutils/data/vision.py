"""Pairs of torchvision's data sets, through its own loaders and checksums.

They are read from the data root where they lie there in torchvision's layout, and downloaded to it on first use.
"""

import urllib.error
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import Dataset, TensorDataset

from maskutils.core import paths
from maskutils.core.checks import BadSetting, needs, register
from maskutils.data.embedded import DIGITS, MEAN, STD, domain, mnist_5k
from maskutils.data.pair import PAIRS, Domain, Loading, Pair, split, subset

IDX = "{0}/raw/ with train-images-idx3-ubyte.gz, train-labels-idx1-ubyte.gz, t10k-images-idx3-ubyte.gz and t10k-labels-idx1-ubyte.gz"
CIFAR10_STL10 = (
    "airplane",
    "automobile",
    "bird",
    "cat",
    "deer",
    "dog",
    "horse",
    "ship",
    "truck",
)  # the nine classes of both
TORCHVISION: dict[str, tuple[Callable[..., Dataset], str]] = {  # (torchvision.datasets, root, train, download) -> set; its files
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
UNSPLIT = ("imagenet", "eurosat")  # without a test split of their own
PRETRAINED = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])  # mean and standard deviation of ImageNet's channels


def open_set(name: str, train: bool, loading: Loading) -> Dataset:
    """torchvision's data set `name`, its training or its test half; downloaded if it is not at the data root.

    Raises `BadSetting` that says which files to put where, if it is neither there nor can be had.
    """
    with needs("study"):
        from filelock import FileLock
        from torchvision import datasets  # here, for it takes a second to import

    opener, files = TORCHVISION[name]
    root = loading.root or paths.data_root()
    try:
        return opener(datasets, root, train, False)
    except (RuntimeError, FileNotFoundError):  # torchvision's ways to say that it is not there
        pass
    try:
        root.mkdir(parents=True, exist_ok=True)
        with FileLock(root / ".lock"):  # one download at a time
            return opener(datasets, root, train, True)
    except (OSError, RuntimeError, urllib.error.URLError) as error:
        raise BadSetting(
            f"data set {name!r} is not at {root} and cannot be had ({error}); put there {files}, or name another folder with "
            "--data-root or $MASKUTILS_DATA_ROOT"
        ) from None


def _half(train: bool) -> str:
    return "train" if train else "test"


def arrays(data: Any) -> tuple[Tensor, np.ndarray]:
    """Images (N, C, H, W), uint8, and labels (N,) of a data set of torchvision's that lies in memory."""
    x, y = torch.as_tensor(data.data), np.asarray(data.targets if hasattr(data, "targets") else data.labels)
    if x.ndim == 3:  # MNIST and its kind, USPS
        x = x[:, None]
    return (x.permute(0, 3, 1, 2) if x.shape[-1] == 3 else x), y


def brought_to(x: Tensor, size: int, channels: int) -> Tensor:
    """Images (N, C, H, W), uint8, as float32 (N, channels, size, size) in [0, 1]."""
    x = torch.cat([_resized(part, size) for part in x.split(10_000)])
    if channels == 1 and x.shape[1] == 3:
        return (x * torch.tensor([0.299, 0.587, 0.114]).view(3, 1, 1)).sum(1, keepdim=True)  # ITU-R 601, as PIL has it
    return x.expand(-1, channels, -1, -1) if x.shape[1] == 1 else x


def _resized(x: Tensor, size: int) -> Tensor:
    x = x.float() / 255
    return (
        x
        if x.shape[-2:] == (size, size)
        else F.interpolate(x, (size, size), mode="bilinear", antialias=True).clamp(0, 1)
    )


class Images(Dataset):
    """A data set of torchvision's, read image by image; `workers` processes load it."""

    def __init__(self, data: Dataset, transform: Callable, workers: int) -> None:
        self.data, self.transform, self.workers = data, transform, workers

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, i: int) -> tuple[Tensor, int]:
        image, label = self.data[i]
        return self.transform(image.convert("RGB")), label


def _in_memory(source: str, target: str, keep: tuple[str, ...], seed: int, loading: Loading) -> Pair:
    """A pair of sets that fit in memory: at the source's size, with the most channels, normalised as the source's training images."""
    opened = {name: [open_set(name, train, loading) for train in (True, False)] for name in (source, target)}
    pictures = {name: [_kept(half, keep) for half in halves] for name, halves in opened.items()}
    shape = pictures[source][0][0].shape
    channels = loading.channels or max(halves[0][0].shape[1] for halves in pictures.values())
    sides, statistics = [], None
    for name, halves in pictures.items():
        sized = [(brought_to(x, loading.size or shape[-1], channels), torch.as_tensor(y)) for x, y in halves]
        (x, y), (x_test, y_test) = sized
        train, val, _ = split(y, seed, f"{name}/train", test=0)
        statistics = statistics or torch.std_mean(x[train], (0, 2, 3), keepdim=True)  # of the source, which comes first
        splits = [(x[train], y[train]), (x[val], y[val]), (x_test, y_test)]
        sides.append(_domain(name, splits, *statistics, _classes(name, keep, opened[name][0])))
    return Pair(f"{source}_to_{target}", *sides)


def _domain(
    name: str, splits: list[tuple[Tensor, Tensor]], std: Tensor | float, mean: Tensor | float, classes: tuple[str, ...]
) -> Domain:
    return Domain(name, *(TensorDataset((x - mean) / std, y.long()) for x, y in splits), classes)


def _kept(data: Any, keep: tuple[str, ...]) -> tuple[Tensor, np.ndarray]:
    """Images and labels of the classes `keep` (all, if empty), numbered in that order."""
    x, y = arrays(data)
    if not keep:
        return x, y
    number = {{"car": "automobile"}.get(c, c): i for i, c in enumerate(data.classes)}
    label = np.full(len(data.classes), -1)
    label[[number[c] for c in keep]] = np.arange(len(keep))
    return x[label[y] >= 0], label[y][label[y] >= 0]


def _classes(name: str, keep: tuple[str, ...], data: Any) -> tuple[str, ...]:
    return DIGITS if name in ("mnist", "usps", "svhn") else keep or tuple(map(str, data.classes))


def _streamed(source: str, target: str, seed: int, loading: Loading) -> Pair:
    """A pair of sets of photographs, read image by image, as a network that was trained on ImageNet expects them."""
    with needs("study"):
        from torchvision.transforms import v2

    side = loading.size or 224
    usual = [v2.PILToTensor(), v2.ToDtype(torch.float32, scale=True), v2.Normalize(*PRETRAINED)]
    transform = loading.transform or v2.Compose([v2.Resize(side * 8 // 7), v2.CenterCrop(side), *usual])
    sides = []
    for name in (source, target):
        train_set = open_set(name, True, loading)
        train, val, test = split(labels_of(train_set), seed, name, test=0.25 if name in UNSPLIT else 0)
        images = Images(train_set, transform, loading.workers)
        held = (
            subset(images, test)
            if name in UNSPLIT
            else Images(open_set(name, False, loading), transform, loading.workers)
        )
        sides.append(Domain(name, subset(images, train), subset(images, val), held, tuple(map(str, train_set.classes))))
    return Pair(f"{source}_to_{target}", *sides)


def labels_of(data: Any) -> list[int]:
    """The labels of a data set of torchvision's, without reading its images."""
    return list(data.targets if hasattr(data, "targets") else data._labels)


def _pair(source: str, target: str, make: Callable[..., Pair], takes: tuple[str, ...], *given: Any) -> None:
    """File a pair under its name; `takes` are the fields of `Loading` that it heeds."""

    def load(seed: int, loading: Loading) -> Pair:
        return make(source, target, *given, seed, loading)

    load.__name__, load.takes = f"{source}_to_{target}", takes
    register(PAIRS)(load)


for _source, _target in [("mnist", t) for t in ("usps", "svhn", "fashion", "kmnist")] + [
    ("svhn", "mnist"),
    ("cifar10", "cifar100"),
]:
    _pair(_source, _target, _in_memory, ("size", "channels"), ())
_pair("cifar10", "stl10", _in_memory, ("size", "channels"), CIFAR10_STL10)
for _target in ("flowers102", "pets", "dtd", "eurosat"):
    _pair("imagenet", _target, _streamed, ("size", "workers", "transform"))


@register(PAIRS)
def mnist5k_to_fashion(seed: int, loading: Loading) -> Pair:
    """5,000 packaged MNIST images, then the 70,000 of Fashion-MNIST: other things, so each task has a head of its own."""
    halves = [open_set("fashion", train, loading) for train in (True, False)]
    (x, y), (x_test, y_test) = ((brought_to(x, 28, 1), torch.as_tensor(y)) for x, y in map(arrays, halves))
    train, val, _ = split(y, seed, "fashion/train", test=0)
    splits = [(x[train], y[train]), (x[val], y[val]), (x_test, y_test)]
    source = domain("mnist", *mnist_5k(), seed)
    return Pair("mnist5k_to_fashion", source, _domain("fashion", splits, STD, MEAN, _classes("fashion", (), halves[0])))


mnist5k_to_fashion.takes = ()
