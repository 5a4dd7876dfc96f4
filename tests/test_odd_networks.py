"""Networks that are odd in their build: modules of two names, frozen layers, two heads; and data sets that make their own items."""

import copy
import os

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrize
from torch.utils.data import TensorDataset

from maskutils import Domain, Mask, Pair, evaluate, fit, learn_mask, protect, transfer
from maskutils.core.checks import BadSetting
from maskutils.core.files import write_atomically
from maskutils.data.pair import sliced, subset
from maskutils.masks.information import fisher_information
from maskutils.masks.layers import attach, detach
from maskutils.models.heads import head_parameters
from maskutils.training.annealing import Annealing


class Twice(nn.Module):
    """A hidden layer under two names, used twice, and a weight that two modules share."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.hidden, self.twin, self.last = (
            nn.Linear(6, 8),
            nn.Linear(8, 8),
            nn.Linear(8, 8),
            nn.Linear(8, 3),
        )
        self.again = self.hidden
        self.twin.weight = self.hidden.weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.first(x).relu()
        return self.last(self.again(self.twin(self.hidden(x).relu()).relu()).relu())


@pytest.fixture
def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 10), nn.BatchNorm1d(10), nn.ReLU(), nn.Linear(10, 8), nn.ReLU(), nn.Linear(8, 3))


def easy(classes: int = 3) -> TensorDataset:
    return TensorDataset(
        torch.randn(32, 6, generator=torch.Generator().manual_seed(classes)), torch.arange(32) % classes
    )


def pair(classes: int = 3) -> Pair:
    return Pair("p", *(Domain(str(k), *3 * [easy(k)], tuple(range(k))) for k in (3, classes)))


def test_a_module_of_two_names_has_one_mask_layer():
    net = Twice()
    attach(net, "bernoulli", init=0.0)
    assert [len(m.parametrizations.weight) for m in (net.hidden, net.twin)] == [1, 1]
    torch.manual_seed(0)
    assert 0.25 < float((net.again.weight != 0).float().mean()) < 0.75  # half of them, and not a quarter
    detach(net)
    assert not any(parametrize.is_parametrized(m) for m in net.modules())
    assert net.again.weight is net.twin.weight


def test_a_module_of_two_names_is_pruned_once():
    net = Twice()
    mask = Mask.from_scores({"hidden.weight": net.hidden.weight}, 0.25)
    mask.to_pruning(net)
    assert [*net.hidden._parameters] == ["bias", "weight_orig"]
    assert Mask.from_pruning(net) == mask


@pytest.mark.parametrize("protocol", ["sign_change", "change_mask", "sparse_change"])
def test_a_change_of_a_module_of_two_names_is_one_change(protocol):
    source, path = Twice(), []
    changed = transfer(source, pair(), protocol, steps=6, path=path)
    assert changed.again is changed.hidden
    assert changed.twin.weight is changed.hidden.weight
    assert all(type(p) is nn.Parameter for p in changed.parameters())
    assert not torch.equal(changed.hidden.weight, source.hidden.weight)


@pytest.mark.parametrize("protocol", ["sign_change", "change_mask", "lora", "oft", "osf", "finetune"])
def test_what_is_frozen_stays_so(net, protocol):
    net[3].requires_grad_(False)
    changed = transfer(net, pair(), protocol, steps=6)
    assert torch.equal(changed[3].weight, net[3].weight)
    assert not torch.equal(changed[0].weight, net[0].weight)


@pytest.mark.parametrize("protocol", ["lora", "oft"])
def test_an_adapter_is_taken_off_whole_whatever_norm_layers_do(net, protocol):
    changed = transfer(net, pair(), protocol, steps=6, norm="train")
    assert torch.equal(changed[1].running_mean, net[1].running_mean)


class Flipped(TensorDataset):
    """Makes each item itself."""

    def __getitem__(self, index):
        image, label = super().__getitem__(index)
        assert image.shape == (6,)
        return -image, label


def test_a_data_set_that_makes_its_own_items_is_asked_for_one_at_a_time(net):
    plain, own = easy(), Flipped(*easy().tensors)
    assert (sliced(plain), sliced(own)) == (True, False)
    fit(net, own, steps=2)
    evaluate(net, own)
    learn_mask(net, own, "snip", density=0.5)
    assert torch.equal(subset(own, [1])[0][0], -plain[1][0])


@pytest.mark.parametrize(("task", "classes"), [("source", 3), ("target", 4)])
def test_a_mask_with_state_gives_each_task_its_own_head(net, task, classes):
    mask = learn_mask(net, easy(), "magnitude", density=0.5).with_state(net)
    changed = transfer(net, pair(4), "protect", mask=mask, steps=3)
    own = changed[5][task].weight.detach().clone()
    through = mask.apply(changed, task=task)
    assert through[5].out_features == classes
    assert torch.equal(through[5].weight, net[5].weight if task == "source" else own)
    assert [*mask.apply(changed, task=None)[5]] == ["source", "target"]


@pytest.mark.parametrize("train", ["", [""], ["5", ""]])
def test_a_name_that_is_empty_frees_nothing_but_is_refused(net, train):
    mask = learn_mask(net, easy(), "magnitude", density=0.5)
    with pytest.raises(BadSetting, match="must be a list of names"), protect(net, mask, train=train):
        pass


@pytest.mark.parametrize("prefix", ["_orig_mod.", "module.", "module._orig_mod."])
def test_names_from_a_wrapper_are_those_of_what_is_in_it(net, prefix):
    mask = learn_mask(net, easy(), "magnitude", density=0.5)
    before = copy.deepcopy(net)
    with protect(net, mask, train=[f"{prefix}5"]):
        fit(net, easy(), steps=2, norm="eval")
    assert not torch.equal(net[5].weight, before[5].weight)


def test_a_masked_weight_is_not_freed_by_its_name(net):
    everything = Mask({n: torch.ones_like(net.get_parameter(n), dtype=torch.bool) for n in ("0.weight", "3.weight")})
    net.eval()
    with (
        pytest.warns(UserWarning, match="nothing will train: .* train= frees none"),
        protect(net, everything, train=["3.weight"]),
    ):
        pass


class TwoHeads(nn.Module):
    """As distilled networks are: the mean of two heads."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.head, self.head_dist = nn.Linear(6, 8), nn.Linear(8, 3), nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.body(x).relu()
        return (self.head(x) + self.head_dist(x)) / 2


