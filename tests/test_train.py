"""The training loop, batches, evaluation, and learning a mask."""

import copy
import math
from itertools import islice, pairwise

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset, TensorDataset

from maskutils.config import BadParameter
from maskutils.layers import LAYERS
from maskutils.models import build_model, maskable
from maskutils.rankings import RANKINGS
from maskutils.train import OPTIMIZERS, batches, evaluate, fit, learn_mask, learn_subnetwork, predict

FROZEN = [name for name, cls in LAYERS.items() if not cls.trains_weights]  # the others are not for learn_mask
METHODS = [*FROZEN, *RANKINGS, "shuffled"]


def with_norm() -> nn.Module:
    convolutions = [nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten()]
    return nn.Sequential(*convolutions, nn.Linear(144, 16), nn.ReLU(), nn.Linear(16, 6))


NETS = {"mlp": lambda: build_model("mlp", 6, 1, 8), "cnn": lambda: build_model("cnn", 6, 1, 8), "norm": with_norm}


def easy(n: int = 192, seed: int = 0) -> TensorDataset:
    """Images of six classes, each a fixed pattern under noise."""
    patterns = torch.randn(6, 1, 8, 8, generator=torch.Generator().manual_seed(99))
    noise = torch.randn(n, 1, 8, 8, generator=torch.Generator().manual_seed(seed))
    y = torch.arange(n) % 6
    return TensorDataset(patterns[y] + 0.3 * noise, y)


class Plain(Dataset):
    """A dataset that is no TensorDataset."""

    def __init__(self, data: TensorDataset) -> None:
        self.data = data

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, i: int) -> tuple[torch.Tensor, torch.Tensor]:
        return self.data[i]


FORMS = {
    "TensorDataset": lambda data: data,
    "dataset": Plain,
    "loader": lambda data: DataLoader(data, 32),
    "list": lambda data: list(DataLoader(data, 32)),
}
NOTHING = {"TensorDataset": easy(0), "dataset": Plain(easy(0)), "list": [], "iterator": iter([])}


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.fixture(scope="module")
def trained() -> nn.Module:
    model = NETS["mlp"]()
    fit(model, easy(), steps=60)
    return model


def state(model: nn.Module) -> list:
    """Everything that a call could leave behind in a model, comparable."""
    tensors = [(name, tensor.tolist()) for name, tensor in model.state_dict().items()]
    flags = [(p.requires_grad, p.grad is None) for p in model.parameters()]
    return tensors + flags + [(type(m), m.training) for m in model.modules()]


# fit


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_every_optimizer_learns_the_easy_task(optimizer):
    model = NETS["mlp"]()
    history = fit(model, easy(), steps=50, optimizer=optimizer, lr=0.05 if optimizer == "sgd" else 2e-3)
    assert not model.training
    assert history[-1]["loss"] < 0.5 * history[0]["loss"]
    assert evaluate(model, easy(seed=1)) > 0.9


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS.keys())
def test_data_of_every_form_is_learnt(form):
    model = NETS["mlp"]()
    fit(model, form(easy()), steps=40)
    assert evaluate(model, form(easy(seed=1))) > 0.9


def with_dropout() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.Dropout(), nn.Linear(8, 6))


@pytest.mark.parametrize("form", [FORMS["TensorDataset"], FORMS["dataset"]])
@pytest.mark.parametrize("make", [*NETS.values(), with_dropout])
def test_the_seed_decides_every_bit_of_a_fit_whatever_was_drawn_before(make, form):
    model = make()
    models = [copy.deepcopy(model) for _ in range(3)]
    for each, seed in zip(models, (1, 1, 2), strict=True):
        fit(each, form(easy()), steps=10, seed=seed)
        torch.rand(7)
    first, again, other = map(state, models)
    assert first == again != other


