"""Learning masks: every method on every network, and what it leaves behind."""

import pytest
import torch
from networks import NETS, easy, state, with_norm
from torch import nn

from maskutils.core.checks import BadSetting
from maskutils.masks.layers import LAYERS
from maskutils.masks.mask import Mask
from maskutils.masks.protection import protect
from maskutils.masks.rankings import RANKINGS
from maskutils.models.parts import maskable
from maskutils.training.evaluation import evaluate
from maskutils.training.learn import learn_mask, learn_subnetwork
from maskutils.training.loop import fit
from maskutils.training.transfer import transfer

pytestmark = pytest.mark.slow  # every method learns

FROZEN = [name for name, cls in LAYERS.items() if not cls.trains_weights]  # the others are not for learn_mask

METHODS = [*FROZEN, *RANKINGS, "shuffled"]


@pytest.fixture(scope="module")
def trained() -> nn.Module:
    model = NETS["mlp"]()
    fit(model, easy(), steps=60)
    return model


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.mark.parametrize("make", NETS.values(), ids=NETS.keys())
@pytest.mark.parametrize("method", METHODS)
def test_every_method_masks_every_network_and_leaves_it_as_it_was(method, make):
    model = make()
    before = state(model)
    mask = learn_mask(model, easy(), method, density=0.3, steps=3)
    assert state(model) == before
    assert list(mask.bits) == list(mask.scores) == maskable(model)
    assert sum(int(b.sum()) for b in mask.bits.values()) == round(0.3 * mask.size)


@pytest.mark.parametrize("method", METHODS)
def test_the_seed_decides_the_mask_and_the_global_generator_is_left_alone(method):
    model, before = NETS["mlp"](), torch.random.get_rng_state()
    masks = [learn_mask(model, easy(), method, density=0.3, steps=5, seed=1)]
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.rand(5)
    masks += [learn_mask(model, easy(), method, density=0.3, steps=5, seed=seed) for seed in (1, 2)]
    assert masks[0] == masks[1]
    assert all(torch.equal(s, masks[1].scores[n]) for n, s in masks[0].scores.items())
    assert (masks[0] == masks[2]) == (method in ("magnitude", "snip", "fisher"))  # these draw nothing from 192 images


@pytest.mark.parametrize("method", METHODS)
def test_per_layer_every_layer_has_the_density(trained, method):
    densities = learn_mask(trained, easy(), method, density=0.25, per_layer=True, steps=2).densities
    assert list(densities.values()) == [0.25] * len(densities)


@pytest.mark.parametrize("density", [0.0, -1.0, 1.5, float("nan")])
@pytest.mark.parametrize("method", METHODS)
def test_a_density_outside_zero_to_one_is_refused(trained, method, density):
    with pytest.raises(ValueError, match=r"outside \(0, 1\]"):
        learn_mask(trained, easy(), method, density=density, steps=1)


@pytest.mark.parametrize("method", FROZEN)
def test_what_is_learnt_beats_chance_through_the_mask(trained, method):
    def through(name: str) -> float:
        return evaluate(learn_mask(trained, easy(), name, density=0.05, steps=60).apply(trained), easy(seed=1))

    assert through(method) > through("random") + 0.2


@pytest.mark.parametrize("method", FROZEN)
def test_a_layer_has_a_native_mask_and_a_history_of_its_density(trained, method):
    mask = learn_mask(trained, easy(), method, steps=20)
    assert [row["step"] for row in mask.history] == list(range(2, 22, 2))
    assert mask.history[-1]["density"] == mask.density
    if LAYERS[method].learns_density:
        assert learn_mask(trained, easy(), method, density=0.1, steps=1).history[-1]["density"] == pytest.approx(
            0.1, abs=1e-3
        )


@pytest.mark.parametrize("method", [name for name, cls in LAYERS.items() if cls.strength])
def test_a_stronger_penalty_gives_a_sparser_mask(trained, method):
    free, default = (learn_mask(trained, easy(), method, steps=40, strength=s).density for s in (0.0, None))
    assert default < free - 0.2


@pytest.mark.parametrize("method", FROZEN)
def test_scores_are_learnt_with_norm_layers_in_evaluation_mode(method):
    model, modes = with_norm().train(), []
    model[1].register_forward_pre_hook(lambda m, _: modes.append(m.training))
    learn_mask(model, easy(), method, steps=12)
    assert len(modes) >= 12  # and those that look whether the mask carries the task
    assert not any(modes)


