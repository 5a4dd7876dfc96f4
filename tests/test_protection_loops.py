"""Protection in loops that do more than step: closures, averages, several optimisers, parts that are swapped inside the block."""

import warnings

import pytest
import test_protection as base
import torch
from test_protection import X, Y, check_free, check_held, steps, tensors
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations, prune
from torch.optim import LBFGS, SGD, AdamW
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from maskutils.masks.held import Held
from maskutils.masks.mask import Mask
from maskutils.masks.protection import protect

pytestmark = pytest.mark.filterwarnings("ignore:norm layers train")
net, mask = base.net, base.mask  # fixtures


def plain_loss(model) -> torch.Tensor:
    return F.cross_entropy(model(X), Y)


# Row 3: LBFGS


@pytest.mark.parametrize("search", [None, "strong_wolfe"])
@pytest.mark.parametrize("as_keyword", [False, True])
def test_the_search_of_lbfgs_runs_on_the_weights_that_it_finds_again(net, mask, search, as_keyword):
    net.eval()
    before, optimizer, losses = tensors(net), LBFGS(net.parameters(), 0.5, line_search_fn=search), []

    def closure() -> torch.Tensor:
        check_held(net, mask, before)  # at every evaluation, not only between steps
        optimizer.zero_grad()
        loss = plain_loss(net)
        loss.backward()
        return loss

    with protect(net, mask):
        for _ in range(6):
            optimizer.step(closure=closure) if as_keyword else optimizer.step(closure)
            losses.append(plain_loss(net).item())
    check_held(net, mask, before)
    check_free(net, mask, before)
    assert losses == sorted(losses, reverse=True)


def test_an_lbfgs_that_remembers_other_directions_is_refused(net, mask):
    net.eval()
    optimizer = LBFGS(net.parameters(), 0.5)

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = plain_loss(net)
        loss.backward()
        return loss

    optimizer.step(closure)
    with protect(net, mask), pytest.raises(ValueError, match=r"remembers directions .* make a new LBFGS"):
        optimizer.step(closure)


# Row 14: several optimisers


@pytest.mark.parametrize("make", [SGD, AdamW])
def test_an_optimizer_may_step_inside_backward(net, mask, make):
    before, optimizers = tensors(net), {p: make([p], 0.01, weight_decay=0.1) for p in net.parameters()}

    def step(p: nn.Parameter) -> None:
        optimizers[p].step()
        optimizers[p].zero_grad()

    for p in net.parameters():
        p.register_post_accumulate_grad_hook(step)
    with protect(net, mask):
        for _ in range(3):
            plain_loss(net).backward()
            check_held(net, mask, before)
    check_free(net, mask, before)


def test_two_optimizers_of_disjoint_parts_may_share_a_forward_pass(net, mask):
    before, first, second = tensors(net), AdamW(net[3:].parameters(), 0.01), AdamW(net[:3].parameters(), 0.01)
    with protect(net, mask):
        for _ in range(3):
            hidden = net[:3](X)
            plain = F.cross_entropy(net[3:](hidden.detach()), Y)
            plain.backward()
            first.step()
            hidden.square().mean().backward()
            second.step()
            check_held(net, mask, before)
    check_free(net, mask, before)


# Row 4: parts that are swapped

SWAPS = {
    "prune": lambda m: prune.l1_unstructured(m[0], "weight", 0.5),
    "weight_norm": lambda m: parametrizations.weight_norm(m[0]),
    "a new module": lambda m: m.__setitem__(0, nn.Linear(6, 8)),
    "another shape": lambda m: setattr(m[0], "weight", nn.Parameter(torch.ones(8, 5))),
    "a wrapper": lambda m: m.__setitem__(0, nn.Sequential(m[0])),
}


@pytest.mark.parametrize("when", ["before the steps", "after them"])
@pytest.mark.parametrize("swap", SWAPS.values(), ids=SWAPS.keys())
def test_what_is_swapped_inside_the_block_is_named_once(net, mask, swap, when):
    with warnings.catch_warnings(record=True, action="always") as found, protect(net, mask):
        if when == "before the steps":
            swap(net)
        optimizer = SGD(net.parameters(), 0.1)
        if getattr(net[0], "weight", X).shape != (8, 5):
            steps(net, optimizer)
        if when == "after them":
            swap(net)
    said = [str(w.message) for w in found if "were replaced" in str(w.message)]
    assert len(said) == 1
    assert "0.weight" in said[0]
    assert "3.weight" not in said[0]


