"""The masks that came later: continuous sparsification, Bernoulli supermasks, winning subnetworks; and probabilities of all."""

import math

import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

from maskutils.core.checks import BadSetting
from maskutils.masks.layers import LAYERS
from maskutils.masks.layers.bernoulli import Bernoulli
from maskutils.masks.layers.continuous_sparsification import ContinuousSparsification
from maskutils.masks.layers.winning_subnetwork import WinningSubnetwork
from maskutils.models.parts import maskable
from maskutils.training.learn import learn_mask, learn_subnetwork

S = torch.tensor([-2.0, -0.5, -0.1, 0.1, 0.5, 2.0])


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def with_scores(cls, scores: torch.Tensor, **options):
    layer = cls(torch.ones_like(scores), **options).train()
    layer.scores.data.copy_(scores)
    return layer


# Continuous sparsification


@pytest.mark.parametrize(("progress", "beta"), [(0.0, 1.0), (0.5, math.sqrt(200)), (1.0, 200.0)])
def test_the_soft_mask_is_the_logistic_of_the_heated_score(progress, beta):
    layer = with_scores(ContinuousSparsification, S)
    layer.progress = progress
    by_hand = torch.tensor([1 / (1 + math.exp(-beta * s)) for s in S.tolist()])
    assert torch.allclose(layer.sample(), by_hand, atol=1e-6)
    assert torch.allclose(layer.penalty(), by_hand.sum(), atol=1e-5)


@pytest.mark.parametrize("progress", [0.0, 0.3])
def test_the_gradient_is_that_of_the_soft_mask(progress):
    layer, w, g = with_scores(ContinuousSparsification, S), torch.randn(6), torch.randn(6)
    layer.progress, beta = progress, 200**progress
    (layer(w) * g).sum().backward()
    m = torch.sigmoid(beta * S)
    assert torch.allclose(layer.scores.grad, g * w * beta * m * (1 - m), atol=1e-5)


def test_the_soft_mask_ends_as_the_hard_one():
    layer = with_scores(ContinuousSparsification, S)
    layer.progress = 1.0
    assert torch.allclose(layer.sample(), (S > 0).float(), atol=1e-8 + math.exp(-19))
    assert layer.harden().tolist() == (S > 0).tolist()
    assert torch.equal(layer.eval()(torch.full((6,), 3.0)), 3.0 * (S > 0))


def test_continuous_sparsification_begins_whole():
    layer = ContinuousSparsification(torch.randn(3, 2))
    assert layer.harden().all()
    assert torch.equal(layer.scores.data, torch.full((3, 2), 0.3))


def test_learning_heats_the_mask(monkeypatch):
    seen = []
    draw = ContinuousSparsification.draw
    monkeypatch.setattr(
        ContinuousSparsification, "draw", lambda self, s: (seen.append(self.progress), draw(self, s))[1]
    )
    learn_mask(network(), DATA, "continuous_sparsification", steps=4)
    assert sorted(set(seen)) == [0.0, 0.25, 0.5, 0.75]


# Bernoulli


def test_bernoulli_keeps_a_weight_with_probability_sigma_of_its_score():
    n = 40_000
    draws = with_scores(Bernoulli, S.expand(n, 6)).sample().detach()
    assert set(draws.unique().tolist()) == {0.0, 1.0}
    p = torch.sigmoid(S)
    assert ((draws.mean(0) - p).abs() < 4.5 * (p * (1 - p) / n).sqrt()).all()


def test_bernoulli_has_the_gradient_of_its_probability():
    layer, w, g = with_scores(Bernoulli, S), torch.randn(6), torch.randn(6)
    (layer(w) * g).sum().backward()
    p = torch.sigmoid(S)
    assert torch.allclose(layer.scores.grad, g * w * p * (1 - p), atol=1e-6)


def test_bernoulli_begins_at_2_is_hard_above_0_and_pays_for_the_expected_number():
    assert torch.equal(Bernoulli(torch.randn(4)).scores.data, torch.full((4,), 2.0))
    layer = with_scores(Bernoulli, S)
    assert layer.harden().tolist() == (S > 0).tolist()
    assert torch.allclose(layer.penalty(), torch.sigmoid(S).sum())


