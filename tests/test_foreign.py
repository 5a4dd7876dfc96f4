"""Networks, loops and data of other people, which do what ours do not: they work, or are refused in one sentence."""

import functools

import pytest
import torch
from networks import NETS, easy
from torch import nn
from torch.nn.utils import parametrizations
from torch.optim import SGD
from torch.utils.data import DataLoader, Dataset, IterableDataset
from torch.utils.data.dataset import TensorDataset
from torchvision.models.feature_extraction import create_feature_extractor

from maskutils import Mask, evaluate, fit, learn_mask, protect, transfer
from maskutils.data.batches import some
from maskutils.data.pair import Domain, Pair
from maskutils.models.copies import copied
from maskutils.training.evaluation import evaluating
from maskutils.training.transfer import interpolate

DATA = easy(40)
X, Y = DATA.tensors


def net(name: str = "mlp") -> nn.Module:
    torch.manual_seed(0)
    return NETS[name]()


# Data


class Bare:
    """A data set by its length and its items alone, its classes one after the other."""

    def __len__(self) -> int:
        return 400

    def __getitem__(self, i: int) -> tuple:
        return torch.full((2,), float(i)), i // 200


class Derived(Bare, Dataset):
    """The same, as torch has it."""


def test_a_data_set_that_does_not_inherit_from_torch_is_drawn_from_as_one_that_does():
    (x, y), (same, _) = some(Bare(), 100, 0), some(Derived(), 100, 0)
    assert torch.equal(x, same)
    assert 30 < y.sum() < 70
    models = [nn.Sequential(nn.Linear(2, 4), nn.Linear(4, 2)) for _ in range(2)]
    models[1].load_state_dict(models[0].state_dict())
    losses = [fit(m, data, steps=10, lr=1e-3) for m, data in zip(models, (Bare(), Derived()), strict=True)]
    assert losses[0] == losses[1]


class Rows(Bare):
    """A data set of Hugging Face is an iterable of dicts, each of one image."""

    def __iter__(self):
        return ({"pixel_values": x, "labels": torch.tensor(y)} for x, y in (self[i] for i in range(len(self))))


@pytest.mark.parametrize(
    "use", [evaluate, lambda m, d: fit(m, d, steps=2), lambda m, d: learn_mask(m, d, "snip", density=0.5)]
)
def test_an_iterable_of_single_images_is_refused_with_the_way_out(use):
    with pytest.raises(
        ValueError, match=r"one image, not a batch; wrap the dataset, as in DataLoader\(data, 64, shuffle=True\)"
    ):
        use(nn.Sequential(nn.Linear(2, 4), nn.Linear(4, 2)), Rows())


def test_token_batches_of_several_lengths_cannot_be_ranked_together():
    batches = [(torch.zeros(2, n, dtype=torch.long), torch.zeros(2, dtype=torch.long)) for n in (5, 7)]
    with pytest.raises(ValueError, match=r"shapes \(5,\), \(7,\), which cannot be ranked together"):
        some(batches, 100, 0)


# Networks


