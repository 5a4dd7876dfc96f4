"""A warning stands at the line that called into the package, or Python shows it once for all lines."""

import warnings

import pytest
import torch
from networks import easy
from torch import nn

from maskutils import Mask, build_model, fit, learn_mask, protect

NET = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
MASK = Mask({"0.weight": torch.ones(2, 2).bool()})
OTHER = learn_mask(build_model("mlp", 6, 1, 8, seed=1), easy(), "magnitude", density=0.5)


def held_in_vain():
    with protect(NET, MASK):
        pass


def mask_of_few_weights():
    net = build_model("mlp", 6, 1, 8)
    fit(net, easy(), steps=60)
    learn_mask(net, easy(), density=0.01, steps=2, start="magnitude")


CALLS = {
    "protect": held_in_vain,
    "apply": lambda: OTHER.apply(build_model("mlp", 6, 1, 8, seed=2)),
    "learn_mask": mask_of_few_weights,
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS.keys())
def test_it_names_the_line_of_the_user(call):
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        call()
    assert {warning.filename for warning in told} == {__file__}


def test_a_second_block_is_told_of_too():
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("default")
        with protect(NET, MASK):
            pass
        with protect(NET, MASK):
            pass
    assert len({warning.lineno for warning in told}) == 2
