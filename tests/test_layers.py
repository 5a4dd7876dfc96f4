"""Mask layers: each against its paper's closed form, and one contract for all."""

import copy
import math

import pytest
import torch
from scipy.stats import ks_2samp
from torch import nn

from maskutils.core.checks import BadSetting
from maskutils.masks.layers import LAYERS, attach, detach
from maskutils.masks.layers.base import logistic_noise
from maskutils.masks.layers.edge_popup import EdgePopup
from maskutils.masks.layers.gumbel_sigmoid import GumbelSigmoid
from maskutils.masks.layers.hard_concrete import HardConcrete
from maskutils.masks.layers.piggyback import Piggyback
from maskutils.masks.mask import Mask
from maskutils.models.networks import build_model
from maskutils.models.parts import maskable
from maskutils.training.loop import OPTIMIZERS

GRID = torch.tensor([-3.0, -1.0, 0.0, 0.5, 2.0])
DRAWS = 40_000
WITHIN = 5 * 0.5 / math.sqrt(DRAWS)  # five standard errors of a share


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def on_grid(cls, draws: int = DRAWS, **options):
    """A layer with a row of scores for each entry of GRID, in training mode."""
    layer = cls(torch.ones(len(GRID), draws), **options)
    layer.scores.data = GRID[:, None].expand(-1, draws).clone()
    return layer


def backward(layer, weight, upstream, seed: int = 1):
    """The mask drawn under `seed`, and the gradient that reaches the scores."""
    torch.manual_seed(seed)
    layer(weight).backward(upstream)
    torch.manual_seed(seed)
    return layer.sample().detach(), layer.scores.grad


def noise(like: torch.Tensor, seed: int = 1) -> torch.Tensor:
    torch.manual_seed(seed)
    return logistic_noise(like)


# Gumbel-sigmoid (Csordas et al. 2021)


@pytest.mark.parametrize("tau", [0.5, 1.0, 3.0])
def test_gumbel_sigmoid_keeps_a_weight_with_probability_sigma_of_its_score(tau):
    sample = on_grid(GumbelSigmoid, tau=tau).sample()
    assert set(sample.unique().tolist()) == {0.0, 1.0}
    assert torch.allclose(sample.mean(1), torch.sigmoid(GRID), atol=WITHIN)


@pytest.mark.parametrize("tau", [0.5, 1.0, 3.0])
def test_gumbel_sigmoid_has_the_gradient_of_the_soft_sample(tau):
    layer, weight, upstream = on_grid(GumbelSigmoid, 9, tau=tau), torch.randn(5, 9), torch.randn(5, 9)
    mask, gradient = backward(layer, weight, upstream)
    r = torch.sigmoid((layer.scores + noise(layer.scores)) / tau).detach()
    assert torch.equal(mask, (r > 0.5).float())
    assert torch.allclose(gradient, r * (1 - r) / tau * upstream * weight)


def test_one_uniform_gives_the_law_of_the_papers_two():
    u, e = torch.rand(2, DRAWS, dtype=torch.double), 1e-10
    paper = -torch.log(torch.log(u[1] + e) / torch.log(u[0] + e) + e)
    assert ks_2samp(logistic_noise(torch.empty(DRAWS)).numpy(), paper.numpy()).pvalue > 0.01


def test_noise_is_drawn_in_float32_whatever_the_type_of_the_scores():
    assert torch.equal(noise(torch.empty(99, dtype=torch.bfloat16)), noise(torch.empty(99)).bfloat16())


@pytest.mark.parametrize("uniform", [0.0, 1.0])
def test_noise_is_finite_even_at_the_ends_of_the_uniform_law(monkeypatch, uniform):
    monkeypatch.setattr(torch, "rand_like", lambda like, **_: torch.full_like(like, uniform))
    assert logistic_noise(torch.empty(3)).isfinite().all()