class Recurrent(nn.Module):
    """One of two weights of a layer is parametrised."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn = parametrizations.weight_norm(nn.LSTM(4, 8, batch_first=True), "weight_hh_l0")
        self.head = nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.rnn(x)[0][:, -1])


@pytest.mark.filterwarnings("ignore:no mask covers")
def test_a_parametrised_network_outlives_a_mask_that_was_not_learnt_to_its_end():
    torch.manual_seed(0)
    model, x, y = Recurrent(), torch.randn(8, 5, 4), torch.arange(8) % 3
    before = model(x)
    with pytest.raises(FloatingPointError):
        learn_mask(model, [(x * float("nan"), y)], steps=20, density=0.5)
    assert torch.equal(model(x), before)
    assert learn_mask(model, [(x, y)], steps=20, density=0.5).density == pytest.approx(0.5, abs=0.01)
    assert torch.equal(model(x), before)


class HeadFirst(nn.Module):
    """The head is defined first, and what is defined last is no head."""

    def __init__(self, conv: bool) -> None:
        super().__init__()
        self.head, self.conv = nn.Linear(6, 10), conv
        self.body = nn.Conv2d(1, 6, 3) if conv else nn.Linear(64, 6)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found = self.body(x).mean((2, 3)) if self.conv else self.body(x.flatten(1))
        return self.head(found.relu())


@pytest.mark.parametrize("conv", [False, True])
@pytest.mark.parametrize("method", ["gumbel_sigmoid", "edge_popup", "fisher", "snip", "magnitude", "random"])
def test_no_method_takes_another_layer_for_the_head(conv, method):
    data = TensorDataset(torch.randn(20, 1, 8, 8), torch.arange(20) % 10)
    with pytest.raises(
        ValueError, match="'body', defined last in HeadFirst, gives 6 values and the network 10, so it is not the head"
    ):
        learn_mask(HeadFirst(conv), data, method, density=0.5, **({"steps": 2} if "_" in method else {}))


def test_no_transfer_takes_another_layer_for_the_head():
    data = TensorDataset(torch.randn(20, 1, 8, 8), torch.arange(20) % 10)
    domain = Domain("d", data, data, data, tuple("0123456789"))
    for protocol in ("linear_probe", "lora"):
        with pytest.raises(ValueError, match="'body', defined last"):
            transfer(HeadFirst(False), Pair("p", domain, domain), protocol, steps=2)


def test_a_ranking_checks_the_head_on_batches_of_a_loader_too():
    loader = DataLoader(TensorDataset(torch.randn(20, 1, 8, 8), torch.arange(20) % 10), 8)
    model = HeadFirst(False)
    with pytest.raises(ValueError, match="'body', defined last"):
        learn_mask(model, loader, "snip", density=0.5)
    assert not model._forward_hooks


class Some(nn.Module):
    """It gives some of the values of its head alone."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.head = nn.Linear(64, 8), nn.Linear(8, 12)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.body(x.flatten(1)).relu())[:, :10]


def test_a_head_that_the_network_names_is_believed():
    model = Some()
    with pytest.raises(ValueError, match=r"say which is, before anything else: network\.head_name = "):
        learn_mask(model, DATA, "magnitude", density=0.5)
    model.head_name = "head"
    assert [*learn_mask(model, DATA, "magnitude", density=0.5).bits] == ["body.weight"]


class Once(IterableDataset):
    """A stream that can be read once."""

    def __init__(self) -> None:
        self.left = iter(zip(X, Y, strict=True))

    def __iter__(self):
        return self.left


def test_a_ranking_takes_no_more_of_the_data_than_it_needs():
    assert learn_mask(net(), Once(), "snip", density=0.5).density == pytest.approx(0.5, abs=0.01)
    dicts = [{"image": x} for x in X]
    for data in ([], dicts, TensorDataset(torch.zeros(4, 7), Y[:4])):
        assert learn_mask(net(), data, "magnitude", density=0.5).density == pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize("protocol", ["finetune", "ldifs"])
def test_networks_along_the_path_keep_no_hook(protocol):
    path: list[nn.Module] = []
    domain = Domain("d", DATA, DATA, DATA, tuple("0123456789"))
    transfer(net(), Pair("p", domain, domain), protocol, steps=10, path=path)
    assert len(path) == 10
    assert not any(m._forward_hooks for each in path for m in each.modules())


class Closed(nn.Module):
    """A part of the forward pass is a function that knows this network, not its copy."""

    def __init__(self, hook: bool) -> None:
        super().__init__()
        self.body, self.head = nn.Linear(64, 8), nn.Linear(8, 10)
        if hook:
            self.register_forward_hook(lambda m, given, made: made + self.head.bias)
        else:
            self.run = lambda x: self.body(x).relu()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.body(x.flatten(1)))


@pytest.mark.parametrize("hook", [True, False])
def test_functions_that_hold_a_part_of_the_network_are_refused(hook):
    with pytest.raises(
        ValueError, match="is a function that holds a part of the network, and a copy would compute with the weights of"
    ):
        copied(Closed(hook))


def test_of_several_hooks_and_of_globals_each_is_looked_at():
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    handle = model[0].register_forward_pre_hook(lambda m, given: (given[0] * model[1].weight.mean(),))
    model[0].register_forward_hook(lambda m, given, made: None)  # of the same name
    with pytest.raises(ValueError, match=r"or remove it first, as by the remove\(\) of a hook's handle"):
        copied(model)
    handle.remove()
    space = {"layers": [model[1]]}
    exec("def hook(m, given, made): return made * layers[0].weight.mean()", space)
    model[0].register_forward_hook(space["hook"])
    with pytest.raises(ValueError, match="hook hook of '0' is a function that holds a part"):
        copied(model)


