"""Checks of names and numbers, and the registries that names are looked up in."""

import contextlib
import difflib
import hashlib
import json
import math
import numbers
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from importlib.util import find_spec
from typing import Any, TypeVar

F = TypeVar("F", bound=Callable[..., Any])
T = TypeVar("T")
INSIDE = ("maskutils", "contextlib", "torch")  # packages whose lines tell a user nothing of where he is


class BadSetting(ValueError):
    """A setting that is unknown, of the wrong type or out of range. The message names it, what is allowed and the way out.

    In a notebook it is shown as that message alone: where in this package a setting was checked helps nobody.
    """

    def _render_traceback_(self) -> list[str]:
        """The lines that IPython shows instead of a traceback."""
        return [f"{type(self).__name__}: {self}"]


class MissingPackage(ImportError):
    """A package of an optional group that is not installed. The message names it, its group and how to install it."""


@contextlib.contextmanager
def needs(group: str, *packages: str) -> Iterator[None]:
    """Imports inside the block, and `packages`, belong to an optional `group`; `MissingPackage` names one that is missing.

    >>> with needs("study"):
    ...     import no_such_package
    Traceback (most recent call last):
    maskutils.core.checks.MissingPackage: no_such_package is not installed; it is part of the group study: pip install 'maskutils[study]'
    """
    try:
        for package in packages:
            if find_spec(package) is None:
                raise ModuleNotFoundError(name=package)
        yield
    except ModuleNotFoundError as error:
        name = (error.name or "").partition(".")[0]
        if name in ("", "maskutils"):  # a mistake in this package
            raise
        way_out = f"it is part of the group {group}: pip install 'maskutils[{group}]'"
        raise MissingPackage(f"{name} is not installed; {way_out}", name=name) from None


def warn(what: str) -> None:
    """Warn of `what` at the line that called into this package, whatever lies between, as contextlib and torch under `protect`."""
    frame, level = sys._getframe(1), 2
    while frame.f_back and frame.f_globals.get("__name__", "").partition(".")[0] in INSIDE:
        frame, level = frame.f_back, level + 1
    warnings.warn(what, stacklevel=level)


def known(name: str, names: Iterable[str], kind: str) -> str:
    """`name` itself if it is among `names`. Raises `BadSetting`, which lists them and suggests the nearest, if it is not.

    >>> known("cm", ["cnn", "mlp"], "model")
    Traceback (most recent call last):
    maskutils.core.checks.BadSetting: unknown model 'cm'; known: cnn, mlp.
    """
    names = sorted(names)
    if name in names:
        return name
    near = difflib.get_close_matches(str(name), names, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    raise BadSetting(f"unknown {kind} {name!r}; known: {', '.join(names) or 'none'}.{hint}")


def number(name: str, value: Any, whole: bool = False) -> Any:
    """`value` if it is a number (an integer, if `whole`); else `BadSetting`."""
    if not isinstance(value, numbers.Integral if whole else numbers.Real) or isinstance(value, bool):
        raise BadSetting(f"{name} = {value!r} must be a {'whole ' * whole}number")
    return value


def positive(name: str, value: float, whole: bool = False) -> float:
    """`value` if it is a number (an integer, if `whole`) above 0 and finite. Raises `BadSetting` if it is not."""
    if not number(name, value, whole) > 0:
        raise BadSetting(f"{name} = {value!r} must be greater than 0")
    if value == math.inf:
        raise BadSetting(f"{name} = {value!r} must be finite")
    return value


def yes_or_no(name: str, value: Any) -> bool:
    """`value` if it is True or False; else `BadSetting`."""
    if not isinstance(value, bool):
        raise BadSetting(f"{name} = {value!r} must be True or False")
    return value


def fraction(name: str, value: float) -> float:
    """`value` if it is a number in (0, 1]. Raises `BadSetting` if it is not."""
    if not 0 < number(name, value) <= 1:
        raise BadSetting(f"{name} {value!r} is outside (0, 1]")
    return value


def some_of(names: Sequence[str], n: int = 5) -> str:
    """The first `n` of `names`, and how many more there are, for a message."""
    return ", ".join(names[:n]) + (f" and {len(names) - n} more" if len(names) > n else "")


def content_key(*parts: Any) -> str:
    """16 hex digits that identify the content of JSON-ready `parts`: equal parts have equal keys."""
    return digits(json.dumps(parts, sort_keys=True, separators=(",", ":"), allow_nan=False))


def digits(text: str) -> str:
    """16 hex digits that identify `text`."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def enter(registry: dict[str, T], name: str, value: T) -> T:
    """File `value` under `name` in `registry`, and return it. Raises `ValueError` for a name that is taken."""
    if name in registry:
        raise ValueError(f"{name!r} is registered already; give the new one another name")
    registry[name] = value
    return value


def register(registry: dict[str, F]) -> Callable[[F], F]:
    """A decorator that files a function in `registry` under its own name. Raises `ValueError` for a name that is taken."""
    return lambda function: enter(registry, function.__name__, function)
