"""Protocols: one contract for all, what each one is, and the readings of a transfer."""

import copy
import re
from functools import cache
from typing import Any, NamedTuple

import pytest
import torch
from networks import Plain
from torch import nn
from torch.nn import functional as F
from torch.utils.data import TensorDataset

from maskutils.core.approaches import described, every
from maskutils.core.checks import BadSetting
from maskutils.core.storage import changes, whole_network, whole_tensors
from maskutils.data.load import load_pair
from maskutils.data.pair import Domain, Pair
from maskutils.masks.mask import Mask
from maskutils.models.heads import TaskHeads, for_task, head_name
from maskutils.models.networks import build_model
from maskutils.models.parts import maskable
from maskutils.training.base import PROTOCOLS, answer, rounded_change
from maskutils.training.evaluation import evaluate, predict
from maskutils.training.loop import fit
from maskutils.training.transfer import interpolate, score, transfer

pytestmark = pytest.mark.slow  # every protocol trains

STEPS = 20


GIVEN = ("mask", "importance")  # what a protocol may need beside the network
# too few weights, or steps, to fit these targets
LITTLE = ("ewc", "bias_only", "bn_only", "target_mask", "source_only", "sparse_change", "change_mask", "talos")
HALVES = ("lp_ft", "sparse_change", "sign_change", "change_mask")
OWN_LOOP = ("source_only", "target_mask", *HALVES)  # their history is not that of one training


def needs(protocol: str, what: str) -> bool:
    return what in described(protocol).needs


def needs_mask(protocol: str) -> bool:
    return needs(protocol, "mask")


def given(model: nn.Module, protocol: str, mask: Mask) -> dict:
    every = {"mask": mask, "importance": {n: torch.ones_like(p) for n, p in model.named_parameters()}}
    return {name: value for name, value in every.items() if needs(protocol, name)}


def domain(name: str, classes: int, n: int, seed: int) -> Domain:
    """Noisy images of `classes` fixed patterns; the seed decides patterns and noise."""
    draw = torch.Generator().manual_seed(seed)
    patterns = torch.randn(classes, 1, 6, 6, generator=draw)

    def split(size: int) -> TensorDataset:
        y = torch.randint(classes, (size,), generator=draw)
        return TensorDataset(patterns[y] + torch.randn(size, 1, 6, 6, generator=draw), y)

    return Domain(
        name, split(n), split(60), split(60), tuple(f"{name if classes == 3 else ''}{i}" for i in range(classes))
    )


@pytest.fixture(scope="module")
def shared() -> Pair:
    return Pair("shared", domain("a", 4, 160, 1), domain("b", 4, 128, 2))


@pytest.fixture(scope="module")
def separate() -> Pair:
    return Pair("separate", domain("a", 4, 160, 1), domain("c", 3, 128, 3))


@pytest.fixture(params=["shared", "separate"])
def pair(request) -> Pair:
    return request.getfixturevalue(request.param)


@pytest.fixture(scope="module")
def trained(shared) -> nn.Module:
    """A network with norm layers that knows the source."""
    torch.manual_seed(0)
    features = [nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(128, 24), nn.ReLU()]
    model = nn.Sequential(*features, nn.Linear(24, 4))
    fit(model, shared.source.train, steps=60)
    return model


@pytest.fixture(scope="module")
def mask(trained) -> Mask:
    return Mask.from_scores({n: trained.get_parameter(n).abs() for n in maskable(trained)}, 0.4)


