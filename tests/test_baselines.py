"""Baselines: each penalty, ranking and protocol against its formula, and exactly which entries may move."""

import functools

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import TensorDataset

from maskutils.core.approaches import described
from maskutils.data.batches import batches
from maskutils.data.load import load_pair
from maskutils.data.pair import Domain, Pair
from maskutils.masks.information import fisher_information
from maskutils.masks.mask import Mask
from maskutils.masks.rankings import fisher, snip
from maskutils.models.heads import for_task
from maskutils.models.networks import build_model
from maskutils.models.parts import maskable
from maskutils.training import baselines
from maskutils.training.base import PROTOCOLS, Training, Transfer
from maskutils.training.learn import learn_subnetwork
from maskutils.training.transfer import interpolate, transfer

STEPS = 8


def domain(classes: str, seed: int) -> Domain:
    draw = torch.Generator().manual_seed(seed)
    x = torch.randn(48, 6, generator=draw)
    data = TensorDataset(x, x[:, : len(classes)].argmax(1))
    return Domain(f"domain {seed}", data, data, data, tuple(classes))


SHARED, SEPARATE = Pair("same", domain("abc", 1), domain("abc", 2)), Pair("other", domain("abc", 1), domain("de", 2))


@pytest.fixture
def net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 10), nn.ReLU(), nn.Linear(10, 8), nn.ReLU(), nn.Linear(8, 3)).eval()


@pytest.fixture
def mask(net) -> Mask:
    return Mask.from_scores({n: net.get_parameter(n).abs() for n in maskable(net)}, 0.4)


def moved(a: nn.Module, b: nn.Module) -> dict[str, torch.Tensor]:
    """Which entries differ, of the tensors that do."""
    other = b.state_dict()
    return {n: t != other[n] for n, t in a.state_dict().items() if n in other and not torch.equal(t, other[n])}


def penalty_of(protocol: str, model: nn.Module, **given):
    """The penalty that a protocol trains with."""
    kept = {}

    class Watched(Transfer):
        def fit(self, **options):
            kept.update(options)
            return []

    knobs = {**described(protocol).knobs, **given}
    PROTOCOLS[protocol](Watched(model, SHARED, Training(batch_size=32)), **knobs)
    return functools.partial(kept["penalty"], progress=0.0)


def shift(model: nn.Module) -> dict[str, torch.Tensor]:
    """Move every parameter at random; by how much."""
    by = {n: torch.randn_like(p) for n, p in model.named_parameters()}
    with torch.no_grad():
        [p.add_(by[n]) for n, p in model.named_parameters()]
    return by


@pytest.mark.parametrize(("protocol", "factor"), [("l2_sp", 0.5), ("ewc", 0.5), ("elastic_mask", 1.0)])
def test_an_anchor_is_the_weighted_square_of_the_way_gone(protocol, factor, net):
    importance = {n: torch.rand_like(p) for n, p in net.named_parameters() if n != "4.bias"}
    given = {} if protocol == "l2_sp" else {"importance": importance}
    penalty = penalty_of(protocol, net, strength=3.0, **given)
    assert penalty(None, None).item() == 0.0
    by = shift(net)
    value = penalty(None, None)
    value.backward()
    weights = importance if given else {n: torch.ones_like(t) for n, t in by.items()}
    by_hand = 3.0 * factor * sum((weights[n].double() * by[n].double() ** 2).sum() for n in weights)
    assert value.item() == pytest.approx(by_hand.item(), rel=1e-5)
    for name, p in net.named_parameters():
        assert (p.grad is None) == (name not in weights)
        if name in weights:
            assert torch.allclose(p.grad, 2 * 3.0 * factor * weights[name] * by[name], rtol=1e-4, atol=1e-5)


def test_distillation_is_the_divergence_from_the_source_answers_and_begins_at_0(net):
    x = SHARED.target.train.tensors[0]
    source = net(x).detach()
    penalty = penalty_of("lwf", net, strength=0.5, temperature=3.0)
    assert penalty(x, source).item() == pytest.approx(0.0, abs=1e-7)
    shift(net)
    p, q = (torch.softmax(t / 3.0, 1).double() for t in (source, net(x).detach()))
    by_hand = 0.5 * 9.0 * (p * (p.log() - q.log())).sum(1).mean()
    assert by_hand > 0.01
    assert penalty(x, net(x)).item() == pytest.approx(by_hand.item(), rel=1e-5)


@pytest.mark.parametrize(("fraction", "size"), [(0.25, 12), (0.001, 1), (1.0, 48)])
def test_replay_rehearses_a_buffer_of_its_fraction(fraction, size, net, monkeypatch):
    buffers = []
    monkeypatch.setattr(baselines, "batches", lambda data, *rest: buffers.append(data) or batches(data, *rest))
    penalty = penalty_of("replay", net, fraction=fraction)
    (buffer,) = buffers
    assert len(buffer) == len(buffer.tensors[0].unique(dim=0)) == size
    if size <= 32:  # then a batch is the whole buffer
        x, y = buffer.tensors
        assert penalty(torch.zeros(1), None).item() == pytest.approx(F.cross_entropy(net(x), y).item(), rel=1e-5)


