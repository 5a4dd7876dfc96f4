"""The rules of the house: imports point down, files and functions are short, public things are described, set-up files
agree.
"""

import ast
import re
import subprocess
import tomllib

import pytest
import yaml

import maskutils
from maskutils import paths, provenance, readme

ROOT = paths.PACKAGE.parent
ORDER = [  # an import may only point down this list
    "cli", "bench", "batch", "kernels", "cost", "plan", "notebooks", "experiment", "plots", "readme", "report",
    "claims", "__init__", "artefacts", "inputs", "transfer", "learn", "rankings", "train", "protection", "choice",
    "analysis", "records", "layers", "mask", "selection", "data", "models", "metrics", "progress", "provenance", "config", "seeds",
    "files", "paths",
]  # fmt: skip
MODULES = sorted(
    {p.stem for p in paths.PACKAGE.glob("*.py")} | {p.parent.name for p in paths.PACKAGE.glob("*/__init__.py")}
)
FILES = sorted(paths.PACKAGE.rglob("*.py"))
FUNCTION = ast.FunctionDef | ast.AsyncFunctionDef


def tree_of(file):
    return ast.parse(file.read_text(encoding="utf-8"))


def length(node):
    docstring = ast.get_docstring(node)
    return node.end_lineno - node.lineno + 1 - (docstring.count("\n") + 1 if docstring else 0)


@pytest.mark.parametrize("module", MODULES)
def test_imports_point_down(module):
    below = ORDER[ORDER.index(module) + 1 :]
    imported = provenance.imports_of(module)
    assert imported <= set(below), f"{module} imports upwards: {imported - set(below)}"


@pytest.mark.parametrize("file", FILES, ids=lambda f: f.stem)
def test_files_and_functions_are_short(file):
    assert len(file.read_text(encoding="utf-8").splitlines()) <= 270
    long = [node.name for node in ast.walk(tree_of(file)) if isinstance(node, FUNCTION) and length(node) > 40]
    assert not long


@pytest.mark.parametrize("file", FILES, ids=lambda f: f.stem)
def test_public_things_are_described(file):
    tree = tree_of(file)
    assert ast.get_docstring(tree)
    public = [n for n in tree.body if isinstance(n, FUNCTION | ast.ClassDef) and not n.name.startswith("_")]
    public += [
        m
        for c in public
        if isinstance(c, ast.ClassDef)
        for m in c.body
        if isinstance(m, FUNCTION) and not m.name.startswith("_")
    ]
    assert not [node.name for node in public if not ast.get_docstring(node)]


def test_modules_are_named_for_things():
    assert not {"utils", "helpers", "common", "misc"} & set(MODULES)


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


def requirements():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return project["dependencies"] + project["optional-dependencies"]["test"]


def test_environment_is_that_of_pyproject():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
    listed = {d for d in environment["dependencies"] if isinstance(d, str)} - {"python>=3.11", "pip", "make"}
    assert listed == {re.sub(r"^torch(?=\W)", "pytorch", requirement) for requirement in requirements()}


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
    indirect = {"nbclient", "jupyterlab", "ipykernel", "ipywidgets", "jinja2", "tabulate", "nbstripout", "torchvision"}
    names = {re.match(r"[\w-]+", r)[0] for r in requirements()} - indirect - {"pytest", "pytest-xdist", "nbval", "ruff"}
    assert not [name for name in names if not re.search(rf"(import|from) {imported.get(name, name)}\b", sources)]


@pytest.mark.parametrize("document", sorted(ROOT.glob("*.md")), ids=lambda p: p.name)
def test_links_of_documents_lead_somewhere(document):
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", document.read_text(encoding="utf-8")):
        assert target.startswith("http") or (document.parent / target).exists(), target


def test_figures_of_the_readme_are_committed():
    shown = re.findall(r"!\[[^\]]*\]\(([^)]+)\)", (ROOT / "README.md").read_text(encoding="utf-8"))
    listed = subprocess.run(
        ["git", "ls-files", "figures"], cwd=ROOT, capture_output=True, text=True, check=False
    ).stdout
    assert shown
    assert not [f for f in shown if not (ROOT / f).exists() or (listed and f not in listed.splitlines())]


def test_numbers_of_the_readme_are_those_of_the_committed_records():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert readme.fill_readme(text, readme.readme_blocks()) == text, "run: maskutils readme"
