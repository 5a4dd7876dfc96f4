"""Pairs of image folders, in torchvision's ImageFolder layout: a folder for each class."""

from maskutils.data.base import Loading, Pair

PREFIX = "folders:"


def pair_of(name: str, seed: int, loading: Loading) -> Pair:
    """The pair "folders:SOURCE:TARGET"."""
    raise NotImplementedError