def test_both_heads_of_a_network_are_probed_and_none_is_replaced():
    net = TwoHeads()
    assert len(head_parameters(net)) == 4
    probed = transfer(net, pair(), "linear_probe", steps=3)
    assert not torch.equal(probed.head.weight, net.head.weight)
    assert torch.equal(probed.body.weight, net.body.weight)
    with pytest.raises(
        ValueError, match="the head 'head_dist' is of 2; a head per task needs a Linear one, and no other"
    ):
        transfer(net, pair(4), "finetune", steps=3)


def test_scores_of_a_mask_are_its_own(net):
    mask = Mask.from_scores({"3.weight": net[3].weight}, 0.3)
    with torch.no_grad():
        net[3].weight.neg_()
    assert mask.at_density(0.3) == mask
    assert not mask.scores["3.weight"].requires_grad


def test_a_tiny_layer_is_not_cut_off_while_each_has_its_own_share():
    net = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 40), nn.Linear(40, 3))
    level = Annealing({"0.weight": torch.rand(2, 2), "1.weight": torch.rand(40, 2)}, 0.1, per_layer=True)
    level.begin(attach(net, "hard_concrete", level.names, **level.options), lr=0.1)
    level._move(0.1)
    assert [int(layer.harden().sum()) for layer in level.layers.values()] == [1, 8]


@pytest.mark.parametrize("method", ["gumbel_sigmoid", "piggyback"])
def test_a_share_of_each_layer_needs_a_density(net, method):
    with pytest.raises(BadSetting, match=f"per_layer=True without a density: {method} learns one ranking"):
        learn_mask(net, easy(), method, per_layer=True)


@pytest.mark.parametrize("n", [0, -10, 2.5])
def test_a_number_of_images_that_there_is_not_is_refused(net, n):
    with pytest.raises(BadSetting, match="n = "):
        fisher_information(net, easy(), n=n)


def test_a_mask_that_keeps_nothing_selects_nothing(net):
    nothing = Mask({"3.weight": torch.zeros(8, 10, dtype=torch.bool)})
    with pytest.raises(ValueError, match="select: the mask keeps no weight"):
        transfer(net, pair(), "select", mask=nothing, steps=2)


def test_features_of_a_network_without_layers_are_refused():
    with pytest.raises(ValueError, match="ldifs: Sequential has no linear layer or convolution beside its head"):
        transfer(nn.Sequential(nn.ReLU(), nn.Linear(6, 3)), pair(), "ldifs", steps=2)


def test_a_pair_of_tokens_is_shown_too():
    tokens = Domain("t", *3 * [TensorDataset(torch.zeros(4, 16, dtype=torch.long), torch.arange(4) % 2)], ("a", "b"))
    assert repr(Pair("p", tokens, tokens)) == "Pair(p: 2 and 2 classes, one head, images 16)"


def test_files_have_the_permissions_that_the_user_gives_new_ones(tmp_path):
    before = os.umask(0o077)
    try:
        write_atomically(tmp_path / "f", b"x")
    finally:
        os.umask(before)
    assert (tmp_path / "f").stat().st_mode & 0o777 == 0o600
