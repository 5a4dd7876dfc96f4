"""Pairs of image folders: what is refused and how, how images are read, divided, normalised and streamed."""

import pickle
import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader, TensorDataset
from torchvision import transforms

from maskutils.core.checks import BadSetting
from maskutils.data import folders, pictures
from maskutils.data import pair as base
from maskutils.data.folders import export_folders
from maskutils.data.load import load_pair
from maskutils.data.pair import Loading
from maskutils.models.networks import build_model
from maskutils.training.transfer import transfer

SPLITS = ("train", "val", "test")
LEVELS = {"cat": 40, "dog": 120, "owl": 200, "emu": 80}  # the grey that stands for a class


def picture(level: int, seed: int, size=(32, 32), mode: str = "RGB") -> Image.Image:
    """An image of `size` (width, height) whose mean is near `level`."""
    noise = np.random.default_rng([level, seed]).integers(-20, 21, (size[1], size[0], 3))
    return Image.fromarray((level + noise).astype(np.uint8)).convert(mode)


def fill(root: Path, classes=("cat", "dog"), n: int = 8, suffix: str = ".png", first: int = 0, **look) -> Path:
    """`n` images in a folder for each class of `root`; `first` sets them apart from those of another folder."""
    for name in classes:
        (root / name).mkdir(parents=True, exist_ok=True)
        for i in range(first, first + n):
            picture(LEVELS[name], i, **look).save(root / name / f"{i:03}{suffix}")
    return root


def load(source: Path, target: Path, seed: int = 0, **loading):
    return load_pair(f"folders:{source}:{target}", seed, Loading(**loading))


def items(data) -> list[tuple[torch.Tensor, int]]:
    return [(x, int(y)) for x, y in (data[i] for i in range(len(data)))]


def fingerprints(data) -> list[bytes]:
    return [x.numpy().tobytes() for x, _ in items(data)]


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def hollow_png(side: int = 32) -> bytes:
    """A PNG whose checksums are right and whose pixels end half way: only decoding shows it."""
    pixels = zlib.compress(np.random.default_rng(0).bytes(side * (3 * side + 1)))
    size = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", size) + chunk(b"IDAT", pixels[: len(pixels) // 2]) + chunk(b"IEND", b"")
    )


@pytest.fixture
def source(tmp_path) -> Path:
    return fill(tmp_path / "photos")


@pytest.fixture
def target(tmp_path) -> Path:
    return fill(tmp_path / "drawings", first=100)


@pytest.fixture
def streaming(monkeypatch):
    monkeypatch.setattr(base, "IN_MEMORY", 0)


# The name and the folders


@pytest.mark.parametrize("name", ["folders:", "folders:a", "folders:a:b:c", "folders::b", "folders:a:"])
def test_a_name_of_another_form_is_refused(name):
    with pytest.raises(BadSetting, match=rf"'{name}' is not of the form 'folders:SOURCE:TARGET'"):
        load_pair(name)


def test_a_folder_that_is_not_there_is_named(source, tmp_path):
    with pytest.raises(BadSetting, match=r"nowhere is not a folder; give one"):
        load(source, tmp_path / "nowhere")


def test_a_folder_without_class_folders_is_named(source, tmp_path):
    (tmp_path / "flat" / ".ipynb_checkpoints").mkdir(parents=True)
    picture(9, 9).save(tmp_path / "flat" / "a.png")
    with pytest.raises(BadSetting, match=r"flat has no class folders; put the images of each class"):
        load(source, tmp_path / "flat")


@pytest.mark.parametrize("n", [0, 2])
def test_a_class_with_fewer_than_three_images_is_named_and_counted(source, target, n):
    (target / "dog" / "notes.txt").write_text("no image")
    for file in sorted((target / "dog").glob("*.png"))[n:]:
        file.unlink()
    with pytest.raises(BadSetting, match=rf"dog has {n} readable images \(.jpg.*a class needs 3.*add images, or take"):
        load(source, target)


def test_three_images_a_class_are_enough_for_one_in_each_split(tmp_path):
    pair = load(fill(tmp_path / "a", n=3), fill(tmp_path / "b", n=3, first=50))
    for split in SPLITS:
        assert sorted(y for _, y in items(getattr(pair.target, split))) == [0, 1]