def test_a_block_that_is_compiled_inside_is_still_held(net, mask):
    before = tensors(net)
    with warnings.catch_warnings(action="error"), protect(net, mask):
        warnings.filterwarnings("ignore", "norm layers train")
        net[0] = torch.compile(net[0], backend="eager")
        steps(net, SGD(net.parameters(), 0.1))
    assert torch.equal(net[0]._orig_mod.weight[mask.bits["0.weight"]], before["0.weight"][mask.bits["0.weight"]])


# Rows 6, 11, 12


def test_an_average_is_held_to_the_bit_if_it_is_protected_too(net, mask):
    average = AveragedModel(net, multi_avg_fn=get_ema_multi_avg_fn(0.9))
    before, optimizer = tensors(average.module), AdamW(net.parameters(), 0.01)
    with protect(net, mask), protect(average, mask) as restore:
        steps(net, optimizer, after_each=lambda: (average.update_parameters(net), restore()))
    check_held(average.module, mask, before)
    check_free(average.module, mask, before)


@pytest.mark.parametrize("train", [(), ["4."]])
def test_a_mask_that_keeps_everything_is_told_before_training(net, mask, train):
    full = mask | ~mask
    with warnings.catch_warnings(record=True, action="always") as found, protect(net, full, train=train):
        said = [str(w.message) for w in found]
    assert ["nothing will train" in s for s in said] == ([] if train else [True])


def test_steps_that_moved_nothing_are_told(net, mask):
    with pytest.warns(UserWarning, match="5 optimiser steps moved no weight"), protect(net, mask):
        steps(net, SGD(net.parameters(), 0.0))


def test_held_weights_that_were_rounded_are_told(net, mask):
    with pytest.warns(UserWarning, match=r"0\.weight, .* became torch\.bfloat16 .* rounded"), protect(net, mask):
        net.bfloat16()


# What is held takes at most one copy


