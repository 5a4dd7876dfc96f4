"""Descriptions of all approaches: their names, looks and needs, for tables, figures and claims.

An approach is one way to keep a task: a learnt mask, a ranking of weights, a protocol or a baseline. The module that implements
it also describes it, with the decorator `layer`, `ranking` or `protocol`. All other modules look it up here by name.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib import import_module
from typing import Any, Literal, TypeVar

from maskutils.core.checks import enter, known
from maskutils.core.storage import Kept, nothing

F = TypeVar("F", bound=Callable[..., Any])
Kind = Literal["mask", "control", "protocol", "baseline", "reference"]
Marker = str | tuple[int, int, int]  # matplotlib's; a tuple is a star or a polygon
INTERPOLATED = " + wise_ft"  # follows the name of an approach whose result is interpolated towards the source
REWOUND = " + rewind"  # follows it where the result is the best point on the path of its training
# To import these describes all.
DESCRIBED_IN = ("maskutils.masks.layers", "maskutils.masks.rankings", "maskutils.training.transfer")


@dataclass(frozen=True)
class Approach:
    """The description of an approach.

    `kind` is its group in legends and claims: a learnt "mask", a "control" mask, a "protocol" that takes a mask, a "baseline"
    that takes none, or a "reference". Legends are in the order of `place`. All figures use its `colour` and `marker`.
    """

    name: str
    kind: Kind
    place: int = 1000
    colour: str = ""
    marker: Marker = ""
    phrase: str = ""  # its name within a sentence; `name` if empty
    family: str = ""  # the family that it and its interpolations are settings of; its own if empty
    role: Literal["", "free", "untrained", "chance", "yardstick"] = ""  # exactly one approach has each role: see `the`
    needs: tuple[Literal["mask", "importance"], ...] = ()  # required arguments of its code
    importance: Literal["", "information", "probability"] = ""  # what its `importance` is computed from
    knobs: Mapping[str, float] = field(default_factory=dict)  # arguments and their defaults; the first trades retention
    grid: tuple[float, ...] = ()  # values of the first knob to compare, from little to much retention
    method: str = ""  # the mask that it takes by default
    per_layer: bool = False  # whether that mask has equal density in each layer
    library: str = ""  # the package of others that computes it, beside torch
    trains: bool = True  # whether it trains weights on the target, so that the learning rate matters
    only_for: Literal["", "norm layers"] = ""  # what a network must have for it
    variant_of: str = ""  # the protocol that it is an ablation of
    named_by_mask: bool = False  # whether records name it by its mask alone
    learns_mask: bool = False  # whether it learns a mask during the transfer
    retrains: bool = False  # whether it trains what a mask keeps on the source, for as many steps as a mask is learnt
    # What answers the source if the task is known: see `analysis.source_read`.
    known: Literal["full", "masked", "intact"] = "full"
    bits: Callable[[Kept], float] = nothing  # stored per added task: see `core.storage`
    rival: bool = False  # whether the claims compare masks with it
    headline: int = 0  # its order among the curves of the trade-off figure; 0: it has none
    choosable: bool = True  # whether `choose` may recommend it

    @property
    def knob(self) -> str:
        """The knob that `grid` holds values of; empty if there is no grid."""
        return next(iter(self.knobs)) if self.grid else ""

    def values(self, n: int) -> tuple[float, ...]:
        """The `n` values in the middle of the grid; all values if it has fewer."""
        begin = max(0, (len(self.grid) - n + 1) // 2)
        return self.grid[begin : begin + n]


APPROACHES: dict[str, Approach] = {}


def describe(approach: Approach) -> Approach:
    """File a description under its name. Raises `ValueError` for a name that is taken."""
    return enter(APPROACHES, approach.name, approach)


def filed(registry: dict[str, F], kind: Kind, name: str = "", **about: Any) -> Callable[[F], F]:
    """A decorator that registers a function or class under `name` (default: its own), with the description `about`.

    `about` are fields of `Approach`.
    """

    def add(code: F) -> F:
        describe(Approach(name or code.__name__, kind, **about))
        return enter(registry, name or code.__name__, code)

    return add


@cache
def _load() -> None:
    for home in DESCRIBED_IN:
        import_module(home)


def every() -> list[Approach]:
    """All descriptions, in the order of legends. Imports the modules that hold them."""
    _load()
    return sorted(APPROACHES.values(), key=lambda a: (a.place, a.name))


def find(name: str) -> Approach | None:
    """The description with this name; None if there is none, as for the variant "elastic_mask (shuffled)"."""
    _load()
    return APPROACHES.get(name)


def described(name: str) -> Approach:
    """The description of `name`. Raises `BadSetting`, which lists all names, if there is none."""
    _load()
    return APPROACHES[known(name, APPROACHES, "approach")]


def names(*kinds: Kind) -> list[str]:
    """Names of the approaches of these `kinds`, in the order of legends."""
    return [a.name for a in every() if a.kind in kinds]


@cache
def the(role: str) -> str:
    """The name of the one approach with this role.

    "free" is fine-tuning of all weights, the measure of adaptation. "untrained" is the source network as it is, "chance" the
    random mask, "yardstick" the baseline that a family has to reach.
    """
    (name,) = (a.name for a in every() if a.role == role)
    return name
