"""What an approach stores for an added task, in bits, beside one network and the heads of its tasks.

Each function takes a `Kept` and is the `bits` of approaches. A value counts 16 bits, and approaches that store values round them to
float16 before their networks are read.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

VALUE = 16  # bits of one value


@dataclass(frozen=True)
class Kept:
    """What is known of a transfer when it is over."""

    shapes: Mapping[str, tuple[int, ...]]  # of the network's parameters
    changed: int = 0  # how many of their entries differ from the source network's, heads of one task aside
    coded: int = 0  # bits of its mask as stored, 0 without one
    knobs: Mapping[str, float] = field(default_factory=dict)
    moved: tuple[str, ...] = ()  # names of the parameters with changed entries

    @property
    def n(self) -> int:
        """The number of parameters."""
        return sum(map(math.prod, self.shapes.values()))


def nothing(kept: Kept) -> float:
    """0 bits: one network serves both tasks, with the task known or not."""
    return 0.0


def whole_network(kept: Kept) -> float:
    """A second network: a value for every parameter."""
    return float(VALUE * kept.n)


def mask_only(kept: Kept) -> float:
    """The mask as it is stored, entropy-coded (`masks.files.coded`)."""
    return float(kept.coded)


def pattern(kept: Kept) -> float:
    """Which entries changed, at the entropy bound: for a mask that is left in the weights."""
    return entropy(kept.n, kept.changed)


def changes(kept: Kept) -> float:
    """Each changed entry's value, and which they are, at the entropy bound: taken off, they leave the source network."""
    return VALUE * kept.changed + entropy(kept.n, kept.changed)


def signs(kept: Kept) -> float:
    """One bit for every entry, and a value for each output channel; vectors have one channel."""
    return float(kept.n + VALUE * sum(shape[0] if len(shape) > 1 else 1 for shape in kept.shapes.values()))


def whole_tensors(kept: Kept) -> float:
    """Each changed entry's value alone: which they are goes without saying, as with all biases."""
    return float(VALUE * kept.changed)


def entropy(n: int, k: int) -> float:
    """Bits that tell which k of n entries are meant, at the entropy bound n H2(k / n).

    >>> entropy(100, 50), entropy(100, 0)
    (100.0, 0.0)
    """
    if k in (0, n):
        return 0.0
    p = k / n
    return -n * (p * math.log2(p) + (1 - p) * math.log2(1 - p))
