"""The audit of ways to freeze weights: what is exact is 0, what leaks moves by what its formula says."""

import copy

import numpy as np
import pytest
import torch
from networks import easy
from torch.optim import AdamW

from maskutils.data.pair import Domain, Pair
from maskutils.masks.mask import Mask
from maskutils.models.networks import build_model
from maskutils.models.parts import maskable
from maskutils.results import plots
from maskutils.study import leaks
from maskutils.training.loop import fit

EXACT = {
    "zeroed gradients, SGD",
    "zeroed gradients, momentum",
    "zeroed gradients, Adam",
    "requires_grad, whole tensors",
}
EXACT |= {"parametrize, torch.where", "protect, AdamW", "protect, re-used momentum", "protect, re-used Adam"}
STEPS, LR = 8, 2e-3


@pytest.fixture(scope="module")
def source():
    model = build_model("mlp", 6, 1, 8)
    fit(model, easy(), steps=60)
    return model


@pytest.fixture(scope="module")
def mask(source):
    return Mask.from_scores({n: source.get_parameter(n).detach().abs() for n in maskable(source)}, 0.5)


@pytest.fixture(scope="module")
def table(source, mask):
    domain = [Domain(f"{i}", *(easy(seed=10 * i + j) for j in range(3)), tuple("abcdef")) for i in range(2)]
    return leaks.audit(source, Pair("easy", *domain), mask, STEPS, LR).set_index("recipe")


def test_what_is_exact_does_not_move_and_everything_else_does(table):
    assert set(table.index[table["change"] == 0]) == EXACT
    assert (table.loc[list(EXACT), "leak_cost"] == 0).all()
    assert set(leaks.leak_verdicts(table)[list(EXACT)]) == {"exact"}
    assert "exact" not in set(leaks.leak_verdicts(table).drop(list(EXACT)))


def test_decay_takes_what_the_schedule_says(table, source, mask):
    rates = LR * (1 + np.cos(np.pi * np.arange(STEPS) / STEPS)) / 2
    held = max(source.get_parameter(n).detach()[b].abs().max().item() for n, b in mask.bits.items())
    biases = max(p.detach().abs().max().item() for n, p in source.named_parameters() if n not in mask.bits)
    expected = (1 - np.prod(1 - 0.01 * rates)) * max(held, biases)
    assert table.loc["zeroed gradients, AdamW", "change"] == pytest.approx(expected, rel=0.01)


def test_prune_holds_zeros(table, source, mask):
    largest = max(source.get_parameter(n).detach()[b].abs().max().item() for n, b in mask.bits.items())
    assert table.loc["prune", "change"] == pytest.approx(largest)


def test_a_recipe_leaves_a_plain_network_and_the_source_alone(source, mask):
    before, data = copy.deepcopy(source.state_dict()), easy()
    job = leaks.Job(mask, data, data, 3, LR, 0)
    for name, recipe in leaks.RECIPES.items():
        model = copy.deepcopy(source)
        held = recipe(job, model)
        assert {n: b.shape for n, b in held.items()} == {n: p.shape for n, p in source.named_parameters()}, name
        assert model.state_dict().keys() == before.keys(), name
    assert all(torch.equal(t, before[n]) for n, t in source.state_dict().items())


def test_mofo_that_chooses_all_is_adamw(source):
    class Whole(leaks.MoFO):
        fraction = 1.0

    ours, theirs = copy.deepcopy(source), copy.deepcopy(source)
    fit(ours, easy(), steps=5, optimizer=Whole)
    fit(theirs, easy(), steps=5, optimizer=lambda params, lr: AdamW(params, lr=lr, weight_decay=0.1, fused=True))
    assert all(torch.equal(a, b) for a, b in zip(ours.parameters(), theirs.parameters(), strict=True))


def test_mofo_steps_where_the_momentum_is_high_and_decays_the_rest(source):
    model = copy.deepcopy(source)
    weight = model.get_parameter(maskable(model)[0])
    before, optim = weight.detach().clone(), leaks.MoFO([weight], lr=0.1)
    weight.grad = torch.randn_like(weight)
    optim.step()
    chosen = optim.chosen[weight]
    assert int(chosen.sum()) == int(0.03 * weight.numel())
    assert weight.grad[chosen].abs().min() >= weight.grad[~chosen].abs().max()
    assert torch.allclose(weight.detach()[~chosen], before[~chosen] * (1 - 0.1 * 0.1))
    assert (weight.detach() - before)[chosen].abs().min() > 0.05


def test_the_figure_has_a_line_for_each_recipe(table):
    figure = plots.leaks(table.reset_index())
    assert [t.get_text() for t in figure.axes[0].get_yticklabels()] == list(table.index)
    moved = figure.axes[0].lines[0]
    assert [table.index[int(y)] for y in moved.get_ydata()] == [n for n in table.index if n not in EXACT]
