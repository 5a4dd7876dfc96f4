"""Image files that are read once a process, and many of them once for all processes."""

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import PIL
import torch
from torch import Tensor

from maskutils.core import paths
from maskutils.core.checks import content_key
from maskutils.core.progress import bar
from maskutils.core.tensors import cached_tensors
from maskutils.data import pictures
from maskutils.data.pictures import Recipe

WORTH_STORING = 1000  # a domain of so many images is decoded once for all processes


@lru_cache(maxsize=8)
def headers(files: tuple[str, ...], stamp: str) -> dict[str, pictures.Header]:
    """The headers of the `files` that are not damaged, read once a process."""
    return {file: seen for file in bar(files, "check images", "image") if (seen := pictures.header(file))}


def decoded(files: Sequence[str], recipe: Recipe) -> tuple[Tensor, list[str]]:
    """The images (N, C, H, W) in `files`, uint8 or float32 as `recipe` has it, and the N files that are not damaged."""
    dtype, kept = torch.uint8 if recipe.eight_bits else torch.float32, list[str]()
    x = torch.empty(len(files), *recipe.shape, dtype=dtype)
    for file in bar(files, f"read {Path(files[0]).parent.parent.name}", "image"):
        try:
            image = pictures.decoded(file)
        except OSError:
            continue
        x[len(kept)] = recipe.pixels(image) if recipe.eight_bits else recipe(image)
        kept.append(file)
    return x[: len(kept)], kept


@lru_cache(maxsize=8)
def pixels(files: tuple[str, ...], stamp: str, recipe: Recipe) -> tuple[Tensor, list[str]]:
    """`decoded` as uint8, once a process; of many images once for all processes, from a file in the cache of results."""
    if len(files) < WORTH_STORING:
        return decoded(files, recipe)
    place = {file: i for i, file in enumerate(files)}

    def make() -> dict[str, Tensor]:
        x, kept = decoded(files, recipe)
        return {"images": x, "kept": torch.tensor([place[file] for file in kept])}

    # Another Pillow may decode to other values.
    key = content_key(stamp, recipe.size, recipe.channels, recipe.shape, PIL.__version__)
    path = paths.cache_dir("pixels") / f"{key}.safetensors"
    found = cached_tensors(path, make)
    return found["images"], [files[i] for i in found["kept"].tolist()]
