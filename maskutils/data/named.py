"""Pairs of image folders that go by a name, such as "pacs:photo:sketch": where the images are, and how many there must be.

Torch is not imported: a plan of what is done takes less time than that.
"""

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

from maskutils.core import paths
from maskutils.core.checks import BadSetting, known
from maskutils.data import FOLDERS

ENDINGS = (".jpg", ".jpeg", ".png")


@dataclass(frozen=True)
class Collection:
    """Domains of one data set, each a folder of class folders under `folder` of the data root.

    `domains` holds for each the images of every class, in the order of `classes`, and a digest of their names without endings.
    """

    folder: str
    classes: tuple[str, ...]
    domains: dict[str, tuple[tuple[int, ...], str]]
    source: str  # where to get it


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
}


def is_folders(pair: str) -> bool:
    """Whether `pair` is read from image folders: those it names, or those of a collection."""
    return pair.startswith(FOLDERS) or collection_of(pair) is not None


def collection_of(pair: str) -> Collection | None:
    """The collection of "pacs:photo:sketch"; None for a pair of another kind."""
    return COLLECTIONS.get(pair.split(":")[0]) if ":" in pair else None


def as_folders(pair: str, root: Path | None = None) -> str:
    """`pair` as "folders:SOURCE:TARGET", under `root` (None: the data root). Raises `BadSetting` for a domain that there is not."""
    collection = collection_of(pair)
    if collection is None:
        return pair
    domains = pair.split(":")[1:]
    if len(domains) != 2 or domains[0] == domains[1]:
        raise BadSetting(f"{pair!r} is not of the form '{pair.split(':')[0]}:SOURCE:TARGET', two different domains")
    return FOLDERS + ":".join(str(folder_of(collection, known(d, collection.domains, "domain"), root)) for d in domains)


def folder_of(collection: Collection, domain: str, root: Path | None = None) -> Path:
    """The folder of `domain`, under `root` (None: the data root)."""
    return (root or paths.data_root()) / collection.folder / domain


def others(pair: str) -> list[str]:
    """The domains of a collection that take no part in `pair`; none for a pair of another kind."""
    collection = collection_of(pair)
    return [d for d in collection.domains if d not in pair.split(":")] if collection else []


def check_collection(pair: str, root: Path | None = None) -> None:
    """Raise `BadSetting` unless the images of both domains are all there and no others, by number and by name."""
    collection = collection_of(pair)
    for domain in (*pair.split(":")[1:], *others(pair)) if collection else ():
        _check_domain(collection, known(domain, collection.domains, "domain"), root)  # type: ignore[arg-type,union-attr]


def _check_domain(collection: Collection, domain: str, root: Path | None) -> None:
    folder, (counts, digest) = folder_of(collection, domain, root), collection.domains[domain]
    names: list[str] = []
    for name, expected in zip(collection.classes, counts, strict=True):
        files = os.listdir(folder / name) if (folder / name).is_dir() else []
        found = sorted(file.rsplit(".", 1)[0] for file in files if file.lower().endswith(ENDINGS))
        if len(found) != expected:
            raise BadSetting(
                f"{folder / name} holds {len(found)} images and must hold {expected}: put all of {collection.source} under "
                f"{folder.parent}, as {domain}/{name}/*.jpg and so on, or name another data root with --data-root or $MASKUTILS_DATA_ROOT"
            )
        names += [f"{name}/{file}" for file in found]
    if hashlib.sha256("\n".join(names).encode()).hexdigest()[:16] != digest:
        raise BadSetting(f"{folder} holds as many images as it must, but of other names: get {collection.source} anew")
