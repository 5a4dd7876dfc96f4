"""The rules of the house: imports point down, files and functions are short, public things are described, set-up files
agree.
"""

import ast
import collections
import functools
import importlib
import itertools
import json
import re
import runpy
import shlex
import shutil
import subprocess
import sys
import tomllib
from types import SimpleNamespace

import pytest
import yaml

import maskutils
from maskutils.core import paths
from maskutils.study import provenance
from tools import fill_readme as readme

ROOT = paths.PACKAGE.parent
# An import points to the left or stays: models, masks and training know no results.
WINGS = ["core", "models", "data", "masks", "training", "results", "study", "batch"]
BESIDE = {"results": {"core", "results"}, "data": {"core", "data"}}  # and these see no more than this
LIBRARY = ["protect", "Mask", "learn_mask", "evaluate", "fit", "transfer", "score"]
STUDY_ONLY = [
    "pandas",
    "scipy",
    "sklearn",
    "mlxtend",
    "matplotlib",
    "seaborn",
    "papermill",
    "pydantic",
    "torchvision",
    "distributed",
]
FILES = sorted(paths.PACKAGE.rglob("*.py"))
MODULES = {
    ".".join(("maskutils", *f.relative_to(paths.PACKAGE).with_suffix("").parts)).removesuffix(".__init__"): f
    for f in FILES
}
FUNCTION = ast.FunctionDef | ast.AsyncFunctionDef


def tree_of(file):
    return ast.parse(file.read_text(encoding="utf-8"))


def length(node):
    docstring = ast.get_docstring(node)
    return node.end_lineno - node.lineno + 1 - (docstring.count("\n") + 1 if docstring else 0)


def wing(module):
    """The part of the house that a module belongs to; empty for the front door (`maskutils` and its `__main__`)."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 and parts[1] in WINGS else ""


@functools.cache
def imports_of(module):
    """Modules that it imports by a statement; core.approaches also loads, by name and when asked, those that describe approaches."""
    source = MODULES[module].read_text(encoding="utf-8")
    if wing(module):  # what is imported for type checkers alone is not loaded
        source = re.sub(r"^if TYPE_CHECKING:\n(    .*\n|\n)+", "", source, flags=re.M)
    return set(provenance.imports_in(source, quoted=False)) - {module}


def reached_from(modules):
    found, todo = set(), list(modules)
    while todo:
        if (module := todo.pop()) not in found:
            found.add(module)
            todo += imports_of(module)
    return found


def test_every_module_is_in_a_wing():
    assert {wing(m) for m in MODULES} == {"", *WINGS}
    assert {m for m in MODULES if not wing(m)} == {"maskutils", "maskutils.__main__"}


def test_imports_point_one_way():
    upwards = {}
    for module in filter(wing, MODULES):
        allowed = BESIDE.get(wing(module), WINGS[: WINGS.index(wing(module)) + 1])
        upwards[module] = sorted(m for m in imports_of(module) if wing(m) not in allowed)
    assert {module: found for module, found in upwards.items() if found} == {}


def test_no_module_imports_itself_through_others():
    for module in MODULES:
        if wing(module):
            assert module not in reached_from(imports_of(module)), f"{module} is part of a circle"


def loaded_by(statement):
    """Top-level modules that a fresh Python has loaded after `statement`."""
    code = f"import sys\n{statement}\nprint(*{{m.partition('.')[0] for m in sys.modules}})"
    return set(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split())


@pytest.mark.slow  # starts Python anew
def test_the_library_loads_nothing_of_the_study():
    every = ", ".join(f"maskutils.{name}" for name in LIBRARY)
    assert not loaded_by(f"import maskutils; {every}") & set(STUDY_ONLY)


@pytest.mark.slow
def test_the_study_of_tables_loads_no_torch():
    modules = [m for m in MODULES if wing(m) == "results"]
    assert "torch" not in loaded_by("import " + ", ".join(modules))


def test_names_are_checked_without_pandas():
    """The plan checks them, and the process of a batch then lasts as long as all its runs."""
    tables = {m for m in MODULES if wing(m) == "results"}
    assert not reached_from({"maskutils.study.artefacts", "maskutils.training.learn"}) & tables


def test_the_front_door_names_what_type_checkers_see():
    block = next(node for node in tree_of(MODULES["maskutils"]).body if isinstance(node, ast.If))
    seen = {alias.name: node.module for node in block.body for alias in node.names}
    assert seen == {name: f"maskutils.{home}" for name, home in maskutils.HOMES.items()}
    assert sorted(seen) == sorted(maskutils.__all__)
    assert all(getattr(maskutils, name) is getattr(importlib.import_module(home), name) for name, home in seen.items())
    with pytest.raises(AttributeError, match="no attribute 'proteckt'; public names: Domain, Mask"):
        _ = maskutils.proteckt


@pytest.mark.parametrize("package", [m for m, f in MODULES.items() if f.stem == "__init__"])
def test_no_public_name_shadows_a_module(package):
    """`package.name` is one thing, whether it was imported as a module before or not."""
    tree = tree_of(MODULES[package])
    imported = {a.asname or a.name for n in ast.walk(tree) if isinstance(n, ast.ImportFrom) for a in n.names}
    listed = set(getattr(importlib.import_module(package), "__all__", ()))
    defined = {n.name for n in tree.body if isinstance(n, FUNCTION | ast.ClassDef)}
    assert not {f"{package}.{name}" for name in imported | listed | defined} & MODULES.keys()


def test_a_name_of_a_class_has_one_meaning():
    classes = [n.name for file in FILES for n in tree_of(file).body if isinstance(n, ast.ClassDef)]
    assert len(set(classes)) == len(classes) > 50


def test_a_constant_has_one_meaning():
    """But for `F` and `T`, which stand for types, and torch's functional."""
    constants = [n for file in FILES for n in tree_of(file).body if isinstance(n, ast.Assign | ast.AnnAssign)]
    homes = collections.Counter(
        node.id
        for constant in constants
        for target in getattr(constant, "targets", None) or [constant.target]
        for node in ast.walk(target)
        if isinstance(node, ast.Name) and node.id.isupper() and len(node.id) > 1
    )
    assert not [name for name, n in homes.items() if n > 1]


