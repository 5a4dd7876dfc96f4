"""Protection: what is held does not move by a bit, in anybody's loop; what is free does."""

import contextlib
import copy
import warnings
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.optim import SGD, Adam, AdamW, RMSprop

from maskutils.masks.mask import Mask
from maskutils.masks.protection import protect

pytestmark = pytest.mark.filterwarnings("ignore:norm layers train")  # these hold one on purpose

OPTIMIZERS = {
    "sgd": lambda params: SGD(params, 0.1),
    "sgd with momentum and weight decay": lambda params: SGD(params, 0.1, momentum=0.9, weight_decay=0.1),
    "nesterov": lambda params: SGD(params, 0.1, momentum=0.9, nesterov=True, weight_decay=0.1),
    "adam": lambda params: Adam(params, 0.05),
    "adamw": lambda params: AdamW(params, 0.05, weight_decay=0.5),
    "fused adamw": lambda params: AdamW(params, 0.05, weight_decay=0.5, fused=True),
    "rmsprop": lambda params: RMSprop(params, 0.01, momentum=0.9, weight_decay=0.1),
    "diverging sgd": lambda params: SGD(params, 1e20, momentum=0.9, weight_decay=0.1),
}
X, Y = torch.randn(64, 6, generator=torch.Generator().manual_seed(0)), torch.arange(64) % 3