def test_a_tilde_is_the_home_folder(source, target, monkeypatch):
    monkeypatch.setenv("HOME", str(source.parent))
    pair = load_pair(f"folders:~/photos:{target}")
    assert torch.equal(pair.source.train[:][0], load(source, target).source.train[:][0])


def test_domains_are_named_for_the_folders_and_the_pair_as_it_was_asked_for(source, target):
    pair = load(source, target)
    assert (pair.source.name, pair.target.name) == ("photos", "drawings")
    assert pair.name == f"folders:{source}:{target}"


def test_folders_of_the_same_name_are_told_apart_by_those_above(tmp_path):
    pair = load(fill(tmp_path / "x" / "a" / "images"), fill(tmp_path / "y" / "a" / "images", first=50))
    assert (pair.source.name, pair.target.name) == ("x/a/images", "y/a/images")
    pair = load(tmp_path / "x" / "a" / "images", fill(tmp_path / "x" / "b" / "images", first=70))
    assert (pair.source.name, pair.target.name) == ("a/images", "b/images")


def test_images_in_folders_below_a_class_count_and_hidden_ones_do_not(source, target):
    (source / "cat" / "more").mkdir()
    (source / "cat" / ".ipynb_checkpoints").mkdir()
    picture(40, 77).save(source / "cat" / "more" / "deep.PNG")
    picture(40, 78).save(source / "cat" / ".ipynb_checkpoints" / "copy.png")
    (source / "cat" / "._000.png").write_bytes(b"what a Mac leaves behind")
    assert sum(len(getattr(load(source, target).source, split)) for split in SPLITS) == 17


@pytest.mark.parametrize(("loading", "message"), [
    ({"damaged": "skp"}, "unknown damaged 'skp'; known: refuse, skip. Did you mean 'skip'"),
    ({"classes": "comon"}, "unknown classes 'comon'; known: all, common. Did you mean 'common'"),
    ({"channels": 4}, "channels = 4 is not 1"),
    ({"size": -1}, "size = -1 is not a side in pixels"),
])  # fmt: skip
def test_options_out_of_range_are_refused(source, target, loading, message):
    with pytest.raises(BadSetting, match=message):
        load(source, target, **loading)


# Leaks


def test_the_same_folder_twice_is_refused(source):
    with pytest.raises(BadSetting, match=r"16 image files are there twice in .*photos and .*photos.*leak"):
        load(source, source)


def test_a_file_that_is_reached_from_both_sides_by_a_link_is_refused(source, target):
    (target / "cat" / "link.png").symlink_to(source / "cat" / "003.png")
    with pytest.raises(BadSetting, match=r"1 image files are there twice.*photos/cat/003.png.*leak"):
        load(source, target)


# Classes


def test_the_same_classes_share_a_head_and_others_do_not(source, target, tmp_path):
    assert load(source, target).shared_head
    pair = load(source, fill(tmp_path / "birds", ("owl", "emu")))
    assert not pair.shared_head
    assert (pair.source.classes, pair.target.classes) == (("cat", "dog"), ("emu", "owl"))


def test_classes_that_are_the_same_in_part_are_refused_with_those_of_one_side_only(source, tmp_path):
    other = fill(tmp_path / "birds", ("dog", "owl", "emu"), first=100)
    with pytest.raises(BadSetting, match=r"1 classes.*photos has cat; birds has emu, owl\. Rename.*set classes common"):
        load(source, other)


def test_common_keeps_the_common_classes_and_counts_labels_anew(tmp_path):
    first, second = fill(tmp_path / "a", ("cat", "dog", "owl")), fill(tmp_path / "b", ("dog", "emu", "owl"), first=50)
    pair = load(first, second, classes="common")
    assert pair.source.classes == pair.target.classes == ("dog", "owl")
    for domain in (pair.source, pair.target):
        assert sum(len(getattr(domain, split)) for split in SPLITS) == 16
        assert all((x.mean() > 0) == (y == 1) for x, y in items(domain.test))  # owls are lighter than dogs


