"""Inputs of other types and sizes: they work, or are refused in one sentence, never by a raw error of torch."""

import copy

import numpy as np
import pytest
import torch
from networks import NETS, easy
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from maskutils import Mask, build_model, evaluate, fit, learn_mask, load_pair, protect, score, transfer
from maskutils.data.pair import Loading
from maskutils.masks import rankings
from maskutils.masks.held import Held
from maskutils.masks.information import fisher_information
from maskutils.masks.rankings import gradient
from maskutils.models.parts import maskable
from maskutils.training.evaluation import accuracy
from maskutils.training.transfer import interpolate

DATA = easy(24)
PAIR = load_pair("mnist_to_digits")
METHODS = ["gumbel_sigmoid", "edge_popup", "snip", "fisher", "magnitude"]


def net(name: str = "mlp") -> nn.Module:
    torch.manual_seed(0)
    return NETS[name]()


# Types of images


@pytest.mark.parametrize("weights", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("images", [torch.float64, torch.float32, torch.float16])
def test_images_are_given_in_the_type_of_the_weights(images, weights):
    data = TensorDataset(DATA.tensors[0].to(images), DATA.tensors[1])
    same = TensorDataset(data.tensors[0].to(weights), DATA.tensors[1])
    model = net().to(weights)
    assert evaluate(model, data) == evaluate(model, same)
    for name, found in fisher_information(model, data, 4).items():
        assert torch.equal(found, fisher_information(model, same, 4)[name])
    assert fit(model, data, steps=1)[-1]["loss"] > 0


@pytest.mark.parametrize("method", METHODS)
def test_float64_images_as_numpy_has_them_give_the_mask_of_float32(method):
    model, wide = net(), TensorDataset(torch.from_numpy(DATA.tensors[0].numpy().astype(np.float64)), DATA.tensors[1])
    found, expected = (learn_mask(model, d, method, density=0.2, **QUICK.get(method, {})) for d in (wide, DATA))
    assert found == expected


@pytest.mark.parametrize("weights", [torch.float64, torch.bfloat16])
def test_masks_are_learnt_on_weights_of_other_types(weights):
    assert learn_mask(net().to(weights), DATA, steps=2, density=0.2).density == pytest.approx(0.2, abs=0.001)


def test_the_information_of_bf16_weights_is_added_up_in_float32():
    narrow = net().to(torch.bfloat16)
    wide = fisher_information(copy.deepcopy(narrow).float(), easy(400), 400)
    for name, found in fisher_information(narrow, easy(400), 400).items():
        assert found.sum() == pytest.approx(wide[name].sum().item(), rel=0.02)


def test_the_gradient_of_bf16_weights_is_added_up_in_float32(monkeypatch):
    narrow = net().to(torch.bfloat16)
    squares = lambda logits, labels: logits.square().sum()  # noqa: E731
    wide = gradient(copy.deepcopy(narrow).float(), easy(400), squares)
    monkeypatch.setattr(rankings, "that_fit", lambda images, device: 1)  # 400 sums, of which bf16 would lose most
    for name, found in gradient(narrow, easy(400), squares).items():
        assert found.dtype == torch.float32
        assert (found - wide[name]).norm() < 0.02 * wide[name].norm()


QUICK = {"gumbel_sigmoid": {"steps": 2}, "edge_popup": {"steps": 2}}


# Token ids


class Words(nn.Module):
    """A classifier of texts: token ids (N, L), of which 0 is padding."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.hidden, self.classifier = nn.Embedding(20, 8), nn.Linear(8, 8), nn.Linear(8, 3)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.classifier(F.relu(self.hidden(self.words(ids))).mean(1))


@pytest.mark.parametrize("dtype", [torch.int64, torch.int32])
@pytest.mark.parametrize("method", METHODS)
def test_a_network_of_token_ids_is_masked_scored_and_trained(method, dtype):
    torch.manual_seed(0)
    model, data = Words(), TensorDataset(torch.randint(1, 20, (24, 5)).to(dtype), torch.arange(24) % 3)
    mask = learn_mask(model, data, method, density=0.25, **QUICK.get(method, {}))
    assert list(mask.bits) == ["hidden.weight"]
    evaluate(mask.apply(model), data)  # it runs
    assert fit(model, data, steps=1)[-1]["loss"] > 0


def test_whole_numbers_are_refused_where_no_embedding_takes_them():
    data = TensorDataset(DATA.tensors[0].long(), DATA.tensors[1])
    for use in (lambda m: evaluate(m, data), lambda m: fit(m, data, steps=1), lambda m: fisher_information(m, data)):
        with pytest.raises(ValueError, match=r"images are torch\.int64; make them float"):
            use(net())


def test_a_dict_of_token_ids_is_refused_with_the_way_out():
    batch = {"input_ids": torch.ones(2, 5).long(), "attention_mask": torch.ones(2, 5), "labels": torch.zeros(2).long()}
    with pytest.raises(
        ValueError, match=r"dict of input_ids, .* pairs, of input_ids and labels, .* makes the attention"
    ):
        evaluate(Words(), [batch])


# Nothing in it


class WithNothing(nn.Module):
    """A network of which one layer has no weights at all."""

    def __init__(self) -> None:
        super().__init__()
        self.empty, self.body, self.nothing = nn.Linear(0, 4), nn.Linear(64, 4), nn.Parameter(torch.zeros(0, 3))
        self.scale, self.head = nn.Parameter(torch.ones(())), nn.Linear(4, 6)
        self.register_buffer("none", torch.zeros(0, 2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x.flatten(1)
        return self.head(self.scale * self.body(x) + self.empty(x[:, :0]))


@pytest.mark.filterwarnings("ignore:Initializing zero-element")
@pytest.mark.parametrize("method", METHODS)
def test_parameters_without_entries_are_left_out_of_masks_and_held(method):
    model = WithNothing()
    assert maskable(model) == ["body.weight"]
    mask = learn_mask(model, DATA, method, density=0.25, **QUICK.get(method, {})).with_state(model)
    before, optimizer = (
        {n: t.clone() for n, t in model.state_dict().items()},
        torch.optim.AdamW(model.parameters(), 0.1),
    )
    with protect(model, mask, train=["head."]):
        F.cross_entropy(model(DATA.tensors[0]), DATA.tensors[1]).backward()
        optimizer.step()
    assert torch.equal(model.body.weight[mask.bits["body.weight"]], before["body.weight"][mask.bits["body.weight"]])
    assert not torch.equal(model.body.weight, before["body.weight"])
    assert torch.equal(model.scale, before["scale"])


def test_a_mask_may_have_weights_without_entries(tmp_path):
    mask = Mask.from_scores({"a": torch.arange(6.0), "b": torch.zeros(0, 3)}, 0.5)
    assert mask.density == 0.5
    assert Mask({"b": torch.zeros(0, 3).bool()}).density == 0
    mask.save(tmp_path / "mask.safetensors")
    assert Mask.load(tmp_path / "mask.safetensors") == mask
    owner = nn.Module()
    owner.weight = nn.Parameter(torch.zeros(0, 3))
    held = Held(owner, "weight", mask.bits["b"])
    held.put(owner.weight)
    assert held.intact(owner.weight)
    assert held.untrained(owner.weight)


def test_empty_batches_are_left_out_of_accuracy_and_rankings_and_refused_in_training():
    images, labels = DATA.tensors
    model, parts = net(), [(images[:0], labels[:0]), (images, labels)]
    assert evaluate(model, parts) == evaluate(model, DATA)
    assert learn_mask(model, parts, "snip", density=0.2) == learn_mask(model, [(images, labels)], "snip", density=0.2)
    with pytest.raises(ValueError, match="a batch holds no images"):
        fit(model, parts, steps=1)
    with pytest.raises(ValueError, match="there is nothing to rank weights on"):
        learn_mask(model, parts[:1], "snip", density=0.2)
    with pytest.raises(ValueError, match=r"images are \(2, 3, 0, 5\): there is nothing in them"):
        evaluate(model, [(torch.zeros(2, 3, 0, 5), labels[:2])])
    with pytest.raises(ValueError, match="there are no labels"):
        accuracy(torch.zeros(0, 6), labels[:0])


def test_a_network_without_parameters_can_be_evaluated():
    data = [(torch.eye(3), torch.arange(3))]
    assert evaluate(nn.Identity(), data) == 1


# Types of arguments

A_MASK = {"1.weight": torch.ones(160, 64).bool()}
WRONG = {
    "train is None": (
        lambda m: protect(m, Mask(A_MASK), train=None).__enter__(),
        r"train = None must be a list of names",
    ),
    "train is a number": (
        lambda m: protect(m, Mask(A_MASK), train=3).__enter__(),
        r"train = 3 must be a list of names",
    ),
    "train has a layer": (
        lambda m: protect(m, Mask(A_MASK), train=[m[1]]).__enter__(),
        r"train = \[Linear.* must be a list",
    ),
    "no mask": (lambda m: protect(m, None).__enter__(), "mask is a NoneType; it must be a Mask"),
    "data is None": (lambda m: evaluate(m, None), "data is a NoneType; it must be a dataset"),
    "data is None in training": (lambda m: fit(m, None, steps=1), "data is a NoneType; it must be a dataset"),
    "data is None in ranking": (lambda m: learn_mask(m, None, "snip", density=0.1), "data is a NoneType; it must be"),
    "data is a number": (lambda m: learn_mask(m, 3, steps=1), "data is a int; it must be a dataset"),
    "no pair": (lambda m: transfer(m, None, "finetune"), "pair is a NoneType; it must be a Pair"),
    "bits are a tensor": (lambda m: Mask(torch.ones(3, 3).bool()), "a mask needs a bool tensor for each weight"),
    "bits are None": (lambda m: Mask(None), "a mask needs a bool tensor for each weight"),
    "alpha": (lambda m: interpolate(m, m, "half"), "alpha = 'half' must be a number"),
    "split": (lambda m: score(m, m, PAIR, split="tests"), r"unknown split 'tests'; known: test, train, val"),
    "mask is a path": (lambda m: score(m, m, PAIR, "mask.safetensors"), "mask is a str; it must be a Mask"),
    "importance is a list": (
        lambda m: transfer(m, PAIR, "ewc", importance=[m[1].weight]),
        "importance is a list; it must map",
    ),
    "size is a fraction": (lambda m: Loading(size=64.5), r"size = 64.5 must be a whole number"),
    "other classes": (
        lambda m: interpolate(build_model("mlp", 4, 1, 8), build_model("mlp", 6, 1, 8), 0.5),
        "the two networks have other shapes there",
    ),
    "swapped": (lambda m: evaluate(DATA, m), "model is a TensorDataset; it must be a torch.nn.Module"),
}


@pytest.mark.parametrize(("call", "message"), WRONG.values(), ids=WRONG.keys())
def test_an_argument_of_another_type_is_refused_in_one_sentence(call, message):
    with pytest.raises(ValueError, match=message):
        call(net())


def test_a_mask_and_something_else_have_no_intersection():
    for operation in (lambda m: m & True, lambda m: m | {}, lambda m: m.iou(None)):
        with pytest.raises(TypeError, match="unsupported operand"):
            operation(Mask(A_MASK))


def test_a_loader_of_uint8_images_is_refused():
    with pytest.raises(ValueError, match=r"images are torch\.uint8; make them float"):
        evaluate(net(), DataLoader(TensorDataset(DATA.tensors[0].byte(), DATA.tensors[1]), 8))