def test_hooks_that_hold_nothing_of_the_network_are_copied():
    model, seen = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2)), []
    model[0].register_forward_hook(lambda m, given, made: seen.append(made))
    copied(model)(torch.zeros(1, 2))
    assert len(seen) == 1


class Merging(nn.Module):
    """Its `train` does more than set a mode, as that of an adapter which is merged to evaluate."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.head, self.merged = nn.Linear(64, 8), nn.Linear(8, 10), False

    def train(self, mode: bool = True) -> nn.Module:
        self.merged = not mode
        return super().train(mode)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.body(x.flatten(1)))


def test_evaluation_leaves_by_train_which_a_module_may_override():
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 64), Merging()).train()
    model[1].eval()
    evaluate(model, DATA)
    assert (model.training, model[1].training, model[2].merged) == (True, False, False)
    extract = create_feature_extractor(
        nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(64, 10)), {"2": "logits"}
    ).train()
    evaluate(extract, DATA)
    assert not torch.equal(extract(X)["logits"], extract(X)["logits"])  # dropout is on again


def test_evaluation_leaves_a_module_of_two_parents_as_it_was():
    norm = nn.BatchNorm1d(64)
    model = nn.ModuleDict({"one": nn.Sequential(norm), "two": nn.Sequential(norm)}).eval()
    model["two"].train()
    norm.eval()
    before = [m.training for m in model.modules()]
    with evaluating(model):
        assert not any(m.training for m in model.modules())
    assert [m.training for m in model.modules()] == before


class Counting(nn.Module):
    """A parameter of whole numbers, which has no gradient."""

    def __init__(self) -> None:
        super().__init__()
        self.seen = nn.Parameter(torch.zeros(1, dtype=torch.long), requires_grad=False)
        self.net = NETS["mlp"]()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.net(x)


@pytest.mark.parametrize("method", ["gumbel_sigmoid", "snip", "fisher"])
def test_parameters_of_whole_numbers_are_let_be(method):
    options = {"steps": 5} if method == "gumbel_sigmoid" else {}
    assert "seen" not in learn_mask(Counting(), DATA, method, density=0.5, **options).bits


@pytest.mark.parametrize("switched_off", [torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("method", ["gumbel_sigmoid", "snip", "fisher"])
def test_gradients_are_switched_on_where_they_are_needed(method, switched_off):
    options = {"steps": 5} if method == "gumbel_sigmoid" else {}
    expected = learn_mask(net(), DATA, method, density=0.5, **options)
    model = net()
    with switched_off():
        assert learn_mask(model, DATA, method, density=0.5, **options).iou(expected) == 1
        assert fit(model, DATA, steps=2)[-1]["loss"] > 0


@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated")
def test_a_network_that_is_scripted_in_part_is_evaluated_and_not_copied():
    model = nn.Sequential(nn.Flatten(), torch.jit.script(nn.Linear(64, 8)), nn.Linear(8, 10))
    evaluate(model, DATA)  # it runs
    for use in (copied, lambda m: learn_mask(m, DATA, "snip", density=0.5)):
        with pytest.raises(ValueError, match="1 is TorchScript, which cannot be copied or masked"):
            use(model)


# Masks and loops


@pytest.fixture
def held():
    """A network, a mask of its first weight, and SGD."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(300, 300), nn.Linear(300, 3))
    return model, Mask({"0.weight": torch.rand(300, 300) > 0.1}), SGD(model.parameters(), 0.1)


