"""Masks of large networks: from the order of a ranking down to one density, with the smallest layers kept whole."""

import itertools

import pytest
import torch
from networks import easy, state, with_norm
from torch import nn

from benchmarks.family import of_digits, vit
from maskutils.core.checks import BadSetting
from maskutils.data.load import load_pair
from maskutils.masks.layers import LAYERS
from maskutils.masks.mask import Mask
from maskutils.masks.rankings import fisher
from maskutils.masks.selection import kept_whole
from maskutils.models import sizes
from maskutils.models.networks import build_model
from maskutils.models.parts import maskable
from maskutils.training import annealing
from maskutils.training.annealing import Annealing, density_at, learns_density
from maskutils.training.evaluation import evaluate
from maskutils.training.learn import learn_mask, learn_subnetwork
from maskutils.training.loop import fit

pytestmark = pytest.mark.slow  # masks are learnt, a hundred steps each

METHODS = [name for name, cls in LAYERS.items() if not cls.trains_weights]


@pytest.fixture
def large(monkeypatch):
    monkeypatch.setattr(sizes, "LARGE", 1)


@pytest.fixture(scope="module")
def trained():
    torch.manual_seed(0)
    model = with_norm()
    fit(model, easy(), steps=60, lr=1e-2, norm="eval")
    return model.eval()


def test_density_falls_by_a_cubic_and_stays():
    found = [density_at(p, 0.1) for p in (0.0, 0.15, 0.3, 0.6, 0.9)]
    assert found == pytest.approx([1.0, 0.1 + 0.9 * 0.75**3, 0.1 + 0.9 / 8, 0.1, 0.1])


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("density", [0.1, 0.3])
@pytest.mark.usefixtures("large")
def test_a_mask_begins_in_the_order_of_the_ranking_and_ends_at_the_density(trained, method, density):
    mask = learn_mask(trained, easy(), method, density=density, steps=1)
    assert int(sum(b.sum() for b in mask.bits.values())) == round(density * mask.size)
    began = Mask.from_scores(fisher(trained, easy(), 0), density)
    assert mask.iou(began) > 0.9  # a step moves those beside the boundary only
    assert mask.iou(began.shuffled()) < 0.5


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.usefixtures("large")
def test_what_is_learnt_through_training_is_what_is_kept_in_the_end(trained, method):
    """The selection inside training has the density of the moment, and its mask carries the task better than where it began."""
    mask = learn_mask(trained, easy(), method, density=0.1, steps=100)
    assert [row["density"] for row in mask.history[-4:]] == pytest.approx([0.1] * 4, abs=0.04)
    assert mask.history[0]["density"] > 0.5
    began = Mask.from_scores(fisher(trained, easy(), 0), 0.1)
    assert evaluate(mask.apply(trained), easy()) > evaluate(began.apply(trained), easy())
    assert mask.at_density(0.1) == mask
    assert list(mask.bits) == list(maskable(trained))


def test_small_networks_begin_as_in_the_papers_and_large_ones_from_a_ranking(trained, monkeypatch):
    assert not learns_density(trained, "gumbel_sigmoid")
    assert learns_density(trained, "gumbel_sigmoid", "magnitude")
    before = learn_mask(trained, easy(), density=0.3, steps=20)
    assert before == learn_mask(trained, easy(), density=0.3, steps=20, start="constant")
    monkeypatch.setattr(sizes, "LARGE", 1)
    assert learns_density(trained, "gumbel_sigmoid")
    assert not learns_density(trained, "gumbel_sigmoid", "constant")
    assert learn_mask(trained, easy(), density=0.3, steps=20) != before
    assert learn_mask(trained, easy(), steps=20).density == pytest.approx(0.5, abs=1e-3)


@pytest.fixture(scope="module")
def deep():
    """A network of 0.22 million weights that knows digits, and these: of eight layers, so that masks which drop at random break it."""
    torch.manual_seed(0)
    widths = [784, *[128] * 8]
    hidden = [nn.Sequential(nn.Linear(a, b), nn.BatchNorm1d(b), nn.ReLU()) for a, b in itertools.pairwise(widths)]
    model, digits = nn.Sequential(nn.Flatten(), *hidden, nn.Linear(128, 10)), load_pair("mnist_to_digits").source
    fit(model, digits.train, steps=150)
    return model, digits


