"""What a cell and `print` show of a pair, a setup, a mask layer: short, and the values that count."""

import torch

from maskutils import load_pair
from maskutils.masks.layers import LAYERS
from maskutils.masks.shown import layer_names
from maskutils.study.setup import Setup


def test_a_pair_is_one_line_and_a_table_of_its_domains():
    pair = load_pair("mnist_low_to_high")
    assert repr(pair) == "Pair(mnist_low_to_high: 5 and 5 classes, a head for each, images 1x28x28)"
    html = pair._repr_html_()
    assert f"<td>{len(pair.source.train):,}</td>" in html
    assert "<td>0, 1, 2, 3, 4</td>" in html


def test_a_setup_says_what_was_changed_and_is_a_table_that_marks_it():
    assert str(Setup(mask_steps=7)) == "Setup of mnist_to_digits: mask_steps = 7, all else at its default"
    html = Setup(mask_steps=7)._repr_html_()
    assert "<td>mask_steps</td><td>7</td><td>changed</td>" in html
    assert html.count("changed") == 1


def test_a_mask_layer_says_its_shape_and_what_it_would_keep():
    layer = LAYERS["piggyback"](torch.ones(2, 3))
    with torch.no_grad():
        layer.scores.copy_(torch.tensor([[1.0, 1.0, 1.0], [-1.0, -1.0, -1.0]]))
    assert "2x3 = 6 weights, density 0.500" in repr(layer)
    assert "<td>least</td><td>-1</td>" in layer._repr_html_()


def test_a_made_name_of_a_layer_is_never_that_of_another():
    weights = {"0.weight": torch.ones(2, 1, 3, 3), "conv1.weight": torch.ones(2, 1, 3, 3)}
    assert layer_names(weights) == {"0.weight": "conv2", "conv1.weight": "conv1"}
