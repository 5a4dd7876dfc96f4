"""Descriptions: one for everything that can be chosen, and nobody else knows an approach by its name."""

import ast

import pytest

from maskutils.core import approaches, paths
from maskutils.core.approaches import Approach, described
from maskutils.core.storage import Kept
from maskutils.masks.layers import LAYERS
from maskutils.masks.rankings import RANKINGS
from maskutils.training.base import PROTOCOLS


def test_everything_that_can_be_chosen_is_described():
    kinds = {a.name: a.kind for a in approaches.every()}
    assert {n for n, kind in kinds.items() if kind == "mask"} == set(LAYERS)
    assert {n for n, kind in kinds.items() if kind == "control"} == {*RANKINGS, "shuffled"}
    assert {n for n, kind in kinds.items() if kind in ("protocol", "baseline", "reference")} == {*PROTOCOLS, "wise_ft"}


@pytest.mark.parametrize(
    ("approach", "bits"),
    [
        ("source_only", 0),
        ("protect", 70),  # the mask as it is stored
        ("target_mask", 100),  # half of the weights changed: one bit each tells which
        ("select", 100 + 16 * 50),
        ("sparse_change", 100 + 16 * 50),
        ("sign_change", 100 + 16 * (9 + 1)),
        ("bias_only", 16 * 50),
        ("two_networks", 1600),
        ("finetune", 0),
        ("ewc", 0),
    ],
)
def test_stored_bits_as_worked_by_hand(approach, bits):
    assert described(approach).bits(Kept({"weight": (9, 10), "bias": (10,)}, changed=50, coded=70)) == bits


def test_a_name_is_given_once():
    approaches.every()
    with pytest.raises(ValueError, match="'ewc' is registered already"):
        approaches.describe(Approach("ewc", "baseline"))


@pytest.mark.parametrize(
    ("n", "values"), [(1, (0.1,)), (2, (0.1, 1.0)), (5, described("l2_sp").grid), (9, described("l2_sp").grid)]
)
def test_a_smaller_grid_is_the_middle_of_the_whole(n, values):
    assert described("l2_sp").values(n) == values


def test_every_grid_has_five_values_that_rise():
    grids = [a.grid for a in approaches.every() if a.grid and a.role != "yardstick"]
    assert grids
    assert all(len(g) == 5 and list(g) == sorted(set(g)) for g in grids)


def strings(node):
    return {n.value for n in ast.walk(node) if isinstance(n, ast.Constant) and isinstance(n.value, str)}


def compared(tree):
    """Strings that something is compared with: by an operator, a `match`, or `isin` and its like of pandas."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Compare | ast.match_case):
            yield from strings(node if isinstance(node, ast.Compare) else node.pattern)
        elif isinstance(node, ast.Call) and getattr(node.func, "attr", "") in (
            "isin",
            "eq",
            "startswith",
            "removesuffix",
            "replace",
        ):
            yield from (s for argument in node.args for s in strings(argument))


# Lists that a person chose, not properties of an approach. Of a figure: which curves get a name, where there is room for few. Of a
# claim: what it was written about before the study was run; a description that changed them would change the claim.
CURATED = {
    "curves.py": {"HIGHLIGHTED"},
    "masks.py": {"CURVES"},
    "storing.py": {"STORING"},
    "rivals.py": {"ELASTIC", "BESIDE"},
}


@pytest.mark.parametrize("file", sorted((paths.PACKAGE / "results").rglob("*.py")), ids=lambda f: f.stem)
def test_only_lists_of_figures_and_claims_that_a_person_chose_name_approaches(file):
    """A constant that holds names of approaches hides them from the test below: others compare with the constant."""
    names = {a.name for a in approaches.every()}
    constants = [
        n for n in ast.parse(file.read_text(encoding="utf-8")).body if isinstance(n, ast.Assign | ast.AnnAssign)
    ]
    holding = {ast.unparse(getattr(n, "target", None) or n.targets[0]) for n in constants if strings(n) & names}
    assert holding == CURATED.get(file.name, set())


def homes():
    """The file in which each approach is described, from one look at the package."""
    found = {}
    for file in paths.PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                calls = {getattr(d.func, "id", ""): d for d in node.decorator_list if isinstance(d, ast.Call)}
                if "layer" in calls:
                    found[calls["layer"].args[0].value] = file
                elif calls.keys() & {"ranking", "protocol"}:
                    found[node.name] = file
            elif isinstance(node, ast.Call) and getattr(node.func, "id", "") == "Approach":
                found |= dict.fromkeys(strings(node.args[0]), file)
    return found


def test_only_its_own_module_tells_an_approach_by_its_name():
    home, told = homes(), {}
    for file in paths.PACKAGE.rglob("*.py"):
        others = {a.name for a in approaches.every() if home[a.name] != file}
        told[str(file)] = others & set(compared(ast.parse(file.read_text(encoding="utf-8"))))
    assert {file: names for file, names in told.items() if names} == {}
