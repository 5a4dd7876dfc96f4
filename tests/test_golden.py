"""Numbers do not change unless the version of their stage does; see golden.py."""

import copy
import json

import golden
import pytest

from maskutils.masks.layers import LAYERS
from maskutils.masks.rankings import RANKINGS
from maskutils.study import artefacts, provenance, trials
from maskutils.training.transfer import PROTOCOLS

EXPECTED = json.loads(golden.FILE.read_text())
pytestmark = pytest.mark.slow


@pytest.fixture
def measured(tmp_path, monkeypatch):
    """A function that measures anew, with empty caches."""
    folders = iter(range(10))

    def measure(*parts):
        folder = tmp_path / str(next(folders))
        monkeypatch.setenv("MASKUTILS_ROOT", str(folder))
        artefacts._pair.cache_clear()
        trials._dense.cache_clear()
        return golden.measure(*parts)

    return measure


def test_numbers_are_those_of_their_stages(measured):
    found = measured()
    assert golden.faults(EXPECTED, found, provenance.STAGES) == []
    renew = "golden.json is old; renew it: python tests/golden.py"
    assert EXPECTED["stages"] == provenance.STAGES, renew
    assert golden.differences(EXPECTED, found) == {}, renew
    assert {stage: set(numbers) for stage, numbers in found.items()} == {s: set(EXPECTED[s]) for s in found}, renew


def test_another_learning_rate_of_a_layer_is_noticed(measured, monkeypatch):
    chosen = ["piggyback", "magnitude"], ["finetune"]
    before = measured(*chosen) | {"stages": provenance.STAGES, "machine": golden.machine()}
    monkeypatch.setattr(LAYERS["piggyback"], "lr", LAYERS["piggyback"].lr * 1.05)
    (fault, *after) = golden.faults(before, measured(*chosen), provenance.STAGES)
    assert fault.startswith("the numbers of stage 'mask' changed (piggyback: ")
    assert "raise STAGES['mask'] in maskutils/study/provenance.py" in fault
    assert "magnitude" not in fault
    assert all("protect piggyback" in line for line in after)


@pytest.mark.parametrize("stage", provenance.STAGES)
def test_one_changed_number_is_named_with_its_stage_unless_its_version_is_raised(stage):
    found = copy.deepcopy({s: EXPECTED[s] for s in provenance.STAGES})
    name, numbers = next(iter(found[stage].items()))
    key = next(iter(numbers))
    numbers[key] += 0.2 + 0.2 * abs(numbers[key])
    (fault,) = golden.faults(EXPECTED, found, provenance.STAGES)
    assert f"stage {stage!r} changed ({name}: {key} was" in fault
    assert golden.faults(EXPECTED, found, provenance.STAGES | {stage: provenance.STAGES[stage] + 1}) == []


def test_a_raised_version_excuses_only_what_its_files_are_named_by():
    found = copy.deepcopy({s: EXPECTED[s] for s in provenance.STAGES})
    found["transfer"]["protect"]["loss"] *= 2
    found["transfer"]["finetune"]["loss"] *= 2  # has no mask, so the name of its file holds no version of masks
    (fault,) = golden.faults(EXPECTED, found, provenance.STAGES | {"mask": 2})
    assert "(finetune: loss" in fault
    assert "protect: loss" not in fault
    assert golden.faults(EXPECTED, found, provenance.STAGES | {"source": provenance.STAGES["source"] + 1}) == []


def test_every_layer_ranking_and_protocol_has_its_numbers():
    assert EXPECTED["mask"].keys() == {*LAYERS, *RANKINGS, "shuffled", *(f"{name}, large" for name in golden.LARGE)}
    assert {name.partition(",")[0] for name in EXPECTED["score"]} >= set(PROTOCOLS)