def test_common_without_a_common_class_is_refused(source, tmp_path):
    with pytest.raises(
        BadSetting, match=r"no class is in common: photos has cat, dog; b has emu, owl.*set classes all"
    ):
        load(source, fill(tmp_path / "b", ("owl", "emu")), classes="common")


@pytest.mark.parametrize("memory", [0, 2**30])
def test_labels_are_those_of_the_class_folders(tmp_path, monkeypatch, memory):
    monkeypatch.setattr(base, "IN_MEMORY", memory)
    pair = load(fill(tmp_path / "a", LEVELS), fill(tmp_path / "b", LEVELS, first=50))
    assert pair.target.classes == ("cat", "dog", "emu", "owl")
    for part in (getattr(domain, split) for domain in (pair.source, pair.target) for split in SPLITS):
        by_light = sorted((x.mean().item(), y) for x, y in items(part))
        labels = [y for _, y in by_light]
        assert list(dict.fromkeys(labels)) == [0, 2, 1, 3]  # cat, emu, dog, owl: darkest first
        assert labels == sorted(labels, key=[0, 2, 1, 3].index)


# Damage


def damage(root: Path) -> list[str]:
    """Four files of `root` made unreadable in four ways; their names."""
    cut_png, cut_jpeg, text, empty = (root / "cat" / n for n in ("100.png", "x.jpg", "y.jpg", "z.bmp"))
    cut_png.write_bytes(cut_png.read_bytes()[:-20])
    picture(40, 1).save(cut_jpeg)
    cut_jpeg.write_bytes(cut_jpeg.read_bytes()[:-100])
    text.write_text("not an image")
    empty.touch()
    return [str(p) for p in (cut_png, cut_jpeg, text, empty)]


@pytest.mark.parametrize("memory", [0, 2**30])
def test_damaged_images_are_counted_named_and_refused(source, target, monkeypatch, memory):
    monkeypatch.setattr(base, "IN_MEMORY", memory)
    names = damage(target)
    with pytest.raises(BadSetting, match=r"4 of 35 images cannot be read.*set damaged skip") as error:
        load(source, target)
    assert all(name in str(error.value) for name in names)


def test_no_more_than_five_damaged_images_are_named(source, target):
    for i in range(7):
        (target / "dog" / f"bad{i}.jpg").write_text("no")
    with pytest.raises(BadSetting, match=r"7 of 39 .*bad4.jpg and 2 more; replace"):
        load(source, target)


@pytest.mark.parametrize("memory", [0, 2**30])
def test_damaged_images_are_left_out_with_a_warning(source, target, monkeypatch, memory):
    monkeypatch.setattr(base, "IN_MEMORY", memory)
    damage(target)
    with pytest.warns(UserWarning, match=r"4 of 35 images cannot be read: .*100.png.*they are left out"):
        pair = load(source, target, damaged="skip")
    assert sum(len(items(getattr(pair.target, split))) for split in SPLITS) == 15


@pytest.mark.parametrize("memory", [0, 2**30])
def test_a_class_left_with_too_few_whole_images_is_refused(source, target, monkeypatch, memory):
    monkeypatch.setattr(base, "IN_MEMORY", memory)
    for file in sorted((target / "dog").glob("*.png"))[2:]:
        file.write_text("no")
    with pytest.warns(UserWarning, match="6 of 32"), pytest.raises(BadSetting, match="dog has 2 readable images"):
        load(source, target, damaged="skip")


def test_damage_that_only_decoding_shows_is_found_where_images_live_in_memory(source, target):
    (target / "cat" / "hollow.png").write_bytes(hollow_png())
    with pytest.raises(BadSetting, match=r"1 of 17 images cannot be read: .*hollow.png; replace"):
        load(source, target)
    with pytest.warns(UserWarning, match="1 of 17 images"):
        pair = load(source, target, damaged="skip")
    assert sum(len(getattr(pair.target, split)) for split in SPLITS) == 16
    assert all((x.mean() > 0) == (y == 1) for split in SPLITS for x, y in items(getattr(pair.target, split)))


def test_damage_that_only_decoding_shows_names_the_file_where_images_are_streamed(source, target, streaming):
    (target / "cat" / "hollow.png").write_bytes(hollow_png())
    pair = load(source, target)
    with pytest.raises(OSError, match=r"hollow.png cannot be read"):
        [items(getattr(pair.target, split)) for split in SPLITS]


