"""Pairs of image folders, with one folder for each class. All images are checked before anything else is done."""

import math
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import TensorDataset
from torchvision.datasets.folder import IMG_EXTENSIONS, has_file_allowed_extension, make_dataset
from torchvision.transforms.functional import to_pil_image

from maskutils.core.checks import BadSetting, some_of, warn
from maskutils.core.files import stamp
from maskutils.core.seeds import generator
from maskutils.data import pair as base
from maskutils.data import pictures
from maskutils.data.named import FOLDERS, as_folders, check_collection, folder_of, others
from maskutils.data.pair import Domain, Loading, Pair, Pixels, subset
from maskutils.data.pictures import Recipe, Streamed, how


@dataclass(frozen=True)
class Folder:
    """One side of a pair: its N image files and the class of each, an index into `classes`."""

    root: Path
    name: str
    classes: tuple[str, ...]
    files: tuple[str, ...]
    labels: tuple[int, ...]

    def only(self, files: Iterable[str], classes: Iterable[str] | None = None) -> "Folder":
        """This folder with these files only and, if given, with these classes only."""
        names = self.classes if classes is None else tuple(sorted(classes))
        files, new = set(files), {c: i for i, c in enumerate(names)}
        own = [(f, self.classes[y]) for f, y in zip(self.files, self.labels, strict=True)]
        kept = [(f, new[c]) for f, c in own if f in files and c in new]
        return replace(self, classes=names, files=tuple(f for f, _ in kept), labels=tuple(y for _, y in kept))


def pair_of(name: str, seed: int, loading: Loading) -> Pair:
    """The pair "folders:SOURCE:TARGET" of two folders, each with a folder of images for each class; or a pair of `data.named`, as
    "pacs:photo:sketch". The latter has the source's domains that take no part as its `others`.

    Images are float32 (C, H, W), normalised with the mean and std of the source's train split, or as `loading.normalise` says.
    `loading.transform` replaces size, channels and normalisation. Images in memory are decoded and transformed once, and kept as
    8-bit values where they have no more. Each class is split 65 : 10 : 25, with at least one image in each part. Files and
    folders whose name begins with a dot are left out. A copy of a file under another name is not recognised.

    Raises `BadSetting`, with the way out, for missing folders or another layout, and for classes of which only a part is on both sides. So
    it does for images that are damaged, too few, in both source and target, or of several modes or sizes.
    """
    check_collection(name)
    both = sides_of(as_folders(name), loading.classes)
    unused = [_listed(folder_of(collection, domain), domain) for collection, domain in others(name)]
    sides, headers = _looked_at([*both, *unused], loading.damaged)
    recipe = pictures.recipe_for(headers, loading)
    loaded = [_loaded(side, recipe, loading) for side in sides]
    parts = [_split(side, seed) for side, _ in loaded]
    if loading.transform is None:
        mean, std = (torch.tensor(values)[:, None, None] for values in base.IMAGENET)
        if loading.normalise == "source":
            mean, std = pictures.statistics(loaded[0][1], parts[0][0], seed)
        loaded = [(side, pictures.with_statistics(data, mean, std)) for side, data in loaded]
    domains = []
    for (side, data), indices in zip(loaded, parts, strict=True):
        train, val, test = (subset(data, i) for i in indices)
        domains.append(Domain(side.name, train, val, test, side.classes))
    return Pair(name, domains[0], domains[1], tuple(domains[2:]))


def sides_of(name: str, classes: str = "all") -> list[Folder]:
    """Both folders of "folders:SOURCE:TARGET", with no image opened. Raises `BadSetting` if they are missing or do not match."""
    source, target = (_listed(root, short) for root, short in _roots(name))
    _apart(source, target)
    return [_enough(side) for side in _aligned(source, target, classes)]


def _roots(name: str) -> list[tuple[Path, str]]:
    """The two folders of `name`, each with the shortest name that tells them apart."""
    parts = name.removeprefix(FOLDERS).split(":")
    if len(parts) != 2 or not all(parts):
        raise BadSetting(f"{name!r} is not of the form '{FOLDERS}SOURCE:TARGET', two folders whose paths have no ':'")
    roots = [Path(os.path.abspath(Path(part).expanduser())) for part in parts]
    for depth in range(1, max(len(root.parts) for root in roots) + 1):
        names = ["/".join(root.parts[-depth:]) for root in roots]
        if names[0] != names[1]:
            break
    return list(zip(roots, names, strict=True))


def _listed(root: Path, name: str) -> Folder:
    """The classes and images in `root`, in the order of their names."""
    if not root.is_dir():
        raise BadSetting(f"{root} is not a folder; give one that holds a folder of images for each class")
    classes = tuple(sorted(c.name for c in root.iterdir() if c.is_dir() and not c.name.startswith(".")))
    if not classes:
        raise BadSetting(f"{root} has no class folders; put the images of each class into its own folder there")

    def is_image(file: str) -> bool:
        hidden = any(part.startswith(".") for part in Path(file).relative_to(root).parts)
        return has_file_allowed_extension(file, IMG_EXTENSIONS) and not hidden

    labels = {c: i for i, c in enumerate(classes)}
    found = make_dataset(root, labels, is_valid_file=is_image, allow_empty=True)
    return Folder(root, name, classes, tuple(f for f, _ in found), tuple(y for _, y in found))


def _enough(folder: Folder) -> Folder:
    """`folder` itself. Raises `BadSetting` if a class has fewer images than there are splits."""
    counts = Counter(folder.labels)
    for label, name in enumerate(folder.classes):
        if counts[label] < 3:
            raise BadSetting(
                f"class folder {folder.root / name} has {counts[label]} readable images ({' '.join(IMG_EXTENSIONS)}); a class needs 3, "
                "one each to train, validate and test: add images, or take the folder away"
            )
    return folder


