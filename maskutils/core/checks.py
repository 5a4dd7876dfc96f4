"""Checks of names and numbers, the error that bad ones get, and the registry that names are looked up in."""

import contextlib
import difflib
import hashlib
import json
from collections.abc import Callable, Iterable, Iterator
from importlib.util import find_spec
from typing import Any, TypeVar

F = TypeVar("F", bound=Callable)


class BadSetting(ValueError):
    """A setting that is unknown, of the wrong type or out of range; the message names it, what is known and the way
    out.
    """


class MissingPackage(ImportError):
    """A package of an optional group that is not installed; the message names it, its group and the way out."""


@contextlib.contextmanager
def needs(group: str, *packages: str) -> Iterator[None]:
    """Imports inside the block, and `packages`, belong to an optional `group` of requirements.

    Raises `MissingPackage` for one that is not installed.

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
        if name in ("", "maskutils"):  # a fault of our own
            raise
        raise MissingPackage(
            f"{name} is not installed; it is part of the group {group}: pip install 'maskutils[{group}]'", name=name
        ) from None


def known(name: str, names: Iterable[str], kind: str) -> str:
    """`name` itself if it is among `names`; else `BadSetting` that lists them and offers the nearest."""
    names = sorted(names)
    if name in names:
        return name
    near = difflib.get_close_matches(str(name), names, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    raise BadSetting(f"unknown {kind} {name!r}; known: {', '.join(names) or 'none'}.{hint}")


def positive(name: str, value: float) -> float:
    """`value` if it is above 0; else `BadSetting`."""
    if not value > 0:
        raise BadSetting(f"{name} = {value!r} must be greater than 0")
    return value


def fraction(name: str, value: float) -> float:
    """`value` if it is in (0, 1]; else `BadSetting`."""
    if not 0 < value <= 1:
        raise BadSetting(f"{name} {value!r} is outside (0, 1]")
    return value


def content_key(*parts: Any) -> str:
    """16 hex digits that name the content of JSON-ready `parts`; equal parts, equal key."""
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def register(registry: dict[str, F]) -> Callable[[F], F]:
    """A decorator that files a function in `registry` under its own name. Raises `ValueError` for a name that is taken."""

    def add(function: F) -> F:
        if function.__name__ in registry:
            raise ValueError(f"{function.__name__!r} is registered already; give the new one another name")
        registry[function.__name__] = function
        return function

    return add
