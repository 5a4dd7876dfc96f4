"""Source notebooks: where they are, what they run, and whether what they are given is what they declare.

Here and in the plan torch is imported only to check names of runs that are to run: it takes longer than the rest of a plan.
"""

import ast
import json
from collections.abc import Mapping
from functools import cache
from itertools import chain
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from maskutils.core import paths
from maskutils.core.approaches import described, names
from maskutils.core.checks import BadSetting, fraction, known, positive
from maskutils.study.inputs import listed, with_whole_paths
from maskutils.study.setup import NESTED, known_setting, setup_in

LINE = 60  # characters of a cell's first line
TYPES: dict[str, Any] = {"str": str, "int": int, "float": float, "bool": bool, "dict": dict}
TYPES |= {
    "list[str]": list[str],
    "list[int]": list[int],
    "list[float]": list[float],
    "list[dict]": list[dict[str, Any]],
}


def find_notebook(name: str) -> Path:
    """The source notebook `name`; else `BadSetting` that lists them."""
    folder = notebooks_folder()
    return folder / f"{known(name, [p.stem for p in folder.glob('*.ipynb')], f'notebook (in {folder})')}.ipynb"


def notebooks_folder() -> Path:
    """The folder of the source notebooks. Raises `BadSetting` with the way out if there is none."""
    if not any((folder := paths.notebooks_dir()).glob("*.ipynb")):
        raise BadSetting(f"there are no notebooks at {folder}; {paths.INIT}")
    return folder


def read_cells(path: Path) -> list[dict[str, Any]]:
    """The cells of the notebook at `path`; read again only if it changed. Raises `BadSetting` if it is no notebook of format 4."""
    stat = path.stat()
    return _cells(path, stat.st_mtime_ns, stat.st_size)


@cache
def _cells(path: Path, *version: int) -> list[dict[str, Any]]:
    """Without nbformat, which takes two seconds to import."""
    try:
        notebook = json.loads(path.read_text(encoding="utf-8"))
        if (version := notebook["nbformat"]) != 4:
            raise BadSetting(f"{path} is of format {version}; convert it with: jupyter nbconvert --to notebook")
        language = notebook.get("metadata", {}).get("kernelspec", {}).get("language") or "python"
        cells = [cell | {"source": "".join(cell["source"])} for cell in notebook["cells"]]
        for cell in cells:
            if not isinstance(cell["cell_type"], str) or not isinstance(cell["metadata"].get("tags"), list | None):
                raise ValueError("a cell is of no type, or its tags are no list")
            cell["source"].encode()  # which half of a character cannot be
        if language.lower() != "python":
            raise BadSetting(f"{path} is a notebook in {language}; the batch runs those in Python")
    except BadSetting:
        raise
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise BadSetting(f"{path} is not a notebook or is damaged ({error!r}); restore it with git") from None
    return cells


def code_cells(path: Path) -> list[str]:
    """Sources of the code cells of a notebook."""
    return [cell["source"] for cell in read_cells(path) if cell["cell_type"] == "code"]


def cell_name(number: int, source: str) -> str:
    """How a code cell is told: its number among the code cells of the source notebook, and its first line that is no comment."""
    lines = [line.strip() for line in source.splitlines() if line.strip()]
    line = next((line for line in lines if not line.startswith("#")), (lines or ["empty"])[0])
    return f"code cell {number} ({clipped(line)})"


def clipped(line: str) -> str:
    """The beginning of a `line` that is too long to be told."""
    return line if len(line) <= LINE else line[:LINE] + "…"


