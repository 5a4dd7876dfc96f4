"""Every kind of layer of torch is masked, protected and given back; what cannot be is refused in one sentence."""

import copy
import dataclasses

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations

from maskutils import Mask, evaluate, fit, learn_mask, protect
from maskutils.core.checks import BadSetting

Y = torch.arange(32) % 3


class Read(nn.Module):
    """`body`, whose output `pick` reads, and a head."""

    def __init__(self, body: nn.Module, pick, width: int) -> None:
        super().__init__()
        self.body, self.pick, self.fc = body, pick, nn.Linear(width, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(self.pick(self.body, x))


def summed(body: nn.Module, x: torch.Tensor) -> torch.Tensor:
    return body(x)[0].sum(1)


def flat(*layers: nn.Module, width: int) -> Read:
    return Read(nn.Sequential(*layers), lambda body, x: body(x).flatten(1), width)


KINDS = {
    "LSTM": (lambda: Read(nn.LSTM(6, 8, 2, batch_first=True, bidirectional=True), summed, 16), (5, 6), 8),
    "GRU": (lambda: Read(nn.GRU(6, 8, batch_first=True), summed, 8), (5, 6), 2),
    "LSTMCell": (lambda: Read(nn.LSTMCell(6, 8), lambda body, x: body(x, body(x))[0], 8), (6,), 2),
    "Conv1d": (lambda: flat(nn.Conv1d(2, 6, 3), nn.GroupNorm(2, 6), nn.ConvTranspose1d(6, 4, 3), width=40), (2, 10), 2),
    "Conv3d": (lambda: flat(nn.Conv3d(2, 6, 3), nn.ConvTranspose3d(6, 4, 2, groups=2), width=108), (2, 4, 4, 4), 2),
    "attention": (
        lambda: Read(nn.MultiheadAttention(8, 2, kdim=6, batch_first=True), lambda body, x: body(x, x[..., :6], x)[0][:, 0], 8), (5, 8), 4,
    ),
    "transformer": (
        lambda: Read(nn.TransformerEncoderLayer(8, 2, 16, dropout=0, batch_first=True), lambda body, x: body(x)[:, 0], 8), (5, 8), 4,
    ),
    "Bilinear": (lambda: Read(nn.Bilinear(6, 6, 8), lambda body, x: body(x, x), 8), (6,), 1),
    "traced by fx": (lambda: torch.fx.symbolic_trace(nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))), (6,), 1),
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("method", ["gumbel_sigmoid", "edge_popup", "magnitude", "snip", "fisher"])
def test_every_kind_of_layer_is_masked_and_protected(kind, method):
    torch.manual_seed(0)
    make, shape, n_weights = KINDS[kind]
    net, x = make(), torch.randn(32, *shape)
    mask = learn_mask(net, [(x, Y)], method, density=0.4, steps=4)
    assert len(mask.bits) == n_weights
    assert all(s.unique().numel() > 1 for s in mask.scores.values()), "a weight that no gradient reached"
    inside, before = mask.apply(net).eval()(x), copy.deepcopy(net.state_dict())
    optimizer = torch.optim.AdamW(net.parameters(), 0.01, weight_decay=0.1)
    with protect(net, mask):
        for _ in range(3):
            optimizer.zero_grad()
            F.cross_entropy(net(x), Y).backward()
            optimizer.step()
    after = net.state_dict()
    assert all(torch.equal(after[n][b], before[n][b]) for n, b in mask.bits.items())
    assert all((after[n] != before[n])[~b].all() for n, b in mask.bits.items())
    assert all(torch.equal(after[n], before[n]) for n in before.keys() - mask.bits.keys())
    assert torch.equal(mask.apply(net).eval()(x), inside)


def test_a_recurrent_layer_of_which_one_weight_is_normalised_is_copied():
    torch.manual_seed(0)
    net, x = Read(nn.LSTM(6, 8, batch_first=True), summed, 8), torch.randn(32, 5, 6)
    parametrizations.weight_norm(net.body, "weight_hh_l0")
    before = net(x)
    with pytest.warns(UserWarning, match=r"no mask covers body\.weight_hh_l0 \(1 of 2 weights\)"):
        mask = learn_mask(net, [(x, Y)], density=0.4, steps=2)
    assert list(mask.bits) == ["body.weight_ih_l0"]
    assert torch.equal(net(x), before)


def test_an_output_that_is_a_dataclass_may_have_logits():
    @dataclasses.dataclass
    class Output:
        logits: torch.Tensor

    class Network(nn.Sequential):
        def forward(self, x: torch.Tensor) -> Output:
            return Output(super().forward(x))

    net, data = Network(nn.Linear(6, 8), nn.Linear(8, 3)), [(torch.randn(32, 6), Y)]
    evaluate(learn_mask(net, data, density=0.5, steps=2).apply(net), data)  # it runs


def plain(outputs: int = 3) -> nn.Sequential:
    return nn.Sequential(nn.Linear(6, 8), nn.Linear(8, outputs))


def of_integers() -> nn.Sequential:
    net = plain()
    net[0].weight = nn.Parameter((100 * net[0].weight).to(torch.int8), requires_grad=False)
    return net


REFUSED = {
    "lazy": (lambda: nn.Sequential(nn.LazyLinear(8), nn.LazyLinear(3)), "lazy layers without weights yet"),
    "TorchScript": (lambda: torch.jit.script(plain()), "TorchScript"),
    "integers": (of_integers, r"0\.weight: Tensor of torch\.int8; a mask needs real, floating-point weights"),
    "a state": (lambda: plain().state_dict(), "model is a OrderedDict; it must be a torch.nn.Module"),
    "one output": (lambda: plain(1), "one value for each image; cross-entropy needs two classes or more"),
    "no classes": (lambda: nn.Sequential(plain(1), nn.Flatten(0)), r"returned logits \(32,\); .* logits \(N, classes\)"),
    "too many dimensions": (lambda: nn.Sequential(plain(), nn.Unflatten(1, (1, 3))), r"returned logits \(32, 1, 3\)"),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore:.*torch.jit")
@pytest.mark.parametrize("method", ["gumbel_sigmoid", "snip"])
@pytest.mark.parametrize(("make", "message"), REFUSED.values(), ids=REFUSED.keys())
def test_what_cannot_be_masked_is_refused_in_one_sentence(make, message, method):
    with pytest.raises(ValueError, match=message):
        learn_mask(make(), [(torch.randn(32, 6), Y)], method, density=0.5, steps=2)


def test_labels_that_are_no_class_are_refused_in_training_too():
    with pytest.raises(
        ValueError, match="labels go from 1 to 3, but the network has the classes 0 to 2; number them from 0"
    ):
        fit(plain(), [(torch.randn(32, 6), Y + 1)], steps=2)


@pytest.mark.parametrize("mask", ["mask.safetensors", {"0.weight": torch.ones(8, 6).bool()}])
def test_a_mask_that_is_none_is_refused_by_protect(mask):
    with pytest.raises(BadSetting, match=r"mask is a (str|dict); it must be a Mask, as .*Mask\.load\(path\) gives"):
        protect(plain(), mask).__enter__()


def test_a_mask_of_the_network_inside_says_where_that_is():
    class Task(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = plain()

    with pytest.raises(ValueError, match=r"0\.weight \(8, 6\) \(network: in its 'net': give that module\)"):
        protect(Task(), Mask({"0.weight": torch.ones(8, 6).bool()})).__enter__()
