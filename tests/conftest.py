"""Environment of all tests and of the kernels they start: one thread each, for the suite uses all cores itself, no progress
bars, and kernels that are forked with their imports done.
"""

import contextlib
import gc
import os
import re
import tempfile

import nbval.kernel
import pytest
from jupyter_client.manager import KernelManager

os.environ["OMP_NUM_THREADS"] = "1"
os.environ["TQDM_DISABLE"] = "1"

from maskutils.batch import kernels
from maskutils.batch.cluster import temporary_folder
from maskutils.core import paths  # below, for it imports torch, which reads the environment
from maskutils.study.provenance import cores

os.environ.update(kernels.chosen())


# As in the profile smoke.
QUICK = {"source_steps": "100", "mask_steps": "20", "target_steps": "20", "epochs": "1", "shown": "[0.1, 0.4]"}
FEW = {  # test_wheel runs 06 and 19 with all that they take
    "06_controls": {
        "rankings": '["magnitude", "snip", "shuffled", "random"]'
    },  # fisher looks at 500 images, one at a time
    "16_explore": {"methods": '["gumbel_sigmoid", "magnitude"]', "densities": "[0.1, 1.0]"},
    "18_rates": {"chosen": '["finetune", "ewc", "gumbel_sigmoid"]'},
    "19_changes": {"chosen": '["linear_probe", "sparse_change"]'},
}


UNMEASURED = [  # what is slow and runs lines that others run too
    "bench", "choice", "compiled", "explorer_lab", "explorer_page", "families", "golden", "house", "own_network", "prose", "prose_digits",
    "prose_pages", "prose_photographs", "readme", "recipes", "redraw", "statistics", "transfer", "wheel",
]  # fmt: skip


def pytest_configure(config):
    """nbval's kernels talk through files: the first one takes seconds to start, in which another process could take its ports."""
    stack = contextlib.ExitStack()
    config.add_cleanup(stack.close)
    folder = stack.enter_context(temporary_folder())
    nbval.kernel.KernelManager = lambda **given: KernelManager(
        config=kernels.through_files(tempfile.mkdtemp(dir=folder)), **given
    )


def pytest_xdist_auto_num_workers():
    """One process more than there are cores: many tests wait, for kernels, workers and browsers."""
    return cores() + 1


def pytest_collection_modifyitems(items):
    """Notebooks take fewer steps and approaches here than when they are opened: no checked output depends on how many.

    Coverage makes compilers and tables twice as slow, so some tests go without.
    """
    for item in items:
        if item.path.stem.removeprefix("test_") in UNMEASURED:
            item.add_marker("no_cover")
        if "parameters" in getattr(item, "cell", {}).get("metadata", {}).get("tags", ()):
            for name, value in (QUICK | FEW.get(item.path.stem, {})).items():
                pattern = rf"^({name}: \S+) = [^#]+"
                item.cell.source = re.sub(pattern, rf"\1 = {value}  ", item.cell.source, flags=re.MULTILINE)


@pytest.fixture(scope="module", autouse=True)
def _collected(request):
    """Collect what a module leaves, such as event loops of kernels, while its own filters of warnings hold."""
    yield
    if any(request.node.iter_markers("filterwarnings")):
        gc.collect()


@pytest.fixture
def results(tmp_path, monkeypatch):
    """A folder for the results of all profiles."""
    monkeypatch.setattr(paths, "results_dir", lambda profile: tmp_path / profile)
    return tmp_path


def pytest_collection_finish(session):
    """What there is now stays to the end, and is not looked through again at each collection of garbage: 0.4 s every time."""
    gc.freeze()


def pytest_collection(session):
    """Coverage is that of the tests' own processes: nbval would have each kernel measure itself, which makes notebooks slower."""
    session.config.option.cov_source = None
