"""Adapters and the penalties beside them: each against its formula, worked by hand, and against the public code where it is installed."""

import functools
import warnings

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import TensorDataset

from maskutils.core.approaches import described
from maskutils.core.checks import BadSetting
from maskutils.data.pair import Domain, Pair
from maskutils.models.heads import for_task, head_name
from maskutils.training import adapters, penalties
from maskutils.training.base import PROTOCOLS, Training, Transfer
from maskutils.training.evaluation import evaluate
from maskutils.training.penalties import SelectiveDecay
from maskutils.training.transfer import kept, transfer

pytestmark = pytest.mark.slow  # peft takes seconds to import

ADAPTERS = ("lora", "oft", "osf")
STEPS = 12


def domain(n_classes: int, seed: int) -> Domain:
    draw = torch.Generator().manual_seed(seed)
    x = torch.randn(48, 2, 6, 6, generator=draw)
    data = TensorDataset(x, x.flatten(1)[:, :n_classes].argmax(1))
    return Domain(f"domain {seed}", data, data, data, tuple(f"{seed}{i}" for i in range(n_classes)))


SOURCE = domain(3, 1)
SHARED = Pair("same", SOURCE, Domain("other", *[domain(3, 2).train] * 3, SOURCE.classes))
SEPARATE = Pair("other", SOURCE, domain(4, 3))
X = SHARED.target.train.tensors[0]


