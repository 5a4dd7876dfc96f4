"""Changes of the source network: each against its formula on numbers worked by hand, what may move, and what is stored."""

import math
from dataclasses import dataclass, field, replace

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.optim.optimizer import register_optimizer_step_post_hook
from torch.utils.data import TensorDataset

from maskutils.core.approaches import described
from maskutils.core.checks import BadSetting
from maskutils.core.storage import signs
from maskutils.data.pair import Domain, Pair
from maskutils.models.heads import for_task
from maskutils.training import changes
from maskutils.training.base import PROTOCOLS, Training, Transfer
from maskutils.training.transfer import kept, transfer

OURS = [name for name, function in PROTOCOLS.items() if function.__module__ == changes.__name__]


def domain(classes: str, seed: int) -> Domain:
    draw = torch.Generator().manual_seed(seed)
    x = torch.randn(48, 1, 6, 6, generator=draw)
    data = TensorDataset(x, x.flatten(1)[:, : len(classes)].argmax(1))
    return Domain(f"domain {seed}", data, data, data, tuple(classes))


SHARED, SEPARATE = Pair("same", domain("abc", 1), domain("abc", 2)), Pair("other", domain("abc", 1), domain("de", 2))


@pytest.fixture
def net() -> nn.Module:
    torch.manual_seed(0)
    body = [nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(64, 8), nn.ReLU()]
    return nn.Sequential(*body, nn.Linear(8, 3)).eval()


@pytest.fixture
def steps():
    """The optimiser steps that were taken, as the optimisers that took them."""
    taken = []
    hook = register_optimizer_step_post_hook(lambda optimizer, *_: taken.append(optimizer))
    yield taken
    hook.remove()


def small(*rows: list[list[float]]) -> nn.Module:
    """A network of 2 x 2 linear layers with these weights and no biases; the last is the head."""
    model = nn.Sequential(*(nn.Linear(2, 2, bias=False) for _ in rows)).eval()
    with torch.no_grad():
        for layer, weight in zip(model, rows, strict=True):
            layer.weight.copy_(torch.tensor(weight))
    return model


def one_target(x: list[list[float]], y: list[int]) -> Pair:
    data = TensorDataset(torch.tensor(x), torch.tensor(y))
    return Pair("tiny", *(Domain(n, data, data, data, ("0", "1")) for n in "ab"))


@dataclass(frozen=True)
class Scripted(Transfer):
    """A transfer whose trainings add these to the weights, one after the other; `seen` is how each was asked for."""

    script: tuple[dict, ...] = ()
    seen: list = field(default_factory=list)

    def fit(self, **given):
        with torch.no_grad():
            for name, by in self.script[len(self.seen)].items():
                self.model.get_parameter(name).add_(torch.tensor(by))
        self.seen.append(given)
        return [{"step": given["steps"], "loss": 0.0}]


START = [[1.0, 2.0], [3.0, 4.0]], [[5.0, 6.0], [7.0, 8.0]]
TAU = {"0.weight": [[0.5, -0.25], [0.125, 0.0]], "1.weight": [[-1.0, 0.0625], [0.25, -0.5]]}
PAIR = one_target([[1.0, 2.0], [2.0, -1.0]], [0, 1])


def scripted(*script: dict) -> Scripted:
    return Scripted(small(*START), PAIR, Training(steps=9), script=script)


def weights(t: Transfer) -> list:
    return [layer.weight.tolist() for layer in t.model]


def test_sparse_change_goes_on_with_the_largest_changes_alone_and_rounds_them_to_float16():
    by = {name: [[0.1, 0.2], [0.3, 0.4]] for name in TAU}
    t = scripted(TAU, by)
    with pytest.warns(UserWarning, match="held weights were changed"):  # the script moves all
        history = changes.sparse_change(t, density=3 / 8)  # |tau| of 1, 0.5 and 0.5
    a, b, c = (
        float(torch.tensor(v).half()) for v in (0.5 + 0.1, -1 + 0.1, -0.5 + 0.4)
    )  # what was cut to, and the second half
    expected = [[[1 + a, 2.0], [3.0, 4.0]], [[5 + b, 6.0], [7.0, 8 + c]]]
    assert weights(t) == [torch.tensor(e).tolist() for e in expected]
    assert torch.tensor(1.6).item() != torch.tensor(1 + a).item()
    assert [s["steps"] for s in t.seen] == [4, 5]
    assert t.seen[1]["seed"] != t.training.seed
    assert [row["step"] for row in history] == [4, 9]


@pytest.fixture
def code(monkeypatch):
    """What the second half trains: the network that it sees, its parameters and its penalty; it moves them by `move`."""
    seen = {}

    def fit(model, data, *, params, penalty, steps, **given):
        x = data.tensors[0]
        params = list(params)
        seen.update(start=[p.tolist() for p in params], output=model(x).detach(), steps=steps)
        seen["penalty"] = penalty(x, None, 0.0).item() if penalty else None
        with torch.no_grad():
            for p, value in zip(params, seen["move"], strict=True):
                p.copy_(torch.tensor(value))
        return [{"step": steps, "loss": 0.0}]

    monkeypatch.setattr(changes, "fit", fit)
    return seen


