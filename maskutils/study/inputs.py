"""The user's own inputs to a study: image folders and weight files. Checks that they are there, and names their content.

Torch is imported only where files are checked: a plan of what is done takes less time than that.
"""

import ast
import os
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from maskutils.core import paths
from maskutils.core.files import file_digest, is_path, stamp
from maskutils.data.named import FOLDERS, as_folders, folder_of, is_folders, others
from maskutils.study.setup import Images


def with_whole_paths(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """`parameters` with the paths in `pair`, `pairs` and `weights` made absolute: a kernel has a working directory of its own."""
    whole = dict(parameters)
    if str(whole.get("pair", "")).startswith(FOLDERS):
        whole["pair"] = FOLDERS + ":".join(_whole(path) for path in _folders(whole["pair"]))
    if pairs := listed(whole, "pairs"):
        whole["pairs"] = [with_whole_paths({"pair": pair})["pair"] for pair in pairs]
    if is_path(str(whole.get("weights", ""))):
        whole["weights"] = _whole(whole["weights"])
    return whole


def check_inputs(*notebooks: Mapping[str, Any]) -> None:
    """Check the image folders and weight files that the parameters of `notebooks` name, each once.

    Raises `BadSetting` for what is missing or has the wrong form.
    """
    read = [(pair, Images(**p.get("images", {})).classes) for p in notebooks for pair in pairs_in(p)]
    for pair, classes in dict.fromkeys(read):
        # Here and below, for it takes torch: where nothing is to be checked it is not needed.
        from maskutils.data.load import check_there

        check_there(pair, classes)
    for model, weights in _weights(notebooks):
        if is_path(weights):
            from maskutils.models.networks import check_weights

            check_weights(model, weights)


def download_weights(*notebooks: Mapping[str, Any]) -> None:
    """Download torchvision's weights that the parameters of `notebooks` name, each once. Raises `BadSetting` if that fails."""
    for model, weights in _weights(notebooks):
        if not is_path(weights):
            from maskutils.models.networks import build_model

            build_model(model, in_channels=3, image_size=224, weights=weights)


def _weights(notebooks: Iterable[Mapping[str, Any]]) -> list[tuple[str, str]]:
    """Model and weights of `notebooks`, each once."""
    return list(dict.fromkeys((p.get("model", ""), p["weights"]) for p in notebooks if p.get("weights")))


def pairs_in(parameters: Mapping[str, Any]) -> list[str]:
    """The pairs of domains that a notebook with `parameters` reads."""
    return [parameters["pair"]] if "pair" in parameters else listed(parameters, "pairs")


def listed(parameters: Mapping[str, Any], name: str) -> list[Any]:
    """The values of a parameter that is a list; none of another kind, for a notebook of one's own may have what it likes by that name."""
    value = parameters.get(name)
    return value if isinstance(value, list) else []


@cache
def stamps(pair: str, weights: str = "") -> tuple[str, ...]:
    """Names of the content behind `pair` and `weights`, read once per process; none for data that ship in packages.

    A weight file is named by its digest, image folders by the names, sizes and modification times of all files, torchvision's data sets
    by the data root.
    """
    found = [file_digest(Path(weights).expanduser())] if is_path(weights) else []
    if is_folders(pair):
        folders = [Path(folder).expanduser() for folder in _folders(as_folders(pair))]
        folders += [folder_of(*other) for other in others(pair)]  # they take no part, and are read in the end
        files = [file for folder in folders for file in _files(folder)]
        found.append(stamp(files))
    elif pair not in packaged():
        found.append(str(paths.data_root()))
    return tuple(found)


@cache
def packaged() -> frozenset[str]:
    """Names of the pairs that ship in packages; read from the source, for to import it takes torch."""
    tree = ast.parse((paths.PACKAGE / "data" / "embedded.py").read_text(encoding="utf-8"))
    made = (node for node in tree.body if isinstance(node, ast.FunctionDef))
    return frozenset(f.name for f in made if "packaged" in map(ast.unparse, f.decorator_list))


def _files(folder: Path) -> list[Path]:
    """All files in `folder`, also behind links, as torchvision reads it."""
    return sorted(Path(at, name) for at, _, names in os.walk(folder, followlinks=True) for name in names)


def _folders(pair: str) -> list[str]:
    return pair.removeprefix(FOLDERS).split(":")


def _whole(path: str) -> str:
    return os.path.abspath(os.path.expanduser(path))
