"""Training: the one loop, its batches, and what reads a network out."""

import copy
import math
from itertools import islice, pairwise

import pytest
import torch
from networks import NETS, Plain, easy, state, with_norm
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

from maskutils.data.batches import batches
from maskutils.masks.layers import attach
from maskutils.training.evaluation import evaluate, predict
from maskutils.training.loop import OPTIMIZERS, fit

FORMS = {
    "TensorDataset": lambda data: data,
    "dataset": Plain,
    "loader": lambda data: DataLoader(data, 32),
    "list": lambda data: list(DataLoader(data, 32)),
}

NOTHING = {"TensorDataset": easy(0), "dataset": Plain(easy(0)), "list": [], "iterator": iter([])}


def with_dropout() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.Dropout(), nn.Linear(8, 6))


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


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


def test_a_step_begins_with_its_progress_before_the_network_is_run():
    model, told = NETS["mlp"](), []
    model.register_forward_pre_hook(lambda *_: told.append("forward"))
    fit(model, easy(), steps=4, begin_step=told.append)
    assert told == [0.0, "forward", 0.25, "forward", 0.5, "forward", 0.75, "forward"]


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


@pytest.mark.parametrize(
    ("model", "rate"), [(NETS["mlp"](), 2e-3), (nn.Linear(1024, 500), 3.47e-4), (nn.Linear(1024, 1024), 1e-4)]
)
def test_a_large_network_has_a_lower_rate_unless_it_is_told_one(model, rate):
    given = []

    def optimizer(params, lr):
        given.append(lr)
        return torch.optim.SGD(params, lr)

    data = easy() if rate == 2e-3 else TensorDataset(torch.rand(4, 1024), torch.arange(4))
    fit(model, data, steps=1, optimizer=optimizer)
    fit(model, data, steps=1, optimizer=optimizer, lr=0.5)
    assert given == [rate, 0.5]


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


def test_the_other_parameters_get_no_gradient_and_may_have_one_again_afterwards():
    model = NETS["mlp"]()
    model[1].bias.requires_grad_(False)
    may, seen = {n: p.requires_grad for n, p in model.named_parameters()}, []

    def look() -> dict[str, float]:
        seen.append({n for n, p in model.named_parameters() if p.grad is not None})
        return {}

    fit(model, easy(), steps=5, params=[model[3].weight], watch=look)
    assert seen == [{"3.weight"}] * len(seen)
    assert {n: p.requires_grad for n, p in model.named_parameters()} == may
    assert not all(may.values())


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


def test_evaluation_changes_nothing_and_gives_every_submodule_its_mode_back():
    model, modes = with_norm().train(), []
    model[1].eval()  # a frozen norm layer
    model[1].register_forward_pre_hook(lambda m, _: modes.append(any(module.training for module in model.modules())))
    before = state(model)
    evaluate(model, easy())
    assert modes == [False]
    assert state(model) == before


def test_the_modes_are_given_back_where_evaluation_fails():
    model = with_norm().train()
    with pytest.raises(RuntimeError):
        evaluate(model, [(torch.zeros(2, 3, 8, 8), torch.zeros(2).long())])
    assert all(module.training for module in model.modules())


@pytest.mark.parametrize(("batch", "found"), [
    ({"image": torch.zeros(2, 1), "label": torch.zeros(2).long()}, "a dict of image, label"),
    ((torch.zeros(2, 1), torch.zeros(2).long(), torch.zeros(2)), "a tuple of 3"),
    ((torch.zeros(2, 1, dtype=torch.uint8), torch.zeros(2).long()), "images are torch.uint8; make them float"),
])  # fmt: skip
def test_batches_of_another_form_are_refused_with_the_way_out(batch, found):
    for use in (lambda m: fit(m, [batch], steps=1), lambda m: evaluate(m, [batch])):
        with pytest.raises(ValueError, match=found):
            use(nn.Linear(1, 2))


def test_a_stream_without_length_is_read_in_its_own_order():
    class Stream(IterableDataset):
        def __iter__(self):
            return iter([(torch.full((1,), float(i)), i % 2) for i in range(4)])

    model = nn.Linear(1, 2)
    before = model.weight.detach().clone()
    fit(model, Stream(), steps=3, batch_size=2)
    assert not torch.equal(model.weight, before)
    in_memory = TensorDataset(torch.arange(4.0)[:, None], torch.arange(4) % 2)
    assert evaluate(model, Stream()) == evaluate(model, in_memory)


def test_large_images_go_through_the_network_a_few_at_a_time():
    seen = []

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.head = nn.Linear(3, 2)

        def forward(self, x):
            seen.append(len(x))
            return self.head(x.mean((2, 3)))

    images, labels = torch.rand(30, 3, 224, 224), torch.arange(30) % 2
    logits, _ = predict(net := Net(), TensorDataset(images, labels))
    assert seen == [6, 6, 6, 6, 6], "as many as a processor's caches hold"
    assert torch.allclose(logits, net.head(images.mean((2, 3))), atol=1e-6)


def test_no_gradient_is_left_for_the_next_loop():
    net = NETS["mlp"]()
    fit(net, easy(), steps=2)
    assert all(p.grad is None for p in net.parameters())
    with pytest.raises(FloatingPointError):
        fit(net, easy(), steps=5, lr=1e30, optimizer="sgd")
    assert not net.training
    assert all(p.grad is None for p in net.parameters())


def test_a_network_that_is_frozen_whole_is_refused_and_what_is_frozen_stays():
    net = NETS["mlp"]()
    with pytest.raises(ValueError, match=r"all parameters are frozen; say model.requires_grad_\(True\)"):
        fit(net.requires_grad_(False), easy(), steps=1)
    last = list(net.parameters())[-1].requires_grad_(True)
    before = [p.detach().clone() for p in net.parameters()]
    fit(net, easy(), steps=3, lr=0.1)
    assert [torch.equal(p, b) for p, b in zip(net.parameters(), before, strict=True)] == [
        p is not last for p in net.parameters()
    ]


def test_a_layer_that_is_called_twice_has_one_mask_in_a_step():
    seen = []

    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.head = nn.Linear(64, 64), nn.Linear(64, 6)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            seen.append((self.body.weight, self.body.weight))
            return self.head(self.body(self.body(x.flatten(1)).relu()))

    net = Twice()
    layers = attach(net, "gumbel_sigmoid", init=0.0)
    fit(net, easy(), steps=2, params=[layer.scores for layer in layers.values()])
    assert all(torch.equal(a, b) for a, b in seen)
    assert not torch.equal(seen[0][0], seen[1][0])