def test_joint_is_replay_of_everything_bit_for_bit(net):
    one, other = transfer(net, SHARED, "joint", steps=STEPS), transfer(net, SHARED, "replay", steps=STEPS, fraction=1.0)
    assert not moved(one, other)
    assert moved(one, transfer(net, SHARED, "replay", steps=STEPS, fraction=0.1))


def test_fisher_information_of_softmax_regression_has_its_closed_form():
    model, x = nn.Sequential(nn.Flatten(), nn.Linear(6, 3)), torch.randn(40, 6)
    p = model(x).softmax(1).detach()
    found = fisher_information(model, TensorDataset(x, torch.zeros(40).long()))
    assert torch.allclose(found["1.weight"], torch.einsum("nk,nj->kj", p * (1 - p), x.square()) / 40, atol=1e-6)
    assert torch.allclose(found["1.bias"], (p * (1 - p)).mean(0), atol=1e-6)


def test_fisher_information_is_the_slow_sum_over_images_and_labels(net):
    x = SHARED.source.train.tensors[0][:9]
    total = {n: torch.zeros_like(p) for n, p in net.named_parameters()}
    for image in x:
        log_p = net(image[None]).log_softmax(1)[0]
        for label in range(3):
            gradients = torch.autograd.grad(log_p[label], list(net.parameters()), retain_graph=True)
            for name, g in zip(total, gradients, strict=True):
                total[name] += log_p[label].exp().detach() * g.square() / 9
    found = fisher_information(net, TensorDataset(x, torch.zeros(9).long()))
    assert found.keys() == total.keys()
    assert all(torch.allclose(found[n], t, rtol=1e-4, atol=1e-7) for n, t in total.items())
    assert all(t.abs().max() > 1e-4 for t in found.values())
    ranking = fisher(net, TensorDataset(x, torch.zeros(9).long()), 0)
    assert list(ranking) == maskable(net)
    for name, t in ranking.items():
        assert torch.allclose(t, total[name] * net.get_parameter(name).detach() ** 2 / 2, rtol=1e-4, atol=1e-8)


def test_snip_is_the_gradient_times_the_weight():
    model = nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3))
    x, y = SHARED.source.train.tensors
    h = torch.tanh(model[0](x))
    upstream = (model(x).softmax(1) - F.one_hot(y, 3)) @ model[2].weight * (1 - h**2)
    by_hand = ((upstream.T @ x / len(x)) * model[0].weight).abs()
    found = snip(model, SHARED.source.train, 0)
    assert list(found) == ["0.weight"]
    assert torch.allclose(found["0.weight"], by_hand.detach(), atol=1e-6)


def test_lp_ft_trains_the_head_alone_in_the_first_half(net):
    seen = []

    class Watched(Transfer):
        def fit(self, **options):
            before = {n: t.clone() for n, t in net.state_dict().items()}
            rows = super().fit(**options)
            seen.append((options["steps"], {n for n, t in net.state_dict().items() if not torch.equal(t, before[n])}))
            return rows

    rows = baselines.lp_ft(Watched(net, SHARED, Training(steps=9, norm="train")))
    assert seen == [(4, {"4.weight", "4.bias"}), (5, {n for n, _ in net.named_parameters()})]
    assert [row["step"] for row in rows] == list(range(1, 10))


@pytest.mark.parametrize(("pair", "head"), [(SHARED, set()), (SEPARATE, {"4.target.weight", "4.target.bias"})])
def test_bias_only_moves_what_has_one_dimension_and_a_head_of_the_targets_own(pair, head, net):
    after, before = (transfer(net, pair, p, steps=STEPS) for p in ("bias_only", "source_only"))
    assert moved(after, before).keys() == {"0.bias", "2.bias"} | (head or {"4.bias"})


def test_bias_only_needs_some():
    with pytest.raises(ValueError, match="no parameters of one dimension"):
        transfer(nn.Sequential(nn.Flatten(), nn.Linear(10, 3, bias=False)), SHARED, "bias_only", steps=1)


def test_bn_only_moves_the_affine_of_norm_layers_and_needs_some(net):
    with pytest.raises(ValueError, match="no batch or instance norm"):
        transfer(net, SHARED, "bn_only", steps=1)
    normed = nn.Sequential(net[0], nn.BatchNorm1d(10), *net[1:])
    assert moved(transfer(normed, SHARED, "bn_only", steps=STEPS), normed).keys() == {"1.weight", "1.bias"}