# Winning subnetworks

DATA = TensorDataset(torch.randn(64, 6, generator=torch.Generator().manual_seed(3)), torch.arange(64) % 3)


def network() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 3))


def test_a_winning_subnetwork_is_changed_weights_and_a_mask_of_its_density():
    model = network()
    before = {n: t.clone() for n, t in model.state_dict().items()}
    learnt, mask = learn_subnetwork(model, DATA, "winning_subnetwork", steps=10, density=0.25)
    after = learnt.state_dict()
    assert mask.densities == {"0.weight": 0.25, "2.weight": 0.25}
    for name, bits in mask.bits.items():
        assert (after[name] != before[name])[bits].any()
    assert {n for n in after if not torch.equal(after[n], before[n])} == set(maskable(model))
    assert after.keys() == before.keys()
    assert all(p.requires_grad for p in learnt.parameters())
    assert all(torch.equal(t, before[n]) for n, t in model.state_dict().items())


def test_other_masks_leave_the_weights_of_their_subnetwork():
    model = network()
    learnt, _ = learn_subnetwork(model, DATA, "bernoulli", steps=5)
    assert all(torch.equal(t, learnt.state_dict()[n]) for n, t in model.state_dict().items())
    learnt, _ = learn_subnetwork(model, DATA, "bernoulli", steps=5, train=["4."])
    changed = {n for n, t in model.state_dict().items() if not torch.equal(t, learnt.state_dict()[n])}
    assert changed == {"4.weight", "4.bias"}


@pytest.mark.filterwarnings("ignore:the mask was learnt on other weights")
def test_training_a_winning_subnetwork_lowers_its_loss():
    x = torch.randn(64, 6, generator=torch.Generator().manual_seed(3))
    data, model = TensorDataset(x, x[:, :3].argmax(1)), network()
    learnt, mask = learn_subnetwork(model, data, "winning_subnetwork", steps=60, density=0.5)
    loss = lambda m: nn.functional.cross_entropy(mask.apply(m)(x), data.tensors[1]).item()  # noqa: E731
    assert loss(learnt) < 0.95 * loss(model)


def test_a_winning_subnetwork_has_both_gradients():
    w, g = torch.randn(4, 5, requires_grad=True), torch.randn(4, 5)
    layer = WinningSubnetwork(w, density=0.5).train()
    (layer(w) * g).sum().backward()
    m = layer.harden()
    assert int(m.sum()) == 10
    assert torch.allclose(w.grad, g * m)
    assert torch.allclose(layer.scores.grad, layer.scores.data.sign() * g * w.data)


@pytest.mark.parametrize("options", [{}, {"of": "winning_subnetwork"}])
def test_learn_mask_refuses_what_learns_weights_too(options):
    method = "shuffled" if options else "winning_subnetwork"
    with pytest.raises(BadSetting, match=r"'winning_subnetwork' learns the weights.*learn_subnetwork"):
        learn_mask(network(), DATA, method, density=0.5, **options)


# The probability that a weight carries the task


@pytest.mark.parametrize("name", LAYERS)
def test_probabilities_lie_in_zero_to_one_and_rise_with_the_scores(name):
    scores = torch.randn(7, 9) * 4
    p = LAYERS[name].probability(scores)
    assert p.shape == scores.shape
    assert p.dtype == torch.float32
    in_order = p.flatten()[scores.flatten().argsort()]
    assert (in_order.diff() >= 0).all()
    assert in_order[0] >= 0
    assert in_order[-1] <= 1
    assert in_order[-1] - in_order[0] > 0.9


def test_bernoulli_knows_its_probability_and_a_method_without_one_gives_ranks():
    assert torch.equal(Bernoulli.probability(S), torch.sigmoid(S))
    ranks = ContinuousSparsification.probability(torch.tensor([[3.0, -1.0], [0.5, 9.0]]))
    assert torch.allclose(ranks, torch.tensor([[2 / 3, 0.0], [1 / 3, 1.0]]))
