"""What notebooks and README claim, computed again from the committed records. A sentence and its function stand together."""

import re
from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
import torch
from sentences import mean, printed, read, rows_of, text, tried_with_best_mask

from maskutils.core.approaches import described, names
from maskutils.masks.layers import LAYERS
from maskutils.results import rates
from maskutils.results.analysis import (
    for_storage,
    source_read,
    storage_front,
    stored_bits,
    with_family,
)
from maskutils.results.choice import candidates, equivalent
from maskutils.results.claims import minus_control
from maskutils.results.equal_storage import masks_win_at_similar_bits
from maskutils.results.findings import findings
from maskutils.results.fronts import front, hypervolumes, largest
from maskutils.results.rates import settings_findings
from maskutils.results.records import KNOBS, at_density, of_masks, on_grid
from maskutils.results.statistics import paired
from maskutils.study.tuning import layer_settings

CLAIMS: dict[
    str, tuple[str, Callable[[pd.DataFrame], bool]]
] = {}  # sentence -> file, and what must be true of the records
PROFILES = ("default", "study")


def claim(file: str, sentence: str):
    """File the function below under the `sentence` that it computes."""

    def enter(holds: Callable[[pd.DataFrame], bool]) -> Callable[[pd.DataFrame], bool]:
        CLAIMS[sentence] = (file, holds)
        return holds

    return enter


@claim("notebooks/01_source_and_forgetting.ipynb", "`source_only` retains everything and adapts nothing.")
def untrained_retains_all(records):
    rows = records[records["approach"] == "source_only"]
    return bool((rows["source_acc_full"] == rows["source_acc_before"]).all())


@claim("notebooks/01_source_and_forgetting.ipynb", "with the task known it loses nothing, and it stores the most.")
def two_networks_lose_nothing_and_store_most(records):
    rows = for_storage(records)
    two = rows[rows["approach"] == "two_networks"]
    stored = rows.groupby("approach")["stored_bits"].mean()
    return bool((two["source"] == two["source_acc_before"]).all()) and stored.idxmax() == "two_networks"


@claim("notebooks/01_source_and_forgetting.ipynb", "forgets nothing when the target has its own head")
def a_probe_forgets_only_with_one_head(records):
    rows = records[records["approach"] == "linear_probe"]
    lost = (rows["source_acc_before"] - rows["source_acc_full"]).groupby(rows["pair"]).max()
    return lost["mnist_low_to_high"] == 0 and lost.drop("mnist_low_to_high").min() > 0.01


@claim("notebooks/05_piggyback.ipynb", "Its ranking is better than chance and worse than that of the other masks")
def piggyback_ranks_between_chance_and_the_others(records):
    at = at_density(records, 0.1)
    names = ("random", "piggyback", "edge_popup", "hard_concrete", "gumbel_sigmoid")
    chance, its, *others = (mean(at, name, "source_acc_masked") for name in names)
    return chance < its < min(others)


def below_magnitude(records, method):
    """Whether `method` keeps less of the source than the largest weights do, at both low densities."""
    ats = [at_density(records, d) for d in (0.05, 0.1)]
    return all(mean(at, method, "source_acc_masked") < mean(at, "magnitude", "source_acc_masked") for at in ats)


@claim(
    "notebooks/03_hard_concrete.ipynb",
    "At low densities it keeps less of the source than a mask of the largest weights",
)
def hard_concrete_is_below_magnitude(records):
    return below_magnitude(records, "hard_concrete")


@claim("notebooks/05_piggyback.ipynb", "The largest weights, which nobody learnt, make a better mask at low densities.")
def piggyback_is_below_magnitude(records):
    return below_magnitude(records, "piggyback")


@claim("notebooks/06_controls.ipynb", "Of `random`, `shuffled` and `magnitude` it is the one to beat.")
def magnitude_is_the_best_of_the_blind_controls(records):
    at = at_density(records, 0.1)
    kept = {name: mean(at, name, "source_acc_masked") for name in ("magnitude", "shuffled", "random")}
    return max(kept, key=kept.__getitem__) == "magnitude"


