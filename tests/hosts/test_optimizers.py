"""Optimisers that keep their state in 8 bits, and the training loop of fastai: what is held has the same bits after each of them.

bitsandbytes and fastai are large and are not part of the group hosts. Where they are installed, they are tested.
"""

from functools import partial

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from maskutils import Mask, protect

pytestmark = [
    pytest.mark.slow,  # torchao compiles its step
    pytest.mark.filterwarnings("ignore"),  # of these libraries
]

X, Y = torch.randn(64, 64, generator=torch.Generator().manual_seed(0)), torch.arange(64) % 3


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 64), nn.ReLU(), nn.Linear(64, 3))


def a_mask() -> Mask:
    draw = torch.Generator().manual_seed(1)
    return Mask(
        {n: torch.rand(network().get_parameter(n).shape, generator=draw) < 0.4 for n in ("0.weight", "2.weight")}
    )


def check(model: nn.Module) -> None:
    before = network()
    for name, bits in a_mask().bits.items():
        assert torch.equal(model.get_parameter(name)[bits], before.get_parameter(name)[bits])
        assert (model.get_parameter(name) != before.get_parameter(name))[~bits].float().mean() > 0.9


@pytest.mark.parametrize(("library", "name"), [("torchao.optim", "AdamW8bit"), ("bitsandbytes.optim", "AdamW8bit")])
def test_optimisers_of_8_bits(library, name):
    make = getattr(pytest.importorskip(library), name)
    model = network()
    optimizer = make(model.parameters(), lr=1e-2)
    with protect(model, a_mask(), train=["4."]):
        for x, y in zip(X.split(16), Y.split(16), strict=True):
            optimizer.zero_grad()
            F.cross_entropy(model(x), y).backward()
            optimizer.step()
    check(model)


@pytest.mark.parametrize("own", [True, False])
def test_fastai(own):
    """Its own optimisers are none of torch's: a callback restores after each step. Wrapped ones of torch need nothing."""
    learner = pytest.importorskip("fastai.learner")
    from fastai.callback.core import Callback
    from fastai.callback.progress import ProgressCallback
    from fastai.data.core import DataLoaders
    from fastai.optimizer import OptimWrapper

    class Hold(Callback):
        def after_step(self) -> None:
            restore()

    model, loader = network(), DataLoader(TensorDataset(X, Y), 16)
    options = {} if own else {"opt_func": partial(OptimWrapper, opt=torch.optim.AdamW)}
    learn = learner.Learner(DataLoaders(loader, loader), model, loss_func=F.cross_entropy, **options)
    learn.remove_cbs([c for c in learn.cbs if isinstance(c, ProgressCallback)])
    with protect(model, a_mask(), train=["4."]) as restore:
        learn.fit(1, 0.05, cbs=[Hold()] if own else [])
    check(model)
