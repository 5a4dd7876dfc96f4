"""Small networks are computed by one thread, whatever torch has, and leave torch as it was."""

import pytest
import torch
from networks import easy

from maskutils.masks.information import fisher_information
from maskutils.models import sizes
from maskutils.models.networks import build_model
from maskutils.models.sizes import fitting_threads
from maskutils.training.evaluation import evaluate
from maskutils.training.loop import fit


@pytest.fixture(autouse=True)
def _two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def threads_seen(model, call):
    seen = set()
    model.register_forward_hook(lambda *_: seen.add(torch.get_num_threads()))
    call(model)
    assert torch.get_num_threads() == 2
    return seen


CALLS = {
    "fit": lambda model: fit(model, easy(), steps=2),
    "evaluate": lambda model: evaluate(model, easy()),
    "fisher": lambda model: fisher_information(model, easy(), 3),
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_a_small_network_has_one_thread_and_a_large_one_all(call, monkeypatch):
    assert threads_seen(build_model("mlp", 6, 1, 8), call) == {1}
    monkeypatch.setattr(sizes, "LARGE", 1)
    if call is not CALLS["fisher"]:  # which reads a copy without the hook, by batches
        assert threads_seen(build_model("mlp", 6, 1, 8), call) == {2}


def test_threads_are_restored_after_an_error():
    with pytest.raises(ValueError, match="boom"), fitting_threads(build_model("mlp")):
        raise ValueError("boom")
    assert torch.get_num_threads() == 2
