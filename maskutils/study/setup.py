"""Typed settings of the study, and the errors that bad ones get.

Owns which settings exist, their types and ranges. It must not know what is done with them, nor import torch: the
command line reads it before anything heavy is loaded.
"""

import ast
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, Strict, ValidationError, field_validator

from maskutils.core.checks import BadParameter, known

M = TypeVar("M", bound=BaseModel)
F = TypeVar("F", bound=Callable)

Density = Annotated[float, Field(gt=0, le=1)]
Steps = Annotated[int, Field(ge=1)]
Rate = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Items = Strict(False)  # a list, as a notebook or YAML writes it, becomes a tuple; its items stay strict


DEVICES, PRECISIONS, MODES = ("auto", "cpu", "cuda", "mps"), ("float32", "bf16"), ("channels_last", "deterministic")


@dataclass(frozen=True)
class Computing:
    """On what, and in which precision, a network is trained. `device` may be "auto"; bf16 is automatic mixed precision, scores and
    weights stay float32.
    """

    device: str = "auto"
    precision: str = "float32"
    channels_last: bool = False
    deterministic: bool = False

    @classmethod
    def of(cls, text: str) -> "Computing":
        """Read from words in any order, as in "cuda bf16 channels_last".

        >>> Computing.of("bf16 cpu").device
        'cpu'
        """
        words = [known(word, [*DEVICES, *PRECISIONS, *MODES], "word of compute") for word in text.split()]
        for kind in (DEVICES, PRECISIONS):
            if len(named := {w for w in words if w in kind}) > 1:
                raise BadParameter(
                    f"compute {text!r} names {' and '.join(sorted(named))}; name one of {', '.join(kind)}"
                )
        chosen = [next((w for w in words if w in kind), kind[0]) for kind in (DEVICES, PRECISIONS)]
        return cls(*chosen, *(mode in words for mode in MODES))


class Setup(BaseModel):
    """Everything that a transfer depends on beside its method and density; frozen, typed strictly, unknown names
    refused.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    pair: str = "mnist_to_digits"
    model: str = "cnn"
    seeds: Annotated[tuple[Annotated[int, Field(ge=0, strict=True)], ...], Field(min_length=1), Items] = (0,)
    densities: Annotated[tuple[Density, ...], Field(min_length=1), Items] = (0.1, 0.5)
    source_steps: Annotated[int, Field(ge=0)] = 600  # optimiser steps; 0 with `weights` that do the source task already
    mask_steps: Steps = 300
    target_steps: Steps = 300
    batch_size: Steps = 32  # images a step
    source_lr: Rate = 2e-3
    target_lr: Rate = 2e-3
    alphas: Annotated[tuple[Density, ...], Field(min_length=1), Items] = (
        1.0,
    )  # share of the way from source to target
    per_layer: bool = False  # equal density in each layer instead of over all
    weights: str = ""  # of a torchvision network: its pretrained ones by name ("DEFAULT"), or a .safetensors file
    images: str = ""  # how image files are read: "size 224 channels 3 damaged skip classes common workers 2"
    compute: str = "auto"  # device, and any of bf16, channels_last, deterministic

    @field_validator("seeds", "densities", "alphas")
    @classmethod
    def _once_each(cls, values: tuple[float, ...]) -> tuple[float, ...]:
        if len(set(values)) < len(values):
            raise ValueError("holds a value twice")
        return values

    @property
    def computing(self) -> "Computing":
        """`compute`, read. Raises `BadParameter` for a word that is not known."""
        return Computing.of(self.compute)


def checked(model: type[M], values: Mapping[str, Any]) -> M:
    """`model(**values)`, with every fault said in one `BadParameter`, a line each."""
    for name in values:
        known(name, model.model_fields, "parameter")
    try:
        return model(**values)
    except ValidationError as error:
        raise BadParameter("\n".join(_line(e) for e in error.errors())) from None


def _line(error: Mapping[str, Any]) -> str:
    where = ".".join(str(part) for part in error["loc"])
    return f"parameter {where} = {error['input']!r}: {error['msg'][0].lower()}{error['msg'][1:]}"


def from_notebook(namespace: Mapping[str, Any]) -> Setup:
    """The `Setup` of a notebook, from its `globals()`: its parameters cell, and what papermill injected over it.

    Papermill injects a misspelt name in silence and exits 0; here it raises `BadParameter`, before any work.
    """
    declared, injected = set(), set()
    for source in namespace.get("In", ()):
        (injected if source.lstrip().startswith("# Parameters\n") else declared).update(_assigned(source))
    for name in sorted(injected):
        known(name, declared, "parameter")
    return checked(Setup, {name: namespace[name] for name in Setup.model_fields if name in namespace})


def _assigned(source: str) -> Iterator[str]:
    try:
        tree = ast.parse(source)
    except SyntaxError:  # a cell with a magic or a shell command assigns no parameter
        return
    for node in tree.body:
        targets = (
            node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
        )
        yield from (target.id for target in targets if isinstance(target, ast.Name))


def options(text: str) -> dict[str, float | str]:
    """Options of a method, written as in "lr 0.3 strength 2e-6". Raises `BadParameter` for a name without a value.

    >>> options("lr 1 init kaiming")
    {'lr': 1, 'init': 'kaiming'}
    """
    words = text.split()
    if len(words) % 2:
        raise BadParameter(f"{text!r} is not of the form 'name value name value'")
    return {name: _number(value) for name, value in zip(words[::2], words[1::2], strict=True)}


def _number(text: str) -> float | str:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text
