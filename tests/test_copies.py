"""Copies compute with their own weights, whatever was done to `forward`; heads and weights that are not what they seem."""

import copy
import functools
import types
import warnings

import pytest
import torch
from networks import NETS, easy
from torch import nn
from torch.nn.utils import parametrizations, parametrize, prune
from torch.utils.checkpoint import checkpoint

from maskutils import Mask, evaluate, learn_mask, protect
from maskutils.masks.rankings import RANKINGS
from maskutils.models.copies import copied
from maskutils.models.heads import heads
from maskutils.models.parts import maskable
from maskutils.training.learn import learn_subnetwork
from maskutils.training.loop import fit


def compiled_forward(net: nn.Module) -> None:
    net.forward = torch.compile(net.forward, backend="eager")


def compiled_blocks(net: nn.Module) -> None:
    for module in net:
        module.forward = torch.compile(module.forward, backend="eager")


def own_method(net: nn.Module) -> None:
    net.forward = types.MethodType(lambda self, x: nn.Sequential.forward(self, x), net)


def as_accelerate_does(net: nn.Module) -> None:
    net.forward = functools.partial(lambda module, x: nn.Sequential.forward(module, x), net)


def module_compile(net: nn.Module) -> None:
    net.compile(backend="eager")


def compiled_child(net: nn.Module) -> None:
    net[1] = torch.compile(net[1], backend="eager")


@pytest.fixture(scope="module")
def trained() -> nn.Module:
    torch.manual_seed(0)
    net = NETS["mlp"]()
    fit(net, easy(), steps=60)
    return net


WAYS = [compiled_forward, compiled_blocks, own_method, as_accelerate_does, module_compile, compiled_child]


@pytest.mark.parametrize("way", WAYS, ids=lambda f: f.__name__)
def test_masks_are_learnt_and_applied_on_the_copy_whatever_became_of_forward(trained, way):
    net, plain = copied(trained), learn_mask(trained, easy(), density=0.05, steps=20)
    way(net)
    mask = learn_mask(net, easy(), density=0.05, steps=20)
    assert [b.tolist() for b in mask.bits.values()] == [b.tolist() for b in plain.bits.values()]
    nothing = Mask({n: torch.zeros_like(b) for n, b in mask.bits.items()})
    assert evaluate(nothing.apply(net), easy()) < 0.3 < evaluate(net, easy())
    assert evaluate(mask.apply(net), easy()) == evaluate(plain.apply(trained), easy())


def test_a_forward_that_is_a_function_is_refused(trained):
    net = copied(trained)
    net[1].forward = lambda x, weights=net[1].weight: x @ weights.T
    for use in (
        lambda: learn_mask(net, easy(), density=0.1, steps=1),
        lambda: Mask({"1.weight": net[1].weight > 0}).apply(net),
    ):
        with pytest.raises(ValueError, match="forward of '1' was replaced by a function"):
            use()


@pytest.mark.parametrize("method", ["gumbel_sigmoid", "snip", "fisher"])
def test_scores_that_no_gradient_reached_are_an_error(method):
    class Elsewhere(nn.Sequential):
        """Its answer does not depend on the weights that a mask covers."""

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self[-1](x.flatten(1)[:, :16])

    net = Elsewhere(nn.Flatten(), nn.Linear(64, 16), nn.Linear(16, 6))
    with pytest.raises(ValueError, match="all scores are equal"):
        learn_mask(net, easy(), method, density=0.1, steps=3)