def distances(records: pd.DataFrame, reading: str, rivals: list[str]) -> pd.Series:
    """How far the nearest setting of the learnt mask, the random one and `rivals` lies from the ideal point on `mnist_to_inverted`."""
    rows = with_family(on_grid(records[records["pair"] == "mnist_to_inverted"]))
    own = rows[rows["approach"] == "two_networks"]
    rows = rows.assign(x=source_read(rows, reading))[rows["family"].isin(["gumbel_sigmoid", "random", *rivals])]
    means = rows.groupby(["family", *KNOBS, "alpha"], dropna=False)[["x", "target_acc"]].mean()
    lost = own["source_acc_before"].mean() - means["x"], own["target_acc"].mean() - means["target_acc"]
    return np.hypot(*(side.clip(lower=0) for side in lost)).groupby("family").min()


@claim("notebooks/07_baselines.ipynb", "With the task unknown `fisher` is the strongest mask of the study")
def fisher_is_the_strongest_mask_with_the_task_unknown(records):
    areas = hypervolumes(records, split="val_")
    there = "fisher" in set(areas["family"])  # only the study has it
    return not there or largest(areas, names("mask", "control")) == "fisher"


@claim("notebooks/08_tradeoff.ipynb", "and a random mask does not.")
def a_learnt_mask_is_nearer_than_a_random_one_when_the_task_is_known(records):
    found = distances(records, "known", [])
    return found["gumbel_sigmoid"] < found["random"]


@claim("notebooks/08_tradeoff.ipynb", "replay and EWC, which need no mask, come closer than it does.")
def rivals_are_nearer_when_the_task_is_unknown(records):
    found = distances(records, "full", ["ewc", "replay"])
    return found.drop(["gumbel_sigmoid", "random"]).max() < found["gumbel_sigmoid"]


@claim("notebooks/08_tradeoff.ipynb", "Which weights are held matters less there.")
def the_choice_of_weights_matters_less_in_the_full_network(records):
    rows = on_grid(records).query("alpha == 1")
    readings = ("source_acc_masked", "source_acc_full")
    masked, full = (mean(rows, "gumbel_sigmoid", v) - mean(rows, "random", v) for v in readings)
    return masked > 4 * abs(full)


@claim("notebooks/11_which_mask.ipynb", "at most one bit for each weight, less than half of that at density 0.1")
def a_mask_stores_less_than_half_a_bit_a_weight(records):
    rows = at_density(records, 0.1)
    weights = records.loc[records["approach"] == "two_networks", "stored_bits"].min() / 16
    masks = stored_bits(rows)[of_masks(rows) & (rows["alpha"] == 1)]
    return bool((masks < weights / 2).all())


@claim("notebooks/11_which_mask.ipynb", "which is nothing where biases, norm layers and head are held too")
def nothing_drifts_under_protection(records):
    return bool((records.loc[records["protocol"] == "protect", "drift"].dropna() == 0).all())


@claim(
    "notebooks/14_claims.ipynb",
    "there is a density at which a learnt mask beats, on the target, every approach without a mask that stores at most a quarter more.",
)
def a_mask_wins_at_equal_bits(records):
    return bool(masks_win_at_similar_bits(records).passed)


@claim("notebooks/11_which_mask.ipynb", "Then replay and EWC, which need no mask, are hard to beat.")
@claim("notebooks/14_claims.ipynb", "With the task unknown, the best learnt mask trails EWC and replay.")
def the_best_mask_trails_ewc_and_replay_in_the_full_network(records):
    best, areas = largest(hypervolumes(records, split="val_"), names("mask")), hypervolumes(records)
    rivals = ["ewc", "replay"] if records["seed"].nunique() == 5 else ["ewc"]  # the small profile has no replay
    return all(paired(areas, "hypervolume", [best], rival)["high"].item() < 0 for rival in rivals)