def test_gumbel_sigmoid_begins_at_2_is_hard_above_0_and_pays_for_the_sum_of_scores():
    layer = GumbelSigmoid(torch.randn(3, 4))
    assert torch.equal(layer.scores, torch.full((3, 4), 2.0))
    assert layer.penalty() == 24
    assert on_grid(GumbelSigmoid, 1).harden().flatten().tolist() == [False, False, False, True, True]


# Hard concrete (Louizos et al. 2018)


def test_hard_concrete_is_above_zero_with_the_probability_it_pays_for():
    layer, probability = on_grid(HardConcrete), torch.sigmoid(GRID - 2 / 3 * math.log(0.1 / 1.1))
    assert torch.allclose((layer.sample() > 0).float().mean(1), probability, atol=WITHIN)
    assert layer.penalty().item() == pytest.approx(probability.mean().item(), rel=1e-5)


def test_hard_concrete_has_the_pathwise_gradient_of_the_stretched_sample():
    layer, weight, upstream = on_grid(HardConcrete, 50), torch.randn(5, 50), torch.randn(5, 50)
    mask, gradient = backward(layer, weight, upstream)
    y = torch.sigmoid((layer.scores + noise(layer.scores)) / (2 / 3)).detach()
    z = 1.2 * y - 0.1
    assert torch.allclose(mask, z.clip(0, 1), atol=1e-6)
    inside = (z > 0) & (z < 1)
    assert torch.allclose(gradient, inside * 1.2 * y * (1 - y) / (2 / 3) * upstream * weight, atol=1e-6)


def test_share_of_samples_with_a_gradient_is_that_between_the_clips():
    layer = on_grid(HardConcrete)
    _, gradient = backward(layer, torch.ones(5, DRAWS), torch.ones(5, DRAWS))
    expected = torch.sigmoid(1.5986 - GRID) - torch.sigmoid(-1.5986 - GRID)
    assert torch.allclose((gradient != 0).float().mean(1), expected, atol=WITHIN)


def noiseless_gate(layer):
    return (1.2 * layer.scores.detach().sigmoid() - 0.1).clamp(0, 1).item()


@pytest.mark.parametrize(("s", "gate"), [(-2.398, 0), (-2.397, None), (0.1, None), (2.397, None), (2.398, 1)])
def test_the_noiseless_gate_has_the_limits_of_the_paper_and_is_hard_at_one_half(s, gate):
    layer = HardConcrete(torch.ones(1, 1))
    assert noiseless_gate(layer) == pytest.approx(0.9, abs=1e-4)
    layer.scores.data.fill_(s)
    value = noiseless_gate(layer)
    assert value == gate if gate is not None else 0 < value < 1
    assert layer.harden().item() == (value > 0.5) == (s > 0)


@pytest.mark.parametrize(("progress", "factor"), [(0, 0), (0.25, 0), (0.3, 0.1), (0.5, 0.5), (0.75, 1), (1, 1)])
def test_hard_concrete_ramps_its_penalty_over_the_middle_half(progress, factor):
    assert HardConcrete.ramp(progress) == pytest.approx(factor)


# Edge-popup (Ramanujan et al. 2020)


@pytest.mark.parametrize("density", [0.01, 0.3, 0.5, 0.999, 1.0])
def test_edge_popup_keeps_exactly_the_highest_magnitudes(density):
    layer = EdgePopup(torch.randn(20, 15), density=density)
    layer.scores.data = torch.randn(20, 15)
    kept = layer.scores.abs().flatten().topk(round(density * 300)).indices
    assert set(layer.harden().flatten().nonzero().flatten().tolist()) == set(kept.tolist())


def test_edge_popup_gives_every_score_the_identity_gradient_times_its_sign():
    layer, weight, upstream = EdgePopup(torch.randn(4, 6), density=0.25), torch.randn(4, 6), torch.randn(4, 6)
    layer.scores.data = torch.randn(4, 6)
    mask, gradient = backward(layer, weight, upstream)
    assert mask.sum() == 6
    assert torch.equal(gradient, layer.scores.sign() * (upstream * weight))


