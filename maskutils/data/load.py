"""Pairs of domains, with disjoint, seeded train / val / test splits.

Owns where images come from and how they are split. It must not know networks. A domain's splits are ordinary torch
datasets: `TensorDataset` where the images live in memory, anything with `__getitem__` where they do not.
"""

from dataclasses import fields

import torch

from maskutils.core.checks import BadSetting, known, needs
from maskutils.data import embedded, vision
from maskutils.data.pair import FOLDERS, PAIRS, Domain, Loading, Pair, split, subset

__all__ = [
    "PAIRS",
    "Domain",
    "Loading",
    "Pair",
    "check_loading",
    "check_pair",
    "check_there",
    "embedded",
    "load_pair",
    "split",
    "subset",
    "vision",
]

AS_THEY_ARE = Loading()


def load_pair(name: str, seed: int = 0, loading: Loading = AS_THEY_ARE) -> Pair:
    """The pair `name`, split by `seed`; images are float32 (C, H, W), normalised.

    `name` is one of `PAIRS` ("mnist_to_digits": packaged; "cifar10_to_stl10": torchvision's, downloaded on first use or read
    from `loading.root`), or "folders:SOURCE:TARGET" for two folders of class folders. Raises `BadSetting` for an unknown name,
    for images that cannot be read and for data that is not there, with the files to put where.

    >>> load_pair("mnist_to_digits").shared_head
    True
    """
    with torch.device("cpu"):  # whatever the user's default is
        if not name.startswith(FOLDERS):
            check_loading(check_pair(name), loading)
            return PAIRS[name](seed, loading)
        with needs("study"):
            from maskutils.data import folders  # here, for it takes a second to import

        return folders.pair_of(name, seed, loading)


def check_pair(name: str) -> str:
    """`name` itself if it is that of a pair, or of the form "folders:SOURCE:TARGET"; else `BadSetting`."""
    return name if name.startswith(FOLDERS) else known(name, PAIRS, "pair")


def check_loading(name: str, loading: Loading) -> None:
    """Raises `BadSetting` if `loading` asks for what the pair `name` does not heed; image folders heed all."""
    takes = getattr(PAIRS.get(name), "takes", None)
    if takes is None:
        return
    for option in (f.name for f in fields(Loading) if f.name != "root" and getattr(loading, f.name) != f.default):
        if option == "transform" and option not in takes:
            raise BadSetting(
                f"pair {name!r} takes no pretrained weights, whose transforms are not for its images; give image folders"
            )
        if option not in takes:
            heeds = ", ".join(o for o in takes if o != "transform") or "none"
            raise BadSetting(
                f"pair {name!r} heeds {heeds} of the options of images, not {option!r}; image folders heed all"
            )
    if loading.channels not in (0, 1, 3):
        raise BadSetting(f"images: channels {loading.channels} must be 1 or 3")


def check_there(name: str, classes: str = "all") -> None:
    """Raises `BadSetting` if `name` is of two folders that are not there or do not go together; others are packaged or downloaded."""
    if name.startswith(FOLDERS):
        with needs("study"):
            from maskutils.data import folders
        folders.check(name, classes)
