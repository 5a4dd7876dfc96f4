"""Pairs of image folders that go by a name: where the images are, and how many there must be.

"pacs:photo:sketch" names two domains of one collection, "pacs/photo:cifar20/first" a domain of each of two.

Torch is not imported: a plan of what is done takes less time than that.
"""

import os
from dataclasses import dataclass
from pathlib import Path

from maskutils.core import paths
from maskutils.core.checks import BadSetting, digits, known

FOLDERS = "folders:"  # what the name of a pair of image folders begins with
ENDINGS = (".jpg", ".jpeg", ".png")


@dataclass(frozen=True)
class Collection:
    """Domains of one data set, each a folder of class folders under `folder` of the data root.

    `domains` holds for each the images of every class, in the order of `classes`, and a digest of their names without endings.
    """

    folder: str
    classes: tuple[str, ...]
    domains: dict[str, tuple[tuple[int, ...], str]]
    origin: str  # where to get it


COLLECTIONS = {
    "pacs": Collection(
        "pacs",
        ("dog", "elephant", "giraffe", "guitar", "horse", "house", "person"),
        {
            "art_painting": ((379, 255, 285, 184, 201, 295, 449), "7c68a84f969b791b"),
            "cartoon": ((389, 457, 346, 135, 324, 288, 405), "7ce4b325ffb8ac54"),
            "photo": ((189, 202, 182, 186, 199, 280, 432), "d4d32f02655ce2f6"),
            "sketch": ((772, 740, 753, 608, 816, 80, 160), "64bdcd8342fd4a4f"),
        },
        "PACS (Li et al. 2017, arXiv 1710.03077): 9,991 images of 7 classes in 4 domains, as facebookresearch/DomainBed's "
        "`python -m domainbed.scripts.download` fetches it",
    ),
    "cifar20": Collection(
        "cifar20",
        ("aquatic_mammals", "fish", "flowers", "food_containers", "fruit_and_vegetables", "furniture", "household_electrical", "insects",
         "invertebrates", "large_carnivores", "large_herbivores", "large_outdoor_scenes", "large_outdoor_things", "medium_mammals",
         "people", "reptiles", "small_mammals", "trees", "vehicles_1", "vehicles_2"),
        {
            "first": ((*[300] * 14, 299, *[300] * 5), "577cdad84184f033"),  # a file name of people occurs in two fine classes
            "second": ((300,) * 20, "3060ae7329360a0d"),
        },
        "the 11,999 images of CIFAR-100 (Krizhevsky 2009) in its 20 superclasses, as the script of docs/guides/photos.md writes them",
    ),
}  # fmt: skip


def is_folders(pair: str) -> bool:
    """Whether `pair` is read from image folders: those it names, or those of collections."""
    return pair.startswith(FOLDERS) or bool(domains_of(pair))


def domains_of(pair: str) -> list[tuple[Collection, str]]:
    """The collection and the domain of each side of `pair`; none for a pair of another kind.

    Raises `BadSetting` for a collection or a domain that there is not, and for a side too many or too few.
    """
    first, *rest = pair.split(":")
    if not rest or first.split("/")[0] not in COLLECTIONS:
        return []
    named = [f"{first}/{domain}" for domain in rest] if first in COLLECTIONS else [first, *rest]
    parts = [tuple(side.split("/")) for side in named]
    two = len(parts) == 2 and parts[0] != parts[1] and all(len(part) == 2 for part in parts)
    if not two or (first in COLLECTIONS) != (parts[0][0] == parts[1][0]):
        own = first.split("/")[0]
        other = next(name for name in COLLECTIONS if name != own)
        raise BadSetting(
            f"{pair!r} is not of the form '{own}:SOURCE:TARGET', two different domains of a collection, or "
            f"'{own}/SOURCE:{other}/TARGET', a domain of each of two collections"
        )
    collections = [COLLECTIONS[known(name, COLLECTIONS, "collection")] for name, _ in parts]
    return [(c, known(domain, c.domains, "domain")) for c, (_, domain) in zip(collections, parts, strict=True)]


def as_folders(pair: str) -> str:
    """`pair` as "folders:SOURCE:TARGET", under the data root. Raises `BadSetting` as `domains_of` does."""
    named = domains_of(pair)
    return FOLDERS + ":".join(str(folder_of(*side)) for side in named) if named else pair


def folder_of(collection: Collection, domain: str) -> Path:
    """The folder of `domain`, under the data root."""
    return paths.data_root() / collection.folder / domain


def others(pair: str) -> list[tuple[Collection, str]]:
    """The domains of the source's collection that take no part in `pair`; none for a pair of another kind."""
    named = domains_of(pair)
    return [(c, domain) for c, _ in named[:1] for domain in c.domains if (c, domain) not in named]


def check_collection(pair: str) -> None:
    """Raise `BadSetting` unless the images of all domains are there and no others, by number and by name."""
    for collection, domain in (*domains_of(pair), *others(pair)):
        _check_domain(collection, domain)


def _check_domain(collection: Collection, domain: str) -> None:
    folder, (counts, digest) = folder_of(collection, domain), collection.domains[domain]
    names: list[str] = []
    for name, expected in zip(collection.classes, counts, strict=True):
        files = os.listdir(folder / name) if (folder / name).is_dir() else []
        found = sorted(file.rsplit(".", 1)[0] for file in files if file.lower().endswith(ENDINGS))
        if len(found) != expected:
            raise BadSetting(
                f"{folder / name} holds {len(found)} images and must hold {expected}: put all of {collection.origin} under "
                f"{folder.parent}, as {domain}/{name}/*.jpg and so on, or name another data root with --data-root or $MASKUTILS_DATA_ROOT"
            )
        names += [f"{name}/{file}" for file in found]
    if digits("\n".join(names)) != digest:
        raise BadSetting(f"{folder} holds as many images as it must, but of other names: get {collection.origin} anew")