@pytest.fixture
def net() -> nn.Module:
    """Two masked layers with a norm layer between; the head is "4"."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 8), nn.Linear(8, 3)).train()


@pytest.fixture
def mask(net) -> Mask:
    draw = torch.Generator().manual_seed(1)
    return Mask({n: torch.rand(net.get_parameter(n).shape, generator=draw) < 0.5 for n in ("0.weight", "3.weight")})


def tensors(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}


def moved(model: nn.Module, before: dict[str, torch.Tensor]) -> set[str]:
    return {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}


def steps(model, optimizer, after_each=lambda: None, accumulate: int = 1, autocast: bool = False, n: int = 5) -> None:
    """A plain training loop; `after_each` is called after each step of the optimiser, still inside it."""
    for i in range(n * accumulate):
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            loss = F.cross_entropy(model(X[i::4][:16]), Y[i::4][:16])
        loss.backward()
        if (i + 1) % accumulate == 0:
            optimizer.step()
            optimizer.zero_grad()
            after_each()


def check_held(model, mask, before) -> None:
    """Every kept weight has the very bits it had; nothing beside the masked weights has moved at all."""
    for name, bits in mask.bits.items():
        assert torch.equal(model.get_parameter(name)[bits], before[name][bits])
    assert moved(model, before) <= set(mask.bits)


def check_free(model, mask, before) -> None:
    for name, bits in mask.bits.items():
        assert (model.get_parameter(name) != before[name])[~bits].float().mean() > 0.9


@pytest.mark.parametrize("given", [True, False], ids=["optimizer given", "any optimizer"])
@pytest.mark.parametrize("make", OPTIMIZERS.values(), ids=OPTIMIZERS.keys())
def test_protected_weights_are_bit_identical_after_every_step_and_the_others_move(net, mask, make, given):
    before, optimizer = tensors(net), make(net.parameters())
    with protect(net, mask, optimizer=optimizer if given else None):
        steps(net, optimizer, after_each=lambda: check_held(net, mask, before))
    check_held(net, mask, before)
    check_free(net, mask, before)


@pytest.mark.parametrize("given", [True, False])
def test_protected_weights_are_bit_identical_under_an_adam_that_carries_momentum(net, mask, given):
    optimizer = Adam(net.parameters(), 0.05)
    steps(net, optimizer)
    before = tensors(net)
    with protect(net, mask, optimizer=optimizer if given else None):
        steps(net, optimizer, after_each=lambda: check_held(net, mask, before))
    check_held(net, mask, before)
    check_free(net, mask, before)


@pytest.mark.parametrize(
    "options", [{"accumulate": 3}, {"autocast": True}, {"accumulate": 2, "autocast": True}], ids=str
)
def test_protected_weights_are_bit_identical_under_accumulation_and_mixed_precision(net, mask, options):
    before, optimizer = tensors(net), AdamW(net.parameters(), 0.05)
    with protect(net, mask):
        steps(net, optimizer, after_each=lambda: check_held(net, mask, before), **options)
    check_held(net, mask, before)
    check_free(net, mask, before)


@pytest.mark.parametrize("leak", ["weight decay", "carried momentum"])
def test_zeroing_gradients_instead_would_leak(net, mask, leak):
    optimizer = AdamW(net.parameters(), 0.05, weight_decay=0.01 if leak == "weight decay" else 0.0)
    if leak == "carried momentum":
        steps(net, optimizer)
    before = tensors(net)
    for name, bits in mask.bits.items():
        net.get_parameter(name).register_hook(lambda gradient, bits=bits: gradient.masked_fill(bits, 0))
    steps(net, optimizer)
    for name, bits in mask.bits.items():
        assert (net.get_parameter(name) != before[name])[bits].float().mean() > 0.9


def test_norm_statistics_biases_and_head_are_held_in_training_mode(net, mask):
    before, optimizer = tensors(net), AdamW(net.parameters(), 0.05)
    with protect(net, mask):
        steps(net, optimizer)
    assert net[1].training
    assert moved(net, before) == {"0.weight", "3.weight"}


@pytest.mark.parametrize(
    ("train", "freed"),
    [
        (["4."], {"4.weight", "4.bias"}),
        (["4.bias"], {"4.bias"}),
        (
            ["1.running_mean", "1.running_var", "1.num_batches_tracked"],
            {"1.running_mean", "1.running_var", "1.num_batches_tracked"},
        ),
        (("0.", "3."), {"0.bias", "3.bias"}),  # kept weights stay held, though the modules are named
    ],
)
def test_train_frees_what_it_names_and_nothing_else(net, mask, train, freed):
    before, optimizer = tensors(net), AdamW(net.parameters(), 0.05)
    with protect(net, mask, train=iter(train)):
        steps(net, optimizer)
    assert moved(net, before) == {"0.weight", "3.weight"} | freed
    for name, bits in mask.bits.items():
        assert torch.equal(net.get_parameter(name)[bits], before[name][bits])


def test_only_the_given_optimizer_is_watched_but_leaving_restores_all_the_same(net, mask):
    before, watched, other = tensors(net), SGD(net[0].parameters(), 0.1), SGD(net[3:].parameters(), 0.1)
    with pytest.warns(UserWarning, match="another optimiser than"), protect(net, mask, optimizer=watched):  # noqa: PT031
        steps(net, other)
        assert "4.weight" in moved(net, before)
    check_held(net, mask, before)


def test_without_a_given_optimizer_every_one_is_watched(net, mask):
    before, first, second = tensors(net), SGD(net[0].parameters(), 0.1), Adam(net[3:].parameters(), 0.1)
    with protect(net, mask):
        steps(net, first, after_each=lambda: check_held(net, mask, before))
        steps(net, second, after_each=lambda: check_held(net, mask, before))
    check_free(net, mask, before)


@pytest.mark.parametrize("given", [True, False])
def test_after_the_block_every_weight_moves_again(net, mask, given):
    before, optimizer = tensors(net), AdamW(net.parameters(), 0.05)
    with protect(net, mask, optimizer=optimizer if given else None):
        steps(net, optimizer)
    steps(net, optimizer)
    assert moved(net, before) == set(before)
    for name in mask.bits:
        assert (net.get_parameter(name) != before[name]).float().mean() > 0.9


@pytest.mark.parametrize("given", [True, False])
def test_a_block_that_raises_is_restored_and_its_hook_removed(net, mask, given):
    def interrupt() -> None:
        net[4].weight.data.add_(1)  # what no hook sees
        raise KeyboardInterrupt

    before, optimizer = tensors(net), AdamW(net.parameters(), 0.05)
    with pytest.raises(KeyboardInterrupt), protect(net, mask, optimizer=optimizer if given else None):
        steps(net, optimizer, after_each=interrupt)
    check_held(net, mask, before)
    steps(net, optimizer)
    assert moved(net, before) == set(before)


def test_blocks_nest_to_the_union_of_their_masks(net, mask):
    before, optimizer, other = tensors(net), AdamW(net.parameters(), 0.05), ~mask
    with pytest.warns(UserWarning, match="5 optimiser steps moved no weight"), protect(net, mask), protect(net, other):
        steps(net, optimizer)
    assert moved(net, before) == set()


@pytest.mark.parametrize(("density", "free"), [(1.0, set()), (0.0, {"0.weight", "3.weight"})])
def test_a_full_mask_holds_everything_and_an_empty_one_only_what_it_does_not_speak_of(net, mask, density, free):
    before, optimizer = tensors(net), AdamW(net.parameters(), 0.05)
    whole = Mask({n: torch.full_like(b, bool(density)) for n, b in mask.bits.items()})
    said = pytest.warns(UserWarning, match="nothing will train") if density else contextlib.nullcontext()
    with said, protect(net, whole):
        steps(net, optimizer)
    assert moved(net, before) == free


def test_a_mask_of_another_network_is_refused_before_any_hook(net):
    before, optimizer = tensors(net), AdamW(net.parameters(), 0.05)
    with (
        pytest.raises(ValueError, match=r"another network.*0\.weight"),
        protect(net, Mask({"0.weight": torch.ones(2, 2).bool()})),
    ):
        pass
    steps(net, optimizer)
    assert moved(net, before) == set(before)


@pytest.mark.parametrize("train", [["9."], ["4.", "9."], ["head"]])
def test_a_name_in_train_that_matches_nothing_is_refused_with_what_there_is(net, mask, train):
    with pytest.raises(ValueError, match=r"matches no parameter or buffer; there are 0\.weight.*running_mean"):
        protect(net, mask, train=train).__enter__()


@pytest.mark.parametrize(("train", "warns"), [([], True), (["1."], False)])
def test_held_norm_layers_in_training_mode_are_warned_of_once(net, mask, train, warns):
    with warnings.catch_warnings(record=True) as caught, protect(net, mask, train=train):
        warnings.simplefilter("always")
        steps(net, AdamW(net.parameters(), 0.05))
    assert [str(w.message).startswith("norm layers train with the statistics of each batch") for w in caught] == [
        True
    ] * warns


def test_held_norm_layers_in_evaluation_mode_are_not_warned_of(net, mask):
    net[1].eval()
    with warnings.catch_warnings(record=True) as caught, protect(net, mask):
        warnings.simplefilter("always")
        steps(net, AdamW(net.parameters(), 0.05))
    assert not caught


def test_a_module_that_is_converted_inside_the_block_is_held_all_the_same(net, mask):
    before = tensors(net)
    with protect(net, mask):
        net.double()  # parameters keep their identity, buffers are replaced
        optimizer = AdamW(net.parameters(), 0.05)
        for _ in range(3):
            F.cross_entropy(net(X.double()), Y).backward()
            optimizer.step()
    for name, bits in mask.bits.items():
        assert torch.equal(net.get_parameter(name)[bits], before[name][bits].double())
    assert torch.equal(net[1].running_mean, before["1.running_mean"].double())


def test_a_fresh_head_that_would_be_held_is_refused_and_can_be_named(net, mask):
    carrying = mask.with_state(net)
    net[4] = nn.Linear(8, 5)
    with (
        pytest.raises(ValueError, match=r"4\.weight is \(5, 8\) here and was \(3, 8\).*train=\['4\.weight'\]"),
        protect(net, carrying),
    ):
        pass
    with protect(net, carrying, train=["4."]):
        pass


@pytest.mark.parametrize("name", ["4.weight", "1.running_mean"])
def test_what_a_mask_carries_has_its_shape_although_no_other_shapes_are_noted(net, mask, name):
    """As in files of earlier versions, and for buffers."""
    carrying = replace(mask.with_state(net), rest={})
    carrying.state[name] = torch.zeros(5)
    with pytest.raises(ValueError, match=rf"{name} is \(.*\) here and was \(5,\)"), protect(net, carrying):
        pass


def test_an_optimizer_of_another_network_may_step_between_forward_and_backward(net, mask):
    before, critic = tensors(net), nn.Linear(3, 1)
    ours, other = AdamW(net.parameters(), 0.05), SGD(critic.parameters(), 0.1)
    with protect(net, mask):
        for _ in range(3):
            out = net(X)
            critic(out.detach()).sum().backward()
            other.step()
            F.cross_entropy(out, Y).backward()  # an error, if our weights had been written to
            ours.step()
            check_held(net, mask, before)
    check_free(net, mask, before)


def test_train_may_be_one_name(net, mask):
    before = tensors(net)
    with protect(net, mask, train="4."):
        steps(net, SGD(net.parameters(), 0.1))
    assert moved(net, before) == {"0.weight", "3.weight", "4.weight", "4.bias"}


def master_copies(net, restore=lambda: None):
    """A loop that trains copies in double precision and writes them back, as some mixed precision does."""
    masters = [p.detach().double().requires_grad_() for p in net.parameters()]
    optimizer = SGD(masters, 0.1)
    for _ in range(3):
        net.zero_grad()
        F.cross_entropy(net(X[:16]), Y[:16]).backward()
        for master, p in zip(masters, net.parameters(), strict=True):
            master.grad = p.grad.double()
        optimizer.step()
        with torch.no_grad():
            for master, p in zip(masters, net.parameters(), strict=True):
                p.copy_(master)
        restore()


def test_a_loop_that_writes_weights_itself_is_told_and_can_restore_them(net, mask):
    before = tensors(net)
    with pytest.warns(UserWarning, match="changed by something else than a step"), protect(net, mask):
        master_copies(net)
    with warnings.catch_warnings(action="error", category=UserWarning):
        warnings.filterwarnings("ignore", "norm layers train")
        with protect(net, mask) as restore:
            master_copies(net, restore)
    assert moved(net, before) == {"0.weight", "3.weight"}
    for name, bits in mask.bits.items():
        assert torch.equal(net.get_parameter(name)[bits], before[name][bits])


def test_training_a_copy_inside_the_block_is_told(net, mask):
    with pytest.warns(UserWarning, match="5 optimiser steps .* none trains the network"), protect(net, mask):  # noqa: PT031
        copied = copy.deepcopy(net)
        steps(copied, SGD(copied.parameters(), 0.1))


@pytest.mark.parametrize("train", [(), ("4.",)])
def test_a_fresh_head_of_the_same_size_is_told_unless_it_is_named(net, mask, train):
    net.eval()
    mask = mask.with_state(net)
    net[4] = nn.Linear(8, 3)
    with warnings.catch_warnings(record=True, action="always") as found, protect(net, mask, train=train):
        pass
    said = [str(w.message) for w in found]
    assert said == [] if train else said[0].startswith("4.weight, 4.bias will be held as they are now")


def test_all_is_put_back_even_where_a_warning_is_an_error():
    model = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Linear(8, 3)).train()
    before = copy.deepcopy(model.state_dict())
    half = Mask({"0.weight": torch.arange(48).view(8, 6) % 2 == 0})

    def loop():
        with protect(model, half):
            model(X)
            model[0].weight.data += 1
            raise KeyError

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(UserWarning, match="norm layers train"):
            loop()
    after, held = model.state_dict(), half.bits["0.weight"]
    assert torch.equal(after["0.weight"][held], before["0.weight"][held])
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items() if name != "0.weight")
