"""What notebooks show: layers by name, filters, tables, masks as they fill in, images that flip, and the answers of exercises."""

import math
import re

import numpy as np
import pytest
import torch
from networks import easy
from torch import nn

from maskutils.core import paths
from maskutils.core.shown import table
from maskutils.masks.layers import LAYERS
from maskutils.masks.mask import Mask
from maskutils.masks.shown import one_draw, response
from maskutils.models.heads import with_target_head
from maskutils.models.networks import build_model
from maskutils.results import report
from maskutils.study import anatomy
from maskutils.training.learn import learn_subnetwork


def half(model):
    """Each weight of `model` that a mask covers, kept if it is above zero."""
    names = ["0.weight", "2.weight", "4.weight", "7.weight"]
    return Mask({n: model.get_parameter(n).detach() > 0 for n in names}, {n: model.get_parameter(n) for n in names})


def test_layers_have_names_that_people_know():
    mask = half(build_model("cnn"))
    assert list(mask.layers) == ["conv1", "conv2", "conv3", "linear1"]
    assert list(mask.layers.values()) == list(mask.densities.values())


def test_a_cell_shows_a_mask_as_a_table_of_its_layers():
    html = half(build_model("cnn"))._repr_html_()
    assert html.count("<tr>") == 5
    assert re.search("conv1</td><td>8x1x5x5</td><td>200</td><td>0[.]", html)


def test_a_table_escapes_what_it_shows():
    assert "<script>" not in table("<script>", ["<script>"], [["<script>"]])


def test_filters_are_the_weights_of_the_first_layer_and_what_is_kept_of_them():
    model = build_model("cnn")
    weights, kept = half(model).first_filters(model, 3)
    assert weights.shape == kept.shape == (3, 5, 5)
    assert (kept == (weights > 0)).all()


def test_the_rows_of_a_linear_layer_are_squares_where_they_can_be():
    model = nn.Sequential(nn.Linear(16, 4), nn.ReLU(), nn.Linear(4, 2))
    mask = Mask({"0.weight": torch.ones(4, 16, dtype=torch.bool)})
    assert mask.first_filters(model)[0].shape == (4, 4, 4)


def test_the_lowest_score_that_is_kept_is_the_threshold():
    scores = {"w": torch.tensor([[3.0, 1.0, 2.0, 0.0]])}
    ranked, threshold = Mask.from_scores(scores, 0.5).ranked()
    assert threshold == 2.0
    assert sorted(ranked) == [0, 1, 2, 3]
    with pytest.raises(ValueError, match="no scores"):
        Mask({"w": torch.ones(1, 2, dtype=torch.bool)}).ranked()


def test_weights_have_a_place_by_size_within_their_layer():
    model = nn.Sequential(nn.Linear(2, 1), nn.ReLU(), nn.Linear(1, 2))
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([[3.0, -4.0]]))
        model[2].weight.copy_(torch.tensor([[-0.2], [0.1]]))
    bits = {"0.weight": torch.tensor([[True, False]]), "2.weight": torch.tensor([[False], [True]])}
    sizes, kept = Mask(bits).by_size(model)
    assert sizes.tolist() == [0.25, 0.75, 0.75, 0.25]
    assert kept.tolist() == [True, False, False, True]


def test_a_learner_shows_the_mask_of_the_moment_ten_times_and_the_last_is_its_own():
    seen = []
    model = build_model("mlp", 6, 1, 8)
    mask = learn_subnetwork(model, easy(), "gumbel_sigmoid", steps=20, watch=seen.append)[1]
    assert len(seen) == 10
    assert seen[-1] == mask
    assert [m.density for m in seen] == [row["density"] for row in mask.history]


@pytest.mark.parametrize("method", LAYERS)
def test_what_a_layer_makes_of_scores_rises_with_them(method):
    made = response(method, np.linspace(0.01, 3, 20), 200, 0.5)
    assert made["end"][0] <= made["end"][-1] == 1
    assert made["training"][0] <= made["training"][-1]
    assert made["gradient"].shape == (20,)
    assert (made["gradient"] >= 0).all()


def test_the_response_of_gumbel_sigmoid_is_the_logistic_function():
    made = response("gumbel_sigmoid", np.array([-1.0, 0.5, 2.0]), 4000)
    assert made["training"] == pytest.approx(1 / (1 + np.exp([1.0, -0.5, -2.0])), abs=0.03)


