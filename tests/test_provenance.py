"""Provenance: the hash of our code changes with the code, and with nothing else."""

import importlib
import re
import resource
import sys

import pytest

from maskutils.core import paths
from maskutils.study import provenance

SOURCE = '"""Doc."""\n\nfrom maskutils.b import g\n\n\ndef f():\n    """Doc."""\n    return 1  # one\n'


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package of two modules, `a` that imports `b`, and a third that nobody imports."""
    for name, text in {"a": SOURCE, "b": "def g():\n    return 2\n", "c": "x = 3\n"}.items():
        (tmp_path / f"{name}.py").write_text(text)
    monkeypatch.setattr(paths, "PACKAGE", tmp_path)
    return tmp_path


def key(*modules):
    forget()
    return provenance.code_keys(*modules)


def forget():
    for cached in (provenance._closure, provenance._key, provenance.imports_in):
        cached.cache_clear()


@pytest.fixture(autouse=True)
def _forget():
    yield
    forget()


@pytest.mark.parametrize(
    ("module", "old", "new", "changes"),
    [
        ("a", "return 1", "return 7", True), ("b", "return 2", "return 7", True), ("c", "x = 3", "x = 7", False),
        ("a", "# one", "# another word", False), ("a", '    """Doc."""', '    """Another."""', False),
        ("a", "\n\n\ndef", "\n\ndef", False), ("a", "return 1", "return  (1)", False),
    ],
)  # fmt: skip
def test_the_key_changes_with_code_that_is_imported_and_not_with_prose(package, module, old, new, changes):
    before = key("maskutils.a")
    file = package / f"{module}.py"
    assert old in file.read_text()
    file.write_text(file.read_text().replace(old, new))
    assert (key("maskutils.a") != before) == changes


def test_every_file_of_the_mask_layers_counts_without_an_import():
    """The folder loads them itself, by words that `_closure` looks for."""
    files = (paths.PACKAGE / "masks" / "layers").glob("[!_]*.py")
    named = {f"maskutils.masks.layers.{file.stem}" for file in files}
    assert len(named) > 5
    assert named <= key("maskutils.masks.layers").keys()


def test_the_closure_follows_imports_and_folders(package):
    (package / "d").mkdir()
    (package / "d" / "__init__.py").write_text("from maskutils.d.e import h\n")
    (package / "d" / "e.py").write_text("from maskutils import a\nh = 1\n")
    assert provenance.code_keys("maskutils.d").keys() == {f"maskutils.{m}" for m in ("a", "b", "d", "d.e")}
    assert provenance.code_keys("maskutils.b").keys() == {"maskutils.b"}


def test_versions_and_commit_are_named():
    assert {"python", "torch", "torchvision", "maskutils"} <= set(provenance.versions())
    assert re.fullmatch(r"[0-9a-f]{12}(-dirty)?|unknown", provenance.git_commit())
    assert provenance.cores() >= 1


@pytest.mark.parametrize(
    ("source", "modules"),
    [
        ("import maskutils.masks.mask as m\nimport torch.nn", ["masks.mask"]),
        ("from maskutils import protect, learn_mask", ["masks.protection", "training.learn"]),
        ("from maskutils.results import plots", ["results", "results.plots"]),
        ("from maskutils.masks.mask import Mask", ["masks.mask"]),
        ("def f():\n    from maskutils.core import paths", ["core", "core.paths"]),
        ("load('maskutils.masks.rankings')", ["masks.rankings"]),
    ],
)
def test_an_import_names_the_modules_that_are_loaded(source, modules):
    assert provenance.imports_in(source) == [f"maskutils.{m}" for m in modules]


def test_the_whole_package_stands_for_all_that_is_public():
    assert provenance.imports_in("import maskutils") == ["maskutils"]
    assert {"maskutils.masks.mask", "maskutils.training.learn"} <= provenance.code_keys("maskutils").keys()


@pytest.mark.parametrize("line", ["x = !ls", "!ls", "%matplotlib inline", "files = %who_ls", "x?"])
def test_lines_of_ipython_hide_no_import(line):
    cell = provenance.python_of(f"from maskutils import protect\n{line}")
    assert provenance.imports_in(cell) == ["maskutils.masks.protection"]
    assert provenance.imports_in(provenance.python_of("%%bash\nls | wc")) == []


def test_a_cell_is_named_by_its_code_and_not_by_its_comments():
    assert provenance.cell_key("x = 1") == provenance.cell_key("# why\nx  =  1  # so") != provenance.cell_key("x = 2")
    assert provenance.cell_key("%%bash\nls") != provenance.cell_key("%%bash\nls -l")
    assert provenance.cell_key("not python") != provenance.cell_key("no python either")


def test_how_a_layer_is_shown_is_no_part_of_its_code(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    keys = {}
    for name in ("harden", "extra_repr", "_repr_html_", "gate"):
        (tmp_path / f"layer_{name}.py").write_text(
            f"class Layer:\n    def harden(self): ...\n    def {name}(self): ...\n"
        )
        keys[name] = provenance.own_code(importlib.import_module(f"layer_{name}").Layer)
    assert keys["extra_repr"] == keys["_repr_html_"] != keys["gate"]


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the system does not tell")
def test_the_peak_of_memory_is_that_of_this_process_and_not_of_the_one_that_started_it(monkeypatch):
    inherited = resource.struct_rusage([0] * 2 + [2**40] + [0] * 13)
    monkeypatch.setattr(provenance.resource, "getrusage", lambda who: inherited)
    assert 10 * 2**20 < provenance.peak_bytes() < 2**40
