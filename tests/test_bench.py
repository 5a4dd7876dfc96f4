"""The benchmark runs and says what it compares; no test looks at a time."""

import os
import re
from pathlib import Path

import pandas as pd
import pytest
import torch
from torch.utils.data import TensorDataset

from benchmarks import batch, bench, family, layers, photographs, processes, timing
from maskutils.data.pair import Domain, Pair
from maskutils.masks.layers import LAYERS

pytestmark = pytest.mark.slow
DEEP = "shufflenet_v2_x0_5"  # as deep as the network of the benchmark, and quicker


@pytest.fixture(scope="module")
def table():
    """All rows, on small networks, in one round."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(timing, "REPEATS", 1)
        patch.setattr(timing, "STEPS", 1)
        patch.setattr(layers, "NETWORKS", {"small": (("cnn",), 1, 1, True), "plain": (("cnn",), 1, 1, False)})
        patch.setattr(layers, "DEEP", (DEEP, 10, 3, 32))
        patch.setattr(layers, "BATCH", 2)
        patch.setattr(photographs, "STEPS", 1)
        patch.setattr(photographs, "BATCH", 4)
        patch.setattr(processes, "ROUNDS", 1)
        patch.setattr(processes, "IMAGES", (2, 8))
        return bench.measure().set_index("what")


def test_every_comparison_is_made(table):
    assert {f"a step of {name}" for name in LAYERS} < set(table.index)
    assert {f"{name}, small weights" for name in LAYERS} < set(table.index)
    assert {f"a step of {name}, {DEEP}" for name in layers.COSTLIEST} < set(table.index)
    assert {"a step under protect, cnn", f"a step under protect, {DEEP}", *processes.IMPORTS.values()} - {
        "import torch"
    } < set(table.index)
    assert table["ratio"].astype(float).gt(0).all()
    assert {"another density in the explorer", f"a step of cnn with {os.cpu_count()} threads, wall time"} < set(
        table.index
    )
    assert float(table.loc["a saved mask", "ratio"]) < 0.04, "a bit is a thirty-second of a float"


def test_a_layer_without_a_textbook_formula_is_measured_without_one(monkeypatch):
    monkeypatch.setattr(layers, "TEXTBOOK", {})
    monkeypatch.setattr(layers, "LAYERS", {"edge_popup": LAYERS["edge_popup"]})
    rows = layers._at("small", ("mlp", 2, 1, 4), 1, 1, textbook=True)
    assert rows[0][0] == "edge_popup, small weights"
    assert "textbook" not in rows[0][3]


def test_targets_stand_beside_the_ratios_they_are_for(table):
    assert table.loc["gumbel_sigmoid, small weights", "target"] == "2.00"
    assert table.loc["edge_popup, equal scores, small weights", "target"] == "3.00"
    assert table.loc[f"a step under protect, {DEEP}", "target"] == "1.05"
    assert table.loc[f"a step of hard_concrete, {DEEP}", "target"] == "1.10"
    assert table.loc[processes.IMPORTS["ours"], "target"] == "1.15"
    assert table.loc["a transfer of 1 steps, mobilenet_v2, 64 px", "target"] == "1.15"
    aimed = table[table["target"] != ""]
    assert (aimed["met"] == "yes").equals(aimed["ratio"].astype(float) <= aimed["target"].astype(float))
    assert table.loc[table["target"] == "", "met"].eq("").all()


def test_a_layer_with_noise_that_misses_its_target_is_explained():
    rows = [
        ["bernoulli, 11 M weights", "", "", "", "2.50", "2.00", "no"],
        ["piggyback, 11 M weights", "", "", "", "2.50", "2.00", "no"],
        ["noise alone (draw, logit, sigmoid), 11 M", "", "", "", "1.90", "", ""],
    ]
    (reason,) = bench.reasons(pd.DataFrame(rows, columns=timing.COLUMNS))
    assert reason.startswith("Not met by bernoulli, 11 M weights: they need a random number for each weight")
    assert "11 M takes 1.90 passes already" in reason


def test_a_step_that_misses_its_target_is_explained_by_what_its_masks_take_alone():
    rows = [
        ["edge_popup, 11 M weights", "320 ms", "150 ms", "", "2.10", "3.00", "yes"],
        ["a step of edge_popup, resnet18", "2.3e+03 ms", "2e+03 ms", "", "1.15", "1.10", "no"],
        ["a step of gumbel_sigmoid, resnet18", "2e+03 ms", "2e+03 ms", "", "1.00", "1.10", "yes"],
    ]
    (reason,) = bench.reasons(pd.DataFrame(rows, columns=timing.COLUMNS))
    assert reason.startswith("Not met by a step of edge_popup, resnet18: masks of 11 M weights take 320 ms alone")
    assert "64 images take 2e+03 ms without" in reason


def test_a_network_of_another_family_has_a_row_for_each_mask(monkeypatch, capsys):
    images = TensorDataset(torch.randn(16, 3, 16, 16), torch.arange(16) % 2)
    domains = (Domain(name, images, images, images, ("a", "b")) for name in ("sketch", "cartoon"))
    monkeypatch.setattr(family, "load_pair", lambda *_: Pair("p", *domains))
    monkeypatch.setattr(family, "SIZE", 16)
    monkeypatch.setattr(family, "MASKS", ("magnitude",))
    family.table(lambda seed: family.photographs(seed, source_steps=1, steps=1), seeds=(0,))
    plain, masked = capsys.readouterr().out.splitlines()[-2:]
    assert plain.startswith("| mean | finetune | ")
    assert " | – | " in plain
    assert masked.startswith("| mean | magnitude | ")
    assert "–" not in masked


def test_a_small_network_of_another_family_has_a_row_with_its_masks(monkeypatch, capsys):
    images = TensorDataset(torch.randn(16, 3, 32, 32), torch.arange(16) % 2)
    monkeypatch.setattr(family, "of_digits", lambda seed: (images, images))
    monkeypatch.setattr(family, "NETWORKS", {family.vit: 1})
    ((name, accuracies),) = family.digits(0, steps=1)
    assert name == "vit, 0.32 million weights"
    assert len(accuracies) == 5


def test_a_mean_is_over_seeds_and_not_of_what_has_no_value(capsys):
    family.table(lambda seed: iter([("whole", [0.25 + seed / 2, None])]))
    assert capsys.readouterr().out == (
        "| seed 0 | whole | 25.0 | – |\n| seed 1 | whole | 75.0 | – |\n| mean | whole | 50.0 | – |\n"
    )


def test_the_batch_stands_beside_papermill_and_its_bare_steps(monkeypatch):
    def seconds(folder, *arguments, **variables):
        notebooks = len(list(Path(folder, "notebooks").glob("*.ipynb")))
        assert notebooks == batch.MANY
        return 2.0 if "papermill" in arguments else 0.1 * batch.MANY

    monkeypatch.setattr(batch, "seconds", seconds)
    _, _, ours, loop, commands, kernels = batch.overhead()
    assert kernels.startswith("| a bare kernel of the batch (a fork)")
    assert [ours.endswith("| 4.0 | 0.00 |"), loop.endswith("| 4.0 | 0.00 |"), commands.endswith("| 0.0 | 2.00 |")] == [
        True
    ] * 3
    monkeypatch.setattr(batch, "bare_step", lambda: 0.003)
    assert re.search(
        r"took [\d.]+ minutes in all, for at least [\d,]+ training steps; as many .* 3.0 ms, 2 at once, take",
        batch.bare(),
    )


def test_a_plan_of_what_is_done_is_measured():
    assert re.fullmatch(r"A plan of 3 runs that are done takes [\d.]+ s and at most \d\d+ MiB\.", batch.planned(3))


def test_memory_is_that_of_a_fresh_process_whatever_was_measured_before(table):
    before = table.loc[table["is"] == "training the dense network", "reference"]
    if before.empty:
        pytest.skip("this kernel does not tell the peak since a moment")
    kept = torch.ones(100_000_000)  # which a peak of this process would not rise above
    again = int(processes._python(processes.__file__, "dense", "2", "8"))
    del kept
    assert again / 1e6 == pytest.approx(float(before.iloc[0].removesuffix(" MB")), rel=0.2)


@pytest.mark.parametrize("name", LAYERS)
def test_the_textbook_gives_the_masks_and_gradients_of_the_same_kind(name):
    layer = LAYERS[name](torch.randn(40, 50))
    layer.scores.data = torch.randn(40, 50)
    scores = layer.scores.detach().clone().requires_grad_()
    textbook = layers.TEXTBOOK[name](scores)
    textbook.sum().backward()
    layer.sample().sum().backward()
    assert textbook.mean().item() == pytest.approx(layer.sample().mean().item(), abs=0.05)
    assert scores.grad.abs().mean().item() == pytest.approx(layer.scores.grad.abs().mean().item(), rel=0.1)