def test_one_draw_is_a_step_for_gumbel_sigmoid_and_a_clipped_ramp_for_hard_concrete():
    scores = np.linspace(-6, 6, 61)
    step, ramp = (one_draw(method, scores) for method in ("gumbel_sigmoid", "hard_concrete"))
    assert set(step["training"]) == {0.0, 1.0}
    assert (np.diff(step["training"]) >= 0).all()
    assert (step["gradient"] > 0).all()
    between = (ramp["training"] > 0) & (ramp["training"] < 1)
    assert 3 < between.sum() < 30
    assert ((ramp["gradient"] > 0) == between).all()


class Says(nn.Module):
    """A network that answers class `says[i]` to the image whose first pixel is i."""

    def __init__(self, says):
        super().__init__()
        self.says = nn.Embedding.from_pretrained(nn.functional.one_hot(torch.tensor(says), 3).float())

    def forward(self, x):
        return self.says(x[:, 0, 0, 0].long())


def test_images_flip_where_one_network_is_wrong_and_the_other_right():
    images = torch.arange(4.0).view(4, 1, 1, 1)
    data = torch.utils.data.TensorDataset(images, torch.tensor([0, 0, 1, 2]))
    networks = {"a": Says([1, 1, 1, 0]), "b": Says([0, 0, 0, 2])}
    found = anatomy.flips(networks, data, "a", "b", n=2)
    assert found["count"] == 3
    assert found["truth"].tolist() == [0, 2]  # one of each class first
    assert found["places"].tolist() == [0, 3]
    assert found["said"]["a"].tolist() == [1, 0]
    assert [float(image.item()) for image in found["images"]] == [0, 3]


def test_a_network_with_two_heads_answers_for_the_source_where_images_flip():
    images = torch.arange(4.0).view(4, 1, 1, 1)
    data = torch.utils.data.TensorDataset(images, torch.tensor([0, 0, 1, 1]))
    source = nn.Sequential(nn.Flatten(), nn.Linear(1, 2))  # answers 0 below 2 and 1 above
    with torch.no_grad():
        source[1].weight.copy_(torch.tensor([[0.0], [1.0]]))
        source[1].bias.copy_(torch.tensor([1.5, 0.0]))
    tuned = with_target_head(source, 5, seed=0)
    wrong = nn.Sequential(nn.Flatten(), nn.Linear(1, 2))
    nn.init.zeros_(wrong[1].weight)
    nn.init.zeros_(wrong[1].bias)
    found = anatomy.flips({"none": wrong, "tuned": tuned}, data, "none", "tuned")
    assert found["places"].tolist() == [2, 3]
    assert tuned[1].active == "target"


def test_what_learning_added_is_told_against_the_best_control():
    import pandas as pd

    curves = pd.DataFrame({"m": [0.9, 0.95], "random": [0.1, 0.94], "magnitude": [0.5, 0.945]}, [0.1, 0.5])
    said = report.control_findings(curves, "m")
    assert "At density 0.1 the source keeps 90.0 % through **m** and 50.0 % through `magnitude`" in said
    assert "+40.0 points" in said
    assert said.endswith("At 0.5 **m** and the best control are less than one point apart.")
    assert report.control_findings(curves.iloc[1:], "m").startswith("At 0.5 **m** and")


def exercise(number):
    file = next(paths.notebooks_dir().glob(f"{number}_*.ipynb"))
    text = file.read_text(encoding="utf-8")
    return re.search(r"<summary>Solution</summary>(.*?)</details>", text, re.S).group(1)


def test_the_answers_of_the_exercises_are_right():
    sigma = lambda s: 1 / (1 + math.exp(-s))  # noqa: E731
    assert f"{sigma(2):.2f}" in exercise("02")
    assert f"{math.log(0.1 / 0.9):.1f}" in exercise("02")
    assert f"{2 / 3 * math.log(0.1 / 1.1):.1f}" in exercise("03")
    assert f"= {0.05 * 200:.0f}$ weights, {0.05 * 200 / 8:.2f} a filter" in exercise("04")
    layer = LAYERS["piggyback"]
    assert math.ceil((layer.start - 5e-3) / layer.lr) == 3
    assert "third step" in exercise("05")
    assert f"{sigma(0.1):.3f}" in exercise("13")
    assert f"{sigma(200 * 0.1):.3f}" in exercise("13")


def test_the_nearest_masks_are_named_with_what_their_layers_explain():
    few, more, other = (
        Mask({"w": torch.tensor([[a, b, c, d]]).bool()}) for a, b, c, d in ((1, 0, 0, 0), (1, 1, 0, 0), (0, 0, 1, 1))
    )
    alike = anatomy.nearest({"few": few, "more": more, "other": other}, seed=0)
    assert (alike["names"], alike["IoU"]) == ("few and more", 0.5)
    assert alike["by layers"] == few.iou(more.shuffled(0))