def test_a_jpeg_with_something_after_its_end_is_whole(source, target):
    file = target / "cat" / "camera.jpg"
    picture(40, 1).save(file)
    file.write_bytes(file.read_bytes() + bytes(40))
    assert sum(len(getattr(load(source, target).target, split)) for split in SPLITS) == 17


# Modes


@pytest.mark.parametrize(("mode", "channels"), [("L", 1), ("1", 1), ("I;16", 1), ("RGB", 3)])
def test_images_are_left_as_they_are_where_all_agree(tmp_path, mode, channels):
    pair = load(fill(tmp_path / "a", mode=mode), fill(tmp_path / "b", first=50, mode=mode))
    assert pair.image_shape == tuple(pair.target.test[0][0].shape) == (channels, 32, 32)
    assert pair.target.train[0][0].dtype == torch.float32


def test_kinds_of_grey_agree(tmp_path):
    assert load(fill(tmp_path / "a", mode="L"), fill(tmp_path / "b", mode="1")).image_shape == (1, 32, 32)


@pytest.mark.parametrize("mode", ["P", "RGBA", "LA", "L"])
def test_mixed_modes_are_counted_and_refused(source, tmp_path, mode):
    match = rf"all RGB: RGB \(16\), {mode} \(6\); set channels 1 or channels 3"
    with pytest.raises(BadSetting, match=match):
        load(source, fill(tmp_path / "b", n=3, mode=mode))


def test_even_images_that_are_all_palettes_are_refused(tmp_path):
    with pytest.raises(BadSetting, match=r"neither all grey nor all RGB: P \(32\)"):
        load(fill(tmp_path / "a", mode="P"), fill(tmp_path / "b", mode="P", first=50))


def test_modes_whose_values_have_no_range_are_refused(source, tmp_path):
    with pytest.raises(BadSetting, match=r"values of mode F \(16\) have no fixed range; save"):
        load(source, fill(tmp_path / "b", suffix=".tif", mode="F"), channels=1)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("mode", sorted(pictures.READABLE - pictures.SIXTEEN - {"RGBX", "PA"}))
def test_all_modes_are_converted_to_the_channels_asked_for(channels, mode):
    x = pictures.Recipe(0, channels, None, (channels, 32, 32))(picture(100, 0, mode=mode))
    assert x.mean() == pytest.approx(100 / 255, abs=0.02)


def test_alpha_is_dropped():
    image = picture(100, 0)
    clear = image.copy()
    clear.putalpha(0)
    recipe = pictures.Recipe(0, 3, None, (3, 32, 32))
    assert torch.equal(recipe(image), recipe(clear))


def test_a_palette_with_transparency_is_read_without_a_warning(tmp_path):
    picture(100, 0, mode="P").save(tmp_path / "p.png", transparency=bytes(range(256)))
    image = pictures.decoded(str(tmp_path / "p.png"))
    assert isinstance(image.info["transparency"], bytes)
    assert pictures.Recipe(0, 1, None, (1, 32, 32))(image).mean() == pytest.approx(100 / 255, abs=0.02)


@pytest.mark.parametrize("channels", [1, 3])
def test_16_bit_grey_keeps_all_bits(channels):
    values = np.arange(1024, dtype=np.uint16).reshape(32, 32) * 64
    x = pictures.Recipe(0, channels, None, (channels, 32, 32))(Image.fromarray(values))
    assert np.allclose(x.numpy(), values[None] / 65535, atol=1e-7)


def test_a_transform_is_given_rgb_of_8_bits_from_16():
    values = np.arange(1024, dtype=np.uint16).reshape(32, 32) * 64
    x = pictures.Recipe(0, 3, transforms.ToTensor(), (3, 32, 32))(Image.fromarray(values))
    assert np.array_equal((x * 255).round().numpy()[2], values >> 8)


# Sizes


def test_several_sizes_are_counted_and_refused(source, target):
    picture(40, 1, (20, 10)).save(source / "cat" / "small.png")
    picture(40, 1, (64, 48)).save(target / "cat" / "large.jpg")
    with pytest.raises(BadSetting, match="images have 3 sizes, from 20x10 to 64x48; pass size="):
        load(source, target)


