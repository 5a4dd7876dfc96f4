"""Pairs of domains by name, with disjoint splits: one fixed test split, and train and val that a seed draws."""

from dataclasses import fields

import torch

from maskutils.core.checks import BadSetting, known, needs
from maskutils.data import embedded, vision  # noqa: F401  (their import files the pairs)
from maskutils.data.named import as_folders, check_collection, is_folders
from maskutils.data.pair import PAIRS, Loading, Pair

AS_THEY_ARE = Loading()


def load_pair(name: str, seed: int = 0, loading: Loading = AS_THEY_ARE) -> Pair:
    """The pair `name`; `seed` draws train and val, the test split is fixed. Images are float32 (C, H, W), normalised.

    `name` is one of `PAIRS`, "folders:SOURCE:TARGET" for two folders of class folders, or "pacs:photo:sketch" for two domains of PACS,
    in the folder pacs of the data root, and the like (see `data.named`). Those of digits are packaged. Torchvision's, as
    "cifar10_to_stl10", are read from the data root, or downloaded on first use. Splits are torch datasets of (image, label): index
    them, for what their tensors hold differs. Raises `BadSetting` for an unknown name, for images that cannot be read, and for
    missing data; the message says which files to put where.

    >>> pair = load_pair("mnist_to_digits")
    >>> pair.shared_head, len(pair.source.train), pair.image_shape
    (True, 3250, (1, 28, 28))
    """
    with torch.device("cpu"):  # whatever the user's default device is
        if not is_folders(name):
            check_loading(check_pair(name), loading)
            return PAIRS[name].make(seed, loading)
        with needs("study"):
            from maskutils.data import folders  # here, for the import takes a second

        return folders.pair_of(name, seed, loading)


def check_pair(name: str) -> str:
    """`name` itself if a pair has it, or if it is of image folders. Raises `BadSetting` if not."""
    as_folders(name)
    return name if is_folders(name) else known(name, PAIRS, "pair")


def check_loading(name: str, loading: Loading) -> None:
    """Raise `BadSetting` if `loading` sets a field that the pair `name` does not heed; image folders heed all."""
    if name not in PAIRS:
        return
    heeds = PAIRS[name].heeds
    for option in (f.name for f in fields(Loading) if getattr(loading, f.name) != f.default):
        if option not in heeds:
            listed = ", ".join(o for o in heeds if o != "transform") or "none"
            found = f"heeds {listed} of the options of images, not {option!r}; image folders heed all"
            if option == "transform":
                found = "takes no pretrained weights, whose transforms do not suit its images; give image folders"
            raise BadSetting(f"pair {name!r} {found}")


def check_there(name: str, classes: str = "all") -> None:
    """Raise `BadSetting` if `name` is of image folders that are missing or do not match; other pairs need no check."""
    if is_folders(name):
        with needs("study"):
            from maskutils.data import folders
        check_collection(name)
        folders.sides_of(as_folders(name), classes)