def _apart(source: Folder, target: Folder) -> None:
    """Raise `BadSetting` if the two folders share a file, also through links."""
    times = Counter(os.path.realpath(file) for file in source.files + target.files)
    twice = [file for file, n in times.items() if n > 1]
    if twice:
        raise BadSetting(
            f"{len(twice)} image files are there twice in {source.root} and {target.root}, such as {twice[0]}: training images would "
            "leak into the test, and the source into the target; give two folders that share no file"
        )


def _aligned(source: Folder, target: Folder, classes: str) -> tuple[Folder, Folder]:
    """Both sides as they are if they share all classes or none; or, if `classes` is "common", with the shared classes only."""
    common = set(source.classes) & set(target.classes)
    own = {side.name: [c for c in side.classes if c not in common] for side in (source, target)}
    lists = [f"{name} has {some_of(names, 20) or 'none'}" for name, names in own.items()]
    if classes == "common":
        if not common:
            way_out = f"Rename the folders, or set classes all {how('classes', 'all')}"
            raise BadSetting(f"no class is in common: {'; '.join(lists)}. {way_out}")
        return source.only(source.files, common), target.only(target.files, common)
    if common and source.classes != target.classes:
        found = f"{len(common)} classes are on both sides and others on one only: {'; '.join(lists)}"
        way_out = f"set classes common to keep only those {how('classes', 'common')}"
        raise BadSetting(f"{found}. Rename or move them, or {way_out}")
    return source, target


def _looked_at(sides: Sequence[Folder], damaged: str) -> tuple[list[Folder], list[pictures.Header]]:
    """The sides without damaged images, if the policy `damaged` allows to leave them out, and the headers of the rest."""
    files = [file for side in sides for file in side.files]
    headers = pictures.headers(tuple(files), stamp(files))
    _leave_out([file for file in files if file not in headers], len(files), damaged)
    sides = [_enough(side.only(headers)) for side in sides]
    unknown = Counter(mode for mode, _ in headers.values() if mode not in pictures.READABLE)
    if unknown:
        raise BadSetting(f"values of mode {pictures.counted(unknown)} have no fixed range; save with 8 or 16 bits")
    return sides, list(headers.values())


def _leave_out(damaged: Sequence[str], n: int, policy: str) -> None:
    """Warn of the `damaged` of `n` images. Raises `BadSetting` if the `policy` is to refuse them."""
    if damaged:
        what = f"{len(damaged)} of {n} images cannot be read: {some_of(damaged)}"
        if policy == "refuse":
            raise BadSetting(f"{what}; replace them, or set damaged skip to leave them out {how('damaged', 'skip')}")
        warn(f"{what}; they are left out")


def _loaded(folder: Folder, recipe: Recipe, loading: Loading) -> tuple[Folder, TensorDataset | Streamed]:
    """`folder` without the images that prove damaged when decoded, and its images, in memory if they fit."""
    shape = (len(folder.files), *recipe.shape)
    if math.prod(shape) * (1 if recipe.eight_bits else 4) > base.IN_MEMORY:
        return folder, Streamed(folder.files, folder.labels, recipe, loading.workers)
    if recipe.eight_bits:
        x, kept = pictures.pixels(folder.files, stamp(folder.files), recipe)
    else:
        x, kept = pictures.read_all(folder.files, recipe)
    _leave_out(sorted(set(folder.files) - set(kept)), len(folder.files), loading.damaged)
    folder = _enough(folder.only(kept))
    labels = torch.tensor(folder.labels)
    return folder, Pixels(x, torch.arange(len(x)), labels) if recipe.eight_bits else TensorDataset(x, labels)


def _split(folder: Folder, seed: int) -> list[Tensor]:
    """Indices of train, val and test in a mixed order: 65, 10 and 25 % of each class, but at least one image.

    The test images are the same for every seed.
    """
    labels, parts = torch.tensor(folder.labels), []
    for label, name in enumerate(folder.classes):
        members = (labels == label).nonzero().flatten()
        n_val, n_test = (max(1, round(share * len(members))) for share in (0.1, 0.25))
        fixed = torch.randperm(len(members), generator=generator(base.FIXED, f"test/{folder.name}/{name}"))
        rest, test = members[fixed].split([len(members) - n_test, n_test])
        rest = rest[torch.randperm(len(rest), generator=generator(seed, f"split/{folder.name}/{name}"))]
        parts.append([*rest.split([len(rest) - n_val, n_val]), test])
    mix = generator(seed, f"mix/{folder.name}")
    whole = [torch.cat(part) for part in zip(*parts, strict=True)]
    return [part[torch.randperm(len(part), generator=mix)] for part in whole]


def export_folders(pair: Pair, root: Path, n: int = 1000) -> tuple[str, str]:
    """Write the first `n` training images of each side of `pair` as PNG files under `root`, and return the two folders.

    The pair "folders:SOURCE:TARGET" reads them back. Each side is scaled to the full range of grey values or colours.
    """
    for side in (pair.source, pair.target):
        images, labels = zip(*(side.train[i] for i in range(min(n, len(side.train)))), strict=True)
        x = torch.stack(images)
        pixels = ((x - x.min()) / (x.max() - x.min()) * 255).round().byte()
        for i, (picture, label) in enumerate(zip(pixels, labels, strict=True)):
            folder = Path(root) / side.name / side.classes[int(label)]
            folder.mkdir(parents=True, exist_ok=True)
            to_pil_image(picture).save(folder / f"{i:05d}.png")
    return str(Path(root) / pair.source.name), str(Path(root) / pair.target.name)
