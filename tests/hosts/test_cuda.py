"""On a CUDA device: what is held keeps its bits, masks are learnt, read out, stored and compared as on a CPU. Skipped without one.

As a script (`PYTHONPATH=. python tests/hosts/test_cuda.py`) it needs torch, numpy, safetensors and pytest alone.
"""

import copy
import importlib.util
import shutil
import sys
from functools import partial
from importlib.machinery import ModuleSpec
from types import ModuleType

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.optim import SGD, Adam, AdamW
from torch.utils.data import TensorDataset

try:
    import tqdm.auto  # noqa: F401
except ModuleNotFoundError:  # a bare machine shows no progress
    sys.modules["tqdm"] = sys.modules["tqdm.auto"] = ModuleType("tqdm")
    sys.modules["tqdm"].tqdm = lambda items, **_: items
    sys.modules["tqdm"].__spec__ = ModuleSpec("tqdm", None)  # which torch.compile looks for

from maskutils.masks.information import fisher_information
from maskutils.masks.layers import LAYERS
from maskutils.masks.mask import Mask
from maskutils.masks.protection import protect
from maskutils.masks.rankings import RANKINGS
from maskutils.models import sizes
from maskutils.training.evaluation import evaluate, predict
from maskutils.training.learn import learn_mask, learn_subnetwork
from maskutils.training.loop import fit

DEVICE = "cuda"
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
    pytest.mark.filterwarnings("error"),
    pytest.mark.filterwarnings("default::DeprecationWarning"),  # of torch itself
    pytest.mark.filterwarnings("default::FutureWarning"),
    pytest.mark.filterwarnings("ignore:norm layers train"),
    pytest.mark.filterwarnings("ignore:.*TensorFloat32"),
    pytest.mark.filterwarnings("ignore:Detected call of `lr_scheduler.step"),  # GradScaler skips a first step
]
draw = torch.Generator().manual_seed(0)
X, Y = torch.randn(64, 3, 8, 8, generator=draw), torch.arange(64) % 3
DATA = TensorDataset(X, Y)


def network(width: int = 16) -> nn.Module:
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, width, 3), nn.BatchNorm2d(width), nn.ReLU(), nn.Conv2d(width, 2 * width, 3), nn.ReLU(), nn.Flatten(),
        nn.Linear(32 * width, 32), nn.ReLU(), nn.Linear(32, 3),
    )  # fmt: skip
    return net.to(DEVICE)


def a_mask(net: nn.Module, density: float = 0.4, device: str = DEVICE) -> Mask:
    draw, names = torch.Generator().manual_seed(1), ("0.weight", "3.weight", "6.weight")
    return Mask({n: (torch.rand(net.get_parameter(n).shape, generator=draw) < density).to(device) for n in names})


