"""Image files, and how they become tensors.

Owns whether a file holds a whole image, what is made of its mode and size, and the statistics that images are normalised
with. It must not know folders, classes or pairs, and changes no file.
"""

import os
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset, TensorDataset
from torchvision.transforms import functional as F

from maskutils.core.checks import BadSetting
from maskutils.core.progress import bar
from maskutils.core.seeds import generator
from maskutils.data.pair import Loading

Header = tuple[str, tuple[int, int]]  # PIL's mode, and width and height in pixels

SIXTEEN = {"I;16", "I;16B", "I;16L", "I;16N"}
GREY = {"1", "L"} | SIXTEEN
READABLE = GREY | {"RGB", "RGBA", "RGBX", "LA", "P", "PA", "CMYK", "YCbCr"}  # the others' values have no fixed range
DAMAGE = (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError)  # what PIL raises
SAMPLE = 1000  # images that the statistics of a streamed domain are computed on


@dataclass(frozen=True, eq=False)
class Recipe:
    """How a picture becomes a tensor of `shape` (C, H, W): by `transform` from RGB, if there is one; else with values in
    [0, 1], its shorter side brought to `size` pixels (0: as it is) and the middle cut out.

    An alpha channel is dropped, and EXIF orientation is not followed, as in torchvision. Of 16-bit grey all bits count,
    but a `transform` is given the upper 8.
    """

    size: int
    channels: int
    transform: Callable[[Image.Image], Tensor] | None
    shape: tuple[int, ...]

    def __call__(self, image: Image.Image) -> Tensor:
        """The tensor of `image`. Raises `BadSetting` if `transform` gives another shape than for other images."""
        x = self._transformed(image) if self.transform is None else self.transform(_as(image, "RGB"))
        if x.shape != self.shape:
            raise BadSetting(
                f"transform gives {tuple(x.shape)} for an image of {_by(image.size)}, {self.shape} for others; end it in a crop"
            )
        return x.float()

    def _transformed(self, image: Image.Image) -> Tensor:
        if image.mode in SIXTEEN:
            image = Image.fromarray(np.asarray(image, np.float32) / 65535)
        else:
            image = _as(image, "L" if self.channels == 1 else "RGB")
        if self.size:
            image = F.center_crop(F.resize(image, [self.size]), [self.size])
        return F.to_tensor(image).expand(self.channels, -1, -1)


@dataclass(frozen=True, eq=False)
class Streamed(Dataset):
    """Images that are read when they are asked for: (x - mean) / std of (C, H, W) and the label, an int."""

    files: tuple[str, ...]
    labels: tuple[int, ...]
    recipe: Recipe
    workers: int
    mean: Tensor | float = 0.0
    std: Tensor | float = 1.0

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return (self.recipe(decoded(self.files[index])) - self.mean) / self.std, self.labels[index]


def recipe_for(headers: Sequence[Header], loading: Loading) -> Recipe:
    """How the images of both sides are read, with what was left open in `loading` taken from all `headers`.

    Raises `BadSetting` where they do not agree, and for a `transform` that gives no float tensor.
    """
    if loading.transform is None:
        channels = loading.channels or _channels(Counter(mode for mode, _ in headers))
        side = loading.size or _side(Counter(size for _, size in headers))
        return Recipe(loading.size, channels, None, (channels, side, side))
    x = loading.transform(Image.new("RGB", headers[0][1]))
    if not isinstance(x, Tensor) or x.ndim != 3 or not x.is_floating_point():
        found = f"{x.dtype} {tuple(x.shape)}" if isinstance(x, Tensor) else type(x).__name__
        raise BadSetting(f"transform gives {found}, not a float tensor (C, H, W); add torchvision's ToTensor()")
    return Recipe(0, 3, loading.transform, tuple(x.shape))


