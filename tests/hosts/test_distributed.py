"""Two processes on a CPU: what is held has the same bits on every rank, under DDP and FSDP2; what cannot be right is refused."""

import pytest
import torch
from torch import distributed as dist
from torch import multiprocessing, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import CPUOffloadPolicy, FullyShardedDataParallel, MixedPrecisionPolicy, fully_shard
from torch.distributed.optim import ZeroRedundancyOptimizer
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel

from maskutils import Mask, learn_mask, protect

pytestmark = pytest.mark.slow  # starts two processes

X, Y = torch.randn(32, 6, generator=torch.Generator().manual_seed(0)), torch.arange(32) % 3


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 9), nn.ReLU(), nn.Linear(9, 5), nn.LayerNorm(5), nn.Linear(5, 3))


def a_mask(seed: int = 1) -> Mask:
    draw = torch.Generator().manual_seed(seed)
    return Mask(
        {n: torch.rand(network().get_parameter(n).shape, generator=draw) < 0.4 for n in ("0.weight", "2.weight")}
    )


def train(model: nn.Module, optimizer: torch.optim.Optimizer, rank: int, accumulate: bool = False) -> None:
    for step in range(4):
        part = slice((2 * step + rank) * 4, (2 * step + rank + 1) * 4)
        F.cross_entropy(model(X[part]).float(), Y[part]).backward()
        if not accumulate or step % 2:
            optimizer.step()
            optimizer.zero_grad()


def check(now: dict[str, torch.Tensor], before: dict[str, torch.Tensor], free: tuple[str, ...] = ()) -> None:
    for name, bits in a_mask().bits.items():
        assert torch.equal(now[name][bits], before[name][bits]), name
        assert (now[name] != before[name])[~bits].all(), name
    still = [n for n in before if n not in a_mask().bits and not n.startswith(free or "-")]
    assert all(torch.equal(now[n], before[n]) for n in still)


def replicated(rank: int) -> None:
    for accumulate in (False, True):
        net, before = network(), network().state_dict()
        model = DistributedDataParallel(net)
        with protect(model, a_mask(), train=["4."]):
            train(model, torch.optim.AdamW(model.parameters(), 0.05, weight_decay=0.5), rank, accumulate)
        check(net.state_dict(), before, ("4.",))
        both = [None, None]
        dist.all_gather_object(both, net.state_dict())
        assert all(torch.equal(t, both[1][n]) for n, t in both[0].items())


def sharded(rank: int) -> None:
    mesh, before = init_device_mesh("cpu", (2,)), network().state_dict()
    for accumulate in (False, True):
        model = network()
        for part in (model[0], model[2], model):
            fully_shard(part, mesh=mesh)
        optimizer = torch.optim.AdamW(model.parameters(), 0.05, weight_decay=0.5)
        with protect(model, a_mask(), train=["4."]):
            train(model, optimizer, rank, accumulate)
            with torch.no_grad():
                model(X)  # leaves whole weights behind
        check({n: p.full_tensor().detach() for n, p in model.named_parameters()}, before, ("4.",))
    for refused in (lambda: learn_mask(model, [(X, Y)], "magnitude", density=0.5), lambda: a_mask().apply(model)):
        with pytest.raises(ValueError, match="sharded over processes"):
            refused()


def sharded_in_mixed_precision_and_off_loaded(rank: int) -> None:
    mesh, before = init_device_mesh("cpu", (2,)), network().state_dict()
    ways = [
        {"mp_policy": MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32)},
        {"mp_policy": MixedPrecisionPolicy(param_dtype=torch.float16), "reshard_after_forward": False},
        {"offload_policy": CPUOffloadPolicy(pin_memory=False)},
    ]
    for way in ways:
        model = network()
        for part in (model[0], model[2], model):
            fully_shard(part, mesh=mesh, **way)
        optimizer = torch.optim.AdamW(model.parameters(), 0.05, weight_decay=0.5)
        with protect(model, a_mask(), train=["4."], optimizer=optimizer):
            train(model, optimizer, rank)
        check({n: p.full_tensor().detach() for n, p in model.named_parameters()}, before, ("4.",))