@pytest.mark.parametrize("density", [0.0, 0.1, 0.3, 0.5, 0.9, 1.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("layout", ["plain", "channels_last", "transposed", "with gaps"])
def test_one_tensor_is_held_bit_for_bit_in_any_layout_and_in_one_copy(density, dtype, layout):
    torch.manual_seed(0)
    owner, bits = nn.Conv2d(20, 30, 3).to(dtype), torch.rand(30, 20, 3, 3) < density
    with torch.no_grad():
        owner.weight[0, 0, 0] = torch.tensor([-0.0, torch.inf, torch.nan])
    lay = {
        "plain": lambda w: w,
        "channels_last": lambda w: w.contiguous(memory_format=torch.channels_last),
        "transposed": lambda w: w.permute(1, 0, 3, 2).contiguous().permute(1, 0, 3, 2),
        "with gaps": lambda w: torch.stack([w, w], -1)[..., 0],
    }[layout]
    held = Held(owner, "weight", bits)
    owner.weight = nn.Parameter(lay(owner.weight.detach()))
    before, fresh = owner.weight.detach().clone(), torch.randn(30, 20, 3, 3).to(dtype)
    for made in (held, Held(owner, "weight", bits)):
        assert made.intact(owner.weight)
        with torch.no_grad():
            owner.weight.copy_(fresh)
            assert made.intact(owner.weight) == (not bits.any())
            made.put(owner.weight)
        as_bytes = [t.contiguous().view(torch.uint8) for t in (owner.weight.detach(), before, fresh)]
        wide = bits.repeat_interleave(dtype.itemsize, -1)
        assert torch.equal(as_bytes[0], torch.where(wide, as_bytes[1], as_bytes[2]))
        owned = [t for t in (made.place, made.values) if t.data_ptr() != bits.data_ptr() and t.dtype != torch.bool]
        assert sum(t.nbytes for t in owned) <= max(before.nbytes, 2**17)
        with torch.no_grad():
            owner.weight.copy_(before)


# Outside use: optimisers inside others, checkpoints, tied weights


class SAM(torch.optim.Optimizer):
    """Sharpness-aware minimisation as most code has it: steps are those of an optimiser inside (after github.com/davda54/sam)."""

    def __init__(self, params) -> None:
        super().__init__(params, {})
        self.base_optimizer = SGD(self.param_groups, 0.1, momentum=0.9, weight_decay=0.1)

    @torch.no_grad()
    def first_step(self) -> None:
        for p in self.param_groups[0]["params"]:
            self.state[p]["old"] = p.clone()
            p.add_(p.grad, alpha=0.05)

    @torch.no_grad()
    def second_step(self) -> None:
        for p in self.param_groups[0]["params"]:
            p.copy_(self.state[p]["old"])
        self.base_optimizer.step()


@pytest.mark.parametrize("given", [True, False])
def test_a_step_of_an_optimizer_inside_the_given_one_counts(net, mask, given):
    net.eval()
    before, optimizer = tensors(net), SAM(net.parameters())
    with warnings.catch_warnings(action="error"), protect(net, mask, optimizer=optimizer if given else None):
        for _ in range(3):
            plain_loss(net).backward()
            optimizer.first_step()
            optimizer.zero_grad()
            plain_loss(net).backward()
            optimizer.second_step()
            optimizer.zero_grad()
            check_held(net, mask, before)
    check_free(net, mask, before)


def test_an_optimizer_that_is_none_of_torch_is_refused(net, mask):
    class Own:
        """As those of fastai are."""

    for given, name in ((Own(), "Own"), ([SGD(net.parameters(), 0.1)], "list")):
        with pytest.raises(ValueError, match=rf"optimizer is a {name}, .* leave it out, and restore after each step"):
            protect(net, mask, optimizer=given).__enter__()


@pytest.mark.parametrize(("steps_before", "said"), [(0, "before its first step"), (2, "between its steps")])
@pytest.mark.parametrize("other", [True, False])
def test_a_checkpoint_of_other_weights_that_is_loaded_inside_is_told_once_and_held(
    net, mask, other, steps_before, said
):
    net.eval()
    before, optimizer = tensors(net), AdamW(net.parameters(), 0.05)
    with warnings.catch_warnings(record=True, action="always") as found, protect(net, mask):
        if steps_before:
            steps(net, optimizer, n=steps_before)
        net.load_state_dict(
            {n: t + 1 if other and t.is_floating_point() else t.clone() for n, t in tensors(net).items()}
        )
        steps(net, optimizer, after_each=lambda: check_held(net, mask, before))
    told = [str(w.message) for w in found]
    assert [said in s and "load weights before the block" in s for s in told] == [True] * other


def test_weights_that_are_written_without_a_change_of_what_is_held_are_no_matter(net, mask):
    net.eval()
    before, optimizer = tensors(net), AdamW(net.parameters(), 0.05)
    with warnings.catch_warnings(action="error"), protect(net, mask):
        for _ in range(3):
            steps(net, optimizer, n=1)
            with torch.no_grad():
                for p in net.parameters():
                    p.mul_(1)
            check_held(net, mask, before)


@pytest.mark.parametrize("name", ["body.", "head."])
def test_a_tied_weight_is_free_by_any_of_its_names(name):
    net = nn.ModuleDict({"masked": nn.Linear(6, 6), "body": nn.Linear(6, 3), "head": nn.Linear(6, 3)})
    net["head"].weight = net["body"].weight
    before, optimizer = tensors(net), SGD(net.parameters(), 0.1, weight_decay=0.1)
    with protect(net, Mask({"masked.weight": torch.ones(6, 6).bool()}), train=[name]):
        hidden = net["masked"](X)
        F.cross_entropy(net["head"](hidden) + net["body"](hidden), Y).backward()
        optimizer.step()
    moved = {n for n, t in net.state_dict().items() if not torch.equal(t, before[n])}
    assert moved == {"head.weight", "body.weight", f"{name}bias"}