def test_edge_popup_begins_with_the_largest_weights_or_at_random_with_the_same_spread():
    weight = torch.randn(200, 300)
    largest = weight.abs() >= weight.abs().flatten().topk(18_000).values[-1]
    by_weight, kaiming = (EdgePopup(weight, density=0.3, init=init) for init in ("weight", "kaiming"))
    assert torch.equal(by_weight.harden(), largest)
    assert (kaiming.harden() & largest).sum() < 6_000  # 5,400 by chance
    assert kaiming.scores.min() < 0 < kaiming.scores.max() <= 1 / math.sqrt(300)
    for layer in (by_weight, kaiming):
        assert layer.scores.square().mean().sqrt().item() == pytest.approx(1 / math.sqrt(3 * 300), rel=0.01)


def test_edge_popup_ranks_within_the_layer_from_one_nth_to_one():
    layer = EdgePopup(torch.ones(2, 2))
    layer.scores.data = torch.tensor([[0.1, -0.4], [0.3, -0.2]])
    assert layer.ranking().tolist() == [[0.25, 1.0], [0.75, 0.5]]


# Piggyback (Mallya et al. 2018)


def test_piggyback_begins_whole_and_keeps_what_is_above_its_threshold():
    layer = Piggyback(torch.randn(1, 4))
    assert layer.harden().all()
    layer.scores.data = torch.tensor([[5e-3, 5.1e-3, 4.9e-3, -1.0]])
    assert layer.harden().tolist() == [[False, True, False, False]]
    assert Piggyback(torch.randn(1, 4), threshold=0.02).harden().sum() == 0


def test_piggyback_gives_every_score_the_identity_gradient():
    layer, weight, upstream = Piggyback(torch.randn(4, 6)), torch.randn(4, 6), torch.randn(4, 6)
    layer.scores.data[:2] = 0
    mask, gradient = backward(layer, weight, upstream)
    assert torch.equal(mask, layer.harden().float())
    assert torch.equal(gradient, upstream * weight)


# The contract of every layer


@pytest.fixture(params=LAYERS)
def layer(request):
    """A layer of 108 weights with scores on both sides of every threshold."""
    made = LAYERS[request.param](torch.randn(4, 3, 3, 3))
    made.scores.data = 2 * torch.randn(4, 3, 3, 3)
    return made


def test_scores_harden_and_ranking_have_the_shape_of_the_weight(layer):
    assert {t.shape for t in (layer.scores, layer.harden(), layer.ranking(), layer.sample())} == {(4, 3, 3, 3)}
    assert layer.harden().dtype == torch.bool
    assert layer.ranking().isfinite().all()
    assert not layer.ranking().requires_grad


def test_in_evaluation_the_weight_is_multiplied_by_the_hard_mask_exactly(layer):
    weight = torch.randn(4, 3, 3, 3)
    assert torch.equal(layer.eval()(weight), weight * layer.harden())


def test_in_training_the_mask_lies_in_zero_to_one_and_passes_a_gradient_to_the_scores(layer):
    assert ((layer.sample() >= 0) & (layer.sample() <= 1)).all()
    layer(torch.randn(4, 3, 3, 3)).sum().backward()
    assert layer.scores.grad.isfinite().all()
    assert layer.scores.grad.abs().max() > 0