def test_images_that_are_not_square_are_refused(tmp_path):
    with pytest.raises(BadSetting, match=r"images are 32x24, not square; pass size="):
        load(fill(tmp_path / "a", size=(32, 24)), fill(tmp_path / "b", size=(32, 24), first=50))


def test_all_images_are_brought_to_the_size_asked_for(tmp_path):
    pair = load(fill(tmp_path / "a", size=(40, 60), suffix=".jpg"), fill(tmp_path / "b", size=(9, 7)), size=16)
    assert pair.image_shape == tuple(pair.target.test[0][0].shape) == (3, 16, 16)


@pytest.mark.parametrize("turned", [False, True])
def test_the_shorter_side_is_scaled_and_the_middle_cut_out(turned):
    stripes = np.repeat([0, 100, 200, 50], 32)[None].repeat(64, 0).astype(np.uint8)  # 64 high, 128 wide
    x = pictures.Recipe(16, 1, None, (1, 16, 16))(Image.fromarray(stripes.T if turned else stripes))[0]
    x = (x.T if turned else x) * 255
    assert torch.allclose(x[:, 1:7], torch.tensor(100.0))
    assert torch.allclose(x[:, 9:15], torch.tensor(200.0))


def test_scaling_down_averages():
    board = (np.indices((64, 64)).sum(0) % 2 * 255).astype(np.uint8)
    assert pictures.Recipe(8, 1, None, (1, 8, 8))(Image.fromarray(board)).sub(0.5).abs().max() < 0.05


# A transform


CROP = transforms.Compose([transforms.Resize(20), transforms.CenterCrop(20), transforms.ToTensor()])


def test_a_transform_stands_for_size_channels_and_normalisation(tmp_path):
    source, target = fill(tmp_path / "a", size=(40, 60), mode="L"), fill(tmp_path / "b", size=(30, 20), mode="RGBA")
    pair = load(source, target, transform=CROP, size=99, channels=1)
    assert pair.image_shape == (3, 20, 20)
    found = {x.numpy().tobytes() for split in SPLITS for x, _ in items(getattr(pair.target, split))}
    with_own_hands = [CROP(Image.open(file).convert("RGB")) for file in target.rglob("*.png")]
    assert found == {x.numpy().tobytes() for x in with_own_hands}


def test_a_transform_that_gives_no_float_tensor_is_refused(source, target):
    for transform, found in ((np.asarray, "ndarray"), (transforms.PILToTensor(), r"torch.uint8 \(3, 32, 32\)")):
        with pytest.raises(BadSetting, match=rf"transform gives {found}, not a float tensor"):
            load(source, target, transform=transform)


@pytest.mark.parametrize("memory", [0, 2**30])
def test_images_are_float32_whatever_the_transform_gives(source, target, monkeypatch, memory):
    monkeypatch.setattr(base, "IN_MEMORY", memory)
    pair = load(source, target, transform=lambda image: transforms.ToTensor()(image).double())
    assert pair.source.train[0][0].dtype == pair.target.test[0][0].dtype == torch.float32


def test_a_transform_that_gives_several_shapes_is_refused(source, tmp_path):
    with pytest.raises(
        BadSetting, match=r"gives \(3, 32, 48\) for an image of 48x32, \(3, 32, 32\) for others; end it"
    ):
        load(source, fill(tmp_path / "b", size=(48, 32)), transform=transforms.ToTensor())


# Splits


def test_splits_are_disjoint_stratified_and_have_their_shares(tmp_path):
    pair = load(fill(tmp_path / "a", n=40), fill(tmp_path / "b", n=40, first=50))
    for domain in (pair.source, pair.target):
        parts = [getattr(domain, split) for split in SPLITS]
        assert [torch.stack([part.tensors[1] == c for c in (0, 1)]).sum(1).tolist() for part in parts] == [
            [26, 26], [4, 4], [10, 10],
        ]  # fmt: skip
        assert len({f for part in parts for f in fingerprints(part)}) == 80