def test_packnet_retrains_what_is_kept_then_holds_it_while_the_pruned_begin_at_0(net, mask):
    start = {n: t.clone() for n, t in net.state_dict().items()}
    middle = {}

    class Watched(Transfer):
        def fit(self, **options):
            middle.update({n: t.clone() for n, t in net.state_dict().items()})
            return super().fit(**options)

    baselines.packnet(Watched(net, SHARED, Training(steps=STEPS, mask_steps=STEPS)), mask)
    for name, after in net.state_dict().items():
        kept = mask.bits.get(name, torch.ones_like(after).bool())
        assert torch.equal(after[kept], middle[name][kept])
        assert not middle[name][~kept].any()
        assert bool((after != middle[name]).any()) == (name in mask.bits)
        assert bool((middle[name][kept] != start[name][kept]).any()) == (name in mask.bits)


def test_exactly_the_entries_that_may_move_do(net, mask):
    run = functools.partial(transfer, net, SHARED, mask=mask, steps=20)
    free, all_names = {n: ~b for n, b in mask.bits.items()}, {n for n, _ in net.named_parameters()}
    rest = {n: torch.ones_like(net.get_parameter(n)).bool() for n in all_names - mask.bits.keys()}
    target = learn_subnetwork(net, SHARED.target.train, "gumbel_sigmoid", steps=5, seed=0)[1].at_density(mask.density)
    exclusive = {n: b & ~mask.bits[n] for n, b in target.bits.items()}
    assert any(b.any() and not torch.equal(b, free[n]) for n, b in exclusive.items())
    cases = [(run("protect"), free), (run("select"), dict(mask.bits)), (run("protect_weights"), free | rest)]
    for after, allowed in [*cases, (run("exclusive", mask_steps=5), exclusive)]:
        found = moved(after, net)
        assert found.keys() == allowed.keys()
        assert all(torch.equal(found[n], bits) for n, bits in allowed.items())


@pytest.mark.parametrize("pair", [SHARED, SEPARATE])
def test_piggyback_keeps_weights_bit_for_bit_or_drops_them(pair, net):
    after = transfer(net, pair, "target_mask", mask_steps=5, density=0.25)
    source = for_task(after, "source").state_dict()
    for name, before in net.state_dict().items():
        assert ((source[name] == before) | ((source[name] == 0) & (name in maskable(net)))).all()
    weights = torch.cat([source[n].flatten() for n in maskable(net)])
    assert int((weights != 0).sum()) == round(0.25 * weights.numel())


def test_interpolation_has_both_ends_and_the_mean(net):
    after = transfer(net, SHARED, "finetune", steps=STEPS)
    assert not moved(interpolate(net, after, 0.0), net)
    assert not moved(interpolate(net, after, 1.0), after)
    for name, t in interpolate(net, after, 0.5).state_dict().items():
        assert torch.allclose(t, (net.state_dict()[name] + after.state_dict()[name]) / 2, atol=1e-7)
    assert moved(net, after)


def test_interpolation_keeps_a_head_of_the_targets_own(net):
    after = transfer(net, SEPARATE, "finetune", steps=STEPS)
    assert torch.equal(interpolate(net, after, 0.5)[4]["target"].weight, after[4]["target"].weight)
    assert not moved(for_task(interpolate(net, after, 0.0), "source"), net)


@pytest.mark.parametrize("protocol", ["replay", "lwf", "l2_sp"])
def test_interpolation_to_0_is_the_source_network_with_heads_apart_too(protocol, net):
    after = transfer(net, SEPARATE, protocol, steps=STEPS)
    assert not moved(for_task(interpolate(net, after, 0.0), "source"), net)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_importance_is_given_exactly_where_it_is_needed(protocol, net, mask):
    takes = described(protocol).needs
    given = {"mask": mask} if "mask" in takes else {}
    wrong = {} if "importance" in takes else {"importance": {"0.weight": torch.ones(10, 6)}}
    message = "needs importance=" if "importance" in takes else "takes no importance"
    with pytest.raises(ValueError, match=f"{protocol!r} {message}"):
        transfer(net, SHARED, protocol, steps=1, **given, **wrong)


@pytest.mark.parametrize("importance", [{}, {"nowhere": torch.ones(1)}, {"0.weight": torch.ones(1)}])
def test_an_importance_of_another_network_is_refused(importance):
    pair = load_pair("mnist_to_digits")
    with pytest.raises(ValueError, match="importance does not fit Sequential"):
        transfer(build_model("cnn"), pair, "ewc", importance=importance, steps=1)


@pytest.mark.parametrize("protocol", ["linear_probe", "bias_only", "bn_only"])
def test_what_can_be_taken_off_leaves_the_statistics_of_norm_layers(net, protocol):
    normed = nn.Sequential(net[0], nn.BatchNorm1d(10), *net[1:])
    after = transfer(normed, SHARED, protocol, steps=STEPS, norm="train")
    assert torch.equal(after[1].running_mean, normed[1].running_mean)


@pytest.mark.parametrize("temperature", [0.0, -2.0])
def test_a_temperature_must_be_above_0(net, temperature):
    with pytest.raises(ValueError, match=f"temperature = {temperature} must be greater than 0"):
        transfer(net, SHARED, "lwf", steps=1, temperature=temperature)
