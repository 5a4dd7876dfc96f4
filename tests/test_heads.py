"""The head: which layer it is, whose answer it gives, and that a fresh one is trained."""

import pytest
import torch
from networks import easy
from torch import nn
from torch.utils.data import TensorDataset

from maskutils import Domain, Mask, Pair, evaluate, fit, learn_mask, protect, score, transfer
from maskutils.core.checks import BadSetting
from maskutils.models.heads import for_task, head_name

DATA = easy(96)
X, Y = DATA.tensors


def domain(classes: int) -> Domain:
    data = TensorDataset(X, Y % classes)
    return Domain(f"{classes} classes", data, data, data, tuple(map(str, range(classes))))


OTHER = Pair("other classes", domain(6), domain(3))


class WithLast(nn.Module):
    """A network that defines a layer after its head, and calls it or not."""

    def __init__(self, last: nn.Module) -> None:
        super().__init__()
        self.body, self.fc, self.last = nn.Linear(64, 8), nn.Linear(8, 6), last

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(self.body(x.flatten(1)).relu())


@pytest.fixture
def net() -> nn.Module:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 6))
    fit(net, DATA, steps=60, lr=0.02)
    return net


@pytest.mark.parametrize("stateful", [False, True])
def test_through_a_mask_a_network_with_two_heads_answers_for_the_source(net, stateful):
    mask = learn_mask(net, DATA, "magnitude", density=0.6)
    mask = mask.with_state(net) if stateful else mask
    adapted = transfer(net, OTHER, mask=mask, steps=20)
    before = evaluate(mask.apply(net), DATA)
    assert evaluate(mask.learnt_on(net).apply(adapted), DATA) == before > 0.5
    assert score(net, adapted, OTHER, mask)["source_acc_masked"] == before
    if not stateful:  # otherwise it carries the source's head
        assert mask.apply(adapted, task="target")(X).shape == (96, 3)
        assert mask.apply(adapted, task=None)[-1].active == "target"


@pytest.mark.parametrize("last", [nn.Embedding(9, 2), nn.LayerNorm((4, 4)), nn.RMSNorm((4, 4))])
def test_no_embedding_or_norm_layer_is_taken_for_the_head(last):
    net = WithLast(last)
    assert head_name(net) == "fc"
    probe = transfer(net, Pair("same", domain(6), domain(6)), "linear_probe", steps=3)
    assert {n for n, p in probe.named_parameters() if not torch.equal(p, net.get_parameter(n))} == {
        "fc.weight",
        "fc.bias",
    }


@pytest.mark.parametrize("task", ["learn", "rank", "transfer"])
def test_a_layer_that_is_never_called_is_refused_as_the_head(task):
    net = WithLast(nn.Linear(8, 6))
    does = {
        "learn": lambda: learn_mask(net, DATA, density=0.5, steps=2),
        "rank": lambda: learn_mask(net, DATA, "snip", density=0.5),
        "transfer": lambda: transfer(net, Pair("same", domain(6), domain(6)), "finetune", steps=2),
    }
    with pytest.raises(
        ValueError, match=r"'last', defined last in WithLast, is not called, so it is not the head.*head_name"
    ):
        does[task]()
    net.head_name = "fc"
    does[task]()


def test_a_fresh_head_of_another_size_is_not_held_untrained(net, tmp_path):
    learn_mask(net, DATA, "magnitude", density=0.5).save(tmp_path / "mask.safetensors")
    mask = Mask.load(tmp_path / "mask.safetensors")
    net[3] = nn.Linear(16, 3)
    for one in (mask, mask.at_density(0.2) if mask.scores else mask):
        with pytest.raises(ValueError, match=r"3\.weight is \(3, 16\) here and was \(6, 16\).*train=\['3\.weight'\]"):
            protect(net, one).__enter__()
    before = net[3].weight.detach().clone()
    with protect(net, mask, train=["3"]):
        fit(net, domain(3).train, steps=3, lr=0.1)
    assert not torch.equal(net[3].weight, before)


def test_a_name_in_train_names_a_module_and_not_those_that_begin_so():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), *(nn.Linear(64 if i == 0 else 8, 8) for i in range(12)), nn.Linear(8, 6))
    mask = learn_mask(net, DATA, "magnitude", density=0.5)
    before = {n: p.detach().clone() for n, p in net.named_parameters()}
    with protect(net, mask, train=["1"]):
        fit(net, DATA, steps=2, lr=0.1)
    held = {n for n, p in net.named_parameters() if n not in mask.bits and torch.equal(p, before[n])}
    assert held == {n for n in before if n not in mask.bits and not n.startswith("1.")}


@pytest.mark.parametrize("classes", [1, 2])
def test_one_value_for_each_image_is_refused(classes):
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.Linear(8, 1))
    with pytest.raises(ValueError, match="cross-entropy needs two classes or more"):
        fit(net, TensorDataset(X, Y % classes), steps=1)


class TwoNames(nn.Module):
    """A network whose head has two names."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.Linear(8, 6))
        self.fc = self.net[2]

    def forward(self, x):
        return self.fc(self.net[:2](x))


def test_a_head_of_two_names_is_one_head_under_both():
    net = TwoNames()
    source = net.fc.weight.clone()
    adapted = transfer(net, OTHER, "finetune", steps=3)
    assert adapted.fc is adapted.net[2]
    assert torch.equal(adapted.fc["source"].weight, source)
    back = for_task(adapted, "source")
    assert back.fc is back.net[2]
    assert back(X).shape == (96, 6)
    assert score(net, adapted, OTHER)["target_acc"] is not None


def test_a_task_that_there_is_not_is_refused_where_there_is_one_head_too():
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
    mask = Mask({"1.weight": torch.ones(3, 4, dtype=torch.bool)})
    mask.apply(model, task="target")
    with pytest.raises(BadSetting, match=r"unknown task 'sorce'; known: source, target\. Did you mean 'source'"):
        mask.apply(model, task="sorce")
