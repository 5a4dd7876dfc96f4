"""Typed settings of the study, and the errors that bad ones get. Imports no torch: the command line reads it first."""

import ast
from collections.abc import Collection, Iterator, Mapping
from difflib import get_close_matches
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, Strict, ValidationError, field_validator, model_validator

from maskutils.core.checks import BadSetting, known
from maskutils.core.shown import table

M = TypeVar("M", bound=BaseModel)

Items = Strict(False)  # a list, as a notebook or YAML writes it, becomes a tuple; its items stay strict
Shares = Annotated[tuple[Annotated[float, Field(gt=0, le=1)], ...], Field(min_length=1), Items]
Steps = Annotated[int, Field(ge=1)]
Natural = Annotated[int, Field(ge=0)]
Rate = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class Settings(BaseModel):
    """Settings that are frozen, typed strictly, refuse unknown names, and are checked again whenever they are changed."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    def changed(self, **updates: Any) -> Self:
        """These settings with `updates`, all checked as if they were new. Raises `BadSetting`."""
        return checked(type(self), dict(self) | updates)

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """`changed`: pydantic's own way to change a model, which otherwise checks nothing."""
        return self.changed(**update or {})


class Nested(Settings):
    """Settings that are given as one dict, by field; `str` of them is their column in records."""

    @model_validator(mode="before")
    @classmethod
    def _by_field(cls, given: Any) -> Any:
        part = cls.__name__.lower()
        if not isinstance(given, dict | cls):
            first, field = next(iter(cls.model_fields.items()))
            raise ValueError(f"it is given by field, as {part}: {{{first}: {field.default}}}")
        for name in given if isinstance(given, dict) else ():
            known(name, cls.model_fields, f"option of {part}")
        return given


class Compute(Nested):
    """On what, and in which precision, a network is trained.

    `device` "auto" is CUDA, else MPS, else the CPU. `precision` "bf16" is automatic mixed precision: scores and weights stay
    float32. `channels_last` is a layout in memory, which a CPU gets in any case. With `deterministic`, a notebook lets torch
    use deterministic algorithms only.

    >>> str(Compute(device="cuda", precision="bf16"))
    'cuda bf16'
    """

    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    precision: Literal["float32", "bf16"] = "float32"
    channels_last: bool = False
    deterministic: bool = False

    def __str__(self) -> str:
        changed = self.model_dump(exclude={"device"}, exclude_defaults=True)
        return " ".join([self.device, *(name if value is True else value for name, value in changed.items())])


class Images(Nested):
    """How image files are read; `maskutils.data.pair.Loading` says what each field does.

    >>> str(Images(size=64, damaged="skip"))
    'size 64 damaged skip'
    """

    size: Natural = 0
    channels: int = 0
    damaged: Literal["refuse", "skip"] = "refuse"
    normalise: Literal["source", "imagenet"] = "source"
    classes: Literal["all", "common"] = "all"
    workers: Natural = 0

    @field_validator("channels")
    @classmethod
    def _grey_or_colour(cls, channels: int) -> int:
        if channels not in (0, 1, 3):  # no `Literal`, which takes True for 1
            raise ValueError("input should be 1 (grey), 3 (colour) or 0 (as the images are)")
        return channels

    def __str__(self) -> str:  # part of the names of results, so without the workers, which change no image
        changed = self.model_dump(exclude={"workers"}, exclude_defaults=True)
        return " ".join(f"{name} {value}" for name, value in changed.items())


# Settings that the source network does not depend on.
OF_TRANSFERS = ("seeds", "densities", "mask_steps", "target_steps", "target_lr", "tuned", "alphas", "per_layer")
NESTED: dict[str, type[Nested]] = {"images": Images, "compute": Compute}


