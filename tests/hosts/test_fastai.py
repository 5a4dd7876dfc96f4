"""fastai's Learner inside protect. Its optimiser is no `torch.optim`, so a callback restores."""

import copy
import warnings

import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

from maskutils import learn_mask, protect

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("default")]  # fastai warns of its own
DATA = TensorDataset(torch.randn(64, 6, generator=torch.Generator().manual_seed(0)), torch.arange(64) % 3)


@pytest.mark.parametrize("way", ["callback", "wrapped optimiser", "neither"])
def test_protect_around_a_learner(way):
    pytest.importorskip("fastai")
    import fastai.callback.progress  # noqa: F401
    from fastai import losses
    from fastai.callback.core import Callback
    from fastai.data.core import DataLoaders
    from fastai.data.load import DataLoader
    from fastai.learner import Learner
    from fastai.optimizer import OptimWrapper

    class Restore(Callback):
        def after_step(self) -> None:
            restore()
            assert all(torch.equal(net.get_parameter(n)[b], before[n][b]) for n, b in mask.bits.items())

    def wrapped(params: list, **options: float) -> OptimWrapper:
        return OptimWrapper(params, torch.optim.AdamW, **options)

    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 32), nn.ReLU(), nn.Linear(32, 16), nn.Linear(16, 3))
    mask, before = learn_mask(net, DATA, "magnitude", density=0.3), copy.deepcopy(net.state_dict())
    loaders = DataLoaders(DataLoader(DATA, bs=16, shuffle=True), DataLoader(DATA, bs=16))
    options = {"opt_func": wrapped} if way == "wrapped optimiser" else {"wd": 0.1}
    learner = Learner(loaders, net, loss_func=losses.CrossEntropyLossFlat(), **options)
    quiet = learner.no_bar(), learner.no_logging()
    with warnings.catch_warnings(record=True, action="always") as said, quiet[0], quiet[1]:  # noqa: SIM117
        with protect(net, mask, train=["3."]) as restore:
            learner.fit(2, 0.01, cbs=Restore() if way == "callback" else None)
    assert any("restore them at any time" in str(w.message) for w in said) == (way == "neither")
    after = net.state_dict()
    assert all(torch.equal(after[n][b], before[n][b]) for n, b in mask.bits.items())
    assert all((after[n] != before[n])[~b].any() for n, b in mask.bits.items())
    assert torch.equal(after["0.bias"], before["0.bias"])
    assert not torch.equal(after["3.bias"], before["3.bias"])