def test_learnt_masks_lead_a_random_one_by_less_with_the_full_network():
    told = text("notebooks/14_claims.ipynb")
    assert (
        "all are far to the right, by 26 to 55 points. With the full network three lead by far less, 4 to 8 points, and `edge_popup` "
        "trails by 4." in told
    )
    for reading, spread in (("source_acc_masked", [26, 55]), ("source_acc_full", [-4, 8])):
        found = (100 * minus_control(read("study"), reading)["difference"]).round()
        assert [found.min(), found.max()] == spread


@claim("notebooks/14_claims.ipynb", "with the full network a shuffled mask retains at least as much.")
def which_weights_a_layer_holds_matters_through_the_mask_alone(records):
    readings = ("source_acc_masked", "source_acc_full")
    through, full = (minus_control(records, reading, "shuffled").iloc[0] for reading in readings)
    return bool(through["low"] > 0.05 and full["difference"] <= 0.005)


def test_a_sparse_mask_adapts_nearly_as_well_as_fine_tuning_for_the_target_alone():
    assert "nearly as well as with all weights free." in text("notebooks/00_quickstart.ipynb")
    rows = read("study").query("pair == 'mnist_to_inverted' and alpha == 1")
    sparse = mean(at_density(rows, 0.1), "gumbel_sigmoid", "target_acc")
    assert 0 < mean(rows, "two_networks", "target_acc") - sparse < 0.02


@claim("README.md", "If not, replay and EWC come nearer than the mask.")
def rivals_are_nearer(records):
    return rivals_are_nearer_when_the_task_is_unknown(records)


def test_what_freezes_and_what_ties_by_a_mask_cannot_be_told_apart_and_replay_and_ewc_lead_both():
    told = text("notebooks/07_baselines.ipynb")
    assert "`elastic_mask` cannot be told apart from `gumbel_sigmoid` or `fisher`, which freeze." in told
    assert "But `replay` and `ewc`, which freeze nothing, lead all three." in told
    areas = hypervolumes(read("study"))
    for frozen in ("gumbel_sigmoid", "fisher"):
        row = paired(areas, "hypervolume", ["elastic_mask"], frozen).iloc[0]
        assert row["low"] < 0 < row["high"]
    for rival in ("replay", "ewc"):
        rows = paired(areas, "hypervolume", ["gumbel_sigmoid", "fisher", "elastic_mask"], rival)
        assert rows["high"].max() < 0


def test_a_dense_mask_learns_most_of_the_target_in_the_study():
    assert "With a rate of its own and more steps it gets further" in text("notebooks/02_gumbel_sigmoid.ipynb")
    rows = at_density(read("study").query("pair == 'mnist_to_inverted' and alpha == 1"), 0.4)
    said = printed("02_gumbel_sigmoid.ipynb").split("**gumbel_sigmoid** at density 0.4: ")[1]
    here = float(re.findall(r"target ([\d.]+) %", said)[0])
    assert 100 * mean(rows, "gumbel_sigmoid", "target_acc") > here + 5


def test_fine_tuning_takes_a_low_rate_in_the_study_and_a_mask_a_high_one():
    assert "Fine-tuning in one network then takes a low one" in text("notebooks/00_quickstart.ipynb")
    table = rates.tables().query("pair == 'mnist_to_inverted' and model == 'cnn'")
    best = table.groupby("approach").first()["target_lr"]
    assert best["finetune"] < best["gumbel_sigmoid"]


