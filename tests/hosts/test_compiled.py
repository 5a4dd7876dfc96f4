"""torch.compile around mask layers and inside protect: one graph, the same masks and gradients, the same bits held."""

import copy
import functools

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from maskutils import Mask, protect
from maskutils.masks.layers import LAYERS, attach
from maskutils.masks.selection import highest

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("default"),
]  # the compiler takes seconds, and warns of its own

X, Y = torch.randn(32, 6, generator=torch.Generator().manual_seed(0)), torch.arange(32) % 3


@pytest.fixture(autouse=True)
def _afresh():
    torch.compiler.reset()
    yield
    torch.compiler.reset()


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 8), nn.Linear(8, 3))


def learning(name: str, **compiler: object) -> list[torch.Tensor]:
    """Logits and gradients of the scores in three steps of rising temperature, on a network that is compiled or not."""
    net, found = network().eval().requires_grad_(False), []
    layers = attach(net, name)
    forward = torch.compile(net, **compiler) if compiler else net
    for step, progress in enumerate((0.0, 0.4, 0.8)):
        for layer in layers.values():
            layer.train().progress = progress
            layer.scores.grad = None
        torch.manual_seed(step)
        logits = forward(X)
        (F.cross_entropy(logits, Y) + 1e-4 * sum(layer.penalty() for layer in layers.values())).backward()
        found += [logits.detach(), *(layer.scores.grad for layer in layers.values())]
    return found


@pytest.mark.parametrize("name", LAYERS)
def test_every_mask_layer_is_one_graph_with_the_same_masks_and_gradients(name):
    compiled = learning(name, backend="aot_eager", fullgraph=True)
    for found, expected in zip(compiled, learning(name), strict=True):
        torch.testing.assert_close(found, expected)


def test_the_default_compiler_gives_the_gradients_of_a_layer_without_noise():
    for found, expected in zip(
        learning("continuous_sparsification", fullgraph=True), learning("continuous_sparsification"), strict=True
    ):
        torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("k", [0, 1, 7, 20])
def test_the_highest_are_the_same_in_a_graph_of_equal_values_too(k):
    values = torch.tensor([2.0, 1.0, 2.0, 0.0, 1.0] * 4)
    assert torch.equal(torch.compile(highest, backend="eager", fullgraph=True)(values, k), highest(values, k))


def forward_compiled(net: nn.Module, optimizer: torch.optim.Optimizer, backend: str):
    forward = torch.compile(net, backend=backend)

    def step() -> None:
        F.cross_entropy(forward(X), Y).backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def in_place(net: nn.Module, optimizer: torch.optim.Optimizer, backend: str):
    net.compile(backend=backend)
    return functools.partial(plain, net, optimizer)


def step_compiled(net: nn.Module, optimizer: torch.optim.Optimizer, backend: str):
    optimizer.step = torch.compile(optimizer.step, backend=backend)
    return functools.partial(plain, net, optimizer)


def whole(net: nn.Module, optimizer: torch.optim.Optimizer, backend: str):
    return torch.compile(functools.partial(plain, net, optimizer), backend=backend)


def plain(net: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    F.cross_entropy(net(X), Y).backward()
    optimizer.step()
    optimizer.zero_grad()


WAYS = [  # what is compiled, by which backend, and whether before the block already: inside, the step has a hook
    (forward_compiled, "inductor", False),
    (in_place, "aot_eager", True),
    (step_compiled, "eager", True),
    (whole, "eager", False),
]


@pytest.mark.parametrize(("way", "backend", "before_the_block"), WAYS, ids=lambda v: getattr(v, "__name__", v))
def test_protect_holds_whatever_is_compiled_and_lets_go_after_the_block(way, backend, before_the_block):
    net = network().eval()
    optimizer = torch.optim.AdamW(net.parameters(), 0.01, weight_decay=0.1)
    mask = Mask({n: torch.rand(net.get_parameter(n).shape) < 0.5 for n in ("0.weight", "3.weight")})
    step = way(net, optimizer, backend)
    if before_the_block:
        step()
    before = copy.deepcopy(net.state_dict())
    with protect(net, mask, train=["4."]):
        for _ in range(3):
            step()
            now = net.state_dict()
            assert all(torch.equal(now[n][b], before[n][b]) for n, b in mask.bits.items())
            assert all(torch.equal(now[n], before[n]) for n in ("0.bias", "3.bias", "1.weight", "1.running_mean"))
    assert all((now[n] != before[n])[~b].all() for n, b in mask.bits.items())
    assert not torch.equal(now["4.weight"], before["4.weight"])
    step()
    assert all((net.get_parameter(n) != before[n]).all() for n in mask.bits)
