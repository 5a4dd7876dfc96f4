"""Image folders that have a name: where they lie under the data root, what they hold, and how to get them. Imports no torch."""

import hashlib
import os
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from maskutils.core import paths
from maskutils.core.checks import BadSetting, known
from maskutils.data import FOLDERS


@dataclass(frozen=True)
class Collection:
    """Domains of the same classes. `counts` are the images of each class, `digests` name the list of all files of a domain.

    `lacking` images may be missing from a class. `places` are folders under the data root; the first that exists counts.
    """

    places: tuple[str, ...]
    classes: tuple[str, ...]
    counts: Mapping[str, tuple[int, ...]]
    source: str
    digests: Mapping[str, str]
    lacking: int = 0


SUPERCLASSES = (
    "aquatic_mammals", "fish", "flowers", "food_containers", "fruit_and_vegetables", "furniture", "household_electrical", "insects",
    "invertebrates", "large_carnivores", "large_herbivores", "large_outdoor_scenes", "large_outdoor_things", "medium_mammals", "people",
    "reptiles", "small_mammals", "trees", "vehicles_1", "vehicles_2",
)  # fmt: skip
COLLECTIONS: dict[str, Collection] = {
    "pacs": Collection(
        places=("PACS", "pacs", "PACS/kfold", "pacs/kfold"),
        classes=("dog", "elephant", "giraffe", "guitar", "horse", "house", "person"),
        counts={
            "photo": (189, 202, 182, 186, 199, 280, 432),
            "art_painting": (379, 255, 285, 184, 201, 295, 449),
            "cartoon": (389, 457, 346, 135, 324, 288, 405),
            "sketch": (772, 740, 753, 608, 816, 80, 160),
        },
        source="get PACS (Li et al. 2017) as docs/guides/photos.md says, with the images of each class in DOMAIN/CLASS",
        digests={
            "photo": "d4d32f02655ce2f6",
            "art_painting": "7c68a84f969b791b",
            "cartoon": "7ce4b325ffb8ac54",
            "sketch": "64bdcd8342fd4a4f",
        },
    ),
    "cifar20": Collection(
        places=("cifar20",),
        classes=SUPERCLASSES,
        counts={"first": (300,) * 20, "second": (300,) * 20},
        source="make it of CIFAR-100 as docs/guides/photos.md says",
        digests={},
        lacking=1,
    ),
}


def of_folders(name: str) -> bool:
    """Whether `name` is of a pair of image folders: "folders:SOURCE:TARGET", or two domains of a collection, as "pacs:photo:sketch"."""
    return name.startswith(FOLDERS) or (":" in name and name.split(":")[0] in COLLECTIONS)


def domains_of(name: str) -> tuple[Collection, list[str]]:
    """The collection of "COLLECTION:SOURCE:TARGET" and both domains. Raises `BadSetting`, which lists the domains, if there are no such."""
    first, *domains = name.split(":")
    collection = COLLECTIONS[known(first, COLLECTIONS, "collection")]
    if len(domains) != 2 or domains[0] == domains[1]:
        listed = ", ".join(collection.counts)
        raise BadSetting(f"{name!r} is not of the form '{first}:SOURCE:TARGET', two different ones of {listed}")
    return collection, [known(domain, collection.counts, f"domain of {first}") for domain in domains]


def roots(name: str, data_root: Path | None = None) -> list[tuple[Path, str]]:
    """Both folders of a pair of image folders, there or not, each with the shortest name that tells them apart."""
    if not name.startswith(FOLDERS):
        collection, domains = domains_of(name)
        return [(place(collection, data_root) / domain, domain) for domain in domains]
    parts = name.removeprefix(FOLDERS).split(":")
    if len(parts) != 2 or not all(parts):
        raise BadSetting(f"{name!r} is not of the form '{FOLDERS}SOURCE:TARGET', two folders whose paths have no ':'")
    both = [Path(os.path.abspath(Path(part).expanduser())) for part in parts]
    for depth in range(1, max(len(root.parts) for root in both) + 1):
        names = ["/".join(root.parts[-depth:]) for root in both]
        if names[0] != names[1]:
            break
    return list(zip(both, names, strict=True))


def others(name: str, data_root: Path | None = None) -> list[tuple[Path, str]]:
    """The folders and names of the domains that take no part in the pair `name`; none for folders that have no name."""
    if name.startswith(FOLDERS):
        return []
    collection, domains = domains_of(name)
    return [(place(collection, data_root) / d, d) for d in collection.counts if d not in domains]


def place(collection: Collection, data_root: Path | None = None) -> Path:
    """The folder of `collection` under the data root: the first of its places that holds a domain, else the first place."""
    root = data_root or paths.data_root()
    there = (root / p for p in collection.places if any((root / p / d).is_dir() for d in collection.counts))
    return next(there, root / collection.places[0])


def check_whole(name: str, domain: str, root: Path, files: Iterable[str]) -> None:
    """Raise `BadSetting` if the `files` of a `domain`, which lies at `root`, are not those of its collection; other pairs need no check.

    The message names each class whose number of images differs, what is expected, and how to get the data.
    """
    if name.startswith(FOLDERS):
        return
    collection, _ = domains_of(name)
    way_out = (
        f"{collection.source}, in {root.parent}, or name another data root with --data-root or $MASKUTILS_DATA_ROOT"
    )
    if not root.is_dir():
        raise BadSetting(f"domain {domain!r} of {name} is not there: {root} is no folder; {way_out}")
    names = sorted(f"{file.parent.name}/{file.stem}" for file in map(Path, files))
    expected = dict(zip(collection.classes, collection.counts[domain], strict=True))
    found = Counter(file.split("/")[0] for file in names)
    differing = [
        f"{c} has {found[c]}, not {expected.get(c, 0)}"
        for c in sorted(expected.keys() | found.keys())
        if not 0 <= expected.get(c, 0) - found[c] <= (collection.lacking if c in expected else 0)
    ]
    if differing:
        raise BadSetting(f"domain {domain!r} of {name} has other numbers of images: {'; '.join(differing)}; {way_out}")
    digest = hashlib.sha256("\n".join(names).encode()).hexdigest()[:16]
    if digest != collection.digests.get(domain, digest):
        told = f"their list has the digest {digest}, not {collection.digests[domain]}"
        own = f"for images of your own write {FOLDERS}SOURCE:TARGET"
        raise BadSetting(f"domain {domain!r} of {name} has files of other names ({told}); {way_out}; {own}")
