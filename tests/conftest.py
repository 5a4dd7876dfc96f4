"""Environment of all tests and of the kernels they start: one thread each, for the suite uses both cores itself, no progress
bars, and kernels that are forked with their imports done.
"""

import gc
import os
import re

import pytest

os.environ["OMP_NUM_THREADS"] = "1"
os.environ["TQDM_DISABLE"] = "1"

from maskutils.batch import kernels
from maskutils.core import paths  # below, for it imports torch, which reads the environment

os.environ.update(kernels.chosen())


QUICK = {"source_steps": 100, "mask_steps": 20, "target_steps": 20, "epochs": 1}  # as in the profile smoke


def pytest_collection_modifyitems(items):
    """Notebooks take fewer steps here than when they are opened, and 18 the approaches of its figure: no checked output depends on that."""
    for item in items:
        if "parameters" in getattr(item, "cell", {}).get("metadata", {}).get("tags", ()):
            few = {"chosen": '["finetune", "ewc", "gumbel_sigmoid"]'} if item.path.stem == "18_rates" else {}
            for name, value in (QUICK | few).items():
                pattern = rf"^({name}: \S+) = [^#]+"
                item.cell.source = re.sub(pattern, rf"\1 = {value}  ", item.cell.source, flags=re.MULTILINE)


@pytest.fixture(scope="module", autouse=True)
def _collected(request):
    """Collect what a module of slow tests leaves, such as event loops of kernels, while its filters of warnings hold."""
    yield
    if hasattr(request.module, "pytestmark"):
        gc.collect()


@pytest.fixture
def results(tmp_path, monkeypatch):
    """A folder for the results of all profiles."""
    monkeypatch.setattr(paths, "results_dir", lambda profile: tmp_path / profile)
    return tmp_path


def pytest_collection(session):
    """Coverage is that of the tests' own processes: nbval would have each kernel measure itself, which makes notebooks slower."""
    session.config.option.cov_source = None
