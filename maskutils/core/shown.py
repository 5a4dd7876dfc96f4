"""How values are shown in a notebook: one small table, in plain HTML."""

from collections.abc import Iterable, Sequence
from html import escape
from typing import Any


def table(title: str, head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """An HTML table with a bold `title` above it; every cell is escaped.

    >>> table("Mask", ["layer"], [["conv1"]])
    '<b>Mask</b><table><tr><th>layer</th></tr><tr><td>conv1</td></tr></table>'
    """
    lines = [_row("th", head), *(_row("td", row) for row in rows)]
    return f"<b>{escape(title)}</b><table>{''.join(lines)}</table>"


def _row(kind: str, cells: Sequence[Any]) -> str:
    return "<tr>" + "".join(f"<{kind}>{escape(str(cell))}</{kind}>" for cell in cells) + "</tr>"
