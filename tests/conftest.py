"""Environment of all tests and of the kernels they start: one thread each, for the suite uses both cores itself, and no
progress bars.
"""

import os

import pytest

os.environ["OMP_NUM_THREADS"] = "1"
os.environ["TQDM_DISABLE"] = "1"


@pytest.fixture
def results(tmp_path, monkeypatch):
    """A folder for the results of all profiles."""
    from maskutils import paths  # not above: it imports torch, which reads the environment

    monkeypatch.setattr(paths, "results_dir", lambda profile: tmp_path / profile)
    return tmp_path