def trained(masked, layer, weight, upstream):
    """The masked weight, and the gradients of scores and weight."""
    torch.manual_seed(5)
    layer.scores.grad, weight.grad = None, None
    out = masked(weight)
    out.backward(upstream)
    return out.detach(), layer.scores.grad, weight.grad


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("memory", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("frozen", [True, False])
def test_the_masked_weight_is_weight_times_mask_bit_for_bit_and_so_are_its_gradients(layer, dtype, memory, frozen):
    weight = torch.randn(4, 3, 3, 3, dtype=dtype).to(memory_format=memory).requires_grad_(not frozen)
    upstream = torch.randn(4, 3, 3, 3, dtype=dtype)
    fused = trained(layer, layer, weight, upstream)
    plain = trained(lambda w: w * layer.sample().to(w.dtype), layer, weight, upstream)
    assert fused[0].stride() == weight.stride()
    assert [t is None for t in fused] == [False, False, frozen]
    assert all(a is b or (torch.equal(a, b) and a.dtype == b.dtype) for a, b in zip(fused, plain, strict=True))


def test_two_draws_before_one_backward_and_two_backwards_of_one_draw_are_right(layer):
    weight, upstream = torch.randn(4, 3, 3, 3), torch.randn(2, 4, 3, 3, 3)
    single = []
    for i in range(2):
        torch.manual_seed(i)
        layer(weight).backward(upstream[i])
        single.append(layer.scores.grad)
        layer.scores.grad = None
    draws = [(torch.manual_seed(i), layer(weight))[1] for i in range(2)]
    for draw, g in zip(draws, upstream, strict=True):
        draw.backward(g, retain_graph=True)
    assert torch.equal(layer.scores.grad, single[0] + single[1])
    layer.scores.grad = None
    draws[1].backward(upstream[1])
    assert torch.equal(layer.scores.grad, single[1])


def test_the_gradient_is_that_of_the_progress_at_which_the_mask_was_drawn():
    layer, weight = LAYERS["continuous_sparsification"](torch.randn(5)), torch.randn(5)
    out = layer(weight)
    layer.progress = 0.5  # as the learner sets it before the backward pass
    out.sum().backward()
    m = torch.sigmoid(layer.scores.detach())
    assert torch.allclose(layer.scores.grad, weight * m * (1 - m))


def test_one_tensor_of_the_size_of_the_weight_is_kept_for_the_backward_pass(layer):
    weight, sizes = torch.randn(4, 3, 3, 3), []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: (sizes.append(t.data_ptr()), t)[1], lambda t: t):
        layer(weight)
    assert len(set(sizes) - {weight.data_ptr(), layer.scores.data_ptr()}) <= 1


def test_the_hard_mask_keeps_the_top_of_the_ranking(layer):
    kept, ranking = layer.harden(), layer.ranking()
    assert 0 < kept.sum() < 108
    assert ranking[kept].min() > ranking[~kept].max()


def test_the_penalty_is_a_finite_scalar_whose_factor_grows_to_one(layer):
    assert layer.penalty().shape == ()
    assert layer.penalty().isfinite()
    factors = [layer.ramp(i / 20) for i in range(21)]
    assert factors == sorted(factors)
    assert (factors[0] >= 0, factors[-1]) == (True, 1)


def test_the_seed_decides_what_is_drawn(layer):
    drawn = [(torch.manual_seed(3), layer.sample())[1] for _ in range(2)]
    assert torch.equal(*drawn)


def test_defaults_for_training_are_sound(layer):
    assert layer.optimizer in OPTIMIZERS
    assert layer.lr > 0 <= layer.strength


@pytest.mark.parametrize("name", [n for n, cls in LAYERS.items() if cls.learns_density])
def test_a_layer_that_learns_for_a_density_has_exactly_that_one(name):
    assert LAYERS[name](torch.randn(10, 10), density=0.37).harden().sum() == 37


# attach and detach


@pytest.fixture(params=["mlp", "norm", "attention"])
def net(request):
    """A network in evaluation mode, and a batch for it."""
    if request.param == "mlp":
        return build_model("mlp", image_size=8).eval(), torch.randn(2, 1, 8, 8)
    if request.param == "norm":
        model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(144, 8), nn.Linear(8, 3))
        return model.eval(), torch.randn(2, 1, 8, 8)
    attention = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    return nn.Sequential(attention, nn.Linear(8, 2)).eval(), torch.randn(2, 5, 8)