def test_one_setting_is_shown_to_be_better_than_the_reference_by_less_than_a_point():
    told = text("notebooks/11_which_mask.ipynb")
    assert "It is better by less than a point, for several times the bits" in told
    same = equivalent(read("study"), max_source_drop=0.1, task_known=True)
    same = same.set_index("approach").query("alpha == 1")
    reference, better = same[same["difference"] == 0].iloc[0], same[same["high"] < 0]
    assert better.loc["oft", "knob"] == 64
    assert (better["difference"] > -0.01).all()
    assert (better["stored_bits"] > 3 * reference["stored_bits"]).all()
    assert (
        "That is why `lora` of rank 1, with 20 kbit there, does not meet a limit of 20 here: on three pairs it needs 21."
        in told
    )
    rows = candidates(read("study"), True).query("approach == 'lora'")
    bits = rows.groupby(["candidate", "pair"])["bits"].mean().div(1e3).unstack()
    least = bits.loc[bits.mean(axis=1).idxmin()]
    assert [round(least.mean()), *map(round, sorted(least))] == [20, 17, 21, 21, 21]


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("sentence", CLAIMS)
def test_a_sentence_is_true_of_the_records(sentence, profile):
    assert CLAIMS[sentence][1](read(profile)), f"{profile}: {sentence}"


@pytest.mark.parametrize("sentence", CLAIMS)
def test_the_sentence_still_stands(sentence):
    assert sentence in text(CLAIMS[sentence][0])


def one_step(monkeypatch, name, scores, weights, pushes, noise=0.0, **settings):
    """A step of the layer `name` by hand: the masked weights, and the gradients of the scores where the weights have `pushes`."""
    layer = LAYERS[name](torch.tensor([weights]), **settings)
    if noise is not None:
        monkeypatch.setattr(f"{type(layer).__module__}.logistic_noise", lambda s: torch.full_like(s, noise))
    with torch.no_grad():
        layer.scores.copy_(torch.tensor([scores]))
    masked = layer(torch.tensor([weights]))
    masked.backward(torch.tensor([pushes]))
    return masked[0].tolist(), layer.scores.grad[0].tolist()


def test_the_weight_by_hand_of_straight_through(monkeypatch):
    masked, gradient = one_step(monkeypatch, "gumbel_sigmoid", [1.0], [0.8], [-0.5], noise=-0.4)
    assert (masked, gradient) == (pytest.approx([0.8]), pytest.approx([-0.09], abs=0.005))
    told = text("notebooks/02_gumbel_sigmoid.ipynb")
    assert "$w = 0.8$ and $s = 1$; the noise is $n = -0.4$" in told
    assert r"-0.5 \\cdot w \\cdot r\\,(1 - r) = -0.09" in told


@pytest.mark.parametrize(
    ("noise", "gate", "learns"), [(0.0, 1.0, False), (-2.0, 0.5, True)], ids=["no noise", "n = -2"]
)
def test_the_two_draws_by_hand_of_a_hard_concrete_gate(monkeypatch, noise, gate, learns):
    masked, gradient = one_step(monkeypatch, "hard_concrete", [2.0], [1.0], [1.0], noise)
    assert masked == pytest.approx([gate])
    assert (gradient[0] != 0) == learns
    told = text("notebooks/03_hard_concrete.ipynb")
    assert "of a weight with $s = 2$" in told
    assert "stretched to 1.04, clipped to 1: open, and no gradient. With $n = -2$" in told


def test_the_two_weights_by_hand_of_edge_popup(monkeypatch):
    scores, pushes = [0.8, 0.7], [0.0, -0.5]
    masked, gradient = one_step(monkeypatch, "edge_popup", scores, [0.9, 0.4], pushes, noise=None, density=0.5)
    assert masked == pytest.approx([0.9, 0.0])
    assert gradient == pytest.approx([0.0, -0.2])
    assert [s - g for s, g in zip(scores, gradient, strict=True)] == pytest.approx([0.8, 0.9])
    assert "Its score has the gradient $0.4 \\\\cdot (-0.5) = -0.2$" in text("notebooks/04_edge_popup.ipynb")


