"""Records made by hand, for the tests of tables and sentences."""

import math

import pandas as pd

from maskutils.core.approaches import find
from maskutils.core.storage import nothing
from maskutils.results.records import ACCURACIES, COLUMNS, with_approach

BLANK = dict.fromkeys(COLUMNS, math.nan) | {"pair": "mnist_to_digits", "model": "cnn", "protocol": "finetune"}
BLANK |= {
    "method": None,
    "native_of": None,
    "options": None,
    "alpha": 1.0,
    "per_layer": False,
    "rewound": False,
    "source_acc_before": 0.95,
    "source_classes": 10,
    "target_classes": 10,
    "stored_bits": math.nan,
    "mask_steps": math.nan,
    "target_steps": math.nan,
    "late_gain": math.nan,
}


def make(*rows: dict) -> pd.DataFrame:
    """Records: what a row leaves out has a default, and validation reads as test does."""
    filled = [BLANK | five(row) | {"seed": 0} | row | bits(row) for row in rows]
    return with_approach(pd.DataFrame([{f"val_{n}": row[n] for n in ACCURACIES} | row for row in filled]))


def five(row: dict) -> dict:
    """The classes of a row on the pair that has half of the digits."""
    return {"source_classes": 5, "target_classes": 5} if row.get("pair") == "mnist_low_to_high" else {}


def bits(row: dict) -> dict:
    """The bits of a row whose approach stores nothing."""
    about = find(row.get("protocol", "finetune"))
    return {"stored_bits": 0.0} if about and about.bits is nothing else {}


def at(full: float, target: float, protocol: str = "finetune", **rest) -> dict:
    return {"source_acc_full": full, "target_acc": target, "protocol": protocol} | rest


def mask(method: str, masked: float, full: float, target: float, density: float = 0.1, **rest) -> dict:
    return at(full, target, "protect", method=method, source_acc_masked=masked, density=density, **rest)
