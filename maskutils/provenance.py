"""What made a number: the code, the versions, the machine.

Owns the hash of our own sources that decides what is run again. It must not import what it hashes.
"""

import ast
import hashlib
import os
import platform
import resource
import subprocess
import sys
from functools import cache
from importlib.metadata import version
from pathlib import Path

from maskutils import paths


@cache
def code_key(*modules: str) -> str:
    """16 hex digits that name the code of our `modules` and of all of ours that they import, without comments and
    docstrings.
    """
    return hashlib.sha256("".join(_bare(m) for m in sorted(closure(*modules))).encode()).hexdigest()[:16]


def closure(*modules: str) -> set[str]:
    """Our modules ("train", "__init__") that `modules` import, directly or not, themselves included."""
    found, todo = set(), list(modules)
    while todo:
        if (module := todo.pop()) not in found:
            found.add(module)
            todo += imports_of(module)
    return found


def files_of(module: str) -> list[Path]:
    """The source files of one of our modules: one, or those of its folder."""
    folder = paths.PACKAGE / module
    return sorted(folder.glob("*.py")) if folder.is_dir() else [paths.PACKAGE / f"{module}.py"]


def imports_of(module: str) -> set[str]:
    """Our other modules that one of our modules imports, at the top or inside functions."""
    return {name for file in files_of(module) for name in imports_in(file.read_text(encoding="utf-8"))} - {module}


def imports_in(source: str) -> list[str]:
    """Our modules that Python `source` imports; the bare package is "__init__". Lines that are IPython's own are left out."""
    names = []
    lines = [line for line in source.splitlines() if not line.lstrip().startswith(("%", "!"))]
    try:
        tree = ast.parse("\n".join(lines))
    except SyntaxError:  # a cell in another language, or a question to IPython
        return names
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module == "maskutils":
            ours = [a.name for a in node.names if files_of(a.name) and files_of(a.name)[0].exists()]
            names += ours + ["__init__"] * (len(ours) < len(node.names))
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("maskutils."):
            names.append(node.module.split(".")[1])
        elif isinstance(node, ast.Import):
            ours = [a.name.split(".") for a in node.names if a.name.split(".")[0] == "maskutils"]
            names += [name[1] if len(name) > 1 else "__init__" for name in ours]
    return names


@cache
def _bare(module: str) -> str:
    """The module's syntax trees as text; an edit of a comment, a docstring or the layout leaves it as it is."""
    trees = [ast.parse(file.read_text(encoding="utf-8")) for file in files_of(module)]
    for node in (node for tree in trees for node in ast.walk(tree)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node) is not None:
            node.body = node.body[1:]
    return "".join(map(ast.dump, trees))


@cache
def versions() -> dict[str, str]:
    """Versions that the numbers depend on: ours, Python's, torch's and torchvision's."""
    ours = {name: version(name) for name in ("maskutils", "torch", "torchvision", "numpy", "scikit-learn")}
    return {"python": platform.python_version(), **ours}


@cache
def git_commit() -> str:
    """The commit of the checkout, with "-dirty" where package or notebooks differ from it; "unknown" outside one."""
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
