"""What the tests of prose read: pages, outputs of notebooks and committed records."""

from functools import cache
from pathlib import Path

import nbformat
import pandas as pd

from maskutils.results import single
from maskutils.results.records import load_records

ROOT = Path(__file__).parent.parent


def text(file: str) -> str:
    return (ROOT / file).read_text(encoding="utf-8")


@cache
def read(profile: str) -> pd.DataFrame:
    return load_records(profile)


def mean(rows: pd.DataFrame, approach: str, value: str) -> float:
    return float(rows.loc[rows["approach"] == approach, value].mean())


def printed(file: str) -> str:
    """All that the committed notebook `file` printed, and its Markdown outputs."""
    cells = nbformat.read(ROOT / "notebooks" / file, 4).cells
    outputs = [output for cell in cells if cell.cell_type == "code" for output in cell.outputs]
    return "\n".join(
        o.get("text") or "".join(o.data.get("text/markdown", o.data.get("text/plain", ""))) for o in outputs
    )


def rows_of(markdown: str) -> list[list[str]]:
    """The cells of all Markdown tables in a text, a list a row."""
    return [
        [cell.strip() for cell in line.strip("|").split("|")] for line in markdown.splitlines() if line.startswith("|")
    ]


def tried_with_best_mask(profile):
    """The rows and means of `single.tried`, and which candidate is the learnt mask that is best on validation."""
    rows, means = single.tried(read(profile))
    return rows, means, means[means["mask"]]["val_both"].idxmax()