def test_sign_change_is_the_sign_times_the_scale_of_its_channel(code):
    code["move"] = [[[0.1], [0.2]], [[0.3], [-0.4]]]
    t = scripted(TAU)
    changes.sign_change(t)
    assert code["start"] == [[[0.375], [0.0625]], [[0.53125], [0.375]]]  # mean |tau| of each row
    first = torch.tensor([[1.375, 1.625], [3.0625, 4.0625]])  # a tau of 0 counts as positive
    second = torch.tensor([[5 - 0.53125, 6 + 0.53125], [7.375, 8 - 0.375]])
    assert torch.equal(code["output"], PAIR.target.train.tensors[0] @ first.T @ second.T)
    a, b, c, d = (float(torch.tensor(v).half()) for v in (0.1, 0.2, 0.3, -0.4))
    found = [[[1 + a, 2 - a], [3 + b, 4 + b]], [[5 - c, 6 + c], [7 + d, 8 - d]]]
    assert weights(t) == [torch.tensor(e).tolist() for e in found]
    assert code["steps"] == 5


def test_a_vector_has_one_scale(code):
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2, bias=False))
    nn.init.zeros_(model[0].bias)
    code["move"] = [[[0.5], [0.5]], [0.5], [[0.5], [0.5]]]
    changes.sign_change(Scripted(model, PAIR, Training(steps=2), script=({"0.bias": [0.5, -0.25]},)))
    assert code["start"][1] == [0.375]


def test_change_mask_opens_the_largest_changes_pays_for_what_is_open_and_keeps_what_is_above_a_half(code):
    code["move"] = [[[0.1, -0.1], [9.0, -9.0]], [[-0.1, 0.1], [-5.0, 5.0]]]
    third = {name: [[v / 3 for v in row] for row in rows] for name, rows in TAU.items()}
    t = scripted(third)
    changes.change_mask(t, strength=0.5)
    assert code["start"] == [[[5.0, -5.0], [-5.0, -5.0]], [[5.0, -5.0], [-5.0, -5.0]]]
    wide, narrow = 1 / (1 + math.exp(-5)), 1 / (1 + math.exp(5))
    assert code["penalty"] == pytest.approx(0.5 * (2 * wide + 6 * narrow), rel=1e-6)
    gate = torch.full((2, 2), narrow).index_put((torch.tensor(0), torch.tensor(0)), torch.tensor(wide))
    first, second = (torch.tensor(s) + gate * torch.tensor(c) for s, c in zip(START, third.values(), strict=True))
    assert torch.allclose(code["output"], PAIR.target.train.tensors[0] @ first.T @ second.T)
    tau = {  # as the difference of two float32, then rounded to float16
        n: (torch.tensor(s) + torch.tensor(c) - torch.tensor(s)).half().float()
        for (n, c), s in zip(third.items(), START, strict=True)
    }
    open_ = [torch.tensor([[1.0, 0.0], [1.0, 0.0]]), torch.tensor([[0.0, 1.0], [0.0, 1.0]])]
    expected = [torch.tensor(s) + o * c for s, o, c in zip(START, open_, tau.values(), strict=True)]
    assert weights(t) == [e.tolist() for e in expected]


def trained(protocol: str, model: nn.Module, pair: Pair, **knobs: float) -> list:
    """Which entries of the first layer move; no other does."""
    after = transfer(model, pair, protocol, steps=3, lr=0.01, **knobs)
    assert torch.equal(after[1].weight, model[1].weight)
    return (after[0].weight != model[0].weight).tolist()


def test_spu_trains_the_largest_gradients_of_the_squared_logits():
    model = small([[1.0, 1.0], [0.0, 2.0]], [[1.0, 0.0], [0.0, 1.0]])
    pair = one_target([[3.0, 0.0], [0.0, 1.0]], [0, 1])
    # 2 W mean(x x^T) = 2 W diag(4.5, 0.5): [[9, 1], [0, 2]]
    assert trained("spu", model, pair, density=0.25) == [[True, False], [False, False]]
    assert trained("spu", model, pair, density=0.5) == [[True, False], [False, True]]
    assert trained("spu", model, pair, density=0.75) == [[True, True], [False, True]]


def test_talos_trains_what_the_drawn_logit_feels_least():
    model = small([[100.0, 1.0], [1.0, 100.0]], [[1.0, 0.0], [0.0, 1.0]])  # so that the answer is drawn with certainty
    pair = one_target([[3.0, 1.0], [1.0, 2.0]], [0, 1])
    # the first image draws label 0 and the second label 1: squared gradients [[9, 1], [1, 4]] / 2
    assert trained("talos", model, pair, density=0.5) == [[False, True], [True, False]]
    assert trained("talos", model, pair, density=0.75) == [[False, True], [True, True]]