@pytest.mark.parametrize("strength", [0.0, 1e-6])
def test_a_layer_samples_at_the_progress_of_its_own_step(trained, monkeypatch, strength):
    class Probe(LAYERS["piggyback"]):
        seen = []

        def draw(self, scores):
            self.seen.append(self.progress)
            return super().draw(scores)

    monkeypatch.setitem(LAYERS, "probe", Probe)
    learn_subnetwork(trained, easy(), "probe", steps=4, strength=strength)
    assert Probe.seen == [0.0, 0.0, 0.25, 0.25, 0.5, 0.5, 0.75, 0.75]  # two layers


@pytest.mark.parametrize("train", [(), ["5."]])
@pytest.mark.parametrize("method", LAYERS)
def test_a_subnetwork_is_a_copy_in_which_only_what_is_asked_for_was_trained(trained, method, train):
    before = state(trained)
    model, mask = learn_subnetwork(trained, easy(48), method, steps=3, train=iter(train))
    assert state(trained) == before
    assert all(p.requires_grad for p in model.parameters())
    assert not any(nn.utils.parametrize.is_parametrized(module) for module in model.modules())
    moved = {n for n, p in model.named_parameters() if not torch.equal(p, trained.get_parameter(n))}
    weights = set(mask.bits) if LAYERS[method].trains_weights else set()
    assert moved == weights | ({"5.weight", "5.bias"} if train else set())


def test_what_watches_the_head_while_a_mask_is_learnt_is_taken_off_again(trained):
    model, _ = learn_subnetwork(trained, easy(), "piggyback", steps=1)
    assert not any(module._forward_hooks for module in (*model.modules(), *trained.modules()))


@pytest.mark.parametrize("method", RANKINGS)
def test_a_ranking_needs_a_density(trained, method):
    with pytest.raises(ValueError, match=rf"{method!r} .*no native density; pass density="):
        learn_mask(trained, easy(), method)


@pytest.mark.parametrize("of", [None, *FROZEN, *RANKINGS])
def test_shuffled_has_the_counts_of_its_base_in_every_layer_and_other_places(trained, of):
    base = learn_mask(trained, easy(), of or "gumbel_sigmoid", density=0.2, steps=2)
    mixed = learn_mask(trained, easy(), "shuffled", density=0.2, steps=2, **({"of": of} if of else {}))
    assert mixed == base.shuffled(0)
    assert mixed.densities == base.densities
    assert all(not torch.equal(b, base.bits[n]) for n, b in mixed.bits.items())


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda model: fit(model, easy(), optimizer="adan"), "unknown optimizer 'adan'.*'adam'"),
        (lambda model: fit(model, easy(), norm="evla"), "unknown norm 'evla'.*'eval'"),
        (lambda model: learn_mask(model, easy(), "magnitud"), "unknown method 'magnitud'.*'magnitude'"),
        (lambda model: learn_mask(model, easy(), "shuffled", of="piggybak"), "unknown method 'piggybak'.*'piggyback'"),
        (lambda model: learn_mask(model, easy(), "shuffled", of="piggyback", tau=1.0), "option of piggyback 'tau'"),
    ],
)
def test_an_unknown_name_gets_a_suggestion(call, message):
    with pytest.raises(BadSetting, match=message):
        call(NETS["mlp"]())


@pytest.mark.parametrize("method", METHODS)
def test_an_unknown_option_is_refused(trained, method):
    with pytest.raises(BadSetting, match=r"unknown option .*'tua'"):
        learn_mask(trained, easy(), method, density=0.5, steps=1, tua=1.0)


@pytest.mark.parametrize("given", [{"lr": 0.1}, {"strength": 0.0}, {"start": "fisher"}])
def test_what_a_ranking_does_not_heed_is_refused(trained, given):
    with pytest.raises(BadSetting, match=f"unknown option of magnitude '{next(iter(given))}'; known: none"):
        learn_mask(trained, easy(), "magnitude", density=0.5, **given)


