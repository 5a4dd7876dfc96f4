"""The site: the documents of the repository, the docstrings and the committed notebooks, none of which is executed.

Sphinx reads one folder, so everything is first laid into `_build/source`, as the repository has it. The command is
`make docs`.
"""

import json
import posixpath
import re
import shutil
import sys
from pathlib import Path

import latex2mathml.converter
from docutils import nodes
from sphinx.writers.html5 import HTML5Translator

HERE = Path(__file__).resolve().parent
ROOT, SOURCE = HERE.parent, HERE / "_build" / "source"
sys.path.insert(0, str(ROOT))  # the docstrings are those of this checkout
PAGES = {"README.md": "index.md", "CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md"}


def lay_out() -> None:
    """Put documents, figures and notebooks where Sphinx reads them, and take away what is no longer there."""
    shutil.copytree(ROOT / "figures", SOURCE / "figures", dirs_exist_ok=True)
    pages = set()
    for path in (p for pattern in ("*.md", "docs/**/*.md", "notebooks/*.ipynb") for p in ROOT.glob(pattern)):
        file = path.relative_to(ROOT).as_posix()
        if page := place(file):
            text = relinked(path.read_text(encoding="utf-8"), file)
            text = with_alternatives(text) if page.endswith(".ipynb") else text
            write(SOURCE / page, text + (CONTENTS if file == "README.md" else ""))
            pages.add(SOURCE / page)
    modules = {".".join(p.relative_to(ROOT).with_suffix("").parts) for p in ROOT.glob("maskutils/**/*.py")}
    modules |= {name.removesuffix(".__init__") for name in modules}
    for old in [p for kind in ("md", "ipynb", "rst") for p in SOURCE.rglob(f"*.{kind}") if p not in pages]:
        if old.suffix != ".rst" or old.stem not in modules:
            old.unlink()


def place(file: str) -> str:
    """Where a file of the repository stands on the site, each by its path in them; empty if it does not."""
    if file in PAGES or re.fullmatch(r"notebooks/[^/]+\.ipynb|figures/.+", file):
        return PAGES.get(file, file)
    return file.removeprefix("docs/") if re.fullmatch(r"docs/(?!_build/).+\.md", file) else ""


def relinked(text: str, file: str) -> str:
    """`text` of `file` with its links as they lead on the site; where one leads to no page, its words remain.

    Pictures of other hosts (badges) are left out: the site works offline.
    """

    def link(found: re.Match[str]) -> str:
        words, target, part = found.groups(default="")
        if not target or target.startswith("http"):
            return found[0]
        page = place(posixpath.normpath(posixpath.join(posixpath.dirname(file), target)))
        here = posixpath.dirname(place(file)) or "."
        return f"[{words}]({posixpath.relpath(page, here)}{part})" if page else words

    text = re.sub(r"!\[[^\]\n]*\]\(https?://[^)\n]*\)\n?", "", text)
    return re.sub(r"\[((?:[^\]\n]|\n(?=\w))*)\]\(([^)#\n]*)(#[^)\n]*)?\)", link, text)


def with_alternatives(notebook: str) -> str:
    """The text of a `notebook` whose pictures have alternatives in words: the heading above, and the first sentence before the picture."""
    content, heading, sentence = json.loads(notebook), "", ""
    for cell in content["cells"]:
        text = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            heading = [heading, *re.findall(r"^#+ (.+)$", text, re.MULTILINE)][-1]
            sentence = first_sentence(text)
        elif any("image/png" in output.get("data", {}) for output in cell.get("outputs", [])):
            cell["metadata"]["mystnb"] = {"image": {"alt": f"{heading}: {sentence}" if sentence else heading}}
    return json.dumps(content, indent=1, ensure_ascii=False)


def first_sentence(markdown: str) -> str:
    """The first sentence of a text in Markdown, without marks; headings, tables, lists and sentences with formulas are left out."""
    plain = re.sub(r"!?\[([^\]]*)\]\([^)]*\)|[*`]|<[^>]+>", r"\1", markdown)
    text = " ".join(line for line in plain.splitlines() if not line.startswith(("#", "|", "-")))
    sentences = re.split(r"(?<=[.!?])\s+", text.strip())
    return next((s.rstrip(":") for s in sentences if s and "$" not in s), "")


def write(path: Path, text: str) -> None:
    """Write a page; one that has not changed keeps its time, so that Sphinx leaves it alone."""
    path.parent.mkdir(parents=True, exist_ok=True)
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


def as_mathml(self, node) -> None:
    """Write a formula as MathML, which browsers show without a script from another host."""
    shown = "inline" if isinstance(node, nodes.math) else "block"
    self.body.append(latex2mathml.converter.convert(node.astext(), display=shown))
    raise nodes.SkipNode


class Pages(HTML5Translator):
    """Writes pages on which a picture is a link to itself, so that on a small screen it opens at its full size."""

    def visit_image(self, node) -> None:
        """Write the picture, after the start of the link to the file that it then names."""
        before = len(self.body)
        super().visit_image(node)
        if not isinstance(node.parent, nodes.reference):
            self.body.insert(before, f'<a class="picture" href="{node["uri"]}">')

    def depart_image(self, node) -> None:
        """End the picture and the link."""
        super().depart_image(node)
        if not isinstance(node.parent, nodes.reference):
            self.body.append("</a>")


def setup(app) -> None:
    """What Sphinx calls first."""
    app.set_translator("html", Pages)
    app.add_html_math_renderer("mathml", (as_mathml, None), (as_mathml, None))
    app.connect("autodoc-process-docstring", as_rst)
    app.connect("build-finished", add_explorer)


def add_explorer(app, error) -> None:
    """Put the explorer of the committed records beside the pages."""
    if not error:
        from maskutils.results.explorer import page_of

        write(Path(app.outdir) / "explorer.html", page_of("study"))


CONTENTS = """
```{toctree}
:hidden:
:caption: Results

photographs
results
explore
limits
glossary
```

```{toctree}
:hidden:
:caption: Guides
:glob:

install
guides/*
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
nb_render_markdown_format = "gfm"  # of outputs, which hold tables
myst_enable_extensions = ["dollarmath"]
html_math_renderer = "mathml"
suppress_warnings = ["ref.python"]  # a public name has two homes, as maskutils.Mask and maskutils.masks.mask.Mask
myst_heading_anchors = 3  # links to a heading, as GitHub has them
autodoc_default_options = {"members": True, "show-inheritance": True, "ignore-module-all": True}
autodoc_typehints = "description"
html_theme = "furo"
html_static_path, html_css_files = ["site.css"], ["site.css"]
