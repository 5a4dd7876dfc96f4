"""The site: the documents of the repository, the docstrings and the committed notebooks, none of which is executed.

Sphinx reads one folder, so everything is first laid into `_build/source`, as the repository has it. The command is
`make docs`.
"""

import re
import shutil
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT, SOURCE = HERE.parent, HERE / "_build" / "source"
sys.path.insert(0, str(ROOT))  # the docstrings are those of this checkout
PAGES = {"README": "index", "CONTRIBUTING": "contributing", "CHANGELOG": "changelog"}
ON_SITE = (
    r"https?:|#|figures/|notebooks/.*\.ipynb|\w+\.(?:md|ipynb)"  # where a link may lead; of others the text remains
)


def lay_out() -> None:
    """Put documents, figures and notebooks where Sphinx reads them."""
    shutil.copytree(ROOT / "figures", SOURCE / "figures", dirs_exist_ok=True)
    shutil.copytree(
        HERE, SOURCE, dirs_exist_ok=True, ignore=lambda folder, names: [n for n in names if n[-3:] != ".md"]
    )
    (SOURCE / "notebooks").mkdir(exist_ok=True)
    for notebook in (ROOT / "notebooks").glob("*.ipynb"):
        write(SOURCE / "notebooks" / notebook.name, notebook.read_text(encoding="utf-8"))
    for name, target in PAGES.items():
        text = (ROOT / f"{name}.md").read_text(encoding="utf-8").replace("](docs/", "](")
        for document, shown in PAGES.items():
            text = text.replace(f"]({document}.md)", f"]({shown}.md)")
        write(SOURCE / f"{target}.md", text + (CONTENTS if name == "README" else ""))


def write(path: Path, text: str) -> None:
    """Write a page whose links stay on the site; one that has not changed keeps its time, so that Sphinx leaves it alone."""
    text = re.sub(rf"(?<!!)\[([^\]\n]*)\]\((?!(?:{ON_SITE})[^)\n]*\))[^)\n]*\)", r"\1", text)
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        path.write_text(text, encoding="utf-8")


def as_rst(app, what, name, obj, options, lines) -> None:
    """Our docstrings are plain text with `code` in single backticks; here they become what Sphinx reads."""
    blocks = re.split(r"\n\n+", "\n".join(lines))
    lines[:] = "\n\n".join(b if b.lstrip().startswith(">>>") else escaped(b) for b in blocks).split("\n")


def escaped(text: str) -> str:
    """Code in double backticks, and no character of the rest that means something in reStructuredText."""
    parts = re.split(r"(`[^`]+`)", text)
    return "".join(f"`{p}`" if p[:1] == "`" else re.sub(r"([|*`]|_(?!\w))", r"\\\1", p) for p in parts)


def setup(app) -> None:
    """What Sphinx calls first."""
    app.connect("autodoc-process-docstring", as_rst)


CONTENTS = """
```{toctree}
:hidden:
:caption: Guides

install
contributing
changelog
api
```

```{toctree}
:hidden:
:caption: Notebooks
:glob:

notebooks/*
```
"""
lay_out()

from maskutils import __version__  # noqa: E402

project, author, release = "maskutils", "The maskutils authors", __version__
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.autosummary"]
nb_execution_mode = "off"
autodoc_default_options = {"members": True, "show-inheritance": True, "ignore-module-all": True}
autodoc_typehints = "description"
html_theme = "furo"