def mixed_precision(rank: int) -> None:
    net, before = network(), network().state_dict()
    model = DistributedDataParallel(net)
    with protect(model, a_mask(), train=["4."]), torch.autocast("cpu", torch.bfloat16):
        train(model, torch.optim.SGD(model.parameters(), 0.5, momentum=0.9, weight_decay=0.1), rank, accumulate=True)
    check(net.state_dict(), before, ("4.",))


def static_graph(rank: int) -> None:
    net, before = network(), network().state_dict()
    model = DistributedDataParallel(net, static_graph=True, gradient_as_bucket_view=True)
    with protect(model, a_mask(), train=["4."]):
        train(model, torch.optim.AdamW(model.parameters(), 0.05, weight_decay=0.5), rank)
    check(net.state_dict(), before, ("4.",))


def states_sharded(rank: int) -> None:
    for given in (True, False):
        net, before = network(), network().state_dict()
        model = DistributedDataParallel(net)
        optimizer = ZeroRedundancyOptimizer(model.parameters(), torch.optim.AdamW, lr=0.05, weight_decay=0.5)
        with protect(model, a_mask(), train=["4."], optimizer=optimizer if given else None):
            train(model, optimizer, rank)
        check(net.state_dict(), before, ("4.",))


def tensors_sharded(rank: int) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 5), nn.Linear(5, 3))
    before = {n: t.clone() for n, t in net.state_dict().items()}
    mask = Mask({n: torch.rand(net.get_parameter(n).shape) < 0.4 for n in ("0.weight", "2.weight")})
    mesh = init_device_mesh("cpu", (2,))
    parallelize_module(net, mesh, {"0": ColwiseParallel(), "2": RowwiseParallel()})
    optimizer = torch.optim.AdamW(net.parameters(), 0.05, weight_decay=0.5, foreach=False)
    with protect(net, mask, train=["3."]):
        for _ in range(3):
            F.cross_entropy(net(X), Y).backward()
            optimizer.step()
    now = {n: p.full_tensor() if hasattr(p, "full_tensor") else p for n, p in net.named_parameters()}
    assert all(torch.equal(now[n][b], before[n][b]) for n, b in mask.bits.items())
    assert all((now[n] != before[n])[~b].all() for n, b in mask.bits.items())
    assert all(torch.equal(now[n], before[n]) for n in ("0.bias", "2.bias"))


def learnt_on_every_rank(rank: int) -> None:
    net = network()
    model = DistributedDataParallel(net)
    own = learn_mask(model, [(X[rank::2], Y[rank::2])], "gumbel_sigmoid", density=0.4, steps=3)
    with pytest.raises(ValueError, match="processes have different masks"), protect(model, own):
        pass
    same = learn_mask(model, [(X, Y)], "gumbel_sigmoid", density=0.4, steps=3)
    with protect(model, same):
        pass


def different_masks(rank: int) -> None:
    model = DistributedDataParallel(network())
    with pytest.raises(ValueError, match="processes have different masks"), protect(model, a_mask(seed=rank)):
        pass
    sharded = fully_shard(network(), mesh=init_device_mesh("cpu", (2,)))
    with pytest.raises(ValueError, match="processes have different masks"), protect(sharded, a_mask(seed=rank)):
        pass


def flattened(rank: int) -> None:
    model = FullyShardedDataParallel(network(), device_id=torch.device("cpu"))
    with pytest.raises(ValueError, match=r"FullyShardedDataParallel, .* use fully_shard"), protect(model, a_mask()):
        pass


def in_a_process(rank: int, folder: str, work: list) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    try:
        for task in work:
            task(rank)
    finally:
        dist.destroy_process_group()


def test_two_processes(tmp_path):
    # in one start of the processes, which takes the most time
    work = [replicated, mixed_precision, sharded, sharded_in_mixed_precision_and_off_loaded]
    work += [static_graph, states_sharded, tensors_sharded, different_masks, learnt_on_every_rank, flattened]
    multiprocessing.spawn(in_a_process, (str(tmp_path), work), nprocs=2)