def test_oft_with_as_many_bits_cannot_be_told_from_the_mask_and_needs_twice_them_to_be_ahead():
    told = text("notebooks/19_changes.ipynb")
    assert (
        "`oft` with as many bits as the best mask cannot be told apart from it. With 2.3 times as many it is 0.4 points"
        in told
    )  # the numbers: see `test_a_rival_that_may_store_other_bits_leads_the_mask_of_digits_or_trails_it`
    assert "its best rival, `oft`," in (known := findings(read("study"))[1].split("\n")[1])
    assert "cannot be told apart from it" in known
    assert "where `oft` may come with 52 kbit beside a mask of 51" in text("notebooks/14_claims.ipynb")
    assert "with 52 kbit" in known
    front = storage_front(read("study")).round({"both": 3})
    mask = front[front["family"] == "gumbel_sigmoid"].sort_values("both").iloc[-1]
    intact = front["family"].map(lambda name: described(name.split(" ")[0]).known == "intact")
    as_good = front[intact & (front["family"] != "two_networks") & (front["both"] >= mask["both"])]
    least = as_good.sort_values("stored_bits").iloc[0]
    assert least["family"] == "oft"
    assert least["stored_bits"] > 2 * mask["stored_bits"]


def test_later_notebooks_find_the_numbers_of_the_quickstart():
    assert "Later notebooks come back to this mask and find the same numbers." in text("notebooks/00_quickstart.ipynb")
    table = {row.split()[0]: row.split()[-1] for row in printed("00_quickstart.ipynb").splitlines() if row.strip()}
    said = "source {source_acc_masked} % through the mask and {source_acc_full} % with the full network, target {target_acc} %"
    assert "Holding the weights costs a little of the target." in text("notebooks/00_quickstart.ipynb")
    free = {row.split()[0]: row.split()[-2] for row in printed("00_quickstart.ipynb").splitlines() if row.strip()}
    assert 0 < float(free["target_acc"]) - float(table["target_acc"]) < 5
    assert "Its full network forgets the source nearly as much" in text("notebooks/01_source_and_forgetting.ipynb")
    assert 0 < float(table["source_acc_full"]) - float(free["source_acc_full"]) < 10
    for file in ("01_source_and_forgetting", "02_gumbel_sigmoid"):
        assert f"**gumbel_sigmoid** at density 0.1: {said.format(**table)}" in printed(f"{file}.ipynb")
    row = [table[name] for name in ("source_acc_masked", "source_acc_full", "target_acc")]
    assert ["gumbel_sigmoid", "0.1", "1", *row] in rows_of(printed("06_controls.ipynb"))


def test_the_answers_at_the_end_of_notebooks_are_those_of_their_outputs():
    """The sentences are prose; the numbers that they stand on are printed below them."""
    anatomy = printed("09_mask_anatomy.ipynb")
    assert "share far more than chance gives, or their shares of the layers." in text("notebooks/09_mask_anatomy.ipynb")
    near, layers = map(float, re.findall(r"IoU (0\.\d+) \(.* alone (0\.\d+)\)", anatomy)[0])
    assert near > 2 * layers
    again = [float(line.split()[-1]) for line in anatomy.split("IoU with itself")[1].splitlines()[1:7]]
    assert min(again) < 0.3 < 0.8 < max(again)
    [shared] = re.findall(r"of the target's weights (\d+)% are", anatomy)
    assert 10 < int(shared) < 50
    rows = {tuple(row[:2]): row[3:] for row in rows_of(printed("10_ablations.ipynb"))}
    assert "It does a little better than `protect` at density 0.4" in text("notebooks/10_ablations.ipynb")
    ours, denser = (
        [float(value) for value in rows[name]][1:] for name in (("exclusive", "0.1"), ("gumbel_sigmoid", "0.4"))
    )
    assert all(0 < a - b < 2 for a, b in zip(ours, denser, strict=True))
    assert "a tenth of the weights carries the source" in text("notebooks/13_more_masks.ipynb")
    assert printed("13_more_masks.ipynb").count("** down to density 0.1") == 3