def _channels(modes: Counter) -> int:
    if modes.keys() <= GREY:
        return 1
    if modes.keys() == {"RGB"}:
        return 3
    raise BadSetting(
        f"images are neither all grey nor all RGB: {counted(modes)}; set channels 1 or channels 3 {how('channels', 3)}"
    )


def _side(sizes: Counter) -> int:
    small, large = (choose(sizes, key=lambda s: (s[0] * s[1], s)) for choose in (min, max))
    if len(sizes) > 1:
        raise BadSetting(
            f"images have {len(sizes)} sizes, from {_by(small)} to {_by(large)}; pass size=, a side in pixels {how('size', 64)}"
        )
    if small[0] != small[1]:
        raise BadSetting(
            f"images are {_by(small)}, not square; pass size=, a side in pixels, to cut the middle out {how('size', 64)}"
        )
    return small[0]


def how(option: str, value: int | str) -> str:
    """How to set an `option` of `Loading`, for the end of a message."""
    return f"(as in images: {{{option}: {value}}} of a notebook or profile, or in Python Loading({option}={value!r}))"


def header(file: str) -> Header | None:
    """Mode and size of an image, or None if it is damaged; pixels are decoded only where the format has no cheaper check."""
    try:
        with Image.open(file) as image:
            seen = image.mode, image.size
            if image.format == "PNG":
                image.verify()  # its checksums, to the end
            elif image.format != "JPEG" or not _ends(file):
                image.load()
    except DAMAGE:
        return None
    return seen


def _ends(file: str) -> bool:
    """Whether a JPEG file ends in the end marker; one that does not may still be whole, with something after it."""
    with open(file, "rb") as stream:
        stream.seek(-2, os.SEEK_END)
        return stream.read() == b"\xff\xd9"


def decoded(file: str) -> Image.Image:
    """The image in `file`. Raises `OSError` that names the file if it cannot be decoded."""
    try:
        with Image.open(file) as image:
            image.load()
            return image
    except DAMAGE as error:
        raise OSError(f"{file} cannot be read: {error}") from error


def _as(image: Image.Image, mode: str) -> Image.Image:
    """`image` in `mode`, "L" or "RGB", 8 bits each."""
    if image.mode in SIXTEEN:  # which PIL would clip
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if image.mode in ("P", "PA"):  # PIL warns of a palette's transparency otherwise
        image = image.convert("RGBA")
    return image.convert(mode)


def statistics(data: Dataset, train: Tensor, seed: int) -> tuple[Tensor, Tensor]:
    """Mean and std (C, 1, 1) of the images at `train`; of no more than `SAMPLE` of them if they are streamed.

    Raises `BadSetting` where there is nothing to divide by.
    """
    if isinstance(data, Streamed):
        train = train[torch.randperm(len(train), generator=generator(seed, "statistics"))[:SAMPLE]]
    moments = torch.zeros(2, data[0][0].shape[0], dtype=torch.float64)
    for index in bar(train.sort().values.tolist(), "mean and std", "image"):
        x = data[index][0].double().flatten(1)
        moments += torch.stack([x.mean(1), x.square().mean(1)]) / len(train)
    mean, std = moments[0], (moments[1] - moments[0].square()).clamp(min=0).sqrt()
    if not std.min() > 1e-6:
        raise BadSetting(
            f"std of the source's train split is {std.tolist()} by channel, so it cannot be normalised; check the images, or set "
            f"channels 1 {how('channels', 1)}"
        )
    return mean.float()[:, None, None], std.float()[:, None, None]


def normalised(data: TensorDataset | Streamed, mean: Tensor, std: Tensor) -> TensorDataset | Streamed:
    """`data` as (x - mean) / std; writes into it if it lives in memory."""
    if isinstance(data, Streamed):
        return replace(data, mean=mean, std=std)
    data.tensors[0].sub_(mean).div_(std)
    return data


def counted(counts: Counter) -> str:
    """What was counted, the most frequent first: "RGB (30), L (2)"."""
    return ", ".join(f"{name} ({n})" for name, n in counts.most_common())


def _by(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"