def state(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def moved(a: nn.Module, b: nn.Module) -> set[str]:
    """Names of the tensors that two networks have in common but in other bits."""
    bits = b.state_dict()
    return {n for n, t in a.state_dict().items() if n in bits and not torch.equal(t, bits[n])}


def run(model: nn.Module, pair: Pair, protocol: str, mask: Mask, **options) -> nn.Module:
    """A short transfer; what a protocol trains beside (a mask of the target's, say) is short too."""
    beside = {knob: STEPS for knob in described(protocol).knobs if knob.endswith("_steps")} | {"mask_steps": STEPS}
    return transfer(model, pair, protocol, **{"steps": STEPS, **beside, **given(model, protocol, mask), **options})


class Made(NamedTuple):
    """A transfer, and what it left alone of the network and of torch's own generator."""

    after: nn.Module
    history: list[dict[str, Any]]
    left_alone: dict[str, bool]


@pytest.fixture(scope="module")
def made(trained, mask):
    """Gives a transfer of a protocol on a pair; made once for all tests, which only look at it."""

    @cache
    def make(protocol: str, pair: Pair, steps: int = STEPS) -> Made:
        history: list[dict[str, Any]] = []
        before, drawn = state(trained), torch.random.get_rng_state()
        after = run(trained, pair, protocol, mask, steps=steps, history=history)
        left_alone = {
            "tensors": all(torch.equal(t, before[n]) for n, t in trained.state_dict().items()),
            "what is trained": all(p.requires_grad for p in trained.parameters()),
            "draws": torch.equal(torch.random.get_rng_state(), drawn),
        }
        return Made(after, history, left_alone)

    return make


def loss(model: nn.Module, task: str, data: TensorDataset) -> float:
    return F.cross_entropy(*predict(for_task(model, task), data)).item()


# The contract of every protocol


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_the_source_network_is_left_alone(protocol, trained, pair, made):
    after, _, left_alone = made(protocol, pair)
    assert [what for what, alone in left_alone.items() if not alone] == []
    assert not {id(p) for p in trained.parameters()} & {id(p) for p in after.parameters()}


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_the_result_is_a_plain_network_that_answers_for_both_tasks(protocol, trained, pair, made):
    after, x = made(protocol, pair).after, pair.target.test[:][0]
    assert type(after) is type(trained)
    assert not any(nn.utils.parametrize.is_parametrized(m) or m._forward_hooks for m in after.modules())
    for task, side in (("source", pair.source), ("target", pair.target)):
        assert for_task(after, task)(x).shape == (60, len(side.classes))
        assert torch.equal(answer(after.eval(), task, x), for_task(after, task)(x))
    assert torch.equal(after(x), answer(after, "target", x))
    assert isinstance(after.get_submodule(head_name(after)), TaskHeads) != pair.shared_head


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_the_seed_decides_the_result(protocol, trained, pair, mask, made):
    assert not moved(made(protocol, pair).after, run(trained, pair, protocol, mask, seed=0))


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_another_seed_gives_another_result(protocol, trained, shared, mask, made):
    """Where the head is shared, for a new head is another one in any case: the images come in another order."""
    assert bool(moved(made(protocol, shared).after, run(trained, shared, protocol, mask, seed=1))) == (
        protocol != "source_only"
    )


def test_another_seed_gives_another_head(trained, separate, mask, made):
    other = run(trained, separate, "source_only", mask, seed=1)
    assert moved(made("source_only", separate).after, other) == {"6.target.weight", "6.target.bias"}


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_the_history_has_both_validation_accuracies_and_ends_with_those_of_the_result(protocol, trained, pair, made):
    after, history, _ = made(protocol, pair)
    assert len(history) == 10 or protocol in OWN_LOOP
    for row in history[-1:]:
        last = score(trained, after, pair, split="val")
        assert (row["source_val"], row["target_val"]) == (last["source_acc_full"], last["target_acc"])


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_network_of_bf16_is_re_trained_and_stays_one(protocol, trained, shared, mask):
    after = run(copy.deepcopy(trained).bfloat16(), shared, protocol, mask, steps=2)
    assert {p.dtype for p in after.parameters()} == {torch.bfloat16}


@pytest.mark.parametrize("protocol", HALVES)
def test_two_halves_need_two_steps(protocol, trained, shared, mask):
    with pytest.raises(BadSetting, match="steps = 1 must be 2 or more: this approach trains twice"):
        run(trained, shared, protocol, mask, steps=1)


@pytest.mark.parametrize("protocol", [p for p in PROTOCOLS if p not in LITTLE])
def test_re_training_lowers_the_loss_on_the_target(protocol, pair, made):
    before, after = (made(p, pair, 60).after for p in ("source_only", protocol))
    assert loss(after, "target", pair.target.train) < 0.9 * loss(before, "target", pair.target.train)


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("what", GIVEN)
def test_masks_and_importances_are_given_exactly_where_they_are_needed(protocol, what, trained, shared, mask):
    right = given(trained, protocol, mask)
    wrong = right | {what: None} if needs(protocol, what) else right | {what: mask}
    message = f"needs {what}=" if needs(protocol, what) else f"takes no {what}"
    with pytest.raises(ValueError, match=f"{protocol!r} {message}"):
        transfer(trained, shared, protocol, steps=1, **wrong)


@pytest.mark.parametrize("protocol", [p for p in PROTOCOLS if needs_mask(p)])
def test_a_mask_of_another_network_is_refused(protocol, trained, pair):
    with pytest.raises(ValueError, match=r"another network.*0\.weight"):
        transfer(trained, pair, protocol, mask=Mask({"0.weight": torch.ones(2, 2).bool()}), steps=1)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_an_unknown_knob_is_refused_by_name(protocol, trained, shared, mask):
    with pytest.raises(BadSetting, match=f"unknown knob of {protocol} 'frction'"):
        run(trained, shared, protocol, mask, frction=0.5)


def test_an_unknown_protocol_gets_a_suggestion(trained, shared):
    for name, way in (("wise_ft", "interpolate(model, transfer("), ("fisher", "'protect', mask=learn_mask(")):
        with pytest.raises(BadSetting, match=rf"'{name}' is no protocol; take .*{re.escape(way)}"):
            transfer(trained, shared, name)
    with pytest.raises(BadSetting, match=r"unknown protocol 'finetun'; known: .*Did you mean 'finetune'"):
        transfer(trained, shared, "finetun")


# What each one is


def test_source_only_changes_nothing(trained, pair, mask):
    after = run(trained, pair, "source_only", mask)
    assert moved(for_task(after, "source"), trained) == set()
    assert score(trained, after, pair)["forgetting"] == 0.0


def test_finetune_moves_every_parameter_but_a_source_head_apart_and_no_statistics(trained, pair, mask):
    source = for_task(run(trained, pair, "finetune", mask), "source")
    apart = set() if pair.shared_head else {"6.weight", "6.bias"}
    assert moved(source, trained) == {n for n, _ in trained.named_parameters()} - apart


def test_linear_probe_moves_only_the_head_that_answers(trained, pair, mask):
    after, before = run(trained, pair, "linear_probe", mask), run(trained, pair, "source_only", mask)
    head = "6." if pair.shared_head else "6.target."
    assert moved(after, before) == {head + "weight", head + "bias"}


@pytest.mark.parametrize(
    "protocol", [a.name for a in every() if a.bits in (changes, whole_network, whole_tensors) and a.only_for == ""]
)
def test_values_that_are_stored_are_read_as_float16_keeps_them(protocol, trained, pair, mask):
    history = []
    after = transfer(trained, pair, protocol, steps=8, history=history, **given(trained, protocol, mask))
    source, start = for_task(after, "source"), dict(trained.named_parameters())
    for name, p in source.named_parameters():
        assert torch.equal(p, start[name] + (p - start[name]).half().float()), name
    assert history[-1]["target_val"] == evaluate(for_task(after, "target"), pair.target.val)


def test_a_rounded_change_leaves_what_did_not_change_bit_for_bit():
    found = rounded_change(torch.tensor([-0.0, 1.0, 2.0]), torch.tensor([-0.0, 1.1, 2.0]))
    assert found.tolist() == [0, 1 + torch.tensor(0.1).half().item(), 2]
    assert found.signbit().tolist() == [True, False, False]


def test_joint_keeps_the_source_better_than_finetuning(pair, made):
    joint, free = (made(p, pair, 60).after for p in ("joint", "finetune"))
    assert loss(joint, "source", pair.source.test) < 0.7 * loss(free, "source", pair.source.test)


def test_protect_holds_the_masked_source_network_bit_for_bit(trained, pair, mask):
    after = run(trained, pair, "protect", mask)
    held, before = for_task(after, "source"), mask.apply(trained)
    assert moved(mask.apply(held), before) == set()
    assert moved(held, trained) == set(maskable(trained))
    x = pair.source.test[:][0]
    assert torch.equal(mask.apply(held).eval()(x), before.eval()(x))
    assert score(trained, after, pair, mask)["drift"] == 0.0


def test_protect_trains_a_head_of_the_targets_own(trained, separate, mask):
    after, before = run(trained, separate, "protect", mask), run(trained, separate, "source_only", mask)
    assert moved(after, before) == {*maskable(trained), "6.target.weight", "6.target.bias"}


@pytest.mark.parametrize("name", ["mnist_to_digits", "mnist_low_to_high"])
def test_protect_is_exact_on_real_pairs(name):
    pair = load_pair(name)
    model = build_model("mlp", len(pair.source.classes))
    fit(model, pair.source.train, steps=30)
    mask = Mask.from_scores({n: model.get_parameter(n).abs() for n in maskable(model)}, 0.3)
    readings = score(model, transfer(model, pair, mask=mask, steps=15), pair, mask)
    assert readings["drift"] == 0.0
    assert readings["source_acc_masked"] > 0.5
    assert readings["target_acc"] > 0.3


def test_protect_is_exact_on_a_residual_network_with_norm_layers():
    data = TensorDataset(torch.randn(8, 1, 8, 8), torch.arange(8) % 2)
    side = [Domain(name, data, data, data, ("0", "1")) for name in "ab"]
    model = build_model("resnet18", 2, 1, 8)
    mask = Mask({n: torch.rand_like(model.get_parameter(n)) < 0.5 for n in maskable(model)})
    after = transfer(model, Pair("tiny", *side), mask=mask, steps=2, batch_size=4)
    assert moved(mask.apply(after), mask.apply(model)) == set()
    assert moved(after, model) == set(maskable(model))


# The readings


@pytest.mark.parametrize("split", ["val", "test"])
def test_score_reads_the_split_it_is_asked_to(trained, pair, mask, split):
    after = run(trained, pair, "finetune", mask)
    source, target = for_task(after, "source"), for_task(after, "target")
    on_source, on_target = getattr(pair.source, split), getattr(pair.target, split)
    readings = score(trained, after, pair, mask, split)
    assert readings["source_acc_before"] == evaluate(trained, on_source)
    assert readings["source_acc_full"] == evaluate(source, on_source)
    assert readings["source_acc_masked_before"] == evaluate(mask.apply(trained), on_source)
    assert readings["source_acc_masked"] == evaluate(mask.apply(source), on_source)
    assert readings["target_acc"] == evaluate(target, on_target)
    assert score(trained, after, pair, mask) == score(trained, after, pair, mask, "test")
    assert score(trained, after, pair, mask, "val") != score(trained, after, pair, mask, "test")


def test_losses_add_up(trained, pair, mask):
    r = score(trained, run(trained, pair, "finetune", mask), pair, mask)
    assert r["forgetting"] == r["source_acc_before"] - r["source_acc_full"]
    assert r["masking_cost"] + r["drift"] == pytest.approx(r["source_acc_before"] - r["source_acc_masked"])
    assert r["drift"] == r["source_acc_masked_before"] - r["source_acc_masked"]


def test_without_a_mask_there_are_no_masked_readings(trained, shared, mask):
    with_mask, without = (score(trained, trained, shared, m) for m in (mask, None))
    masked = {"source_acc_masked_before", "source_acc_masked", "masking_cost", "drift"}
    assert {name for name, value in without.items() if value is None} == masked
    assert list(without) == list(with_mask)
    assert None not in with_mask.values()


def test_score_leaves_both_networks_alone(trained, separate, mask):
    after = run(trained, separate, "finetune", mask)
    before = state(after)
    score(trained, after, separate, mask)
    assert all(torch.equal(t, before[n]) for n, t in after.state_dict().items())
    assert after[6].active == "target"


def test_answering_for_a_task_puts_the_active_head_back_even_if_it_fails(trained, separate, mask):
    after = run(trained, separate, "source_only", mask)
    with pytest.raises(RuntimeError):
        answer(after, "source", torch.zeros(1, 2))
    assert after[6].active == "target"


@pytest.mark.parametrize(("protocol", "knob"), [
    ("replay", {"fraction": 0.0}), ("replay", {"fraction": 1.5}), ("l2_sp", {"strength": -1.0}), ("lwf", {"strength": 0.0}),
])  # fmt: skip
def test_a_knob_out_of_range_is_refused_by_name(protocol, knob):
    with pytest.raises(BadSetting, match=next(iter(knob))):
        transfer(build_model("mlp", 10), load_pair("mnist_to_digits"), protocol, steps=1, **knob)


@pytest.mark.parametrize("norm", ["eval", "train"])
def test_norm_statistics_follow_the_target_only_if_asked(norm):
    model, pair = build_model("resnet18", 10, 1, 28).eval(), load_pair("mnist_to_digits")
    after = transfer(model, pair, "finetune", steps=1, norm=norm)
    assert torch.equal(after.bn1.running_mean, model.bn1.running_mean) == (norm == "eval")


def test_networks_with_nothing_in_common_are_not_interpolated():
    with pytest.raises(ValueError, match="no parameter in common"):
        interpolate(nn.Sequential(nn.Flatten(), nn.Linear(2, 2)), nn.ModuleDict({"a": nn.Linear(2, 2)}), 0.5)


def test_a_wrapped_network_is_transferred_scored_and_interpolated_as_the_one_inside(trained, pair, mask):
    wrapped = nn.DataParallel(trained)
    plain, after = (transfer(m, pair, "protect", mask=mask, steps=3) for m in (trained, wrapped))
    assert not moved(plain, after)
    assert score(wrapped, nn.DataParallel(after), pair, mask) == score(trained, plain, pair, mask)
    assert not moved(interpolate(wrapped, after, 0.5), interpolate(trained, plain, 0.5))


def test_a_path_is_kept_without_a_history_too(trained, shared):
    path: list[nn.Module] = []
    transfer(trained, shared, "finetune", steps=STEPS, path=path)
    assert len(path) == 10


def test_to_look_at_the_training_does_not_change_it(shared):
    """A loader draws from torch's own generator, as dropout does."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(36, 8), nn.Dropout(), nn.Linear(8, 4))
    domains = [Domain(d.name, *map(Plain, (d.train, d.val, d.test)), d.classes) for d in (shared.source, shared.target)]
    runs = [transfer(model, Pair("plain", *domains), "finetune", steps=STEPS, history=h) for h in (None, [])]
    assert not moved(*runs)


def test_replay_takes_what_a_batch_may_be(trained, shared):
    x, y = shared.source.train.tensors
    source = Domain(
        "a", TensorDataset(x.double(), y.int()), shared.source.val, shared.source.test, shared.source.classes
    )
    odd, usual = (
        transfer(trained, Pair("p", s, shared.target), "replay", steps=STEPS) for s in (source, shared.source)
    )
    assert not moved(odd, usual)