def test_at_density_005_two_filters_of_edge_popup_keep_all():
    assert "two filters keep five weights each, and six filters keep none." in text("notebooks/04_edge_popup.ipynb")
    [kept] = re.findall(r"weights kept in each filter: \[(.*)\]", printed("04_edge_popup.ipynb"))
    assert sorted(map(int, kept.split(", "))) == [0] * 6 + [5] * 2


def test_with_the_task_unknown_edge_popup_does_not_lead_on_photographs():
    told = "at this density the full network keeps more of the source under `gumbel_sigmoid`."
    assert told in text("notebooks/04_edge_popup.ipynb")
    rows = at_density(read("photos"), 0.3).query("alpha == 1")
    source, masked = (
        paired(rows, value, ["edge_popup"], "gumbel_sigmoid", by="approach").iloc[0]
        for value in ("source_acc_full", "source_acc_masked")
    )
    assert source["high"] < 0 < masked["low"]


def test_a_second_network_is_half_a_point_ahead_of_the_mask_of_digits_for_many_times_its_bits():
    rows, means, mask = tried_with_best_mask("study")
    two = means[means["whole"]].index[0]
    ahead = paired(rows, "both", [two], mask, by="candidate").iloc[0]
    assert ahead["low"] > 0
    assert round(100 * ahead["difference"], 1) == 0.6
    assert round(means.loc[two, "bits"] / means.loc[mask, "bits"]) == 44
    told = "On digits an adapter of its size cannot be told apart from it. A second network, with 44 times its bits, is 0.6 points ahead."
    assert told in text("notebooks/11_which_mask.ipynb")
    assert "The mask cannot be told apart from it" in findings(read("study"))[1].split("\n")[1]


def test_fronts_fall_steeply_where_they_pass_to_a_smaller_alpha():
    told = "Where a curve falls steeply, it mostly passes to settings with a smaller `alpha`."
    assert told in text("notebooks/11_which_mask.ipynb")
    rows, smaller = with_family(on_grid(read("study"))), []
    for _, own in rows.groupby("pair"):
        path = front(own[own["family"] == "wise_ft"]).sort_values("source")
        for name in ("gumbel_sigmoid", "edge_popup", "random", "ewc", "elastic_mask", "replay"):
            curve = front(own[own["family"] == name]).query("source >= @path.source.min()").sort_values("source")
            beyond = curve["target"] - np.interp(curve["source"], *path.to_numpy().T)
            falls = np.diff(beyond) < -4
            smaller += list(np.diff(curve.index.get_level_values("alpha"))[falls] < 0)
    assert len(smaller) > 20
    assert np.mean(smaller) > 0.75


def test_the_default_of_each_mask_layer_is_the_first_of_its_table_but_for_piggyback():
    table = layer_settings()
    defaults = table[table["default"]].set_index("method")
    assert len(defaults) == defaults.index.nunique() == 7
    assert defaults["affordable"].all()
    behind = (100 * (table.groupby("method")["val_acc"].first() - defaults["val_acc"])).round(1)
    assert behind[behind != 0].to_dict() == {"piggyback": 2.5}
    assert "`piggyback` keeps 0.002, which is 2.5 points behind" in text("results/tuning/README.md")
    told = settings_findings(table).splitlines()
    assert (
        told[-1] == "The default is what the rule takes for 6 of 7 layers, but not for `piggyback` (2.5 points behind)."
    )
    assert [line.split("`")[1] for line in told if "` (also trains weights): " in line] == ["winning_subnetwork"]
    best = table.groupby("method")["val_acc"].max()
    assert best.idxmax() == "winning_subnetwork"
    assert "`winning_subnetwork` reaches most, but it also trains weights" in text("notebooks/15_tuning.ipynb")
    assert (
        told[0]
        == "- `gumbel_sigmoid`: 6 settings, 94.9 % to 96.4 % through the mask. The rule takes lr 0.3 strength 2e-06 (96.4 %)."
    )
