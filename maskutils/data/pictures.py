"""Image files: finds damaged ones, turns the others into tensors, once a process, and computes the statistics that normalise them."""

import os
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import PIL
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset, TensorDataset
from torchvision.transforms import functional as F

from maskutils.core import paths
from maskutils.core.checks import BadSetting, content_key
from maskutils.core.progress import bar
from maskutils.core.seeds import generator
from maskutils.core.tensors import cached_tensors
from maskutils.data.pair import Examples, Loading, Pixels

Size = tuple[int, int]  # width and height in pixels
Header = tuple[str, Size]  # PIL's mode, and the size

SIXTEEN = {"I;16", "I;16B", "I;16L", "I;16N"}
GREY = {"1", "L"} | SIXTEEN
READABLE = GREY | {"RGB", "RGBA", "RGBX", "LA", "P", "PA", "CMYK", "YCbCr"}  # other modes have no fixed range of values
DAMAGE = (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError)  # PIL raises these
SAMPLE = 1000  # at most so many images give the statistics of a streamed domain
WORTH_STORING = 1000  # a domain of so many images is decoded once for all processes


@dataclass(frozen=True)
class Recipe:
    """How an image becomes a tensor of `shape` (C, H, W).

    A `transform` gets the image as RGB. Without one, the shorter side is resized to `size` pixels (0: left as it is), the middle
    is cut out, and values are in [0, 1]. As in torchvision, an alpha channel is dropped and EXIF orientation is ignored. All
    bits of 16-bit grey count, but a `transform` gets the upper 8.
    """

    size: int
    channels: int
    transform: Callable[[Any], Tensor] | None
    shape: tuple[int, ...]
    eight_bits: bool = False  # whether 8 bits a value are all that an image has

    def pixels(self, image: Image.Image) -> Tensor:
        """The values of `image` (C, H, W) as uint8, without a `transform`."""
        x: Tensor = F.pil_to_tensor(self._framed(_as(image, "L" if self.channels == 1 else "RGB")))
        return x

    def __call__(self, image: Image.Image) -> Tensor:
        """The tensor of `image`, float32. Raises `BadSetting` if `transform` does not give `shape`."""
        x = self._transformed(image) if self.transform is None else self.transform(_as(image, "RGB"))
        if x.shape != self.shape:
            found = f"{tuple(x.shape)} for an image of {_by(image.size)}, {self.shape} for others"
            raise BadSetting(f"transform gives {found}; end it in a crop")
        return x.float()

    def _transformed(self, image: Image.Image) -> Tensor:
        if image.mode in SIXTEEN:
            image = Image.fromarray(np.asarray(image, np.float32) / 65535)
        else:
            image = _as(image, "L" if self.channels == 1 else "RGB")
        x: Tensor = F.to_tensor(self._framed(image))
        return x.expand(self.channels, -1, -1)

    def _framed(self, image: Image.Image) -> Image.Image:
        return F.center_crop(F.resize(image, [self.size]), [self.size]) if self.size else image


@dataclass(frozen=True, eq=False)
class Streamed(Dataset[tuple[Tensor, int]]):
    """Images that are read on demand: (x - mean) / std of (C, H, W), and the label, an int."""

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
    """How all images are read; `headers` decide what `loading` leaves open. Raises `BadSetting` if images disagree."""
    if loading.transform is None:
        channels = loading.channels or _channels(Counter(mode for mode, _ in headers))
        side = loading.size or _side(Counter(size for _, size in headers))
        deep = any(mode in SIXTEEN for mode, _ in headers)
        return Recipe(loading.size, channels, None, (channels, side, side), eight_bits=not deep)
    x = loading.transform(Image.new("RGB", headers[0][1]))
    if not isinstance(x, Tensor) or x.ndim != 3 or not x.is_floating_point():
        found = f"{x.dtype} {tuple(x.shape)}" if isinstance(x, Tensor) else type(x).__name__
        raise BadSetting(f"transform gives {found}, not a float tensor (C, H, W); add torchvision's ToTensor()")
    return Recipe(0, 3, loading.transform, tuple(x.shape))


def _channels(modes: Counter[str]) -> int:
    if modes.keys() <= GREY or modes.keys() == {"RGB"}:
        return 3 if "RGB" in modes else 1
    found = f"images are neither all grey nor all RGB: {counted(modes)}"
    raise BadSetting(f"{found}; set channels 1 or channels 3 {how('channels', 3)}")


def _side(sizes: Counter[Size]) -> int:
    by_area = sorted(sizes, key=lambda size: (size[0] * size[1], size))
    small, large = by_area[0], by_area[-1]
    if len(sizes) > 1 or small[0] != small[1]:
        one = f"are {_by(small)}, not square"
        found = f"have {len(sizes)} sizes, from {_by(small)} to {_by(large)}" if len(sizes) > 1 else one
        raise BadSetting(f"images {found}; pass size=, a side in pixels, to cut the middle out {how('size', 64)}")
    return small[0]


