"""Rankings: one contract for all, and what each one is."""

import pytest
import torch
from networks import Plain
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from maskutils.data.batches import some
from maskutils.masks import information, rankings
from maskutils.masks.information import fisher_information
from maskutils.masks.rankings import RANKINGS, fisher, magnitude, random, snip
from maskutils.models.networks import build_model
from maskutils.models.parts import maskable

DATA = TensorDataset(torch.randn(12, 1, 8, 8, generator=torch.Generator().manual_seed(0)), torch.arange(12) % 3)


@pytest.fixture(params=["mlp", "cnn", "norm"])
def net(request) -> nn.Module:
    torch.manual_seed(0)
    if request.param == "norm":
        return nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(72, 5), nn.Linear(5, 3))
    return build_model(request.param, 3, 1, 8)


def equal(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(t, b[n]) for n, t in a.items())


@pytest.mark.parametrize("ranking", RANKINGS.values(), ids=RANKINGS.keys())
def test_every_maskable_weight_has_a_finite_score_without_a_graph(ranking, net):
    scores = ranking(net, DATA, 0)
    assert list(scores) == maskable(net)
    for name, s in scores.items():
        assert s.shape == net.get_parameter(name).shape
        assert s.is_floating_point()
        assert s.isfinite().all()
        assert not s.requires_grad


@pytest.mark.parametrize("ranking", RANKINGS.values(), ids=RANKINGS.keys())
def test_scores_tell_weights_apart(ranking, net):
    assert all(len(s.unique()) > 0.1 * s.numel() for s in ranking(net, DATA, 0).values())


@pytest.mark.parametrize("ranking", RANKINGS.values(), ids=RANKINGS.keys())
def test_the_seed_decides_the_scores_whatever_was_drawn_before(ranking, net):
    first = ranking(net, DATA, 3)
    torch.rand(5)
    assert equal(first, ranking(net, DATA, 3))


@pytest.mark.parametrize("ranking", RANKINGS.values(), ids=RANKINGS.keys())
def test_ranking_leaves_the_network_and_the_global_generator_alone(ranking, net):
    tensors, drawn = {n: t.clone() for n, t in net.state_dict().items()}, torch.random.get_rng_state()
    for s in ranking(net.train(), DATA, 0).values():
        s.add_(1)  # nor are the scores the weights themselves
    assert equal(dict(net.state_dict()), tensors)
    assert torch.equal(torch.random.get_rng_state(), drawn)
    assert all(p.requires_grad and p.grad is None for p in net.parameters())
    assert all(module.training for module in net.modules())


def test_magnitude_is_the_absolute_weight(net):
    assert equal(magnitude(net, None, 0), {n: net.get_parameter(n).abs() for n in maskable(net)})


def test_random_is_uniform_and_knows_only_the_seed(net):
    scores, other = random(net, DATA, 0), random(net, DATA, 1)
    values = torch.cat([s.flatten() for s in scores.values()])
    assert 0 <= values.min() < 0.1 < 0.9 < values.max() <= 1
    assert abs(values.mean() - 0.5) < 0.1
    assert not equal(scores, other)
    for p in net.parameters():
        p.data.zero_()
    assert equal(random(net, None, 0), scores)


def close(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.allclose(t, b[n], rtol=1e-3, atol=1e-9) for n, t in a.items())


def test_snip_is_gradient_times_weight(net):
    F.cross_entropy(net.eval()(DATA.tensors[0]), DATA.tensors[1]).backward()
    weights = {n: net.get_parameter(n) for n in maskable(net)}
    assert close(snip(net, DATA, 0), {n: (w.grad * w).abs().detach() for n, w in weights.items()})


def test_fisher_information_is_the_expected_square_over_the_networks_own_labels(net):
    expected = {n: torch.zeros_like(p) for n, p in net.eval().named_parameters()}
    for image in DATA.tensors[0].split(1):
        log_p = F.log_softmax(net(image)[0], 0)
        for lp in log_p:
            gradients = torch.autograd.grad(lp, list(net.parameters()), retain_graph=True)
            for (name, _), g in zip(net.named_parameters(), gradients, strict=True):
                expected[name] += lp.exp().detach() * g.square() / 12
    assert close(fisher_information(net, DATA), expected)
    ranked = {n: expected[n] * net.get_parameter(n).detach().square() / 2 for n in maskable(net)}
    assert close(fisher(net, DATA, 0), ranked)


def test_of_many_classes_the_likeliest_are_taken(net, monkeypatch):
    whole = fisher_information(net, DATA)
    monkeypatch.setattr(information, "LABELS", 2)
    part, expected = fisher_information(net, DATA), {n: torch.zeros_like(p) for n, p in net.eval().named_parameters()}
    for image in DATA.tensors[0].split(1):
        log_p = F.log_softmax(net(image)[0], 0)
        for lp in log_p.sort(descending=True).values[:2]:
            gradients = torch.autograd.grad(lp, list(net.parameters()), retain_graph=True)
            for (name, _), g in zip(net.named_parameters(), gradients, strict=True):
                expected[name] += lp.exp().detach() * g.square() / 12
    assert close(part, expected)
    assert not close(part, whole)


FORMS = {
    "loader": lambda: DataLoader(DATA, 5),
    "list": lambda: list(DataLoader(DATA, 5)),
    "dataset": lambda: Plain(DATA),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("ranking", RANKINGS.values(), ids=RANKINGS.keys())
def test_scores_do_not_depend_on_the_form_of_the_data(ranking, form):
    net = build_model("mlp", 3, 1, 8)
    assert close(ranking(net, FORMS[form](), 0), ranking(net, DATA, 0))


@pytest.mark.parametrize(("n", "count"), [(5, 5), (99, 12)])
@pytest.mark.parametrize("form", [*FORMS, "tensors"])
def test_some_are_that_many_images_with_their_labels_and_none_twice(form, n, count):
    data = DATA if form == "tensors" else FORMS[form]()
    x, y = some(data, n, seed=0)
    places = [(DATA.tensors[0] == image).flatten(1).all(1).nonzero().item() for image in x]
    assert len(places) == len(set(places)) == count
    assert torch.equal(y, DATA.tensors[1][places])
    assert torch.equal(x, some(data, n, seed=0)[0])


@pytest.mark.parametrize("ranking", [snip, fisher])
def test_the_seed_decides_what_a_loader_that_shuffles_gives(ranking, net, monkeypatch):
    monkeypatch.setattr(rankings, "some", lambda data, n, seed: some(data, 4, seed))
    state = torch.get_rng_state()
    first, again, other = (ranking(net, DataLoader(DATA, 2, shuffle=True), seed) for seed in (0, 0, 1))
    assert equal(first, again)
    assert not equal(first, other)
    assert torch.equal(torch.get_rng_state(), state)


def test_a_stream_without_length_is_ranked_and_dicts_are_refused(net):
    class Stream(torch.utils.data.IterableDataset):
        def __iter__(self):
            return iter([DATA[i] for i in range(len(DATA))])

    assert equal(snip(net, Stream(), 0), snip(net, [DATA[:]], 0))
    with pytest.raises(ValueError, match=r"a batch must be a pair of tensors.*a dict of image"):
        snip(net, [{"image": 1}], 0)
