"""What tables, figures and claims know of an approach: its description, written next to its code.

An approach is what a reader can choose to keep a task: a learnt mask, a ranking of weights, a protocol, a baseline. Its own module
describes it, by the decorators `layer`, `ranking` and `protocol`; everybody else looks it up here by name.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib import import_module
from typing import Literal

from maskutils.core.checks import known

Kind = Literal["mask", "control", "protocol", "baseline", "reference"]
Marker = str | tuple[int, int, int]  # of matplotlib; a tuple is a star or a polygon
INTERPOLATED = " + wise_ft"  # what follows the name of an approach whose result is interpolated towards the source


def second_network(n: int, density: float) -> float:
    """Bits of a second network of `n` float32 weights: the most that any approach needs."""
    return 32.0 * n


def mask_only(n: int, density: float) -> float:
    """One bit a weight."""
    return float(n)


def mask_and_changes(n: int, density: float) -> float:
    """One bit a weight, and the new values of the fraction `density` that was trained."""
    return n + 32.0 * n * density


def nothing(n: int, density: float) -> float:
    """No bit."""
    return 0.0


@dataclass(frozen=True)
class Approach:
    """The description of an approach.

    `kind` groups it in legends and claims: learnt "mask", "control" mask, "protocol" that takes a mask, "baseline" that takes none, or
    "reference". `place` orders it there; `colour` and `marker` are its looks in every figure.
    """

    name: str
    kind: Kind
    place: int = 1000
    colour: str = ""
    marker: Marker = ""
    label: str = ""  # its name in records' column `approach`; `name` if empty
    phrase: str = ""  # its name within a sentence; `name` if empty
    family: str = ""  # the family that it and its interpolations are settings of; its own if empty
    role: Literal["", "free", "untrained", "chance", "yardstick"] = (
        ""  # one of a kind, which comparisons need: see `the`
    )
    needs: tuple[Literal["mask", "importance"], ...] = ()  # arguments that its code must be given
    importance: Literal["", "information", "probability"] = ""  # what its `importance` is made of
    knobs: Mapping[str, float] = field(
        default_factory=dict
    )  # arguments of its code and their defaults; the first trades retention
    grid: tuple[float, ...] = ()  # values of the first knob to compare, from little to much retention
    method: str = ""  # the mask it takes unless another is named
    variant_of: str = ""  # the protocol that it is an ablation of
    named_by_mask: bool = False  # known by the name of its mask alone
    learns_mask: bool = False  # whether a mask is learnt on the way
    known: Literal["full", "masked", "intact"] = (
        "full"  # source network to whoever knows the task: all of it, masked, or as it was
    )
    bits: Callable[[int, float], float] = second_network  # stored per added task, of n weights at a density
    stored: Literal["", "masked", "intact"] = (
        ""  # the source as served from what is stored, where the storage figure shows it
    )
    opponent: bool = False  # one that masks are compared with in the claims
    headline: int = 0  # drawn along its knob in the trade-off figure, in this order; 0: not
    choosable: bool = True  # may be recommended

    @property
    def knob(self) -> str:
        """The knob that `grid` is of; empty where there is none."""
        return next(iter(self.knobs)) if self.grid else ""

    def values(self, n: int) -> tuple[float, ...]:
        """The `n` values in the middle of the grid, or all where it has fewer."""
        begin = max(0, (len(self.grid) - n + 1) // 2)
        return self.grid[begin : begin + n]


APPROACHES: dict[str, Approach] = {}
HOMES = (
    "maskutils.masks.layers",
    "maskutils.masks.rankings",
    "maskutils.training.transfer",
)  # whose import describes them all


def describe(approach: Approach) -> Approach:
    """File a description under its name. Raises `ValueError` for a name that is taken."""
    if approach.name in APPROACHES:
        raise ValueError(f"{approach.name!r} is registered already; give the new one another name")
    APPROACHES[approach.name] = approach
    return approach


def every() -> list[Approach]:
    """All descriptions, in the order of legends. The modules that hold them are loaded first."""
    for home in HOMES:
        import_module(home)
    return sorted(APPROACHES.values(), key=lambda a: (a.place, a.name))


def find(name: str) -> Approach | None:
    """The description of `name`; None where there is none, as for a variant ("elastic_mask (shuffled)")."""
    return APPROACHES.get(name) or next((a for a in every() if name in (a.name, a.label)), None)


def described(name: str) -> Approach:
    """The description of `name`; else `BadSetting` that lists those there are."""
    every()
    return APPROACHES[known(name, APPROACHES, "approach")]


def names(*kinds: Kind) -> list[str]:
    """Names of the approaches of these `kinds`, in the order of legends."""
    return [a.name for a in every() if a.kind in kinds]


@cache
def the(role: str) -> str:
    """The name of the one approach with this role.

    "free" is fine-tuning of everything, by which adaptation is measured; "untrained" the source network; "chance" the mask that knows
    nothing; "yardstick" the opponent that a family has to reach.
    """
    (name,) = (a.name for a in every() if a.role == role)
    return name