class Distilled(nn.Module):
    """Two heads whose answers are averaged, as in DeiT."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(64, 16), nn.Linear(16, 16)
        self.head, self.head_dist = nn.Linear(16, 6), nn.Linear(16, 6)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.second(self.first(x.flatten(1)).relu()).relu()
        return (self.head(x) + self.head_dist(x)) / 2


def test_both_heads_of_a_distilled_network_are_heads():
    assert heads(Distilled()) == ["head", "head_dist"]
    assert maskable(Distilled()) == ["first.weight", "second.weight"]
    assert list(learn_mask(Distilled(), easy(), density=0.1, steps=1).bits) == ["first.weight", "second.weight"]


def test_a_backbone_whose_name_begins_that_of_the_head_does_not_tell_of_its_own():
    class Backbone(nn.Sequential):
        def get_classifier(self):
            return self[0]

    class Whole(nn.Module):
        def __init__(self):
            super().__init__()
            self.net, self.net_head = Backbone(nn.Linear(6, 4)), nn.Linear(4, 3)

        def forward(self, images):
            return self.net_head(self.net(images))

    assert heads(Whole()) == ["net_head"]


def test_two_heads_that_are_parts_of_modules_are_heads():
    def part(n: int) -> nn.Module:
        return nn.ModuleDict({"norm": nn.BatchNorm1d(n), "linear": nn.Linear(n, 6)})

    body = nn.Sequential(nn.Linear(64, 16), nn.Linear(16, 16))
    net = nn.ModuleDict({"body": body, "classifier": part(16), "classifier_distill": part(16)})  # as LeViT
    assert heads(net) == ["classifier.linear", "classifier_distill.linear"]
    assert maskable(net) == ["body.0.weight", "body.1.weight"]
    plain = nn.ModuleDict({"body": body, "classifier": nn.Sequential(nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 16))})
    assert heads(plain) == ["classifier.2"]


class Added(nn.Module):
    """A parametrization that has a layer, hence a weight, of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.low = nn.Linear(64, 16)

    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        return weight + self.low.weight[: weight.shape[0], : weight.shape[1]]


MADE = {
    "weight_norm": parametrizations.weight_norm,
    "spectral_norm": parametrizations.spectral_norm,
    "orthogonal": parametrizations.orthogonal,
    "added": lambda layer: parametrize.register_parametrization(layer, "weight", Added()),
    "the old weight_norm": nn.utils.weight_norm,
}
made = pytest.mark.parametrize("make", MADE.values(), ids=MADE.keys())
old = pytest.mark.filterwarnings("ignore:.*weight_norm.* is deprecated")


def three_layers() -> nn.Sequential:
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 16), nn.Linear(16, 6))


@old
@made
@pytest.mark.parametrize("method", ["gumbel_sigmoid", "winning_subnetwork", *RANKINGS])
def test_a_weight_that_is_made_from_others_is_named_and_the_rest_is_masked(make, method):
    net = three_layers()
    make(net[1])
    before, options = copy.deepcopy(net.state_dict()), {"density": 0.3}
    learn = learn_mask
    if method == "winning_subnetwork":
        learn, options = (lambda *a, **k: learn_subnetwork(*a, **k)[1]), {}
    with warnings.catch_warnings(record=True, action="always") as said:
        mask = learn(net, easy(), method, steps=1, **options)
    assert list(mask.bits) == ["3.weight"]
    assert ["no mask covers 1.weight (1 of 2 weights)" in str(w.message) for w in said] == [True]
    assert all(
        torch.equal(t, before[n]) for n, t in net.state_dict().items()
    )  # spectral norm counts how often it is read


@old
@made
@pytest.mark.parametrize("method", ["gumbel_sigmoid", *RANKINGS])
def test_a_network_of_weights_that_are_all_made_from_others_is_refused(make, method):
    net = three_layers()
    for layer in (net[1], net[3], net[4]):
        make(layer)
    assert heads(net) == ["4"]
    with pytest.raises(ValueError, match=r"nothing to mask: 1\.weight, 3\.weight are made .*remove_parametrizations"):
        learn_mask(net, easy(), method, density=0.3, steps=1)


@old
@made
def test_a_layer_whose_weight_is_made_from_others_is_held_whole_with_a_warning(make):
    net, mask = three_layers(), Mask({"3.weight": torch.rand(16, 16) < 0.5})
    make(net[1])
    part = next(n for n, p in net.named_parameters() if n.startswith("1.") and p.ndim > 1)
    for train, told in (((), True), (["4."], True), (["1."], False), ([part], False)):
        with warnings.catch_warnings(record=True, action="always") as said, protect(net, mask, train=train):
            pass
        assert ["held whole: 1." in str(w.message) for w in said] == [True] * told
    before, optimizer = copy.deepcopy(net.state_dict()), torch.optim.AdamW(net.parameters(), 0.01, weight_decay=0.1)
    with pytest.warns(UserWarning, match="held whole"), protect(net, mask):  # noqa: PT031
        for x, y in [easy().tensors] * 3:
            nn.functional.cross_entropy(net(x), y).backward()
            optimizer.step()
    still = [n for n, t in net.state_dict().items() if torch.equal(t, before[n])]
    assert still == [n for n in before if n != "3.weight"]


