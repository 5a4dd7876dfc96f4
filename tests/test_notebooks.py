"""The gate of the committed notebooks: executed, in order, without errors, paths or run metadata. nbval runs them
besides.
"""

import ast
import re

import nbformat
import pytest

from maskutils.batch import plan
from maskutils.core import paths

NOTEBOOKS = sorted(paths.notebooks_dir().glob("*.ipynb"))
pytestmark = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)


def code_of(path):
    return [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]


def text_of(output):
    data = output.get("data", {})
    return "".join(
        [output.get("text", ""), data.get("text/plain", ""), data.get("text/html", ""), data.get("text/markdown", "")]
    )


def test_is_valid_and_normalised(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    assert notebook.metadata.kernelspec.name == "python3"
    assert set(notebook.metadata) <= {"kernelspec", "language_info"}
    assert "version" not in notebook.metadata.language_info
    assert all(set(cell.metadata) <= {"tags"} for cell in notebook.cells)
    assert path.stat().st_size < 1_000_000


def test_is_executed_in_order_and_without_errors(path):
    cells = code_of(path)
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell.outputs]
    assert outputs
    assert not [o for o in outputs if o.output_type == "error" or o.get("name") == "stderr"]
    assert any("image/png" in o.get("data", {}) for o in outputs), "no figure: is the inline backend on?"


def test_shows_no_path_of_the_machine_it_was_run_on(path):
    shown = "\n".join(text_of(output) for cell in code_of(path) for output in cell.outputs)
    assert not re.search(r"(/home/|/root/|/work/|/tmp/|/Users/|[A-Z]:\\)", shown)


def test_has_cells_that_are_checked_exactly(path):
    checked = [cell for cell in code_of(path) if "NBVAL_CHECK_OUTPUT" in cell.source]
    assert checked
    assert all(cell.outputs for cell in checked)


def test_opens_with_its_question_what_to_expect_and_its_source(path):
    first = nbformat.read(path, as_version=4).cells[0].source
    assert first.startswith("# ")
    for part in ("**Question.**", "**What to expect.**", "**Source.**", "**Run time**"):
        assert part in first


def test_has_parameters_in_the_form_that_is_checked(path):
    cells = nbformat.read(path, as_version=4).cells
    assert plan.notebook_parameters(path)
    tagged = next(i for i, cell in enumerate(cells) if "parameters" in cell.metadata.get("tags", []))
    assert all(cell.cell_type == "markdown" for cell in cells[:tagged])
    assert all("#" in line for line in cells[tagged].source.splitlines()), "a parameter without a word of help"


def test_cells_are_short_told_and_free_of_logic(path):
    cells = nbformat.read(path, as_version=4).cells
    for before, cell in zip(cells, cells[1:], strict=False):
        if cell.cell_type != "code":
            continue
        assert before.cell_type == "markdown", f"no word before {cell.source[:60]!r}"
        limit = 24 if "parameters" in cell.metadata.get("tags", []) else 15  # parameters are a list, one a line
        assert cell.source.count("\n") < limit
        assert not cell.source.rstrip().endswith(";"), "a trailing ; fails under nbval"
        kinds = (ast.FunctionDef, ast.ClassDef, ast.While, ast.Try)
        assert not [node for node in ast.walk(ast.parse(cell.source)) if isinstance(node, kinds)]


def test_links_home_and_to_the_notebooks_before_and_after_it(path):
    order = sorted(p.name for p in path.parent.glob("*.ipynb"))
    here = order.index(path.name)
    beside = [*order[max(0, here - 1) : here], *order[here + 1 : here + 2]]
    last = nbformat.read(path, as_version=4).cells[-1].source
    assert re.findall(r"\]\((\d\d_\w+\.ipynb)\)", last.rpartition("\n")[2]) == beside
    assert last.endswith("[All notebooks](../README.md#the-notebooks).")
