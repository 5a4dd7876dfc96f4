"""What made a number: the code, the versions, the machine."""

import ast
import contextlib
import inspect
import os
import platform
import re
import resource
import secrets
import subprocess
import textwrap
from functools import cache
from importlib.metadata import version
from importlib.util import resolve_name
from itertools import accumulate
from pathlib import Path
from typing import Any

from maskutils import HOMES
from maskutils.core import paths
from maskutils.core.checks import BadSetting, digits

# Part of the names of what is cached. Raise one by hand when the numbers of its stage change: tests/test_golden.py tells.
STAGES = {"source": 2, "fisher": 1, "mask": 1, "transfer": 2, "score": 1}
DISPLAY = ("extra_repr", "_repr_html_")  # methods that only show an object: no number depends on them


def code_keys(*modules: str) -> dict[str, str]:
    """16 hex digits for each of our `modules` and all of ours that they import: its code, without comments and docstrings.

    Modules are named in full, as "maskutils.masks.mask".
    """
    return {module: _key(module) for module in sorted(_closure(frozenset(modules)))}


@cache
def _closure(modules: frozenset[str]) -> frozenset[str]:
    """Our modules that `modules` import, directly or not, themselves included."""
    found, todo = set(), list(modules)
    while todo:
        if (module := todo.pop()) not in found:
            found.add(module)
            file, source = _file(module), _source(module)
            todo += imports_in(source)
            if file.name == "__init__.py" and "iter_modules(__path__)" in source:  # it loads all beside it
                todo += [f"{module}.{other.stem}" for other in file.parent.glob("*.py") if other != file]
    return frozenset(found)


@cache
def imports_in(source: str, quoted: bool = True) -> list[str]:
    """Our modules that Python `source` imports at the top, inside functions or, if `quoted`, by a name in quotes; sorted."""
    names = _names_in(source, quoted)
    return sorted(name for name in names if name.split(".")[0] == "maskutils" and _file(name).is_file())


def _names_in(source: str, quoted: bool, package: str = "") -> set[str]:
    """What `source`, of a module of that `package`, may import, by full names."""
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module == "maskutils":  # each name has a module of its own
            names |= {f"maskutils.{HOMES.get(alias.name, alias.name)}" for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            with contextlib.suppress(ImportError):  # of a relative one that leads out of the package
                module = resolve_name("." * node.level + (node.module or ""), package)
                names |= {module, *(f"{module}.{alias.name}" for alias in node.names)}
        elif quoted and isinstance(node, ast.Constant) and re.fullmatch(r"maskutils(\.\w+)+", str(node.value)):
            names.add(str(node.value))
    return names


@cache
def python_of(cell: str) -> str:
    """A notebook's cell as Python, in which lines may be IPython's own (`%time`, `!ls`, `x = !ls`); empty if it is neither."""
    try:
        ast.parse(cell)
    except SyntaxError:
        from IPython.core.inputtransformer2 import TransformerManager  # takes half a second

        cell = TransformerManager().transform_cell(cell)
        try:
            ast.parse(cell)
        except SyntaxError:  # another language (`%%bash` becomes a string, so this is a cell that cannot run)
            return ""
    return cell


@cache
def cell_key(cell: str) -> str:
    """16 hex digits that name the code of a notebook's cell, without comments and layout."""
    code = python_of(cell)
    return digits(ast.dump(ast.parse(code)) if code else cell)


def modules_beside(folder: Path, *cells: str) -> dict[str, str]:
    """Sources of the modules in `folder`, where a notebook lies, that its `cells` import, directly or not, by name."""
    found, todo = {}, [("", python_of(cell)) for cell in cells]
    while todo:
        package, source = todo.pop()
        parts = [name.split(".") for name in _names_in(source, False, package)]
        loaded = {
            name for part in parts for name in accumulate(part, "{}.{}".format)
        }  # packages before what is in them
        for name in loaded:
            at = folder.joinpath(*name.split("."))
            file = at / "__init__.py" if at.is_dir() else at.with_suffix(".py")
            if name not in found and file.is_file():
                found[name] = _parsed(file)
                todo.append((name if at.is_dir() else name.rpartition(".")[0], found[name]))
    return found


def _parsed(file: Path) -> str:
    """The source in `file`. Raises `BadSetting` if it is not Python, as one that is half saved."""
    try:
        source = file.read_text(encoding="utf-8")
        ast.parse(source)
    except (ValueError, SyntaxError) as error:  # the first for bytes that are no text
        raise BadSetting(f"{file}, which a notebook imports, is not Python: {error}") from None
    return source


def _file(module: str) -> Path:
    """The source file of one of our modules; a path at which there is none for another name."""
    path = paths.PACKAGE.joinpath(*module.split(".")[1:])
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def _source(module: str) -> str:
    return _file(module).read_text(encoding="utf-8")


@cache
def _key(module: str) -> str:
    """Names the module's syntax tree; an edit of a comment, a docstring or the layout leaves it as it is."""
    return digits(ast.dump(_without_prose(ast.parse(_source(module)))))


def _without_prose(tree: ast.Module) -> ast.Module:
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node) is not None:
            node.body = node.body[1:]
    return tree


@cache
def own_code(approach: Any) -> str:
    """16 hex digits that name the code of a mask layer, a ranking or a protocol, without its description, its prose and its display.

    One whose source cannot be read (it was typed at a prompt) has a name of its own in every process: its results are made again.
    """
    pythons = ("builtins", "torch.nn.modules.module")
    classes = [c for c in getattr(approach, "__mro__", [approach]) if c and c.__module__ not in pythons]
    try:
        trees = [_without_prose(ast.parse(textwrap.dedent(inspect.getsource(c)))) for c in classes]
    except (OSError, TypeError):
        return secrets.token_hex(8)
    for tree in trees:
        for node in tree.body:
            if isinstance(node, ast.ClassDef | ast.FunctionDef):
                node.decorator_list = []
            if isinstance(node, ast.ClassDef):
                node.body = [part for part in node.body if getattr(part, "name", "") not in DISPLAY]
    return digits("".join(map(ast.dump, trees)))


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
    changed = "-dirty" * bool(_git("status", "--porcelain", "maskutils", "notebooks"))
    return head + changed if (head := _git("rev-parse", "--short=12", "HEAD")) else "unknown"


def is_committed(folder: Path) -> bool:
    """Whether git follows a file in `folder`, in the checkout of this package."""
    home = paths.checkout()
    return home is not None and folder.is_relative_to(home) and bool(_git("ls-files", str(folder)))


def _git(*arguments: str) -> str:
    """What git prints in the checkout; nothing where there is no git, or no repository."""
    command = ["git", "-C", str(paths.PACKAGE.parent), *arguments]
    with contextlib.suppress(OSError, subprocess.CalledProcessError):
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    return ""


def machine() -> dict[str, Any]:
    """The processor, its cores and the threads of a kernel on this machine."""
    name = told_by_linux("/proc/cpuinfo", "model name") or platform.processor()
    return {"processor": name, "cores": cores(), "threads": os.environ.get("OMP_NUM_THREADS", "all")}


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
    if peak := told_by_linux("/proc/self/status", "VmHWM"):
        return 1024 * int(peak.split()[0])
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # of a Mac, in bytes


def told_by_linux(file: str, name: str) -> str:
    """The first value of `name` in a file of the kernel; empty where there is none."""
    with contextlib.suppress(OSError):
        found = re.search(rf"^{name}[ \t:]+(.+)$", Path(file).read_text(encoding="utf-8"), re.MULTILINE)
        return found[1] if found else ""
    return ""


def cores() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