@pytest.fixture
def net() -> nn.Module:
    """A convolution, a depthwise one, a norm layer and two linear layers."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(2, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3, groups=8), nn.ReLU(), nn.Flatten(),
        nn.Linear(128, 12), nn.ReLU(), nn.Linear(12, 3),
    ).eval()  # fmt: skip


class Watched(Transfer):
    """A transfer that says what was trained, and what the network computed before and after."""

    def fit(self, params, **options):
        seen = self.__dict__.setdefault("seen", {})
        params = list(params)
        seen["trained"] = params
        seen["first"] = self.model(X).detach()
        rows = super().fit(params=params, **options)
        seen["last"] = self.model(X).detach()
        seen["modules"] = dict(self.model.named_modules())
        return rows


def watched(net, approach, pair=SHARED, **given):
    t = Watched(net, pair, Training(steps=STEPS, lr=1e-2))
    PROTOCOLS[approach](t, **{**described(approach).knobs, **given})
    return t.seen


def state(model):
    return {n: t.clone() for n, t in model.state_dict().items()}


@pytest.mark.parametrize("approach", ADAPTERS)
def test_a_fresh_adapter_is_the_identity_and_the_merged_network_computes_what_the_adapted_one_did(
    approach, net, monkeypatch
):
    monkeypatch.setattr("maskutils.training.adapters.rounded", lambda values: values)
    before = net(X)
    seen = watched(net, approach)
    assert torch.equal(seen["first"], before)
    assert not torch.allclose(seen["last"], before, atol=1e-2)
    assert torch.allclose(net(X), seen["last"], atol=1e-5)


@pytest.mark.parametrize("pair", [SHARED, SEPARATE])
@pytest.mark.parametrize("approach", ADAPTERS)
def test_the_result_is_the_plain_network_again_and_only_weights_that_are_adapted_moved(approach, pair, net):
    net.train()
    before, kinds, names = state(net), [type(m) for m in net.modules()], [n for n, _ in net.named_parameters()]
    attributes = [set(vars(m)) for m in net.modules()]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        after = transfer(net, pair, approach, steps=STEPS, lr=1e-2)
    source = for_task(after, "source")
    assert [type(m) for m in source.modules()] == kinds
    assert [set(vars(m)) for m in source.modules()] == attributes
    assert [n for n, _ in source.named_parameters()] == names
    assert list(source.state_dict()) == list(before)
    assert all(p.requires_grad and p.is_leaf for p in after.parameters())
    assert not any(m.training for m in after.modules())
    moved = {n for n, t in source.state_dict().items() if not torch.equal(t, before[n])}
    assert moved == {"0.weight", "6.weight"} | ({"8.weight"} if pair is SHARED else set())


@pytest.mark.parametrize("approach", ADAPTERS)
def test_parameters_that_did_not_train_before_do_not_train_after(approach, net):
    net[0].bias.requires_grad_(False)
    watched(net, approach)
    assert [n for n, p in net.named_parameters() if not p.requires_grad] == ["0.bias"]


@pytest.mark.parametrize("approach", ADAPTERS)
def test_a_head_of_the_targets_own_is_trained_whole(approach, net):
    fresh, after = (transfer(net, SEPARATE, p, steps=STEPS, seed=3) for p in ("source_only", approach))
    assert all(
        (a != b).any() for a, b in zip(fresh[8]["target"].parameters(), after[8]["target"].parameters(), strict=True)
    )


@pytest.mark.parametrize("approach", ADAPTERS)
def test_draws_of_an_adapter_come_from_its_own_stream(approach, net):
    torch.manual_seed(1)
    drawn = torch.random.get_rng_state()
    first = transfer(net, SHARED, approach, steps=2)
    assert torch.equal(torch.random.get_rng_state(), drawn)
    torch.manual_seed(2)
    assert all(
        torch.equal(t, state(first)[n]) for n, t in transfer(net, SHARED, approach, steps=2).state_dict().items()
    )


@pytest.mark.parametrize("approach", ADAPTERS)
def test_adapters_train_in_mixed_precision_and_end_in_float32(approach, net):
    after = transfer(net, SHARED, approach, steps=STEPS, precision="bf16")
    assert {p.dtype for p in after.parameters()} == {torch.float32}
    assert not torch.equal(after[6].weight, net[6].weight)


@pytest.mark.parametrize("approach", ADAPTERS)
def test_without_a_step_that_moves_the_merged_weights_are_the_sources_bit_for_bit(approach, net):
    after = transfer(net, SHARED, approach, steps=1, lr=1e-30)
    assert all(torch.equal(t, net.state_dict()[n]) for n, t in after.state_dict().items())


@pytest.mark.parametrize("approach", ["oft", "osf"])
def test_copies_taken_on_the_way_are_plain_networks_that_outlive_the_training(approach, net):
    path = []
    after = transfer(net, SHARED, approach, steps=STEPS, lr=1e-2, history=[], path=path)
    assert len(path) == 10
    assert all(list(model.state_dict()) == list(net.state_dict()) for model in path)
    assert [type(m) for m in path[0].modules()] == [type(m) for m in net.modules()]
    assert head_name(path[0]) == "8"
    assert torch.equal(path[-1](X), after(X))
    assert not torch.equal(path[0](X), after(X))


@pytest.mark.parametrize("rank", [1, 4])
def test_the_weight_of_lora_is_w0_plus_b_times_a(rank, net):
    before = state(net)
    modules = watched(net, "lora", rank=rank)["modules"]
    for name in ("0", "6", "8"):
        a, b = (modules[f"{name}.lora_{part}.default"].weight.detach() for part in "AB")
        assert a.shape[0] == b.shape[1] == rank
        change = torch.zeros_like(before[f"{name}.weight"]).flatten(1)
        for r in range(rank):
            change += torch.outer(b.flatten(1)[:, r], a.flatten(1)[r])
        assert change.abs().max() > 1e-3
        assert torch.allclose(
            net.get_parameter(f"{name}.weight").flatten(1), before[f"{name}.weight"].flatten(1) + change, atol=1e-6
        )


@pytest.mark.parametrize("block", [4, 16])
def test_oft_rotates_the_inputs_of_every_weight_by_orthogonal_blocks(block, net):
    before = state(net)
    seen = watched(net, "oft", block=block)
    for name, size in {"0": {4: 3, 16: 18}, "6": {4: 4, 16: 16}, "8": {4: 4, 16: 12}}.items():
        w0, w = before[f"{name}.weight"].flatten(1), net.get_parameter(f"{name}.weight").detach().flatten(1)
        rotation = seen["modules"][f"{name}.parametrizations.weight.0.rotation"]
        r = rotation.get_weight().detach()
        assert r.shape == (w.shape[1],) * 2
        assert torch.allclose(r.double() @ r.double().T, torch.eye(len(r)).double(), atol=1e-6)
        inside = torch.block_diag(*[torch.ones(size[block], size[block])] * (len(r) // size[block]))
        assert not r[inside == 0].any()
        assert (r - torch.eye(len(r))).abs().max() > 1e-3
        assert torch.allclose(w, w0 @ r, atol=1e-5)
        skew = rotation._pytorch_skew_symmetric(rotation.weight.detach(), size[block])[0].double()
        eye = torch.eye(size[block]).double()
        by_hand = (eye - skew) @ torch.linalg.inv(eye + skew)
        assert torch.allclose(r[: size[block], : size[block]].double(), by_hand, atol=1e-5)
        assert torch.allclose(w.norm(dim=1), w0.norm(dim=1), rtol=1e-4)


def test_oft_of_a_linear_layer_is_that_of_peft():
    """peft rotates the inputs of the layer; merged, its weight is W0 times the transpose of its R."""
    from peft import OFTConfig
    from peft.tuners.oft import OFTModel

    torch.manual_seed(0)
    ours = nn.Sequential(nn.Flatten(), nn.Linear(72, 6), nn.ReLU(), nn.Linear(6, 3))
    theirs = nn.Sequential(nn.Flatten(), nn.Linear(72, 6), nn.ReLU(), nn.Linear(6, 3))
    theirs.load_state_dict(ours.state_dict())
    config = OFTConfig(r=0, oft_block_size=6, target_modules="1|3", use_cayley_neumann=False)
    tuner = OFTModel(theirs, config, "default")
    factors = [p for p in theirs.parameters() if p.requires_grad]
    training = Training(steps=STEPS, lr=1e-2)
    Transfer(theirs, SHARED, training).fit(params=factors)
    tuner.merge_and_unload()
    PROTOCOLS["oft"](Transfer(ours, SHARED, training), block=6)
    for name in ("1.weight", "3.weight"):
        assert torch.allclose(ours.get_parameter(name), theirs.get_parameter(name), atol=1e-4)


@pytest.mark.parametrize("share", [0.3, 0.5])
def test_osf_keeps_the_first_singular_directions_to_rounding(share, net):
    before = state(net)
    watched(net, "osf", share=share)
    for name in ("0.weight", "6.weight", "8.weight"):
        w0, change = before[name].flatten(1), (net.get_parameter(name).detach() - before[name]).flatten(1)
        u, s, vh = torch.linalg.svd(w0, full_matrices=False)
        k = int(share * len(s))
        assert change.norm() > 1e-2
        if k:
            assert (u[:, :k].T @ change).abs().max() < 1e-5
            assert (change @ vh[:k].T).abs().max() < 1e-5
            merged = w0 + change
            assert torch.allclose(merged @ vh[:k].T, u[:, :k] * s[:k], atol=1e-5)


def test_osf_has_the_gradients_of_peft():
    from peft import OSFConfig, get_peft_model

    torch.manual_seed(0)
    layer, theirs = nn.Linear(10, 6), nn.Sequential(nn.Linear(10, 6))
    theirs[0].load_state_dict(layer.state_dict())
    spared = adapters._Spared(layer.weight, 0.5)
    x, y = torch.randn(7, 10), torch.randn(7, 6)
    tuned = get_peft_model(theirs, OSFConfig(target_modules=["0"], effective_rank=3))
    F.mse_loss(tuned(x), y).backward()
    F.mse_loss(F.linear(x, spared(layer.weight), layer.bias), y).backward()
    found = tuned.base_model.model[0].osf_svd_params["default"]
    for mine, name in ((spared.u, "U_low"), (spared.s, "S_low"), (spared.v, "V_low")):
        assert found[name].grad.abs().max() > 1e-4
        assert torch.allclose(mine.grad, found[name].grad, atol=1e-6)


@pytest.mark.parametrize(("pair", "layers"), [(SHARED, 3), (SEPARATE, 2)])
@pytest.mark.parametrize(("approach", "knobs"), [("lora", {"rank": 3}), ("oft", {"block": 5}), ("oft", {"block": 64})])
def test_stored_bits_are_those_of_the_adapters_parameters(approach, knobs, pair, layers, net):
    counted = {}

    class Counted(Transfer):
        def fit(self, params, **options):
            params = list(params)
            counted["n"] = sum(
                p.numel() for p in params[: -2 if pair is SEPARATE else None]
            )  # without the head of its own
            counted["tensors"] = len(params) - 2 * (pair is SEPARATE)
            counted["values"] = params[: counted["tensors"]]
            return super().fit(params=params, **options)

    after = transfer(net, pair, "source_only", steps=1)
    PROTOCOLS[approach](Counted(after, pair, Training(steps=STEPS)), **knobs)
    assert counted["tensors"] == layers * (2 if approach == "lora" else 1)
    assert described(approach).bits(kept(net, after, **knobs)) == 16 * counted["n"] > 0
    assert all(torch.equal(p, p.half().float()) for p in counted["values"])  # as they are stored


def test_stored_bits_of_adapters_as_worked_by_hand(net):
    after = transfer(net, SHARED, "lora", steps=STEPS, rank=2)
    assert described("lora").bits(kept(net, after, rank=2)) == 16 * 2 * ((8 + 18) + (12 + 128) + (3 + 12))
    after = transfer(net, SHARED, "oft", steps=STEPS, block=4)  # 18 inputs: blocks of 3; 128 and 12: blocks of 4
    assert described("oft").bits(kept(net, after, block=4)) == 16 * (6 * 3 + 32 * 6 + 3 * 6)


@pytest.mark.parametrize("block", [4, 16, 64])
def test_blocks_have_the_sizes_that_peft_would_give_them(block):
    from peft.tuners.oft.layer import OFTLayer

    for columns in (3, 7, 25, 72, 144, 256, 392, 512):
        theirs = OFTLayer.adjust_oft_parameters(None, columns, block) if columns % block else block
        assert adapters.block_of(columns, block) == theirs


@pytest.mark.parametrize(
    ("approach", "knobs", "message"),
    [
        ("lora", {"rank": 0}, "rank = 0 must be 1 or more"),
        ("lora", {"rank": 1.5}, "rank = 1.5 must be a whole number"),
        ("oft", {"block": 1}, "block = 1 must be 2 or more"),
        ("osf", {"share": 1.0}, "share = 1.0 must lie between 0 and 1"),
        ("osf", {"share": 0}, "share = 0 must lie between 0 and 1"),
        ("ldifs", {"strength": 0.0}, "strength = 0.0 must be greater than 0"),
        ("spd", {"strength": -1.0}, "strength = -1.0 must be greater than 0"),
    ],
)
def test_a_knob_out_of_range_is_one_error(approach, knobs, message, net):
    with pytest.raises(BadSetting, match=message):
        transfer(net, SHARED, approach, steps=1, **knobs)


def test_what_cannot_be_adapted_is_one_error():
    attention = nn.Sequential(nn.MultiheadAttention(4, 2), nn.Conv2d(4, 4, 3, groups=4))
    with pytest.raises(ValueError, match="Sequential has no linear layer or convolution"):
        adapters.adapted(attention)
    thin = nn.Sequential(nn.Conv2d(1, 4, 1), nn.Flatten())
    with pytest.raises(BadSetting, match="block = 2 fits no layer of Sequential"):
        PROTOCOLS["oft"](Transfer(thin, SHARED, Training()), block=2)


# Penalties


def by_hand(features):
    """mean over layers, images, places and channels of the squared difference, in loops."""
    layers = []
    for now, before, channels in features:
        now, before = now.movedim(channels, -1).flatten(0, -2), before.movedim(channels, -1).flatten(0, -2)
        rows = [
            (a / (a.square().sum().sqrt() + 1e-10) - b / (b.square().sum().sqrt() + 1e-10))
            for a, b in zip(now, before, strict=True)
        ]
        layers.append(torch.stack([row.square().mean() for row in rows]).mean())
    return sum(layers) / len(layers)


def test_ldifs_is_the_distance_of_normalised_features_with_its_gradient(net):
    source = for_task(net, "source")
    found = {}

    class Given(Transfer):
        def fit(self, penalty):
            torch.manual_seed(1)
            with torch.no_grad():
                [p.add_(0.1 * torch.randn_like(p)) for p in self.model.parameters()]
            value = penalty(X, self.model(X), 0.0)
            found["value"], found["gradients"] = value, torch.autograd.grad(value, list(self.model.parameters())[:8])
            return []

    penalties.ldifs(Given(net, SHARED, Training()), strength=5.0)
    assert not any(m._forward_hooks for m in net.modules())
    features = [
        (net[:i](X), source[:i](X).detach(), 1 if i < 5 else -1) for i in (1, 4, 7)
    ]  # two convolutions and a linear layer, before what follows them; not the head
    expected = 5.0 * by_hand(features)
    assert expected > 1e-3
    assert found["value"].item() == pytest.approx(expected.item(), rel=1e-5)
    for mine, theirs in zip(found["gradients"], torch.autograd.grad(expected, list(net.parameters())[:8]), strict=True):
        assert torch.allclose(mine, theirs, rtol=1e-3, atol=1e-6)


def test_ldifs_is_0_at_the_source_without_nan_where_features_are_0(net):
    net[0].bias.data.zero_()
    found = []

    class Given(Transfer):
        def fit(self, penalty):
            blank = torch.zeros_like(X)
            value = penalty(blank, self.model(blank), 0.0)
            value.backward()
            found.append(value.item())
            return []

    penalties.ldifs(Given(net, SHARED, Training()), strength=5.0)
    assert found == [0.0]
    assert all(p.grad is None or p.grad.isfinite().all() for p in net.parameters())


@pytest.mark.parametrize("strength", [0.5, 3.0])
def test_selective_decay_is_the_formula_step_by_step(strength):
    """Against a loop written from the paper, in double precision; the targets turn so that tensors are drawn back in some steps only."""
    torch.manual_seed(0)
    params = [
        nn.Parameter(torch.randn(4, 3, dtype=torch.float64)),
        nn.Parameter(torch.randn(5, dtype=torch.float64)),
        nn.Parameter(torch.ones(2)),
    ]
    theta_0 = [p.detach().clone() for p in params]
    thetas, m, v = [t.clone() for t in theta_0], [0, 0, 0], [0, 0, 0]
    optim, lr, decayed = SelectiveDecay(params, 0.1, strength), 0.1, []
    for step in range(1, 31):
        goals = [(-1) ** (step // 6) * torch.ones_like(p) for p in params[:2]]
        optim.zero_grad()
        sum((p - goal).square().sum() for p, goal in zip(params, goals, strict=False)).backward()
        optim.step()
        for i in (0, 1):
            g = 2 * (thetas[i] - goals[i])
            m[i], v[i] = 0.9 * m[i] + 0.1 * g, 0.999 * v[i] + 0.001 * g * g
            tilde = thetas[i] - lr * (m[i] / (1 - 0.9**step)) / ((v[i] / (1 - 0.999**step)).sqrt() + 1e-8)
            far, near = (tilde - theta_0[i]).norm(), (thetas[i] - theta_0[i]).norm()
            ratio = max(0.0, min(1.0, float((far - near) / far)))
            if (g * (thetas[i] - theta_0[i])).sum() > 0:
                tilde = tilde - strength * ratio * (tilde - theta_0[i])
                decayed.append(ratio > 0)
            thetas[i] = tilde
            assert torch.allclose(params[i], thetas[i], atol=1e-9)
    assert any(decayed)
    assert len(decayed) < 60
    assert torch.equal(params[2], torch.ones(2))  # without a gradient nothing moves


def test_spd_trains_with_selective_decay_and_draws_nearer_with_more_strength(net):
    def far(after):
        return sum((p - q).square().sum().item() for p, q in zip(after.parameters(), net.parameters(), strict=True))

    run = functools.partial(transfer, net, SHARED, "spd", steps=60, lr=1e-2)
    weak, strong = (far(run(strength=s)) for s in (1e-6, 10.0))
    assert strong < 0.95 * weak


@pytest.mark.parametrize("protocol", ADAPTERS)
def test_layers_that_share_their_weights_stay_as_they_are(protocol):
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Flatten(), nn.Linear(72, 16), nn.ReLU(), nn.Linear(16, 16), nn.Linear(16, 16), nn.Linear(16, 3)
    )
    model[4].weight = model[3].weight
    history: list[dict[str, float]] = []
    after = transfer(model, SHARED, protocol, steps=STEPS, history=history)
    assert torch.equal(after[3].weight, model[3].weight)
    assert not torch.equal(after[1].weight, model[1].weight)
    assert history[-1]["target_val"] == evaluate(after, SHARED.target.val)
