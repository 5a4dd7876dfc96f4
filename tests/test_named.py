"""Pairs of domains of a collection: where their images are looked for, and that they are all there and no others."""

import hashlib

import pytest
import torch
from PIL import Image

from maskutils.core import paths
from maskutils.core.checks import BadSetting
from maskutils.data import named
from maskutils.data.load import check_pair, check_there, load_pair
from maskutils.data.named import Collection, as_folders
from maskutils.data.pair import Loading
from maskutils.study.artefacts import source_key
from maskutils.study.inputs import stamps
from maskutils.study.setup import Setup

CLASSES, DOMAINS = ("cat", "dog"), ("ink", "oil", "photo")
COLOURS = Loading(channels=3, normalise="imagenet")


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    """A collection of three domains, six images of each of two classes, under the data root."""
    for d, domain in enumerate(DOMAINS):
        for c, name in enumerate(CLASSES):
            (tmp_path / "tiny" / domain / name).mkdir(parents=True)
            for i in range(6):
                pixels = torch.full((8, 8, 3), 40 * d + 90 * c + i, dtype=torch.uint8).numpy()
                Image.fromarray(pixels).save(tmp_path / "tiny" / domain / name / f"{i}.png")
    names = "\n".join(f"{c}/{i}" for c in CLASSES for i in range(6))
    digest = hashlib.sha256(names.encode()).hexdigest()[:16]
    domains = dict.fromkeys(DOMAINS, ((6, 6), digest))
    monkeypatch.setitem(named.COLLECTIONS, "tiny", Collection("tiny", CLASSES, domains, "TINY, from its authors"))
    monkeypatch.setattr(paths, "data_root", lambda: tmp_path)
    return tmp_path / "tiny"


def test_a_pair_of_a_collection_is_that_of_its_folders_and_has_the_other_domains(tiny):
    pair, plain = load_pair("tiny:photo:ink", 1, COLOURS), load_pair(f"folders:{tiny}/photo:{tiny}/ink", 1, COLOURS)
    assert pair.name == "tiny:photo:ink"
    assert [d.name for d in pair.others] == ["oil"]
    assert plain.others == ()
    assert pair.shared_head
    for a, b in ((pair.source, plain.source), (pair.target, plain.target)):
        assert torch.equal(a.train[:][0], b.train[:][0])


def test_images_are_normalised_as_imagenet_was(tiny):
    image = load_pair("tiny:ink:oil", 0, COLOURS).source.test[0][0]
    value = image[:, 0, 0] * torch.tensor([0.229, 0.224, 0.225]) + torch.tensor([0.485, 0.456, 0.406])
    assert torch.allclose(value, value[:1].expand(3))  # grey again
    with pytest.raises(BadSetting, match="normalise = 'imagenet' is for colour images"):
        Loading(normalise="imagenet")


def test_missing_or_other_images_are_refused_before_work_and_said_where_to_get(tiny):
    check_there("tiny:photo:ink")
    (tiny / "oil" / "dog" / "3.png").rename(tiny / "oil" / "dog" / "3.txt")
    with pytest.raises(
        BadSetting,
        match=r"oil/dog holds 5 images and must hold 6: put all of TINY, from its authors under .*data_root|DATA_ROOT",
    ):
        check_there("tiny:photo:ink")
    (tiny / "oil" / "dog" / "3.txt").rename(tiny / "oil" / "dog" / "7.png")
    with pytest.raises(BadSetting, match="as many images as it must, but of other names"):
        load_pair("tiny:photo:ink", 0, COLOURS)


@pytest.mark.parametrize("pair", ["pacs:photo", "pacs:photo:photo", "pacs:photo:sketch:cartoon"])
def test_a_pair_is_of_two_domains(pair):
    with pytest.raises(BadSetting, match="pacs:SOURCE:TARGET"):
        check_pair(pair)


def test_an_unknown_domain_is_named_with_those_there_are():
    with pytest.raises(BadSetting, match="art_painting, cartoon, photo, sketch"):
        as_folders("pacs:photo:drawing")


def test_results_are_named_by_the_content_of_the_images(tiny):
    before = stamps("tiny:photo:ink")
    stamps.cache_clear()
    (tiny / "ink" / "cat" / "0.png").write_bytes((tiny / "ink" / "cat" / "1.png").read_bytes())
    assert stamps("tiny:photo:ink") != before


def test_a_source_whose_norm_layers_stay_is_another(tiny):
    setup = Setup(pair="mnist_to_digits")
    assert source_key(setup, 0) != source_key(setup.changed(source_norm="eval"), 0)


def test_the_guide_has_the_numbers_and_digests_that_are_checked():
    guide = (paths.PACKAGE.parent / "docs" / "guides" / "photos.md").read_text(encoding="utf-8")
    rows = [line.strip("| ").split(" | ") for line in guide.splitlines() if line.startswith("| ")]
    told = {
        row[0]: (int(row[1].replace(",", "")), row[2]) for row in rows if row[0] in named.COLLECTIONS["pacs"].domains
    }
    assert told == {d: (sum(counts), digest) for d, (counts, digest) in named.COLLECTIONS["pacs"].domains.items()}
