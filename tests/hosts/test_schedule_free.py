"""Schedule-free optimisers, which swap averages into the weights on train() and eval()."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from maskutils import protect
from maskutils.masks.mask import Mask

schedulefree = pytest.importorskip("schedulefree")

MAKES = {
    "adamw": lambda p: schedulefree.AdamWScheduleFree(p, lr=0.05, weight_decay=0.1),
    "adamw without foreach": lambda p: schedulefree.AdamWScheduleFree(p, lr=0.05, weight_decay=0.1, foreach=False),
    "adamw, the reference": lambda p: schedulefree.AdamWScheduleFreeReference([*p], lr=0.05, weight_decay=0.1),
    "sgd, the reference": lambda p: schedulefree.SGDScheduleFreeReference([*p], lr=0.5, weight_decay=0.1),
    "sgd": lambda p: schedulefree.SGDScheduleFree(p, lr=0.5, weight_decay=0.1),
    "radam": lambda p: schedulefree.RAdamScheduleFree(p, lr=0.05, weight_decay=0.1),
    "wrapped": lambda p: schedulefree.ScheduleFreeWrapper(torch.optim.SGD(p, lr=0.1, weight_decay=0.1)),
}
X, Y = torch.randn(32, 6, generator=torch.Generator().manual_seed(0)), torch.arange(32) % 3


@pytest.mark.parametrize("make", MAKES.values(), ids=MAKES.keys())
def test_held_weights_stay_when_averages_are_swapped_in_inside_and_after_the_block(make):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))
    mask, optimizer = Mask({"0.weight": torch.rand(8, 6) < 0.5}), make(net.parameters())
    before = copy.deepcopy(net.state_dict())

    def check() -> None:
        now = net.state_dict()
        assert all(torch.equal(now[n], before[n]) for n in before if n != "0.weight")
        bits = mask.bits["0.weight"]
        assert torch.equal(now["0.weight"][bits], before["0.weight"][bits])

    with protect(net, mask):
        for _ in range(10):  # RAdam begins to move after five
            optimizer.train()
            optimizer.zero_grad()
            F.cross_entropy(net(X), Y).backward()
            optimizer.step()
            check()
            optimizer.eval()
            check()
    check()
    optimizer.train()
    check()
    optimizer.eval()
    check()
    assert (net[0].weight != before["0.weight"])[~mask.bits["0.weight"]].all()


def test_an_optimizer_that_swaps_weights_in_a_way_of_its_own_is_refused():
    class Swapping(torch.optim.SGD):
        def eval(self) -> None:
            """Swap something in."""

    net = nn.Sequential(nn.Linear(6, 8), nn.Linear(8, 3))
    optimizer = Swapping(net.parameters(), 0.1, momentum=0.9)
    F.cross_entropy(net(X), Y).backward()
    with (
        protect(net, Mask({"0.weight": torch.rand(8, 6) < 0.5})),
        pytest.raises(ValueError, match="Swapping may swap weights"),
    ):
        optimizer.step()