def notebook_parameters(path: Path) -> dict[str, tuple[str, Any]]:
    """Name -> (type as written, default) of the one cell tagged `parameters`: one `name: type = literal` a line.

    Raises `BadSetting` where there is no such cell, more than one, or a line of another form: papermill would inject
    all the same.
    """
    cells = [c for c in read_cells(path) if "parameters" in (c["metadata"].get("tags") or ())]
    if len(cells) != 1:
        raise BadSetting(f"{path.name} has {len(cells)} cells tagged 'parameters'; it needs exactly one")
    found = {}
    try:
        lines = ast.parse(cells[0]["source"]).body
    except SyntaxError as error:
        raise BadSetting(f"{path.name}, parameters cell: {error}; it needs one `name: type = literal` a line") from None
    for node in lines:
        try:
            kind = ast.unparse(node.annotation)
            default = _type(known(kind, TYPES, "parameter type")).validate_python(ast.literal_eval(node.value))
            found[node.target.id] = (kind, default)
        except (AttributeError, ValueError, TypeError) as error:
            why = "it has no type" if isinstance(error, AttributeError) else "the value is no literal"
            if isinstance(error, BadSetting | ValidationError):
                why = str(error) if isinstance(error, BadSetting) else f"the value is not of type {kind}"
            raise BadSetting(
                f"{path.name}, parameters cell: {ast.unparse(node)!r} is not `name: type = literal` ({why})"
            ) from None
    return found


@cache
def _type(kind: str) -> TypeAdapter[Any]:
    return TypeAdapter(TYPES[kind], config={"strict": True})


def check_parameters(run_id: str, given: Mapping[str, Any], declared: Mapping[str, tuple[str, Any]]) -> dict[str, Any]:
    """The parameters of a run, with defaults. Raises `BadSetting`, naming the run, for a name, type or range that is wrong."""
    resolved = {name: default for name, (_, default) in declared.items()}
    try:
        for name, value in given.items():
            kind = declared[known_setting(name, declared, value)][0]
            # `Setup` says more of its parts than that they are no dict.
            resolved[name] = value if name in NESTED else _type(kind).validate_python(value)
        resolved = with_whole_paths(resolved)
        setup_in(resolved)
        _check_json(resolved)
    except ValidationError:
        quotes = "; YAML takes yes, no, on and off for true and false: put text in quotes"
        hint = quotes * (
            "str" in kind and any(isinstance(v, bool) for v in (value if isinstance(value, list) else [value]))
        )
        raise BadSetting(f"{run_id}: parameter {name} = {value!r} is not of type {kind}{hint}") from None
    except BadSetting as error:
        raise BadSetting(f"{run_id}: {error}") from None
    return resolved


def _check_json(parameters: Mapping[str, Any]) -> None:
    """Raises `BadSetting` for what does not come back as it was from JSON, in which states are kept."""
    for name, value in parameters.items():
        try:
            kept = json.loads(json.dumps(value, allow_nan=False)) == value
        except ValueError:
            raise BadSetting(f"parameter {name} = {value!r} is not finite; give a number") from None
        except TypeError:
            kept = False
        if not kept:
            raise BadSetting(
                f"parameter {name} = {value!r} cannot be kept as JSON; give numbers, text, lists, and dicts with text for keys"
            )


def check_setup(run_id: str, parameters: Mapping[str, Any]) -> None:
    """Raises `BadSetting`, naming the run, for an unknown pair, network or method, and for what no `Setup` knows the range of."""
    from maskutils.study import artefacts  # not experiment, which loads pandas too

    try:
        artefacts.check_names(setup_in(parameters))
        _check_more(parameters)
    except BadSetting as error:
        raise BadSetting(f"{run_id}: {error}") from None


def _check_more(parameters: Mapping[str, Any]) -> None:
    """Names and ranges of parameters that no `Setup` holds. Raises `BadSetting`."""
    from maskutils.data.load import check_pair
    from maskutils.study.artefacts import usual

    for name in [*listed(parameters, "rankings"), *([parameters["method"]] if "method" in parameters else ())]:
        known(name, names("mask", "control"), "method")
    for name in listed(parameters, "chosen"):
        described(name)
    for pair in listed(parameters, "pairs"):
        check_pair(pair)
    method = parameters.get("method")
    for option in chain.from_iterable(listed(parameters, "settings") if method else ()):
        known(option, usual(method), f"option of {method}")
    for share in listed(parameters, "curve"):
        fraction("curve", share)
    if not isinstance(grid := parameters.get("grid", 1), list):
        positive("grid", grid)
