"""What made a number: the code, the versions, the machine."""

import ast
import hashlib
import inspect
import os
import platform
import re
import resource
import secrets
import subprocess
import sys
import textwrap
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from maskutils import HOMES
from maskutils.core import paths


@cache
def code_key(*modules: str) -> str:
    """16 hex digits that name the code of our `modules` and of all of ours that they import, without comments and docstrings.

    Modules are named in full, as "maskutils.masks.mask".
    """
    return hashlib.sha256("".join(_bare(m) for m in sorted(closure(*modules))).encode()).hexdigest()[:16]


def closure(*modules: str) -> set[str]:
    """Our modules that `modules` import, directly or not, themselves included."""
    found, todo = set(), list(modules)
    while todo:
        if (module := todo.pop()) not in found:
            found.add(module)
            todo += imports_in(source := _source(module))
            if (
                _file(module).name == "__init__.py" and "iter_modules(__path__)" in source
            ):  # a package that loads whatever lies in its folder
                todo += [
                    f"{module}.{file.stem}" for file in _file(module).parent.glob("*.py") if file.stem != "__init__"
                ]
    return found


def imports_in(source: str, quoted: bool = True) -> list[str]:
    """Our modules that Python `source` imports at the top, inside functions or, if `quoted`, by a name in quotes; sorted."""
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif (
            isinstance(node, ast.ImportFrom) and node.module == "maskutils"
        ):  # a public name lives in a module of its own
            names |= {f"maskutils.{HOMES.get(alias.name, alias.name)}" for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        elif quoted and isinstance(node, ast.Constant) and re.fullmatch(r"maskutils(\.\w+)+", str(node.value)):
            names.add(str(node.value))
    return sorted(name for name in names if name.split(".")[0] == "maskutils" and _file(name).is_file())


def imports_in_cell(cell: str) -> list[str]:
    """`imports_in` of a notebook's cell, in which lines may be IPython's own (`%time`, `!ls`, `x = !ls`)."""
    from IPython.core.inputtransformer2 import TransformerManager

    try:
        return imports_in(TransformerManager().transform_cell(cell))
    except SyntaxError:  # another language (`%%bash` becomes a string, so this is a cell that cannot run)
        return []


def _file(module: str) -> Path:
    """The source file of one of our modules; a path at which there is none for another name."""
    path = paths.PACKAGE.joinpath(*module.split(".")[1:])
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def _source(module: str) -> str:
    return _file(module).read_text(encoding="utf-8")


@cache
def _bare(module: str) -> str:
    """The module's syntax tree as text; an edit of a comment, a docstring or the layout leaves it as it is."""
    return ast.dump(_without_prose(ast.parse(_source(module))))


def _without_prose(tree: ast.Module) -> ast.Module:
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node) is not None:
            node.body = node.body[1:]
    return tree


@cache
def own_code(approach: Any) -> str:
    """16 hex digits that name the code of a mask layer, a ranking or a protocol, without its description and its prose.

    One whose source cannot be read (it was typed at a prompt) has a name of its own in every process: its results are made again.
    """
    classes = [
        c
        for c in getattr(approach, "__mro__", [approach])
        if c and c.__module__ not in ("builtins", "torch.nn.modules.module")
    ]
    try:
        trees = [_without_prose(ast.parse(textwrap.dedent(inspect.getsource(c)))) for c in classes]
    except (OSError, TypeError):
        return secrets.token_hex(8)
    for tree in trees:
        for node in tree.body:
            if isinstance(node, ast.ClassDef | ast.FunctionDef):
                node.decorator_list = []
    return hashlib.sha256("".join(map(ast.dump, trees)).encode()).hexdigest()[:16]


@cache
def versions() -> dict[str, str]:
    """Versions that the numbers depend on: ours, Python's, torch's and torchvision's."""
    ours = {name: version(name) for name in ("maskutils", "torch", "torchvision", "numpy", "scikit-learn")}
    return {"python": platform.python_version(), **ours}


@cache
def git_commit() -> str:
    """The commit of the checkout, with "-dirty" where package or notebooks differ from it; "unknown" outside one."""
    if paths.checkout() is None:  # an environment may lie in somebody else's repository
        return "unknown"
    try:
        return _git("rev-parse", "--short=12", "HEAD") + (
            "-dirty" if _git("status", "--porcelain", "maskutils", "notebooks") else ""
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def _git(*arguments: str) -> str:
    return subprocess.run(
        ["git", *arguments], cwd=paths.PACKAGE.parent, capture_output=True, text=True, check=True
    ).stdout.strip()


def begin_peak() -> bool:
    """Let `peak_bytes` begin anew with what is in use now; whether that could be done (on Linux and on a GPU it can)."""
    import torch  # here, for the command line does without

    if torch.cuda.is_initialized():
        torch.cuda.reset_peak_memory_stats()
        return True
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return False
    return True


def peak_bytes() -> int:
    """The most memory that this process has had in use since `begin_peak`, or since it began; that of the GPU, where it uses one."""
    import torch

    if torch.cuda.is_initialized():
        return torch.cuda.max_memory_allocated()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def cores() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