def step(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    model(torch.ones(4, 300)).square().sum().backward()
    optimizer.step()


def test_a_mask_that_is_edited_inside_the_block_changes_nothing(held):
    model, mask, optimizer = held
    before, bits = model[0].weight.detach().clone(), mask.bits["0.weight"].clone()
    with protect(model, mask):
        step(model, optimizer)
        mask.bits["0.weight"].fill_(True)
        step(model, optimizer)
    assert torch.equal(model[0].weight[bits], before[bits])
    assert (model[0].weight[~bits] != before[~bits]).all()


def test_a_buffer_that_shows_a_weight_does_not_hold_it(held):
    model, mask, optimizer = held
    model[0].register_buffer("shown", model[0].weight.detach())
    before = model[0].weight.detach().clone()
    with protect(model, mask):
        step(model, optimizer)
    moved = model[0].weight != before
    assert torch.equal(moved, ~mask.bits["0.weight"])


def test_a_buffer_beside_a_weight_in_one_block_of_memory_is_held(held):
    model, mask, optimizer = held
    flat = torch.rand(300 * 300 + 3)
    model[0].weight.data = flat[: 300 * 300].view(300, 300)
    model[0].register_buffer("beside", flat[300 * 300 :])
    model.register_buffer("edges", torch.eye(3).to_sparse())  # no memory of its own to look at
    model.register_buffer("turn", torch.ones(3, dtype=torch.complex128))
    before = model[0].beside.clone()
    with protect(model, mask):
        model[0].beside.add_(1)
        model.turn.add_(1)
        step(model, optimizer)
    assert torch.equal(model[0].beside, before)
    assert (model.turn == 1).all()


def test_sparse_gradients_of_held_rows_come_to_nothing():
    torch.manual_seed(0)
    model = nn.ModuleDict({"table": nn.Embedding(6, 4, sparse=True), "head": nn.Linear(4, 2)})
    bits, before = torch.rand(6, 4) > 0.5, model["table"].weight.detach().clone()
    optimizer = SGD([model["table"].weight], 0.1)

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = model["head"](model["table"](torch.arange(6))).sum()
        loss.backward()
        return loss

    with protect(model, Mask({"table.weight": bits})):
        optimizer.step(closure)
    assert torch.equal(model["table"].weight != before, ~bits)


def test_restore_is_refused_when_the_block_has_ended(held):
    model, mask, optimizer = held
    with protect(model, mask) as restore:
        step(model, optimizer)
        restore()
    with pytest.raises(ValueError, match="the block of protect has ended"):
        restore()


class Sized(SGD):
    """Its step takes a closure and a number, or something else than a closure."""

    def step(self, closure=None, size=5120, **options):
        self.given = (closure(**options) if callable(closure) else closure, size)


@pytest.mark.filterwarnings("ignore:5 optimiser steps moved no weight")
def test_what_a_step_is_given_reaches_it(held):
    model, mask, _ = held
    optimizer = Sized(model.parameters(), 0.1)
    with protect(model, mask):
        optimizer.step(lambda: 7.0, 64)
        assert optimizer.given == (7.0, 64)
        optimizer.step(lambda: 7.0, size=3)
        assert optimizer.given == (7.0, 3)
        optimizer.step(3.0)
        assert optimizer.given == (3.0, 5120)
        optimizer.step(closure=lambda: 1.0)
        assert optimizer.given == (1.0, 5120)
        optimizer.step(lambda backward: float(backward), backward=True)
        assert optimizer.given == (1.0, 5120)


def test_a_tensor_that_is_too_wide_to_hold_is_refused():
    model = nn.Sequential(nn.Linear(2, 2, dtype=torch.complex128), nn.Linear(2, 2))
    refused = pytest.raises(ValueError, match=r"weight of a Linear is torch\.complex128, which cannot be held")
    with refused, protect(model, Mask({"1.weight": torch.ones(2, 2) > 0})):
        pass


def test_scores_that_are_not_those_of_the_bits_are_refused():
    bits = {"0.weight": torch.ones(2, 2) > 0}
    for scores in ({"1.weight": torch.ones(2, 2)}, {"0.weight": torch.ones(4)}):
        with pytest.raises(ValueError, match=r"must have the names and shapes of its bits; 0\.weight"):
            Mask(bits, scores)


@pytest.mark.parametrize("alpha", [float("nan"), float("inf"), -1, 75])
def test_interpolation_goes_from_one_network_to_the_other(alpha):
    with pytest.raises(ValueError, match=r"alpha = .* is outside \[0, 1\]"):
        interpolate(net(), net(), alpha)


def test_interpolation_leaves_equal_values_alone():
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    model.register_buffer("limit", torch.tensor([-float("inf"), 1.0]))
    assert interpolate(model, model, 0.5).limit.tolist() == [-float("inf"), 1.0]


@pytest.mark.parametrize("dtype", [torch.float16, torch.complex64])
def test_networks_of_two_types_and_complex_weights_are_interpolated(dtype):
    before, after = nn.Sequential(nn.Linear(2, 2)), nn.Sequential(nn.Linear(2, 2))
    with torch.no_grad():
        for model, value in ((before, 1.0), (after, 3.0)):
            model[0].weight.fill_(value)
    after[0].weight = nn.Parameter(after[0].weight.detach().to(dtype))
    assert interpolate(before, after, 0.5)[0].weight.tolist() == [[2, 2], [2, 2]]
    assert interpolate(before, after, 0.0)[0].weight.tolist() == [[1, 1], [1, 1]]


def test_loaders_are_not_taken_for_data_sets():
    x, _ = some(DataLoader(DATA, 8), 8, 0)
    assert torch.equal(x, X[:8])


# Functions that hold a part


class Staged(nn.Module):
    """A network whose first layer is called by a function that `hide` hides somewhere."""

    def __init__(self, hide) -> None:
        super().__init__()
        self.layer, self.head = nn.Linear(64, 16), nn.Linear(16, 6)
        self.hidden = hide(self)

    def forward(self, x):
        step = self.hidden
        while not callable(step):
            step = step[0]
        return self.head(step(x.flatten(1)).relu())


def around(function):
    return lambda x: function(x)


def of_default(net):
    def call(x, layer=net.layer):
        return layer(x)

    return call


HIDDEN = {
    "in a list": lambda net: [lambda x: net.layer(x)],
    "in a list in a dict": lambda net: {0: (lambda x: net.layer(x),)},
    "a default": of_default,
    "in a partial": lambda net: functools.partial(lambda x: net.layer(x)),
    "in a function": lambda net: around(lambda x: net.layer(x)),
}


@pytest.mark.parametrize("hide", HIDDEN.values(), ids=HIDDEN)
def test_a_function_that_holds_a_part_is_refused_wherever_it_is(hide):
    net = Staged(hide)
    assert net(X).shape == (40, 6)
    with pytest.raises(ValueError, match="attribute hidden of 'Staged' is a function that holds a part of the network"):
        copied(net)


@pytest.mark.parametrize("hide", [lambda net: [net.layer], lambda net: [net.layer.forward]])
def test_modules_and_methods_in_a_list_are_copied(hide):
    net = Staged(hide)
    before = copied(net)(X)
    other = copied(net)
    other.layer.weight.data.zero_()
    other.layer.bias.data.zero_()
    assert torch.equal(other(X), other.head.bias.expand(40, 6))
    assert torch.equal(net(X), before)


# Networks and data that write or draw


class Writes(nn.Module):
    """A network that changes its images in place."""

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        self.layer, self.head = nn.Linear(64, width), nn.Linear(width, 6)

    def forward(self, x):
        x -= 1.0
        return self.head(self.layer(x.flatten(1)).relu())


@pytest.mark.parametrize("data", [DATA, [(X, Y)]], ids=["dataset", "list"])
def test_a_network_that_writes_into_its_images_leaves_the_data_alone(data):
    net, before = Writes(), X.clone()
    accuracies = [evaluate(net, data) for _ in range(3)]
    assert torch.equal(X, before)
    assert len(set(accuracies)) == 1


@pytest.mark.parametrize("width", [64, 3000], ids=["small", "large"])
@pytest.mark.parametrize("method", ["fisher", "snip", "gumbel_sigmoid"])
def test_such_a_network_is_ranked_as_one_that_does_not_write(method, width):
    torch.manual_seed(0)
    net = Writes(width)
    plain = nn.Sequential(nn.Flatten(), net.layer, nn.ReLU(), net.head)
    shifted = TensorDataset(X - 1, Y)
    mask = learn_mask(net, DATA, method, density=0.3, steps=2)
    expected = learn_mask(plain, shifted, method, density=0.3, steps=2)
    assert torch.equal(mask.bits["layer.weight"], expected.bits["1.weight"])


class Augmented(Dataset):
    """Images that are drawn anew at each look."""

    def __len__(self) -> int:
        return 40

    def __getitem__(self, i: int) -> tuple:
        return X[i] + torch.randn(1, 8, 8), int(Y[i])


@pytest.mark.parametrize("method", ["magnitude", "snip", "fisher", "gumbel_sigmoid"])
def test_augmentation_draws_from_the_seed_and_leaves_the_callers_stream(method):
    network, before = net(), torch.get_rng_state()
    first, second = (learn_mask(network, Augmented(), method, density=0.2, steps=3) for _ in range(2))
    assert torch.equal(torch.get_rng_state(), before)
    assert first == second