@pytest.mark.parametrize("method", ["gumbel_sigmoid", "edge_popup"])
def test_a_network_of_some_hundred_thousand_weights_keeps_its_task_by_default(deep, method):
    model, digits = deep
    whole = evaluate(model, digits.test)
    assert whole > 0.85
    mask = learn_mask(model, digits.train, method, density=0.5, steps=40)
    through = evaluate(mask.apply(model), digits.test)
    assert through >= 0.95 * whole
    equal = learn_mask(model, digits.train, method, density=0.5, steps=40, start="constant")
    assert evaluate(equal.apply(model), digits.test) < through, "so this network would not show a worse default"


def test_a_small_transformer_keeps_its_task_by_default():
    """Other families, larger and longer: `python -m benchmarks.family digits`."""
    torch.manual_seed(0)
    train, test = of_digits(0)
    model = vit()
    fit(model, train, steps=120, lr=1e-3)
    whole = evaluate(model, test)
    assert whole > 0.5
    mask = learn_mask(model, train, density=0.5, steps=40)
    assert evaluate(mask.apply(model), test) >= 0.95 * whole


def test_both_packaged_networks_of_digits_are_small():
    assert not any(sizes.is_large(build_model(name)) for name in ("cnn", "mlp"))


def test_in_each_layer_the_same_share_if_asked(trained):
    mask = learn_mask(trained, easy(), density=0.25, per_layer=True, steps=20, start="fisher")
    assert list(mask.densities.values()) == pytest.approx([0.25, 0.25], abs=0.02)


def test_kept_whole_are_the_smallest_layers_up_to_a_quarter_of_what_is_kept():
    layers = {"deep": 900_000, "depthwise": 9_000, "stem": 800, "wide": 200_000}
    assert kept_whole(layers, 400_000) == {"stem", "depthwise"}
    assert kept_whole(layers, 20_000) == {"stem"}
    assert kept_whole(layers, 900_000) == {"stem", "depthwise", "wide"}
    assert kept_whole({"deep": 90_000, "stem": 800}, 50_000) == set()  # a small network


@pytest.mark.usefixtures("large")
def test_a_layer_that_is_kept_whole_counts_and_has_no_scores():
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(72, 30), nn.ReLU(), nn.Linear(30, 6))
    mask = learn_mask(model, easy(), density=0.3, steps=10)
    assert mask.densities["0.weight"] == 1
    assert int(sum(b.sum() for b in mask.bits.values())) == round(0.3 * mask.size)
    assert Mask.from_scores(mask.scores, 0.3, floor=0).densities["0.weight"] == 1


def test_scores_move_fifty_times_through_training(monkeypatch):
    model = build_model("mlp", 6, 1, 8)
    moved = []
    monkeypatch.setattr(Annealing, "_move", lambda self, density: moved.append(density))
    learn_mask(model, easy(), density=0.3, steps=200, start="magnitude")
    assert len(moved) == annealing.UPDATES


def test_a_mask_that_does_not_carry_the_task_is_told(trained):
    with pytest.warns(UserWarning, match=r"does not carry the task yet: at density 0.01 .* more steps= than 5"):
        learn_mask(trained, easy(), density=0.01, steps=5, start="magnitude")


LOST = "does not carry the task yet: at density 0.02 .* more steps= than 20, a higher density= or another method"


@pytest.mark.parametrize("data", [easy(), [easy()[:64], easy()[64:]]], ids=["dataset", "batches"])
def test_in_a_small_network_too_and_for_the_density_that_was_asked_for(trained, data):
    before = state(trained)
    with pytest.warns(UserWarning, match=LOST):
        learn_mask(trained, data, "piggyback", density=0.02, steps=20)
    assert state(trained) == before


@pytest.mark.filterwarnings("error")
def test_nothing_is_told_of_a_mask_that_carries_it_or_where_no_images_are_left(trained):
    learn_mask(trained, easy(), "piggyback", density=0.9, steps=20)
    for start in ("constant", "magnitude"):
        learn_mask(trained, iter([easy()[:]] * 20), "piggyback", density=0.02, steps=20, start=start)
    learn_mask(
        trained, easy(), "bernoulli", density=0.9, steps=20, start="magnitude", strength=1e-3
    )  # a penalty is no loss
    learn_subnetwork(trained, easy(), "piggyback", steps=20)[1].at_density(0.02)


def test_bad_starts_are_refused(trained):
    with pytest.raises(BadSetting, match="start"):
        learn_mask(trained, easy(), start="best")
    with pytest.raises(BadSetting, match="one ranking for all densities"):
        learn_subnetwork(trained, easy(), "gumbel_sigmoid", density=0.2)