def test_no_two_classes_are_split_alike(tmp_path, streaming):
    pair = load(fill(tmp_path / "a", n=40), fill(tmp_path / "b", n=40))
    tests = [[domain.test.dataset.files[i] for i in domain.test.indices] for domain in (pair.source, pair.target)]
    numbers = {frozenset(Path(f).stem for f in files if c in f) for files in tests for c in ("/cat/", "/dog/")}
    assert len(numbers) == 4


def test_a_split_mixes_its_classes(tmp_path):
    y = load(fill(tmp_path / "a", n=40), fill(tmp_path / "b", n=40, first=50)).source.train.tensors[1]
    assert 3 < y[:26].sum() < 23  # in the order of the files the first 26 are cats


def test_the_seed_decides_the_split_and_nothing_else_does(source, target, monkeypatch):
    state = torch.random.get_rng_state()
    first, other = load(source, target), load(source, target, seed=1)
    assert torch.equal(torch.random.get_rng_state(), state)
    with monkeypatch.context() as patch:
        walk = folders.make_dataset.__globals__["os"].walk
        backwards = lambda *a, **k: [(r, d[::-1], f[::-1]) for r, d, f in reversed(list(walk(*a, **k)))]  # noqa: E731
        patch.setattr(folders.make_dataset.__globals__["os"], "walk", backwards)
        again = load(source, target)
    for split in SPLITS:
        a, b, c = (fingerprints(getattr(p.target, split)) for p in (first, again, other))
        assert a == b
        assert set(a) != set(c)


def test_the_test_split_is_the_same_for_every_seed():
    folder = folders.Folder(Path("f"), "f", ("cat", "dog"), tuple(f"{i}.png" for i in range(80)), (0,) * 40 + (1,) * 40)
    first, other = (folders._split(folder, seed) for seed in (0, 1))
    assert [sorted(part.tolist()) for part in first][2] == sorted(other[2].tolist())
    assert sorted(first[0].tolist()) != sorted(other[0].tolist())
    assert sorted(torch.cat(other).tolist()) == list(range(80))


# Normalisation and memory