@pytest.mark.parametrize("method", LAYERS)
def test_detach_gives_the_very_same_parameters_back_bit_for_bit(method, net):
    model, x = net
    before = {n: (p, p.detach().clone()) for n, p in model.named_parameters()}
    classes, keys = [type(module) for module in model.modules()], set(model.state_dict())
    attach(model, method)
    model.train()(x).sum().backward()
    detach(model)
    assert set(model.state_dict()) == keys
    assert all(model.get_parameter(n) is p and torch.equal(p, bits) for n, (p, bits) in before.items())
    assert [type(module) for module in model.modules()] == classes


@pytest.mark.parametrize("method", LAYERS)
def test_on_a_frozen_network_the_gradient_reaches_the_scores_and_only_them(method, net):
    model, x = net
    names = maskable(model)
    layers = attach(model.requires_grad_(False), method)
    assert list(layers) == names
    model.train()(x).square().sum().backward()
    assert {id(p) for p in model.parameters() if p.grad is not None} == {id(m.scores) for m in layers.values()}
    assert all(m.scores.grad.abs().max() > 0 for m in layers.values())


@pytest.mark.parametrize("method", LAYERS)
def test_in_evaluation_an_attached_network_answers_as_its_baked_mask_does(method, net):
    model, x = net
    plain = copy.deepcopy(model)
    layers = attach(model, method)
    for mask_layer in layers.values():
        mask_layer.scores.data.normal_()
    mask = Mask({name: mask_layer.harden() for name, mask_layer in layers.items()})
    assert 0 < mask.density < 1
    assert torch.equal(model(x), mask.apply(plain)(x))


def test_detach_leaves_the_parametrizations_of_others():
    model = nn.Sequential(nn.utils.parametrizations.orthogonal(nn.Linear(3, 3)), nn.Linear(3, 3), nn.Linear(3, 2))
    with pytest.warns(UserWarning, match=r"no mask covers 0\.weight"):
        attach(model, "piggyback")
    detach(model)
    assert [nn.utils.parametrize.is_parametrized(module) for module in model] == [True, False, False]


@pytest.mark.parametrize(
    ("method", "options", "message"),
    [
        ("piggybak", {}, r"unknown method 'piggybak'; known: .*Did you mean 'piggyback'"),
        ("gumbel_sigmoid", {"tua": 1.0}, r"unknown option of gumbel_sigmoid 'tua'; known: init, tau.*mean 'tau'"),
        ("hard_concrete", {"weight": 1.0}, "unknown option of hard_concrete 'weight'; known: init"),
        ("gumbel_sigmoid", {"tau": 0.0}, "tau = 0.0 must be greater than 0"),
        ("gumbel_sigmoid", {"tau": math.nan}, "tau = nan must be greater than 0"),
        ("edge_popup", {"density": 1.5}, r"density 1.5 is outside \(0, 1\]"),
        ("edge_popup", {"density": math.nan}, r"density nan is outside \(0, 1\]"),
        ("edge_popup", {"init": "kaimin"}, r"init of edge_popup 'kaimin'; known: kaiming, weight.*mean 'kaiming'"),
        ("gumbel_sigmoid", {"tau": "1"}, "option tau of gumbel_sigmoid = '1' is not a number"),
        ("piggyback", {"threshold": True}, "option threshold of piggyback = True is not a number"),
        ("edge_popup", {"init": 1.0}, "option init of edge_popup = 1.0 is not a name"),
    ],
)
def test_bad_names_and_values_are_refused_before_the_network_is_touched(method, options, message):
    model = build_model("mlp", image_size=8)
    keys = list(model.state_dict())
    with pytest.raises(BadSetting, match=message):
        attach(model, method, **options)
    assert list(model.state_dict()) == keys