def test_the_version_is_in_one_place():
    files = [
        f for f in ("pyproject.toml", "CITATION.cff", "docs/conf.py") if maskutils.__version__ in (ROOT / f).read_text()
    ]
    files += [f.name for f in FILES if f'"{maskutils.__version__}"' in f.read_text(encoding="utf-8")]
    assert files == ["__init__.py"]


def test_the_library_proper_stays_small():
    assert "stays below 5,500 lines." in (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    files = [
        file for wing in ("core", "models", "masks", "training") for file in (ROOT / "maskutils" / wing).rglob("*.py")
    ]
    assert 5000 < sum(len(file.read_text(encoding="utf-8").splitlines()) for file in files) < 5500


def test_files_and_functions_are_short():
    long = [name for name, file in MODULES.items() if len(file.read_text(encoding="utf-8").splitlines()) > 270]
    for name, file in MODULES.items():
        functions = (node for node in ast.walk(tree_of(file)) if isinstance(node, FUNCTION))
        long += [f"{name}.{node.name}" for node in functions if length(node) > 40]
    assert long == []


def test_public_things_are_described():
    assert {name: found for name, file in MODULES.items() if (found := undescribed(tree_of(file)))} == {}


def undescribed(tree):
    """Public things of a module without a docstring; the module itself is "module"."""
    public = [n for n in tree.body if isinstance(n, FUNCTION | ast.ClassDef) and not n.name.startswith("_")]
    public += [
        m
        for c in public
        if isinstance(c, ast.ClassDef)
        for m in c.body
        if isinstance(m, FUNCTION) and not m.name.startswith("_")
    ]
    return ["module"] * (not ast.get_docstring(tree)) + [n.name for n in public if not ast.get_docstring(n)]


def test_modules_are_named_for_things():
    assert not {"utils", "helpers", "common", "misc"} & {part for module in MODULES for part in module.split(".")}


def test_nothing_is_unpickled():
    calls = [n for file in FILES for n in ast.walk(tree_of(file)) if isinstance(n, ast.Attribute)]
    assert not [
        ast.unparse(n) for n in calls if ast.unparse(n) in ("torch.load", "pickle.load", "pickle.loads", "yaml.load")
    ]


def test_the_names_that_the_readme_imports_are_public():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    imported = {name for line in re.findall(r"from maskutils import (.+)", text) for name in line.split(", ")}
    assert imported
    assert imported <= set(maskutils.__all__) <= set(dir(maskutils))


def requirements(*groups):
    """Of the bare library and `groups`; all, if none is named."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    optional = project["optional-dependencies"]
    listed = [*project["dependencies"], *itertools.chain(*(optional[group] for group in groups or optional))]
    return [r for r in listed if not r.startswith("maskutils")]


def test_environment_is_that_of_pyproject():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
    listed = {d for d in environment["dependencies"] if isinstance(d, str)} - {"python>=3.11", "pip", "make"}
    conda = {"torch": "pytorch", "playwright": "playwright-python"}  # the names that differ there
    assert listed == {re.sub(r"^[\w-]+", lambda name: conda.get(name[0], name[0]), r) for r in requirements()}


def test_constraints_pin_every_requirement():
    pinned = {
        line.split("==")[0].lower().replace("_", "-")
        for line in (ROOT / "constraints.txt").read_text().splitlines()
        if "==" in line
    }
    assert {re.match(r"[\w-]+", requirement)[0].lower() for requirement in requirements()} <= pinned


def test_every_requirement_is_used():
    sources = " ".join(p.read_text(encoding="utf-8") for p in FILES)
    imported = {"scikit-learn": "sklearn", "pyyaml": "yaml"}
    indirect = {"nbclient", "jupyterlab", "ipykernel", "jinja2", "tabulate", "nbstripout", "torchvision"}
    names = {re.match(r"[\w-]+", r)[0] for r in requirements("study")} - indirect
    assert not [name for name in names if not re.search(rf"(import|from) {imported.get(name, name)}\b", sources)]


DOCUMENTS = sorted(
    file
    for pattern in ("*.md", "docs/**/*.md", "notebooks/*.ipynb")
    for file in ROOT.glob(pattern)
    if "_build" not in file.parts
)


@functools.cache
def text_of(file):
    """The text of a document, or of the text cells of a notebook."""
    text = file.read_text(encoding="utf-8")
    if file.suffix != ".ipynb":
        return text
    return "\n\n".join("".join(c["source"]) for c in json.loads(text)["cells"] if c["cell_type"] == "markdown")


def anchors(file):
    """The anchors of a document's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", text_of(file), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_links_of_documents_and_notebooks_lead_somewhere_to_the_heading():
    broken = []
    for document in DOCUMENTS:
        for target, anchor in re.findall(r"\]\(([^)#\s]*)#?([^)\s]*)\)", text_of(document)):
            file = document.parent / target if target else document
            is_page = file.suffix in (".md", ".ipynb")
            if not target.startswith("http") and not (
                file.exists() and (not anchor or not is_page or anchor in anchors(file))
            ):
                broken.append(f"{document.name}: {target}#{anchor}")
    assert not broken


def test_figures_of_the_readme_are_committed():
    shown = re.findall(r"!\[[^\]]*\]\(([^)]+)\)", (ROOT / "README.md").read_text(encoding="utf-8"))
    listed = subprocess.run(
        ["git", "ls-files", "figures"], cwd=ROOT, capture_output=True, text=True, check=False
    ).stdout
    assert shown
    shown = [f for f in shown if not f.startswith("https://")]  # badges
    assert not [f for f in shown if not (ROOT / f).exists() or (listed and f not in listed.splitlines())]
    assert shown[0] == "figures/study/talk.png"


def test_the_readme_is_one_page():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert len(text.split()) <= 1200
    code = "\n".join(re.findall(r"```\w+\n(.+?)```", text, re.DOTALL))
    assert code
    assert not [line for line in code.splitlines() if len(line) > 80]
    assert "Only the paper's abstract is public to us, so no number here is the paper's" in text


def test_the_readme_lists_every_notebook_with_its_run_time():
    page = (ROOT / "README.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\[(\w+)\]\(notebooks/\1\.ipynb\) \|.+\| (.+)$", page, re.MULTILINE)
    notebooks = {file.stem: json.loads(file.read_text(encoding="utf-8")) for file in ROOT.glob("notebooks/*.ipynb")}
    assert [name for name, _ in rows] == sorted(notebooks)
    first = {name: "".join(notebook["cells"][0]["source"]) for name, notebook in notebooks.items()}
    words = {
        "10 s": "ten seconds",
        "20 s": "twenty seconds",
        "30 s": "half a minute",
        "40 s": "forty seconds",
        "60 s": "a minute",
    }
    wrong = [n for n, time in rows if not re.search(rf"\*\*Run time\*\*: (about )?{words[time]}\b", first[n])]
    assert not wrong


HOSTS = ["timm", "torchvision", "transformers.Trainer", "accelerator", "lightning", "fit_one_cycle", "fully_shard"]
HOSTS += ["DistributedDataParallel", "torch.compile", "update_parameters", "ShiraConfig", "push_to_hub"]


@pytest.mark.parametrize("host", HOSTS)
def test_every_host_has_a_recipe_of_ten_lines_at_most(host):
    text = (ROOT / "docs/guides/hosts.md").read_text(encoding="utf-8")
    recipes = re.findall(r"```python\n(.+?)```", text, re.DOTALL)
    assert all(len(recipe.splitlines()) <= 10 for recipe in recipes)
    assert any(host in recipe for recipe in recipes)


def test_every_block_has_its_markers_and_every_marker_its_block():
    text = "".join(file.read_text(encoding="utf-8") for file in readme.FILES)
    begun, ended = (sorted(re.findall(rf"<!-- {slash}([\w:]+) -->", text)) for slash in ("", "/"))
    assert begun == ended == sorted(set(begun))


@pytest.mark.slow
def test_numbers_of_the_readme_and_the_results_are_those_of_the_committed_records():
    blocks = readme.all_blocks()
    texts = readme.fill_files(readme.FILES, blocks)
    assert {file: file.read_text(encoding="utf-8") for file in texts} == texts, "run: make readme"
    assert set(re.findall(r"<!-- ([\w:]+) -->", "".join(texts.values()))) == set(blocks)


@pytest.mark.slow
def test_formulas_and_tables_of_outputs_are_shown_on_the_site(monkeypatch):
    monkeypatch.setattr(sys, "path", [*sys.path])
    site = runpy.run_path(str(ROOT / "docs" / "conf.py"))
    assert "dollarmath" in site["myst_enable_extensions"]
    assert site["nb_render_markdown_format"] == "gfm"  # or tables in outputs stand there as text
    page, nodes = SimpleNamespace(body=[]), pytest.importorskip("docutils.nodes")
    with pytest.raises(nodes.SkipNode):
        site["as_mathml"](page, nodes.math(text=r"\sigma(s)"))
    assert page.body[0].startswith("<math")
    assert "&#x003C3;" in page.body[0]


@pytest.mark.slow
def test_links_lead_to_the_same_documents_on_the_site(monkeypatch):
    monkeypatch.setattr(sys, "path", [*sys.path])
    site = runpy.run_path(str(ROOT / "docs" / "conf.py"))
    links = {
        ("README.md", "[a](docs/guides/batch.md)"): "[a](guides/batch.md)",
        ("README.md", "[a](docs/results.md#claims) ![b](figures/a.png)"): "[a](results.md#claims) ![b](figures/a.png)",
        ("docs/guides/batch.md", "[a](../results.md), [b](hosts.md)"): "[a](../results.md), [b](hosts.md)",
        ("docs/guides/batch.md", "[a](../../README.md)"): "[a](../index.md)",
        ("docs/guides/batch.md", "[a](../../notebooks/a.ipynb)"): "[a](../notebooks/a.ipynb)",
        ("docs/results.md", "[a](../CONTRIBUTING.md), [b](../tools/x.py)"): "[a](contributing.md), b",
        ("notebooks/a.ipynb", "[a](b.ipynb), [b](../README.md), [c](#d)"): "[a](b.ipynb), [b](../index.md), [c](#d)",
        ("docs/results.md", "[the full\ntable](../results/a.md)"): "the full\ntable",
        ("README.md", "![badge](https://a.org/b)\n![c](figures/c.png)"): "![c](figures/c.png)",  # it works offline
        ("CONTRIBUTING.md", "[a](https://a.org/b.md), [b](maskutils/core)"): "[a](https://a.org/b.md), b",
    }
    assert {(file, text): site["relinked"](text, file) for file, text in links} == links
    assert not site["place"]("docs/_build/source/index.md")


@pytest.mark.slow
def test_pictures_of_the_site_open_at_their_full_size(monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "path", [*sys.path])
    site, sphinx = runpy.run_path(str(ROOT / "docs" / "conf.py")), pytest.importorskip("sphinx.application")
    shutil.copy(ROOT / "figures" / "talk.png", tmp_path)
    linked = ".. image:: talk.png\n   :target: https://a.org\n"
    (tmp_path / "index.rst").write_text(f"Page\n====\n\n.. image:: talk.png\n\n{linked}", encoding="utf-8")
    page = sphinx.Sphinx(tmp_path, None, tmp_path / "html", tmp_path / "trees", "html", status=None)
    page.set_translator("html", site["Pages"])
    page.build()
    text = (tmp_path / "html" / "index.html").read_text(encoding="utf-8")
    assert re.findall(r'<a class="picture" href="([^"]+)"><img', text) == ["_images/talk.png"]
    assert text.count("<img") == 2  # the other is a link already


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*Sphinx API modifications")  # of the readers of notebooks
def test_pictures_of_notebooks_say_on_the_site_what_they_show(monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "path", [*sys.path])
    site, sphinx = runpy.run_path(str(ROOT / "docs" / "conf.py")), pytest.importorskip("sphinx.application")
    notebooks = [file.read_text(encoding="utf-8") for file in sorted((ROOT / "notebooks").glob("*.ipynb"))]
    cells = [cell for text in notebooks for cell in json.loads(site["with_alternatives"](text))["cells"]]
    said = [
        cell["metadata"]["mystnb"]["image"]["alt"] for cell in cells if "image/png" in json.dumps(cell.get("outputs"))
    ]
    assert all(12 < len(alternative) < 300 and not re.search(r"[$`*#]|\]\(", alternative) for alternative in said)
    (tmp_path / "index.ipynb").write_text(site["with_alternatives"](notebooks[1]), encoding="utf-8")
    about = {"extensions": ["myst_nb"], "nb_execution_mode": "off"}
    page = sphinx.Sphinx(
        tmp_path, None, tmp_path / "html", tmp_path / "trees", "html", confoverrides=about, status=None, warning=None
    )
    page.build()
    text = (tmp_path / "html" / "index.html").read_text(encoding="utf-8")
    shown = re.findall(r'<img alt="([^"]*)"', text)
    assert len(shown) == text.count("<img") == notebooks[1].count('"image/png"')
    assert set(shown) <= set(said)
    assert site["first_sentence"]("## A\n\n| a |\n\nSee [this](a.md): **two** of `x`. More.") == "See this: two of x."
    assert not site["first_sentence"]("## A\n\n$x$ is one.")


def yaml_of(path):
    return yaml.safe_load((ROOT / path).read_text(encoding="utf-8"))


def test_hooks_strip_notebooks_as_make_does():
    (hook,) = (h for h in yaml_of(".pre-commit-config.yaml")["repos"][0]["hooks"] if h["id"] == "nbstripout")
    command = re.search(r"\$\(BIN\)/nbstripout (.+?) notebooks/", (ROOT / "Makefile").read_text().replace("\\\n", ""))
    assert shlex.split(command[1]) == hook["args"]


def test_continuous_integration_runs_targets_that_there_are():
    workflow = (ROOT / ".github/workflows/ci.yml").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"make ([a-z-]+)", workflow)) <= targets
    oldest = yaml_of(".github/workflows/ci.yml")["jobs"]["test"]["strategy"]["matrix"]["python"][0]
    assert f'requires-python = ">={oldest}"' in (ROOT / "pyproject.toml").read_text()


@pytest.mark.slow
def test_examples_for_contributors_are_found_and_run():
    layer, baseline = re.findall(
        r"```python\n(.+?)```", (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"), re.DOTALL
    )
    code = f"""{layer}
import torch
from maskutils import learn_mask, transfer
from maskutils.data.pair import Domain, Pair
from maskutils.training.baselines import *
from maskutils.training.base import History, Transfer, protocol
{baseline}
images = torch.utils.data.TensorDataset(torch.randn(40, 6), torch.arange(40) % 2)
pair = Pair("p", *(Domain(name, images, images, images, ("0", "1")) for name in "ab"))
net = torch.nn.Sequential(torch.nn.Linear(6, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))
assert 0 < learn_mask(net, images, "above_zero", steps=3).density <= 1
transfer(net, pair, "l1_sp", steps=3)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