def test_gps_trains_the_largest_gradient_of_each_neuron():
    model = small([[0.0, 0.0], [0.0, 0.0]], [[1.0, 0.0], [0.0, 2.0]])
    pair = one_target([[3.0, 1.0], [1.0, 4.0]], [0, 1])
    # (p - y) x^T through the head: rows of [[-1, 1.5], [2, -3]] / 2, for p is 1/2
    assert trained("gps", model, pair, density=0.01) == [[False, True], [False, True]]
    other = one_target([[3.0, 1.0], [1.0, -1.0]], [0, 0])  # both rows are +-[4, 0] / 4
    assert trained("gps", model, other, density=0.5) == [[True, False], [True, False]]


def test_super_tuning_trains_the_top_or_the_bottom_weights():
    model = small([[1.0, -4.0], [3.0, 0.5]], [[1.0, 0.0], [0.0, 1.0]])
    assert trained("super_tuning", model, PAIR, density=0.5) == [[False, True], [True, False]]
    assert trained("super_tuning", model, PAIR, density=0.5, bottom=1.0) == [[True, False], [False, True]]


@pytest.mark.parametrize("pair", [SHARED, SEPARATE], ids=["shared head", "a head each"])
@pytest.mark.parametrize("protocol", OURS)
def test_what_is_stored_turns_the_source_network_into_the_new_one_and_nothing_else_moved(protocol, pair, net):
    about, before = described(protocol), dict(net.state_dict())
    after = transfer(net, pair, protocol, steps=8, lr=0.01, norm="train")
    source = for_task(after, "source").state_dict()
    weights = {n for n, _ in net.named_parameters()} - (set() if pair.shared_head else {"6.weight", "6.bias"})
    assert all(
        torch.equal(source[n], t) for n, t in before.items() if n not in weights
    )  # statistics, the source's head
    changed = sum(int((source[n] != before[n]).sum()) for n in weights)
    stored = kept(net, after, None, **about.knobs)
    assert stored.changed == changed > 0
    if about.bits is not signs:
        assert all(torch.equal(source[n], before[n] + (source[n] - before[n]).half().float()) for n in weights)
    if "density" in about.knobs:  # at least one entry of each tensor, or of each neuron
        assert changed <= about.knobs["density"] * sum(before[n].numel() for n in weights) + len(weights) + 12


def test_the_sign_of_the_change_has_one_size_in_each_channel(net):
    after = transfer(net, SHARED, "sign_change", steps=8, lr=0.01)
    for name, p in net.named_parameters():
        size = (after.get_parameter(name) - p).abs().flatten(1 if p.ndim > 1 else 0)
        assert torch.allclose(size, size.mean(-1, keepdim=True).expand_as(size), atol=1e-6)
        assert size.max() > 1e-4


@pytest.mark.parametrize("n", [2, 9, 10])
@pytest.mark.parametrize("protocol", OURS)
def test_all_steps_of_the_transfer_are_taken_and_no_more(protocol, n, net, steps):
    history = []
    transfer(net, SHARED, protocol, steps=n, history=history)
    assert len(steps) == n == history[-1]["step"]
    assert [row["step"] for row in history] == sorted({row["step"] for row in history})


@pytest.mark.parametrize(
    ("protocol", "knob", "message"),
    [(p, {"density": d}, rf"density {d} is outside \(0, 1\]") for p in OURS if "density" in described(p).knobs for d in (0.0, 1.5)]
    + [("change_mask", {"strength": 0.0}, "strength = 0.0 must be greater than 0")],
)  # fmt: skip
def test_a_knob_out_of_range_is_refused_before_any_step(protocol, knob, message, net, steps):
    with pytest.raises(BadSetting, match=message):
        transfer(net, SHARED, protocol, steps=4, **knob)
    assert not steps


@pytest.mark.parametrize("protocol", OURS)
def test_tied_weights_stay_tied_and_change_once(protocol):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(36, 36), nn.ReLU(), nn.Linear(36, 36), nn.ReLU(), nn.Linear(36, 3))
    model[3].weight = model[1].weight
    after = transfer(model, SHARED, protocol, steps=6, lr=0.01)
    assert after[3].weight is after[1].weight
    assert not torch.equal(after[1].weight, model[1].weight)
    assert kept(model, after).n == 36 * 36 + 36 + 36 + 3 * 36 + 3


@pytest.mark.parametrize(
    ("protocol", "knobs"), [("sparse_change", {"density": 0.3}), ("change_mask", {}), ("talos", {"density": 0.6})]
)
def test_with_steps_enough_the_target_is_learnt(protocol, knobs, net):
    x, y = SHARED.target.train.tensors
    after = transfer(net, SHARED, protocol, steps=150, lr=0.01, **knobs)
    assert F.cross_entropy(after(x), y) < 0.9 * F.cross_entropy(net(x), y)


def test_precision_and_batch_size_reach_both_halves(net, monkeypatch):
    taken, fit = [], changes.fit
    monkeypatch.setattr(changes, "fit", lambda *a, **k: taken.append(k) or fit(*a, **k))
    t = Transfer(net, SHARED, replace(Training(), steps=4, batch_size=7, precision="bf16"))
    changes.sign_change(t)
    assert (taken[0]["batch_size"], taken[0]["precision"], taken[0]["lr"]) == (7, "bf16", 2e-3)
