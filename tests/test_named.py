"""Pairs of domains of a collection: where their images are looked for, and that they are all there and no others."""

import hashlib
import pickle
from collections import Counter

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

GUIDE = paths.PACKAGE.parent / "docs" / "guides" / "photos.md"
CLASSES, DOMAINS = ("cat", "dog"), ("ink", "oil", "photo")
COLOURS = Loading(channels=3, normalise="imagenet")


def put(root, monkeypatch, name, classes, domains):
    """File a collection under `name` and write it under `root`: six images of each class in each domain."""
    for d, domain in enumerate(domains):
        for c, kind in enumerate(classes):
            (root / name / domain / kind).mkdir(parents=True)
            for i in range(6):
                pixels = torch.full((8, 8, 3), 40 * d + 90 * c + i, dtype=torch.uint8).numpy()
                Image.fromarray(pixels).save(root / name / domain / kind / f"{i}.png")
    names = "\n".join(f"{c}/{i}" for c in classes for i in range(6))
    counted = dict.fromkeys(domains, ((6, 6), hashlib.sha256(names.encode()).hexdigest()[:16]))
    monkeypatch.setitem(
        named.COLLECTIONS, name, Collection(name, classes, counted, f"{name.upper()}, from its authors")
    )
    monkeypatch.setattr(paths, "data_root", lambda: root)
    return root / name


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    """A collection of three domains of two classes, under the data root."""
    return put(tmp_path, monkeypatch, "tiny", CLASSES, DOMAINS)


@pytest.fixture
def small(tmp_path, monkeypatch):
    """A collection of one domain of two other classes, beside `tiny`."""
    return put(tmp_path, monkeypatch, "small", ("bay", "cape"), ("sea",))


def test_a_pair_of_a_collection_is_that_of_its_folders_and_has_the_other_domains(tiny):
    pair, plain = load_pair("tiny:photo:ink", 1, COLOURS), load_pair(f"folders:{tiny}/photo:{tiny}/ink", 1, COLOURS)
    assert pair.name == "tiny:photo:ink"
    assert [d.name for d in pair.others] == ["oil"]
    assert plain.others == ()
    assert pair.shared_head
    for a, b in ((pair.source, plain.source), (pair.target, plain.target)):
        assert torch.equal(a.train[:][0], b.train[:][0])


def test_a_pair_of_two_collections_has_heads_of_its_own_and_the_other_domains_of_the_source(tiny, small):
    pair = load_pair("tiny/photo:small/sea", 1, COLOURS)
    assert pair.name == "tiny/photo:small/sea"
    assert (pair.source.classes, pair.target.classes) == (CLASSES, ("bay", "cape"))
    assert not pair.shared_head
    assert [(d.name, d.classes) for d in pair.others] == [("ink", CLASSES), ("oil", CLASSES)]
    assert load_pair("small/sea:tiny/photo", 1, COLOURS).others == ()
    assert torch.equal(pair.source.train[:][0], load_pair("tiny:photo:ink", 1, COLOURS).source.train[:][0])


def test_both_collections_of_a_pair_are_checked_and_name_its_results(tiny, small):
    before = stamps("tiny/photo:small/sea")
    stamps.cache_clear()
    (small / "sea" / "bay" / "0.png").write_bytes((small / "sea" / "bay" / "1.png").read_bytes())
    assert stamps("tiny/photo:small/sea") != before
    (small / "sea" / "bay" / "0.png").unlink()
    with pytest.raises(
        BadSetting,
        match=r"sea/bay holds 5 images and must hold 6: put all of SMALL, from its authors under .*small, as sea/bay",
    ):
        check_there("tiny/photo:small/sea")
    check_there("tiny:photo:ink")


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


@pytest.mark.parametrize(
    "pair",
    [
        "pacs:photo",
        "pacs:photo:photo",
        "pacs:photo:sketch:cartoon",
        "pacs:photo:cifar20/first",
        "pacs/photo:sketch",
        "pacs/photo:pacs/sketch",
    ],
)
def test_a_pair_is_of_two_domains(pair):
    with pytest.raises(BadSetting, match=r"'pacs:SOURCE:TARGET', .* or 'pacs/SOURCE:cifar20/TARGET'"):
        check_pair(pair)


