"""Optimisers of others, and every way in which torch's own step: held bits stay, free weights move."""

import copy
from functools import partial

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.optim import SGD, Adagrad, Adam, Adamax, AdamW, NAdam, RAdam, RMSprop

from maskutils import learn_mask, protect
from maskutils.masks.mask import Mask

X, Y = torch.randn(64, 6, generator=torch.Generator().manual_seed(0)), torch.arange(64) % 3
WAYS = [{"foreach": True}, {"foreach": False}, {"fused": True}]
FUSED = (Adam, AdamW, SGD, Adagrad)
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("default")]  # some of these libraries warn of their own


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 32), nn.ReLU(), nn.Linear(32, 128), nn.Linear(128, 3))


def held(make, dtype: torch.dtype | None = None, scaler=None, net: nn.Module | None = None, steps: int = 8) -> None:
    """Train a network inside `protect`, and compare bits after each step."""
    net = network() if net is None else net
    mask = Mask({n: torch.rand(net.get_parameter(n).shape) < 0.5 for n in ("0.weight", "2.weight")})
    before, optimizer = copy.deepcopy(net.state_dict()), make(net.parameters())
    with protect(net, mask, train=["3."]):
        for step in range(steps):
            with torch.autocast("cpu", dtype, enabled=dtype is not None):
                loss = F.cross_entropy(net(X).float(), Y)
            if scaler is None:
                loss.backward()
                optimizer.step()
            else:
                scaler.scale(loss * (torch.inf if step == 2 else 1)).backward()  # one step is left out
                scaler.step(optimizer)
                scaler.update()
            optimizer.zero_grad()
            after = net.state_dict()
            assert all(torch.equal(after[n][b], before[n][b]) for n, b in mask.bits.items())
            assert all(torch.equal(after[n], before[n]) for n in ("0.bias", "2.bias"))
    assert all((after[n] != before[n])[~b].float().mean() > 0.8 for n, b in mask.bits.items())
    assert not torch.equal(after["3.weight"], before["3.weight"])


@pytest.mark.parametrize("way", WAYS, ids=str)
@pytest.mark.parametrize("kind", [Adam, AdamW, SGD, Adagrad, Adamax, NAdam, RAdam, RMSprop])
def test_every_way_of_an_optimizer_of_torch(kind, way):
    if "fused" in way and kind not in FUSED:
        pytest.skip("torch has no fused one")
    options = {"momentum": 0.9} if kind is SGD else {}
    held(partial(kind, lr=0.01, weight_decay=0.1, **options, **way))


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_grad_scaler_on_a_cpu(dtype, fused):
    held(partial(AdamW, lr=0.01, weight_decay=0.1, fused=fused), dtype, torch.amp.GradScaler("cpu"))


def test_adafactor_and_muon_of_torch():
    held(partial(torch.optim.Adafactor, lr=0.05, weight_decay=0.1))
    if hasattr(torch.optim, "Muon"):  # since torch 2.9
        held(lambda params: torch.optim.Muon([p for p in params if p.ndim == 2], lr=0.01, weight_decay=0.1))


NAMES = [
    "Lion",
    "Adan",
    "Prodigy",
    "AdaBelief",
    "Lamb",
    "LARS",
    "SOAP",
    "Tiger",
    "AdamP",
    "StableAdamW",
    "ADOPT",
    "CAME",
    "Kate",
]


@pytest.mark.parametrize("name", NAMES)
def test_optimizers_of_pytorch_optimizer(name):
    library = pytest.importorskip("pytorch_optimizer")
    held(partial(library.load_optimizer(name), lr=1.0 if name == "Prodigy" else 0.01, weight_decay=0.1))


def test_an_optimizer_around_another_one():
    library = pytest.importorskip("pytorch_optimizer")
    held(lambda params: library.Lookahead(AdamW(params, 0.01, weight_decay=0.1), k=2))


def test_sharpness_aware_steps():
    library = pytest.importorskip("pytorch_optimizer")

    class InTwo(library.SAM):
        """The usual loop of it: two passes for each step."""

        def step(self) -> None:
            self.first_step(zero_grad=True)
            F.cross_entropy(self.net(X), Y).backward()
            self.second_step()

    net = network()
    InTwo.net = net
    held(partial(InTwo, base_optimizer=AdamW, lr=0.01, weight_decay=0.1), net=net)


@pytest.mark.parametrize("name", ["AdamW8bit", "AdamW4bit"])
def test_low_bit_optimizers_of_torchao(name):
    optim = pytest.importorskip("torchao.optim")
    held(partial(getattr(optim, name), lr=0.01, weight_decay=0.1))


@pytest.mark.parametrize("name", ["AdamW8bit", "Lion8bit", "SGD8bit", "AdamW"])
def test_8_bit_optimizers_of_bitsandbytes(name):
    optim = pytest.importorskip("bitsandbytes").optim
    options = {"momentum": 0.9} if name == "SGD8bit" else {}
    held(partial(getattr(optim, name), lr=0.01, weight_decay=0.1, **options))


def test_a_network_that_torchao_has_quantised_is_refused_in_one_sentence():
    quantization = pytest.importorskip("torchao.quantization")
    net = network()
    quantization.quantize_(net, quantization.Int8WeightOnlyConfig())
    for method in ("magnitude", "snip", "gumbel_sigmoid"):
        with pytest.raises(ValueError, match=r"0\.weight, 2\.weight: Int8Tensor of .* without quantisation"):
            learn_mask(net, [(X, Y)], method, density=0.3, steps=1)
