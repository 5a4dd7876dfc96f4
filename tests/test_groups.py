"""The bare install: what it does without the optional groups, and the one sentence where it needs them."""

import json
import re
import subprocess
import sys
import tomllib

import pytest

from maskutils.core import paths
from maskutils.core.checks import MissingPackage, needs

pytestmark = pytest.mark.slow  # starts Python anew
STUDY = tomllib.loads((paths.PACKAGE.parent / "pyproject.toml").read_text())["project"]["optional-dependencies"][
    "study"
]
IMPORTED = {"scikit-learn": "sklearn", "pyyaml": "yaml"}
BROUGHT_BY_TORCH = {"filelock", "jinja2"}
BLOCKED = {IMPORTED.get(name, name) for name in (re.match(r"[\w-]+", r)[0] for r in STUDY)} - BROUGHT_BY_TORCH | {"PIL"}
ASKED = {
    "maskutils.load_records()": "pandas",
    "maskutils.recommend": "pandas",
    "maskutils.load_pair('mnist_to_digits')": "pandas",
    "maskutils.load_pair('mnist_to_usps')": "torchvision",
    "maskutils.load_pair('folders:a:b')": "torchvision",
    "maskutils.build_model('resnet18')": "torchvision",
    "split([0, 1] * 20, 0, 'x')": "sklearn",
    "summary(net)": "pandas",
    "transfer(net, pair, 'lora', steps=1)": "peft",
    "transfer(net, pair, 'oft', steps=1)": "peft",
    "importlib.import_module('maskutils.study.experiment')": "pandas",
    "importlib.import_module('maskutils.batch.run')": "distributed",
    "importlib.import_module('maskutils.results.plots')": "pandas",
    "importlib.import_module('maskutils.results.records')": "pandas",
    "importlib.import_module('maskutils.results.report')": "pandas",
    "importlib.import_module('maskutils.results.claims')": "pandas",
}
BARE = """
import importlib, json, sys
sys.modules |= dict.fromkeys(BLOCKED)
import torch
from torch.utils.data import TensorDataset
import maskutils
from maskutils import Mask, build_model, evaluate, fit, learn_mask, protect, score, transfer
from maskutils.data.pair import Domain, Pair, split
from maskutils.models.parts import summary

said = {}
net = build_model("mlp", n_classes=2, image_size=4)
images = TensorDataset(torch.randn(40, 1, 4, 4), torch.arange(40) % 2)
pair = Pair("p", *(Domain(name, images, images, images, ("0", "1")) for name in ("a", "b")))
for statement in ASKED:
    try:
        eval(statement)
    except ImportError as error:
        said[statement] = str(error)
fit(net, images, steps=3)
mask = learn_mask(net, images, "gumbel_sigmoid", density=0.3, steps=3)
adapted = transfer(net, pair, "protect", mask=mask, steps=3)
said["scores"] = score(net, adapted, pair, mask)
try:
    from maskutils.__main__ import main
    main()
except SystemExit as left:
    said["command line"] = left.code
print(json.dumps(said))
"""


@pytest.fixture(scope="module")
def said():
    """What a Python without the study's packages says to each of `ASKED`, and what the library computes there."""
    code = f"BLOCKED, ASKED = {BLOCKED!r}, {list(ASKED)!r}\n{BARE}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("statement", ASKED)
def test_what_needs_the_study_says_so_in_one_sentence(said, statement):
    package = re.escape(ASKED[statement])
    assert re.fullmatch(
        rf"{package} is not installed; it is part of the group study: pip install 'maskutils\[study\]'", said[statement]
    )


def test_the_command_line_says_so_too(said):
    assert said["command line"].startswith("error: ")
    assert said["command line"].endswith("is part of the group study: pip install 'maskutils[study]'")


def test_the_library_learns_protects_transfers_and_scores_without_the_study(said):
    assert said["scores"]["drift"] == 0
    assert {"retention", "target_acc"} & said["scores"].keys()


def test_a_fault_of_our_own_is_not_called_a_missing_group():
    with pytest.raises(ModuleNotFoundError, match=r"No module named 'maskutils\.nonsense'"), needs("study"):
        import maskutils.nonsense  # noqa: F401
    with (
        pytest.raises(MissingPackage, match="nothing_of_that_name is not installed"),
        needs("study", "nothing_of_that_name"),
    ):
        pass
