"""What of the user's own a study reads: image folders and files of weights.

Owns where they are and what names their content. It must not know what is in them.
"""

import os
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from maskutils.core import paths
from maskutils.core.checks import content_key
from maskutils.core.files import file_digest
from maskutils.data.embedded import PACKAGED
from maskutils.data.load import check_there
from maskutils.data.pair import FOLDERS
from maskutils.models.networks import build_model, is_file, weights_file
from maskutils.study.setup import Images


def with_whole_paths(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """`parameters` with the paths in `pair`, `pairs` and `weights` made absolute: a kernel has a working directory of its own."""
    whole = dict(parameters)
    if str(whole.get("pair", "")).startswith(FOLDERS):
        whole["pair"] = FOLDERS + ":".join(_whole(path) for path in _folders(whole["pair"]))
    if "pairs" in whole:
        whole["pairs"] = [with_whole_paths({"pair": pair})["pair"] for pair in whole["pairs"]]
    if is_file(str(whole.get("weights", ""))):
        whole["weights"] = _whole(whole["weights"])
    return whole


def check_inputs(*notebooks: Mapping[str, Any]) -> None:
    """Raises `BadParameter` if image folders or weights that the parameters of `notebooks` name are not there or not of the right form;
    each is looked at once. Weights of torchvision's are downloaded first, so that kernels find them.
    """
    classes = [Images(**p.get("images", {})).classes for p in notebooks]
    for pair, shared in {(pair, c): None for p, c in zip(notebooks, classes, strict=True) for pair in pairs_in(p)}:
        check_there(pair, shared)
    for model, weights in {(p.get("model", ""), p["weights"]): None for p in notebooks if p.get("weights")}:
        if is_file(weights):
            weights_file(weights)
        else:
            build_model(model, in_channels=3, image_size=224, weights=weights)


def pairs_in(parameters: Mapping[str, Any]) -> list[str]:
    """The pairs of domains that a notebook with `parameters` reads."""
    return [parameters["pair"]] if "pair" in parameters else list(parameters.get("pairs", ()))


@cache
def stamps(pair: str, weights: str = "") -> tuple[str, ...]:
    """What names the content of the files behind `pair` and `weights`, as they are when a process first asks; nothing for what
    ships in packages.

    Of a file of weights its digest; of image folders the names, sizes and times of change of all files, as `make` has it; of
    torchvision's sets the data root.
    """
    found = [file_digest(Path(weights).expanduser())] if is_file(weights) else []
    if pair.startswith(FOLDERS):
        files = [file for folder in _folders(pair) for file in _files(Path(folder).expanduser())]
        found.append(content_key([(str(p), p.stat().st_size, p.stat().st_mtime_ns) for p in files]))
    elif pair not in PACKAGED:
        found.append(str(paths.data_root()))
    return tuple(found)


def _files(folder: Path) -> list[Path]:
    """All files in `folder`, also behind links, as torchvision reads it."""
    return sorted(Path(at, name) for at, _, names in os.walk(folder, followlinks=True) for name in names)


def _folders(pair: str) -> list[str]:
    return pair.removeprefix(FOLDERS).split(":")


def _whole(path: str) -> str:
    return os.path.abspath(os.path.expanduser(path))