@pytest.mark.parametrize("steps", [1, 5, 10, 37, 100])
def test_the_history_has_ten_rows_evenly_apart_or_one_a_step(steps):
    at = [row["step"] for row in fit(with_dropout(), easy(32), steps=steps)]
    assert len(at) == min(10, steps)
    assert at[-1] == steps
    assert {b - a for a, b in pairwise([0, *at])} <= {steps // 10, -(-steps // 10)}


def test_the_history_holds_the_mean_loss_since_the_row_before():
    model = NETS["mlp"]()
    history = fit(model, easy(), steps=20, lr=0.0, optimizer="sgd", seed=3)
    losses = [F.cross_entropy(model(x), y).item() for x, y in islice(batches(easy(), 32, 3), 20)]
    means = torch.tensor(losses).view(10, 2).mean(1).tolist()
    assert [row["loss"] for row in history] == pytest.approx(means)


def test_what_is_watched_is_in_the_history_and_the_mode_is_taken_up_again():
    model, modes = with_norm(), []
    model[1].register_forward_pre_hook(lambda m, _: modes.append(m.training))
    history = fit(model, easy(), steps=10, watch=lambda: {"accuracy": evaluate(model, easy())})
    assert history[-1]["accuracy"] == evaluate(model, easy())
    assert modes == [True, False] * 10 + [False]


def test_the_penalty_is_minimised_and_told_images_logits_and_progress():
    model, seen = NETS["mlp"](), []

    def penalty(x: torch.Tensor, logits: torch.Tensor, progress: float) -> torch.Tensor:
        seen.append((x.shape, logits.shape, progress))
        return 100 * model[1].weight.square().mean()

    before = model[1].weight.square().mean().item()
    fit(model, easy(), steps=20, lr=0.01, penalty=penalty, batch_size=16)
    assert seen == [((16, 1, 8, 8), (16, 6), i / 20) for i in range(20)]
    assert model[1].weight.square().mean() < 0.8 * before


def test_the_learning_rate_falls_to_zero_along_half_a_cosine(monkeypatch):
    made, rates = [], []
    monkeypatch.setitem(OPTIMIZERS, "sgd", lambda params, lr: made.append(torch.optim.SGD(params, lr)) or made[0])
    fit(
        with_norm(),
        easy(),
        steps=8,
        lr=0.1,
        optimizer="sgd",
        penalty=lambda *_: rates.append(made[0].param_groups[0]["lr"]) or 0,
    )
    assert rates == pytest.approx([0.05 * (1 + math.cos(math.pi * i / 8)) for i in range(8)])


@pytest.mark.parametrize(("norm", "kept"), [("eval", True), ("train", False)])
def test_norm_statistics_move_only_if_asked(norm, kept):
    model = with_norm()
    before = {name: b.clone() for name, b in model.named_buffers()}
    fit(model, easy(), steps=3, norm=norm)
    assert all(torch.equal(b, before[name]) == kept for name, b in model.named_buffers())


def test_only_the_given_parameters_are_trained():
    model = NETS["mlp"]()
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    fit(model, easy(), steps=5, params=iter([model[3].weight]))
    assert [n for n, p in model.named_parameters() if not torch.equal(p, before[n])] == ["3.weight"]


@pytest.mark.parametrize(("images", "lr"), [(float("nan"), 1e-3), (1e30, 1e10)])
def test_a_diverging_training_stops_and_says_when_and_what_to_do(images, lr):
    data = TensorDataset(torch.full((40, 1, 8, 8), images), torch.arange(40) % 6)
    with pytest.raises(FloatingPointError, match=r"the loss is (nan|inf) by step \d+ at lr .*lower the learning rate"):
        fit(NETS["mlp"](), data, steps=20, lr=lr)


@pytest.mark.parametrize("use", [lambda m, d: fit(m, d, steps=2), evaluate])
@pytest.mark.parametrize("data", NOTHING.values(), ids=NOTHING.keys())
def test_no_data_is_an_error(use, data):
    # fit of another empty dataset ends in the DataLoader's "num_samples should be a positive integer value"
    with pytest.raises(ValueError, match="there is nothing to"):
        use(NETS["mlp"](), data)


# batches


@pytest.mark.parametrize("form", [FORMS["TensorDataset"], FORMS["dataset"]])
@pytest.mark.parametrize(("n", "size", "each"), [(12, 4, 3), (14, 4, 3), (3, 8, 1)])
def test_an_epoch_has_no_image_twice_and_the_next_has_another_order(form, n, size, each):
    stream = batches(form(TensorDataset(torch.arange(n), torch.arange(n))), size, seed=0)
    epochs = [[x for x, _ in islice(stream, each)] for _ in range(6)]
    orders = [torch.cat(epoch).tolist() for epoch in epochs]
    assert {len(x) for epoch in epochs for x in epoch} == {min(n, size)}
    assert all(len(set(order)) == len(order) == each * min(n, size) for order in orders)
    assert len(set(map(tuple, orders))) > 1


def test_images_stay_with_their_labels_and_a_list_is_begun_again():
    assert all(torch.equal(x, y) for x, y in islice(batches(TensorDataset(torch.arange(9), torch.arange(9)), 4, 0), 9))
    assert list(islice(batches([(1, 2), (3, 4)], 7, 0), 5)) == [(1, 2), (3, 4)] * 2 + [(1, 2)]


# predict and evaluate


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS.keys())
def test_accuracy_is_the_share_of_right_answers_counted_by_hand(form):
    identity = nn.Linear(3, 3, bias=False)
    identity.weight.data = torch.eye(3)
    answers, labels = torch.tensor([0, 1, 2, 0, 1, 2, 0, 1] * 20), torch.tensor([0, 1, 2, 0, 0, 0, 0, 1] * 20)
    assert evaluate(identity, form(TensorDataset(torch.eye(3)[answers], labels))) == 6 / 8


@pytest.mark.parametrize("size", [1, 7, 500])
def test_predictions_are_in_order_and_do_not_depend_on_the_batch_size(size):
    model, data = with_norm(), easy(20)
    logits, labels = predict(model, data, size)
    assert torch.equal(labels, data.tensors[1])
    assert torch.allclose(logits, model.eval()(data.tensors[0]), atol=1e-6)


def test_evaluation_changes_nothing_but_the_mode():
    model = with_norm().train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    evaluate(model, easy())
    assert not any(module.training for module in model.modules())
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


# learn_mask


@pytest.mark.parametrize("make", NETS.values(), ids=NETS.keys())
@pytest.mark.parametrize("method", METHODS)
def test_every_method_masks_every_network_and_leaves_it_as_it_was(method, make):
    model = make()
    before = state(model)
    mask = learn_mask(model, easy(), method, density=0.3, steps=3)
    assert state(model) == before
    assert list(mask.bits) == list(mask.scores) == maskable(model)
    assert sum(int(b.sum()) for b in mask.bits.values()) == round(0.3 * mask.size)
    assert 0 <= evaluate(mask.apply(model), easy()) <= 1


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
    assert modes == [False] * 12


@pytest.mark.parametrize("strength", [0.0, 1e-6])
def test_a_layer_samples_at_the_progress_of_its_own_step(trained, monkeypatch, strength):
    class Probe(LAYERS["piggyback"]):
        seen = []

        def sample(self) -> torch.Tensor:
            self.seen.append(self.progress)
            return super().sample()

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
    with pytest.raises(BadParameter, match=message):
        call(NETS["mlp"]())


@pytest.mark.parametrize("method", METHODS)
def test_an_unknown_option_is_refused(trained, method):
    with pytest.raises(BadParameter, match=r"unknown option .*'tua'"):
        learn_mask(trained, easy(), method, density=0.5, steps=1, tua=1.0)