def how(option: str, value: int | str) -> str:
    """The end of a message: how to set an `option` of `Loading` to `value`."""
    return f"(in a notebook or profile images: {{{option}: {value}}}, in Python Loading({option}={value!r}))"


def header(file: str) -> Header | None:
    """Mode and size of an image; None if it is damaged. Pixels are decoded only if the format has no cheaper check."""
    try:
        with Image.open(file) as image:
            seen = image.mode, image.size
            if image.format == "PNG":
                image.verify()  # reads the checksums, to the end
            elif image.format != "JPEG" or not _ends(file):
                image.load()
    except DAMAGE:
        return None
    return seen


def _ends(file: str) -> bool:
    """Whether a JPEG file ends in the end marker. A file that does not may be whole and have something after it."""
    with open(file, "rb") as stream:
        stream.seek(-2, os.SEEK_END)
        return stream.read() == b"\xff\xd9"


def decoded(file: str) -> Image.Image:
    """The image in `file`. Raises `OSError`, which names the file, if it cannot be decoded."""
    try:
        with Image.open(file) as image:
            image.load()
            return image
    except DAMAGE as error:
        raise OSError(f"{file} cannot be read: {error}") from error


def _as(image: Image.Image, mode: str) -> Image.Image:
    """`image` in `mode`, "L" or "RGB", 8 bits each."""
    if image.mode in SIXTEEN:  # PIL would clip the values
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if image.mode in ("P", "PA"):  # else PIL warns of a palette's transparency
        image = image.convert("RGBA")
    return image.convert(mode)


def statistics(data: Examples, train: Tensor, seed: int) -> tuple[Tensor, Tensor]:
    """Mean and std (C, 1, 1) of the images at `train`, of at most `SAMPLE` streamed ones. Raises `BadSetting` if a std is 0."""
    if isinstance(data, Streamed):
        train = train[torch.randperm(len(train), generator=generator(seed, "statistics"))[:SAMPLE]]
    moments = torch.zeros(2, data[0][0].shape[0], dtype=torch.float64)
    for index in bar(train.sort().values.tolist(), "mean and std", "image"):
        x = data[index][0].double().flatten(1)
        moments += torch.stack([x.mean(1), x.square().mean(1)]) / len(train)
    mean, std = moments[0], (moments[1] - moments[0].square()).clamp(min=0).sqrt()
    if not std.min() > 1e-6:
        found = f"std of the source's train split is {std.tolist()} by channel, so images cannot be normalised"
        raise BadSetting(f"{found}; check them, or set channels 1 {how('channels', 1)}")
    return mean.float()[:, None, None], std.float()[:, None, None]


def with_statistics(data: TensorDataset | Streamed, mean: Tensor, std: Tensor) -> TensorDataset | Streamed:
    """`data` as (x - mean) / std. Changes the images in place if they are floats in memory."""
    if isinstance(data, Streamed):
        return replace(data, mean=mean, std=std)
    if isinstance(data, Pixels):
        return data.normalised(mean, std)
    data.tensors[0].sub_(mean).div_(std)
    return data


def counted(counts: Counter[str]) -> str:
    """The counts as a text, the most frequent first: "RGB (30), L (2)"."""
    return ", ".join(f"{name} ({n})" for name, n in counts.most_common())


def _by(size: Size) -> str:
    return f"{size[0]}x{size[1]}"


@lru_cache(maxsize=8)
def headers(files: tuple[str, ...], stamp: str) -> dict[str, Header]:
    """The headers of the `files` that are not damaged, read once a process."""
    return {file: seen for file in bar(files, "check images", "image") if (seen := header(file))}


def read_all(files: Sequence[str], recipe: Recipe) -> tuple[Tensor, list[str]]:
    """The images (N, C, H, W) in `files`, uint8 or float32 as `recipe` has it, and the N files that are not damaged."""
    dtype, kept = torch.uint8 if recipe.eight_bits else torch.float32, list[str]()
    x = torch.empty(len(files), *recipe.shape, dtype=dtype)
    for file in bar(files, f"read {Path(files[0]).parent.parent.name}", "image"):
        try:
            image = decoded(file)
        except OSError:
            continue
        x[len(kept)] = recipe.pixels(image) if recipe.eight_bits else recipe(image)
        kept.append(file)
    return x[: len(kept)], kept


@lru_cache(maxsize=8)
def pixels(files: tuple[str, ...], stamp: str, recipe: Recipe) -> tuple[Tensor, list[str]]:
    """`read_all` as uint8, once a process; of many images once for all processes, from a file in the cache of results."""
    if len(files) < WORTH_STORING:
        return read_all(files, recipe)
    place = {file: i for i, file in enumerate(files)}

    def make() -> dict[str, Tensor]:
        x, kept = read_all(files, recipe)
        return {"images": x, "kept": torch.tensor([place[file] for file in kept])}

    # Another Pillow may decode to other values.
    key = content_key(stamp, recipe.size, recipe.channels, recipe.shape, PIL.__version__)
    path = paths.cache_dir("pixels") / f"{key}.safetensors"
    found = cached_tensors(path, make)
    return found["images"], [files[i] for i in found["kept"].tolist()]