class Setup(Settings):
    """Everything that a transfer depends on beside its method and density."""

    pair: str = "mnist_to_digits"
    model: str = "cnn"
    seeds: Annotated[tuple[Annotated[int, Field(ge=0, strict=True)], ...], Field(min_length=1), Items] = (0,)
    densities: Shares = (0.1, 0.5)
    source_steps: Natural = 600  # optimiser steps; 0 with `weights` that do the source task already
    mask_steps: Steps = 300
    target_steps: Steps = 300
    batch_size: Steps = 32  # images a step
    source_lr: Rate = 2e-3
    target_lr: Rate = 2e-3
    source_norm: Literal["train", "eval"] = "train"  # norm layers follow the source, or stay as in `weights`
    tuned: bool = False  # each approach's own rate, and steps up to `target_steps`, as the profile `tuning` found them
    alphas: Shares = (1.0,)  # share of the way from source to target
    per_layer: bool = False  # equal density in each layer instead of over all
    weights: str = ""  # of a torchvision network: its pretrained ones by name ("DEFAULT"), or a .safetensors file
    images: Images = Images()
    compute: Compute = Compute()

    def __str__(self) -> str:
        changed = [f"{name} = {value!r}" for name, value in self if self._is_changed(name, value) and name != "pair"]
        return f"Setup of {self.pair}: {', '.join([*changed, 'all else at its default'])}"

    def _repr_html_(self) -> str:
        rows = [(name, value, "changed" if self._is_changed(name, value) else "") for name, value in self]
        return table(f"Setup of {self.pair}", ["setting", "value", ""], rows)

    def _is_changed(self, name: str, value: Any) -> bool:
        return bool(value != type(self).model_fields[name].default)

    @field_validator("seeds", "densities", "alphas")
    @classmethod
    def _once_each(cls, values: tuple[float, ...]) -> tuple[float, ...]:
        if len(set(values)) < len(values):
            raise ValueError("holds a value twice")
        return values

    @field_validator("densities")
    @classmethod
    def _told_apart(cls, densities: tuple[float, ...]) -> tuple[float, ...]:
        if len({round(density, 3) for density in densities}) < len(densities):
            raise ValueError("holds a value twice (records tell densities apart by three places)")
        return densities

    @model_validator(mode="after")
    def _has_a_source(self) -> Self:
        if not (self.source_steps or self.weights):
            raise ValueError("source_steps = 0 trains no source network; give weights= that do the source task already")
        return self


def checked(model: type[M], values: Mapping[str, Any]) -> M:
    """`model(**values)`, with every fault said in one `BadSetting`, a line each."""
    for name, value in values.items():
        known_setting(name, model.model_fields, value)
    try:
        return model(**values)
    except ValidationError as error:
        raise BadSetting("\n".join(_line(e) for e in error.errors())) from None


def _line(error: Mapping[str, Any]) -> str:
    where, said = ".".join(str(part) for part in error["loc"]), error["msg"].removeprefix("Value error, ")
    if plain := {"missing": "is missing", "extra_forbidden": "is not known"}.get(error["type"]):
        return f"{where} {plain}"
    return f"parameter {where} = {error['input']!r}: {said[0].lower()}{said[1:]}" if where else said


def known_setting(name: str, names: Collection[str], value: Any, kind: str = "parameter") -> str:
    """`name` itself if it is among `names`; else `BadSetting`, which tells a field of `images` or `compute` its place."""
    for part, fields in NESTED.items():
        if name in fields.model_fields and name not in names:
            raise BadSetting(f"{name} is an option of `{part}`: write {part}: {{{name}: {value}}}")
    return known(name, names, kind)


def from_notebook(namespace: Mapping[str, Any]) -> Setup:
    """The `Setup` of a notebook, from its `globals()`: its parameters cell, and what papermill injected over it.

    Papermill injects a misspelt name in silence and exits 0, and Python takes one that is typed into the cell; here either raises
    `BadSetting`, before any work. In a cell that declares parameters with types, a name without one that is nearly a setting's is misspelt.
    """
    declared: set[str] = set()
    given: set[str] = set()
    mistakes: set[str] = set()
    for source in namespace.get("In", ()):
        names = dict(_assigned(source))
        injected = source.lstrip().startswith("# Parameters\n")
        wrong = {name for name, typed in names.items() if any(names.values()) and not typed and _nearly(name)}
        if any(typed and name in Setup.model_fields for name, typed in names.items()):
            mistakes.clear()  # the parameters cell: it may have been mended and run again
        mistakes |= wrong
        (given if injected else declared).update(names.keys() - wrong)
    for name in sorted(given | mistakes):
        known_setting(name, declared, namespace[name])
    return setup_in(namespace)


def setup_in(values: Mapping[str, Any]) -> Setup:
    """The checked `Setup` of those of `values` that are settings."""
    return checked(Setup, {name: values[name] for name in Setup.model_fields if name in values})


def _nearly(name: str) -> bool:
    """Whether `name` is not a setting's, but nearly so."""
    return name not in Setup.model_fields and bool(get_close_matches(name, Setup.model_fields, n=1, cutoff=0.85))


def _assigned(source: str) -> Iterator[tuple[str, bool]]:
    """The names that a cell assigns at its top, and whether with a type."""
    try:
        tree = ast.parse(source)
    except SyntaxError:  # a cell with a magic or a shell command assigns no parameter
        return
    for node in tree.body:
        if isinstance(node, ast.Assign):
            yield from ((target.id, False) for target in node.targets if isinstance(target, ast.Name))
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            yield node.target.id, True