@old
@pytest.mark.parametrize("make", [*MADE.values(), functools.partial(prune.l1_unstructured, name="weight", amount=0.5)])
def test_a_mask_of_the_plain_network_says_what_became_of_it(make):
    net = three_layers()
    mask = learn_mask(net, easy(), "magnitude", density=0.3)
    make(net[1])
    with pytest.raises(ValueError, match=r"1\.weight \(16, 64\) \(network: pruned or parametrised since\)"):
        mask.apply(net)


def test_spectral_norm_of_the_old_kind_is_masked_and_protected_below_it():
    torch.manual_seed(0)
    net = three_layers()
    nn.utils.spectral_norm(net[1])
    fit(net, easy(), steps=60)
    mask = learn_mask(net, easy(), density=0.2, steps=20)
    assert mask.densities.keys() == {"1.weight_orig", "3.weight"}
    x, y = easy().tensors
    inside, optimizer = mask.apply(net).eval()(x), torch.optim.AdamW(net.parameters(), 0.01, weight_decay=0.1)
    net.train()
    with protect(net, mask):
        for _ in range(3):
            nn.functional.cross_entropy(net(x), y).backward()
            optimizer.step()
    assert torch.equal(mask.apply(net).eval()(x), inside)


def test_a_pruned_network_is_copied_and_masked_below_its_pruning(trained):
    net = copied(trained)
    prune.l1_unstructured(net[1], "weight", 0.5)
    evaluate(net, easy())  # the pruned weight is what autograd made of it
    mask = learn_mask(net, easy(), density=0.2, steps=20)
    assert mask.densities.keys() == {"1.weight_orig", "3.weight"}
    inside = mask.apply(net)
    assert evaluate(inside, easy()) > 0.3
    inside(easy().tensors[0])
    assert torch.equal(inside[1].weight != 0, mask.bits["1.weight_orig"] & net[1].weight_mask.bool())


def test_weights_that_are_pruned_away_have_no_magnitude(trained):
    net = copied(trained)
    prune.random_unstructured(net[1], "weight", 0.5)
    mask = learn_mask(net, easy(), "magnitude", density=0.5)
    assert not (mask.bits["1.weight_orig"] & ~net[1].weight_mask.bool()).any()


class Checkpointed(nn.Module):
    """A network whose hidden part is computed again in the backward pass."""

    def __init__(self, net: nn.Sequential, again: bool) -> None:
        super().__init__()
        self.net, self.again = net, again

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden = checkpoint(self.net[:-1], x, use_reentrant=False) if self.again else self.net[:-1](x)
        return self.net[-1](hidden)


def test_what_is_computed_again_in_the_backward_pass_has_the_temperature_of_its_step(trained):
    masks = [
        learn_mask(Checkpointed(copied(trained), again), easy(), "continuous_sparsification", steps=8, strength=1e-2)
        for again in (False, True)
    ]
    assert masks[0] == masks[1]
    assert all(torch.equal(s, masks[1].scores[n]) for n, s in masks[0].scores.items())


class Remembering(nn.Linear):
    """A layer that computes with what it remembers while it evaluates, as the attention of timm's LeViT does with its biases."""

    def __init__(self) -> None:
        super().__init__(4, 4)
        self.remembered: dict[str, torch.Tensor] = {}

    def _apply(self, fn, *args, **kwargs) -> nn.Module:
        self.remembered = {}
        return super()._apply(fn, *args, **kwargs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x) + self.remembered.setdefault("bias", self.bias * 2)


def test_a_copy_forgets_what_was_computed_from_the_weights_of_another_task():
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Linear(4, 4), Remembering(), nn.Linear(4, 2)), torch.randn(3, 4)
    mask = Mask({"0.weight": torch.ones(4, 4).bool()}).with_state(model)
    first = model(x)  # from here on the layer holds a tensor that is no leaf, which deepcopy refuses
    with torch.no_grad():
        model[1].bias += 1
    model[1].remembered = {}
    second = model(x)
    assert torch.equal(mask.apply(model)(x), first)
    assert torch.equal(model(x), second)