@pytest.mark.parametrize(
    ("pair", "message"),
    [
        ("pacs:photo:drawing", "unknown domain 'drawing'; known: art_painting, cartoon, photo, sketch"),
        ("pacs/photo:cifar20/third", "unknown domain 'third'; known: first, second"),
        ("pacs/photo:cifar/first", "unknown collection 'cifar'; known: cifar20, pacs"),
    ],
)
def test_an_unknown_domain_is_named_with_those_there_are(pair, message):
    with pytest.raises(BadSetting, match=message):
        as_folders(pair)


@pytest.mark.parametrize("domain", ["photo", "ink", "oil"])
def test_results_are_named_by_the_content_of_the_images_of_third_domains_too(tiny, domain):
    before = stamps("tiny:photo:ink")
    stamps.cache_clear()
    (tiny / domain / "cat" / "0.png").write_bytes((tiny / domain / "cat" / "1.png").read_bytes())
    assert stamps("tiny:photo:ink") != before


def test_a_source_whose_norm_layers_stay_is_another(tiny):
    setup = Setup(pair="mnist_to_digits")
    assert source_key(setup, 0) != source_key(setup.changed(source_norm="eval"), 0)


def test_the_guide_has_the_numbers_and_digests_that_are_checked():
    rows = [line.strip("| ").split(" | ") for line in GUIDE.read_text(encoding="utf-8").splitlines()]
    checked = {d: domain for name in ("pacs", "cifar20") for d, domain in named.COLLECTIONS[name].domains.items()}
    told = {row[0]: (int(row[1].replace(",", "")), row[2]) for row in rows if row[0] in checked}
    assert told == {d: (sum(counts), digest) for d, (counts, digest) in checked.items()}


def test_each_class_of_a_collection_has_a_number_of_images_in_every_domain():
    for name in ("pacs", "cifar20"):
        collection = named.COLLECTIONS[name]
        assert list(collection.classes) == sorted(collection.classes)
        assert {len(counts) for counts, _ in collection.domains.values()} == {len(collection.classes)}


def test_the_script_of_the_guide_writes_what_the_names_tell_of_cifar20(tmp_path, monkeypatch):
    """On a stand-in for the download: two superclasses of five fine classes, a file name of which is there in two."""
    images = [(fine, f"{'abcdefghij'[fine]}_s_{i:06}.png") for fine in range(10) for i in range(160)]
    images[3 * 160 + 159] = (3, images[160][1])  # an image of "d" has the name of one of "b"
    mixed = [images[i] for i in torch.randperm(1600, generator=torch.Generator().manual_seed(0)).tolist()]
    fine = [label for label, _ in mixed]
    train = {
        "filenames": [name for _, name in mixed],
        "fine_labels": fine,
        "coarse_labels": [label % 2 for label in fine],
    }
    train["data"] = torch.tensor([10, 100, 200], dtype=torch.uint8).repeat_interleave(1024).expand(1600, -1).numpy()
    (tmp_path / "cifar" / "cifar-100-python").mkdir(parents=True)
    meta = {"fine_label_names": list("abcdefghij"), "coarse_label_names": ["household_furniture", "people"]}
    for name, content in (("train", train), ("meta", meta)):
        (tmp_path / "cifar" / "cifar-100-python" / name).write_bytes(pickle.dumps(content))
    monkeypatch.setattr("torchvision.datasets.CIFAR100", lambda root, download: None)
    monkeypatch.chdir(tmp_path)
    script = next(part for part in GUIDE.read_text(encoding="utf-8").split("```") if "CIFAR100(" in part)
    exec(script.removeprefix("python"), {})
    written = Counter(tuple(file.parent.relative_to(tmp_path).parts) for file in tmp_path.glob("cifar20/*/*/*.jpg"))
    sides = {("cifar20", side, kind): 300 for side in ("first", "second") for kind in ("furniture", "people")}
    assert written == sides | {("cifar20", "first", "people"): 299}
    kinds = {file.name[0]: int(file.name[4:10]) for file in sorted(tmp_path.glob("cifar20/*/furniture/*"))}
    assert kinds == {"a": 99, "c": 99, "e": 99, "g": 149, "i": 149}  # the last number of each
    colours = Image.open(tmp_path / "cifar20" / "first" / "furniture" / "a_s_000000.jpg").getpixel((5, 5))
    assert all(abs(a - b) < 4 for a, b in zip(colours, (10, 100, 200), strict=True))