SETTINGS = [
    ({"steps": 0}, "steps = 0 must be greater than 0"),
    ({"steps": -3}, "steps = -3 must be greater than 0"),
    ({"steps": 2.5}, "steps = 2.5 must be a whole number"),
    ({"lr": 0.0}, "lr = 0.0 must be greater than 0"),  # nothing would be learnt; nor is it taken for the default
    ({"lr": "fast"}, "lr = 'fast' must be a number"),
    ({"strength": -1.0}, "strength = -1.0 must be 0 or greater"),
    ({"batch_size": 0}, "batch_size = 0 must be greater than 0"),
    ({"seed": "a"}, "seed = 'a' must be a whole number"),
    ({"per_layer": "no"}, "per_layer = 'no' must be True or False"),
    ({"density": "0.1"}, "density = '0.1' must be a number"),
    ({"density": 1.5}, r"density 1.5 is outside \(0, 1\]"),
    ({"density": True}, "density = True must be a number"),
    ({"lr": float("inf")}, "lr = inf must be finite"),
    ({"strength": float("nan")}, "strength = nan must be 0 or greater, and finite"),
    ({"strength": float("inf")}, "strength = inf must be 0 or greater, and finite"),
    ({"precision": "fp8"}, "unknown precision 'fp8'; known: bf16, float32"),
    ({"start": "fischer"}, "unknown start 'fischer'.* Did you mean 'fisher'"),
]


@pytest.mark.parametrize("method", ["gumbel_sigmoid", "magnitude", "shuffled"])
@pytest.mark.parametrize(("setting", "message"), SETTINGS)
def test_a_bad_setting_is_refused_before_any_work(method, setting, message):
    with pytest.raises(BadSetting, match=message):  # with data that would fail otherwise
        learn_mask(NETS["mlp"](), None, method, **{"density": 0.1} | setting)


TRAINING = [s for s in SETTINGS if next(iter(s[0])) in ("steps", "lr", "batch_size", "seed", "precision")]
CALLS = {
    "fit": lambda **setting: fit(NETS["mlp"](), None, **setting),
    "transfer": lambda **setting: transfer(NETS["mlp"](), None, "finetune", **setting),
    "learn_subnetwork": lambda **setting: learn_subnetwork(NETS["mlp"](), None, "piggyback", **setting),
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS.keys())
@pytest.mark.parametrize(("setting", "message"), TRAINING)
def test_whatever_trains_refuses_a_bad_setting_before_any_work(call, setting, message):
    if call is CALLS["fit"] and setting == {"lr": 0.0}:
        pytest.skip("fit gathers the state of an optimiser so")
    with pytest.raises(BadSetting, match=message):
        call(**setting)


def test_a_transfer_refuses_the_steps_and_norm_of_a_protocol_before_any_work():
    for setting in ({"mask_steps": 0}, {"norm": "evla"}):
        with pytest.raises(BadSetting, match=next(iter(setting))):
            transfer(NETS["mlp"](), None, "finetune", **setting)


ON_META = {
    "learn_mask": lambda m: learn_mask(m, easy(), "magnitude", density=0.1),
    "apply": lambda m: Mask.from_scores({"1.weight": torch.rand(256, 64)}, 0.1).apply(m),
    "protect": lambda m: protect(m, Mask.from_scores({"1.weight": torch.rand(256, 64)}, 0.1)).__enter__(),
    "evaluate": lambda m: evaluate(m, easy()),
    "fit": lambda m: fit(m, easy(), steps=1),
}


@pytest.mark.parametrize("use", ON_META.values(), ids=ON_META.keys())
def test_a_network_on_the_meta_device_is_refused(use):
    with pytest.raises(ValueError, match="Sequential are on the meta device, without values"):
        use(NETS["mlp"]().to("meta"))


def test_a_prefix_that_names_no_parameter_is_refused():
    with pytest.raises(ValueError, match="train='nope' matches no parameter"):
        learn_subnetwork(NETS["mlp"](), easy(), "piggyback", steps=1, train=["nope"])


@pytest.mark.parametrize("method", ["gumbel_sigmoid", "magnitude"])
def test_a_network_that_is_only_a_head_has_nothing_to_mask(method):
    with pytest.raises(ValueError, match="Sequential has nothing to mask"):
        learn_mask(nn.Sequential(nn.Flatten(), nn.Linear(784, 10)), easy(), method, density=0.5, steps=1)