def as_bytes(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.detach().cpu().reshape(-1).view(torch.uint8)


def check(net: nn.Module, mask: Mask, before: dict[str, torch.Tensor], free: tuple[str, ...] = ("8.",)) -> None:
    """What is held has its bits; of what is free, nearly all has moved."""
    for name, now in net.state_dict().items():
        if name in mask.bits:
            bits = mask.bits[name].cpu()
            assert torch.equal(as_bytes(now.cpu()[bits]), as_bytes(before[name].cpu()[bits])), name
            assert (now.cpu() != before[name].cpu())[~bits].float().mean() > 0.8, name
        elif name.startswith(free):
            assert not torch.equal(now, before[name]), name
        else:
            assert torch.equal(as_bytes(now), as_bytes(before[name])), name


def train(net: nn.Module, optimizer: torch.optim.Optimizer, dtype: torch.dtype | None = None, scaler=None) -> None:
    for step in range(6):
        x, y = X.to(DEVICE), Y.to(DEVICE)
        with torch.autocast(DEVICE, dtype, enabled=dtype is not None):
            loss = F.cross_entropy(net(x).float(), y)
        if scaler is not None:
            scaler.scale(loss * (torch.inf if step == 2 else 1)).backward()  # one step is left out
            scaler.step(optimizer)
            scaler.update()
        else:
            loss.backward()
            optimizer.step()
        optimizer.zero_grad()


OPTIMIZERS = {
    "adamw": partial(AdamW, lr=0.01, weight_decay=0.1),
    "adamw, fused": partial(AdamW, lr=0.01, weight_decay=0.1, fused=True),
    "adamw, foreach": partial(AdamW, lr=0.01, weight_decay=0.1, foreach=True),
    "adamw, capturable": partial(AdamW, lr=0.01, weight_decay=0.1, capturable=True),
    "adamw, one by one": partial(AdamW, lr=0.01, weight_decay=0.1, foreach=False),
    "adam, fused, amsgrad": partial(Adam, lr=0.01, weight_decay=0.1, fused=True, amsgrad=True),
    "sgd, momentum": partial(SGD, lr=0.05, momentum=0.9, weight_decay=0.1),
    "sgd, fused": partial(SGD, lr=0.05, momentum=0.9, weight_decay=0.1, fused=True),
    "sgd, nesterov, foreach": partial(SGD, lr=0.05, momentum=0.9, nesterov=True, weight_decay=0.1, foreach=True),
}


@pytest.mark.parametrize("density", [0.05, 0.4, 0.95])
@pytest.mark.parametrize("make", OPTIMIZERS.values(), ids=OPTIMIZERS.keys())
def test_held_bits_under_every_optimizer(make, density):
    net = network()
    mask, before, optimizer = a_mask(net, density), copy.deepcopy(net.state_dict()), make(net.parameters())
    with protect(net, mask, train=["8."]):
        train(net, optimizer)
    check(net, mask, before)


@pytest.mark.parametrize("given", [True, False], ids=["optimizer given", "any optimizer"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, None], ids=str)
@pytest.mark.parametrize("make", [OPTIMIZERS["adamw, fused"], OPTIMIZERS["sgd, momentum"]], ids=["fused", "sgd"])
def test_held_bits_under_autocast_and_grad_scaler(make, dtype, given):
    net = network()
    mask, before, optimizer = a_mask(net), copy.deepcopy(net.state_dict()), make(net.parameters())
    scaler = torch.amp.GradScaler(DEVICE) if dtype is torch.float16 else None
    with protect(net, mask, train=["8."], optimizer=optimizer if given else None):
        train(net, optimizer, dtype, scaler)
    check(net, mask, before)


def test_held_bits_of_a_network_in_bfloat16_and_channels_last():
    net = network().to(memory_format=torch.channels_last)
    for dtype in (torch.float32, torch.bfloat16):
        net = net.to(dtype)
        mask, before = a_mask(net, device="cpu"), copy.deepcopy(net.state_dict())
        optimizer = AdamW(net.parameters(), 0.05, weight_decay=0.1)
        with protect(net, mask, train=["8."]):
            for _ in range(4):
                F.cross_entropy(net(X.to(DEVICE, dtype)).float(), Y.to(DEVICE)).backward()
                optimizer.step()
        check(net, mask, before)


BACKENDS = ["eager", "aot_eager", "inductor"]


def compiled(net: nn.Module, backend: str) -> nn.Module:
    if backend == "inductor" and not (
        importlib.util.find_spec("triton") and (shutil.which("cc") or shutil.which("gcc"))
    ):
        pytest.skip("inductor needs triton and a C compiler")
    torch.compiler.reset()
    return torch.compile(net, backend=backend)


@pytest.mark.filterwarnings("default")  # of the compiler
@pytest.mark.parametrize("backend", BACKENDS)
def test_held_bits_of_a_compiled_network(backend):
    net = network()
    model = compiled(net, backend)
    mask, before = a_mask(net), copy.deepcopy(net.state_dict())
    with protect(model, mask, train=["8."]):
        train(model, AdamW(model.parameters(), 0.01, weight_decay=0.1, fused=True), torch.bfloat16)
    check(net, mask, before)
    assert abs(evaluate(model, DATA) - evaluate(net, DATA)) <= 1 / len(X)


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("backend", BACKENDS)
def test_masks_are_learnt_on_a_compiled_network(backend):
    net = network()
    plain = learn_mask(net, DATA, "gumbel_sigmoid", density=0.3, steps=5)
    assert learn_mask(compiled(net, backend), DATA, "gumbel_sigmoid", density=0.3, steps=5).iou(plain) > 0.98


def test_held_bits_when_the_whole_step_is_a_cuda_graph():
    net = network()
    mask, before = a_mask(net), copy.deepcopy(net.state_dict())
    optimizer, x, y = AdamW(net.parameters(), 0.01, weight_decay=0.1, capturable=True), X.to(DEVICE), Y.to(DEVICE)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        F.cross_entropy(net(x), y).backward()
        optimizer.step()

    with protect(net, mask, train=["8."]):
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(3):
                step()
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            step()
        for _ in range(4):
            graph.replay()
            torch.cuda.synchronize()
            check(net, mask, before)


def test_a_network_that_moves_to_the_cpu_inside_the_block_is_held_there():
    net = network()
    mask, before = a_mask(net), copy.deepcopy(net.state_dict())
    with protect(net, mask, train=["8."]):
        net.cpu()
        optimizer = AdamW(net.parameters(), 0.01, weight_decay=0.1)
        for _ in range(4):
            F.cross_entropy(net(X), Y).backward()
            optimizer.step()
    check(net, mask, {n: t.cpu() for n, t in before.items()})


@pytest.mark.parametrize("precision", ["float32", "bf16"])
@pytest.mark.parametrize("method", LAYERS)
def test_every_mask_layer_learns_on_the_device(method, precision):
    net = network()
    before = copy.deepcopy(net.state_dict())
    if LAYERS[method].trains_weights:
        trained, mask = learn_subnetwork(net, DATA, method, steps=5, precision=precision)
        assert next(trained.parameters()).device.type == DEVICE
        evaluate(mask.apply(trained), DATA)  # it runs
    else:
        mask = learn_mask(net, DATA, method, density=0.3, steps=5, precision=precision)
        assert mask.density == pytest.approx(0.3, abs=1e-3)
        evaluate(mask.apply(net), DATA)  # it runs
    assert all(b.device.type == DEVICE for b in mask.bits.values())
    assert all(torch.equal(t, before[n]) for n, t in net.state_dict().items())
    assert all(s.isfinite().all() for s in mask.scores.values())


@pytest.mark.filterwarnings("ignore:the mask")  # five steps may be too few to carry the task
@pytest.mark.parametrize("method", [n for n in LAYERS if not LAYERS[n].trains_weights])
def test_a_mask_of_a_large_network_is_learnt_on_the_device(method):
    net = network(width=224)
    assert sizes.is_large(net)
    mask = learn_mask(net, DATA, method, density=0.3, steps=5)
    assert mask.density == pytest.approx(0.3, abs=1e-3)


@pytest.mark.parametrize("method", [n for n in RANKINGS if n != "random"])
def test_every_ranking_gives_the_mask_that_it_gives_on_a_cpu(method):
    net = network()
    fit(net, DATA, steps=20)
    masks = [learn_mask(m, DATA, method, density=0.3) for m in (net, copy.deepcopy(net).cpu())]
    assert Mask({n: b.cpu() for n, b in masks[0].bits.items()}).iou(masks[1]) > 0.97


@pytest.mark.parametrize("width", [16, 224], ids=["image by image", "by batches"])
def test_fisher_information_is_that_of_a_cpu(width, monkeypatch):
    torch.backends.cudnn.allow_tf32, before = False, torch.backends.cudnn.allow_tf32
    try:
        net = network(width)
        found, expected = (fisher_information(m, DATA, 20) for m in (net, copy.deepcopy(net).cpu()))
    finally:
        torch.backends.cudnn.allow_tf32 = before
    for name, f in expected.items():
        assert torch.allclose(found[name].cpu(), f, rtol=1e-2, atol=1e-3 * f.max().item()), name


def test_accuracy_is_that_of_a_cpu_and_a_network_is_read_out_as_it_lies():
    net = network()
    fit(net, DATA, steps=30)
    logits, labels = predict(net, DATA)
    assert (logits.device.type, labels.device.type) == ("cpu", "cpu")
    there = copy.deepcopy(net).cpu()
    assert torch.allclose(logits, predict(there, DATA)[0], atol=0.05)
    assert abs(evaluate(net, DATA) - evaluate(there, DATA)) <= 2 / len(X)
    assert evaluate(net, [(X.to(DEVICE), Y.to(DEVICE))]) == evaluate(net, DATA)


def test_a_mask_is_one_whatever_device_it_lies_on(tmp_path):
    net = network()
    mask = learn_mask(net, DATA, "gumbel_sigmoid", density=0.3, steps=3).with_state(net)
    mask.save(tmp_path / "mask", scores=True)
    loaded = Mask.load(tmp_path / "mask")
    assert all(b.device.type == "cpu" for b in loaded.bits.values())
    assert loaded == mask
    assert mask == loaded
    assert (loaded & mask) == (mask & loaded) == (loaded | mask) == mask
    assert (loaded.checksum(), loaded.fingerprint) == (mask.checksum(), mask.fingerprint)
    assert loaded.iou(mask) == 1
    assert loaded.at_density(0.1).density == pytest.approx(0.1, abs=1e-3)
    assert mask.at_density(0.1) == loaded.at_density(0.1)
    assert mask.shuffled(3) == loaded.shuffled(3)
    for network_there in (net, copy.deepcopy(net).cpu()):  # without a warning of other weights
        applied = [m.apply(network_there).state_dict() for m in (mask, loaded)]
        assert all(torch.equal(applied[0][n], applied[1][n]) for n in applied[0])
        with protect(network_there, loaded, train=["8."]):
            pass


def test_pruning_and_back_on_the_device():
    net = network()
    mask = a_mask(net, device="cpu")
    pruned = mask.to_pruning(copy.deepcopy(net))
    assert Mask.from_pruning(pruned) == mask
    assert torch.equal(pruned.eval()(X.to(DEVICE)), mask.apply(net).eval()(X.to(DEVICE)))


if __name__ == "__main__":
    sys.exit(pytest.main([__file__, "--noconftest", "-q", "-p", "no:cacheprovider", "-o", "addopts=", *sys.argv[1:]]))