def test_source_train_has_mean_0_and_std_1_by_channel_and_the_target_the_same_numbers(tmp_path):
    source, target = fill(tmp_path / "a", n=10), fill(tmp_path / "b", ("owl",), n=10)
    for file in source.rglob("*.png"):
        red, green, blue = Image.open(file).split()
        Image.merge("RGB", (red, green.point(lambda v: v // 2), blue)).save(file)
    pair = load(source, target)
    x = pair.source.train[:][0]
    assert torch.allclose(x.mean((0, 2, 3)), torch.zeros(3), atol=1e-5)
    assert torch.allclose(x.std((0, 2, 3), correction=0), torch.ones(3), atol=1e-5)
    halves = torch.stack([transforms.ToTensor()(Image.open(f)).mean((1, 2)) for f in sorted(target.rglob("*.png"))])
    own = torch.cat([getattr(pair.target, split)[:][0] for split in SPLITS])
    read = torch.stack([transforms.ToTensor()(Image.open(f)) for f in sorted(source.rglob("*.png"))])
    ours = torch.cat([getattr(pair.source, split)[:][0] for split in SPLITS])
    slope = ours.mean((2, 3)).std(0) / read.mean((2, 3)).std(0)  # 1 / std, from the means of all images
    shift = ours.mean((0, 2, 3)) - slope * read.mean((0, 2, 3))  # -mean / std
    assert torch.allclose(own.mean((0, 2, 3)), slope * halves.mean(0) + shift, atol=1e-3)
    assert slope[1] > 1.5 * slope[0]


@pytest.mark.parametrize(("size", "channels"), [(0, 0), (16, 1)])
def test_streamed_images_equal_those_in_memory(source, target, monkeypatch, size, channels):
    kept = load(source, target, size=size, channels=channels)
    monkeypatch.setattr(base, "IN_MEMORY", 0)
    streamed = load(source, target, size=size, channels=channels)
    for side in ("source", "target"):
        for split in SPLITS:
            a, b = (getattr(getattr(pair, side), split) for pair in (kept, streamed))
            assert isinstance(a, TensorDataset)
            assert not isinstance(b, TensorDataset)
            assert isinstance(b[0][1], int)
            assert torch.equal(torch.stack([x for x, _ in items(b)]), a[:][0])
            assert [y for _, y in items(b)] == a.tensors[1].tolist()
    assert kept.image_shape == streamed.image_shape


def test_each_side_is_streamed_only_if_it_is_too_large(source, tmp_path, monkeypatch):
    monkeypatch.setattr(base, "IN_MEMORY", 16 * 3 * 32 * 32)
    pair = load(source, fill(tmp_path / "b", n=9, first=50))
    assert isinstance(pair.source.train, TensorDataset)
    assert not isinstance(pair.target.train, TensorDataset)


def test_statistics_of_a_streamed_source_are_of_a_sample(tmp_path, monkeypatch):
    source, target = fill(tmp_path / "a", n=40), fill(tmp_path / "b", first=50)
    monkeypatch.setattr(base, "IN_MEMORY", 0)
    exact, asked = load(source, target), []
    monkeypatch.setattr(pictures, "SAMPLE", 30)
    monkeypatch.setattr(pictures, "decoded", lambda file, f=pictures.decoded: asked.append(file) or f(file))
    sampled, count = load(source, target), len(set(asked))
    assert count in (30, 31)  # and the first image, for the number of channels
    assert torch.allclose(sampled.target.test[0][0], exact.target.test[0][0], atol=0.3)
    assert not torch.equal(sampled.target.test[0][0], exact.target.test[0][0])
    assert torch.equal(sampled.target.test[0][0], load(source, target).target.test[0][0])


def test_a_source_of_one_colour_cannot_be_normalised(source, tmp_path):
    for name in ("cat", "dog"):
        (tmp_path / "flat" / name).mkdir(parents=True)
        for i in range(3):
            Image.new("RGB", (32, 32), (9, 9, 9)).save(tmp_path / "flat" / name / f"{i}.png")
    with pytest.raises(BadSetting, match=r"std of the source's train split is \[.*cannot be normalised"):
        load(tmp_path / "flat", source)
    assert load(source, tmp_path / "flat").target.name == "flat"


def test_streamed_images_reach_workers(source, target, streaming):
    train = load(source, target, workers=1).target.train
    assert train.workers == 1
    loader = DataLoader(train, 4, num_workers=train.workers)
    x, y = (torch.cat(part) for part in zip(*loader, strict=True))
    assert torch.equal(x, torch.stack([x for x, _ in items(train)]))
    assert y.tolist() == [y for _, y in items(train)]


def test_streamed_images_can_be_pickled(source, target, streaming):
    train = load(source, target).source.train
    assert fingerprints(pickle.loads(pickle.dumps(train))) == fingerprints(train)


# End to end


@pytest.mark.parametrize("memory", [0, 2**30])
@pytest.mark.parametrize("classes", [("cat", "dog"), ("emu", "owl", "dog2")])
def test_a_network_is_transferred_between_folders(tmp_path, monkeypatch, classes, memory):
    monkeypatch.setattr(base, "IN_MEMORY", memory)
    monkeypatch.setitem(LEVELS, "dog2", 160)
    pair = load(fill(tmp_path / "a"), fill(tmp_path / "b", classes, first=50))
    model = build_model("cnn", len(pair.source.classes), *pair.image_shape[:2])
    after = transfer(model, pair, "finetune", steps=2, batch_size=4)
    assert pair.shared_head == (len(classes) == 2)
    assert after(pair.target.test[0][0][None]).shape == (1, len(classes))
    weights = [dict(m.named_parameters())["0.weight"] for m in (model, after)]
    assert not torch.equal(*weights)


def test_whole_folders_load_without_a_warning(source, target):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        load(source, target)
    assert not caught


def test_what_is_exported_is_read_back(tmp_path):
    pair = load_pair("mnist_to_rotated")
    source, target = export_folders(pair, tmp_path, n=200)
    back = load_pair(f"folders:{source}:{target}")
    assert back.image_shape == (1, 28, 28)
    assert back.source.classes == pair.source.classes
    assert sum(len(split) for split in (back.source.train, back.source.val, back.source.test)) == 200
