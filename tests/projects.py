"""A tiny project for the tests of plan, batch and command line: notebooks that take no time, and a profile that runs
them.
"""

from pathlib import Path

import nbformat
import pytest
import yaml

PARAMETERS = 'seeds: list[int] = [0]  # seeds\noutput: str = ""  # file'
WRITE = (
    "import pandas as pd\nrow = {'protocol': 'finetune', 'method': None, 'density': None, 'native_of': None}\n"
    "row |= {'options': None, 'model': 'cnn'}\n"
    "from maskutils.results.records import COLUMNS, save_records\n"
    "rows = [dict.fromkeys(COLUMNS, 0.5) | row | {'pair': NAME, 'seed': s} for s in seeds]\nsave_records(pd.DataFrame(rows), output)"
)


def write_notebook(path: Path, *cells: str, parameters: str | None = PARAMETERS, prose: str = "# Title") -> Path:
    """A notebook with a title, a parameters cell (unless None) and code cells."""
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell(prose)], metadata=kernel)
    if parameters is not None:
        notebook.cells.append(nbformat.v4.new_code_cell(parameters, metadata={"tags": ["parameters"]}))
    notebook.cells += [nbformat.v4.new_code_cell(source) for source in cells]
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(notebook, path)
    return path


def write_profile(path: Path, runs: list[dict], **parameters: object) -> str:
    """A profile file; returns its path as the command line takes it."""
    path.write_text(yaml.safe_dump({"description": "a test", "parameters": parameters, "runs": runs}), encoding="utf-8")
    return str(path)


@pytest.fixture
def root(tmp_path, monkeypatch):
    """A project root of its own, with notebooks `first`, `second` and `broken`."""
    monkeypatch.setenv("MASKUTILS_ROOT", str(tmp_path))
    for name in ("first", "second"):
        write_notebook(tmp_path / "notebooks" / f"{name}.ipynb", f"NAME = {name!r}\n{WRITE}")
    write_notebook(tmp_path / "notebooks" / "broken.ipynb", "raise RuntimeError('this cell is broken')")
    return tmp_path
