"""The explorer in a kernel: a question of the front end changes the mask on the network, and nothing is shown to nobody."""

import copy
import json

import numpy as np
import pytest
import torch

from maskutils.core import paths
from maskutils.core.checks import BadSetting
from maskutils.core.files import read_json
from maskutils.results.explorer import page
from maskutils.results.records import load_records
from maskutils.study import explorer
from maskutils.study.setup import Setup
from maskutils.training.evaluation import evaluate

pytestmark = pytest.mark.slow
METHODS = ["gumbel_sigmoid", "magnitude"]
SETUP = Setup(pair="mnist_to_digits", densities=(0.05, 0.3), source_steps=60, mask_steps=20)


@pytest.fixture(scope="module")
def masked(tmp_path_factory):
    """Learnt where its caches disturb nobody."""
    with pytest.MonkeyPatch.context() as patch:
        root = tmp_path_factory.mktemp("root")
        (root / "notebooks").mkdir()
        patch.setenv("MASKUTILS_ROOT", str(root))
        return explorer.Masked(SETUP, METHODS)


@pytest.fixture
def widget(masked):
    return explorer.Explorer({"modality": load_records("modality")}, masked)


def by_hand(masked, method, density):
    """The source network with all weights at zero but the `density` of highest scores, each layer keeping at least a hundredth."""
    scores = masked.learnt[method][1].scores
    network, chosen = copy.deepcopy(masked.network), {}
    ranked = {name: s.flatten().argsort(descending=True, stable=True) for name, s in scores.items()}
    for name, s in scores.items():
        chosen[name] = torch.zeros(s.numel(), dtype=torch.bool)
        chosen[name][ranked[name][: round(0.01 * s.numel())]] = True
    rest = torch.cat([s.flatten().masked_fill(chosen[name], -torch.inf) for name, s in scores.items()])
    left = round(density * rest.numel()) - sum(int(c.sum()) for c in chosen.values())
    best = torch.zeros_like(rest, dtype=torch.bool)
    best[rest.argsort(descending=True, stable=True)[:left]] = True
    for (name, c), more in zip(chosen.items(), best.split([c.numel() for c in chosen.values()]), strict=True):
        with torch.no_grad():
            network.get_parameter(name).mul_((c | more).view_as(scores[name]))
    return network


@pytest.mark.parametrize("method", METHODS)
def test_a_question_is_answered_with_the_accuracy_through_that_mask(masked, widget, method):
    read = []
    for number, density in enumerate(SETUP.densities):
        widget.asked = {"method": method, "density": density, "number": number}
        network, state = by_hand(masked, method, density), widget.state
        assert (state["method"], state["density"], state["number"]) == (method, density, number)
        assert state["source"] == pytest.approx(evaluate(network, masked.pair.source.test), abs=2e-3)
        assert state["target"] == pytest.approx(evaluate(network, masked.pair.target.test), abs=5e-3)
        read.append(state["source"])
    assert read[1] > read[0] + 0.05


def test_an_answer_that_fails_ends_the_wait_of_the_page(masked, widget, monkeypatch):
    monkeypatch.setattr(masked, "state", lambda method, density: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        widget.asked = {"method": METHODS[0], "density": 0.5, "number": 7}
    assert widget.state["number"] == 7
    assert "layers" not in widget.state


def test_a_state_has_a_bit_for_every_weight_that_is_drawn(masked):
    state, about, bits = masked.state("magnitude", 0.3), masked.about(), masked.mask("magnitude", 0.3).bits
    for kept, tiles, layer in zip(state["kept"], about["tiles"], bits.values(), strict=True):
        n, h, w = tiles["shape"]
        drawn = np.unpackbits(np.frombuffer(bytes.fromhex(kept), dtype=np.uint8))[: n * h * w]
        assert len(tiles["values"]) == n * h * w <= explorer.MOST_DRAWN
        assert drawn.tolist() == layer.flatten()[: n * h * w].int().tolist()
    assert state["layers"] == pytest.approx([b.float().mean().item() for b in bits.values()], abs=1e-4)
    assert about["layers"] == ["conv1", "conv2", "conv3", "linear1"]


def test_examples_are_images_that_fine_tuning_forgets_and_a_state_says_what_its_mask_makes_of_them(masked):
    examples, test = masked.about()["examples"], masked.pair.source.test
    assert 0 < len(examples["images"]) <= explorer.EXAMPLES <= examples["forgotten"]
    network = by_hand(masked, "magnitude", 0.3).eval()
    said = masked.state("magnitude", 0.3)["said"]
    for i, place in enumerate(masked.forgotten["places"]):
        image, label = test[int(place)]
        grey = np.frombuffer(bytes.fromhex(examples["images"][i]), dtype=np.uint8).reshape(examples["shape"])
        assert np.corrcoef(grey.ravel(), image.numpy().ravel())[0, 1] > 0.999
        assert examples["truth"][i] == int(label) != examples["tuned"][i]
        assert masked.network(image[None]).argmax().item() == int(label)
        assert network(image[None]).argmax().item() == said[i]


def test_what_cannot_be_shown_is_refused(masked):
    with pytest.raises(BadSetting, match="'mnist_low_to_high' has a head for each task"):
        explorer.Masked(SETUP.changed(pair="mnist_low_to_high"), METHODS)
    with pytest.raises(BadSetting, match="unknown method 'magnitud'"):
        masked.state("magnitud", 0.1)


def test_it_is_shown_only_where_somebody_watches(masked, monkeypatch):
    monkeypatch.setenv("TQDM_DISABLE", "1")
    assert explorer.show("modality", masked) is None
    monkeypatch.delenv("TQDM_DISABLE")
    assert isinstance(explorer.show("modality", masked), explorer.Explorer)


def test_states_are_written_for_the_page(masked, results):
    masked.write("some")
    written = read_json(results / "some" / "masks.json")
    assert [(s["method"], s["density"]) for s in written["states"]] == [
        (m, d) for m in METHODS for d in SETUP.densities
    ]
    assert not written["live"]
    assert json.dumps(written["tiles"], separators=(",", ":")) in page({}, written)


def test_the_committed_states_agree_with_themselves():
    masks = read_json(paths.results_dir("study") / "masks.json")
    whole = [s for s in masks["states"] if s["density"] == 1]
    assert len(whole) == len(masks["methods"])
    assert all([s["source"], s["target"]] == masks["network"] and set(s["layers"]) == {1.0} for s in whole)
    assert all(s["said"] == masks["examples"]["truth"] for s in whole)  # the whole network knows them
    for state in masks["states"]:
        ones = bytes.fromhex(state["kept"][0])
        assert sum(b.bit_count() for b in ones) / len(masks["tiles"][0]["values"]) == pytest.approx(
            state["layers"][0], abs=1e-4
        )
