"""torchvision's data sets, read by its own loaders from files in the right format: small ones made here, and the real
Fashion-MNIST where Debian's package `dataset-fashion-mnist` is installed.
"""

import bz2
import gzip
import pickle
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.io import savemat
from torchvision import datasets

from maskutils.core.checks import BadSetting
from maskutils.data import vision
from maskutils.data.load import load_pair
from maskutils.data.pair import Loading
from maskutils.models.networks import build_model
from maskutils.training.transfer import transfer

N = 200  # images in a half
DEBIAN = Path("/usr/share/datasets/fashion-mnist")


def pixels(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def labels(classes: int = 10, n: int = N) -> np.ndarray:
    return np.arange(n) % classes


def write_idx(folder: Path) -> None:
    folder.mkdir(parents=True)
    for half in ("train", "t10k"):
        (folder / f"{half}-images-idx3-ubyte").write_bytes(
            struct.pack(">iiii", 2051, N, 28, 28) + pixels(N, 28, 28).tobytes()
        )
        (folder / f"{half}-labels-idx1-ubyte").write_bytes(
            struct.pack(">ii", 2049, N) + labels().astype(np.uint8).tobytes()
        )


def write_usps(root: Path) -> None:
    rows = [f"{y + 1} " + " ".join(f"{i + 1}:{v / 127.5 - 1:.4f}" for i, v in enumerate(pixels(256))) for y in labels()]
    for name in ("usps.bz2", "usps.t.bz2"):
        (root / name).write_bytes(bz2.compress("\n".join(rows).encode()))


def write_svhn(root: Path) -> None:
    for half in ("train", "test"):
        savemat(
            root / f"{half}_32x32.mat", {"X": pixels(32, 32, 3, N), "y": np.where(labels() == 0, 10, labels())[:, None]}
        )


def write_cifar(root: Path) -> None:
    ten, hundred = root / "cifar-10-batches-py", root / "cifar-100-python"
    ten.mkdir()
    hundred.mkdir()
    rows = {"data": pixels(N, 3072), "labels": labels().tolist()}
    for name in [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]:
        (ten / name).write_bytes(pickle.dumps(rows))
    (ten / "batches.meta").write_bytes(pickle.dumps({"label_names": CIFAR10}))
    for name in ("train", "test"):
        (hundred / name).write_bytes(pickle.dumps({"data": pixels(N, 3072), "fine_labels": labels(20).tolist()}))
    (hundred / "meta").write_bytes(pickle.dumps({"fine_label_names": [f"thing {i}" for i in range(20)]}))


CIFAR10 = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
STL10 = ["airplane", "bird", "car", "cat", "deer", "dog", "horse", "monkey", "ship", "truck"]


def write_stl10(root: Path) -> None:
    folder = root / "stl10_binary"
    folder.mkdir()
    (folder / "class_names.txt").write_text("\n".join(STL10))
    (folder / "unlabeled_X.bin").touch()
    for half in ("train", "test"):
        (folder / f"{half}_X.bin").write_bytes(pixels(N, 3, 96, 96).tobytes())
        (folder / f"{half}_y.bin").write_bytes((labels() + 1).astype(np.uint8).tobytes())


@pytest.fixture(autouse=True)
def data_root(tmp_path, monkeypatch):
    monkeypatch.setenv("MASKUTILS_DATA_ROOT", str(tmp_path))


@pytest.fixture
def root(tmp_path, monkeypatch):
    """A data root with a small file of every kind in torchvision's layout; nothing is downloaded, no checksum is that of the real files."""
    for name in ("MNIST", "FashionMNIST", "KMNIST"):
        write_idx(tmp_path / name / "raw")
    for write in (write_usps, write_svhn, write_cifar, write_stl10):
        write(tmp_path)
    for module in (datasets.cifar, datasets.svhn, datasets.stl10):
        monkeypatch.setattr(module, "check_integrity", lambda path, md5=None: Path(path).exists())
    return tmp_path


IN_MEMORY = {  # pair -> channels, side, classes of source and target
    "mnist_to_usps": (1, 28, 10, 10), "mnist_to_svhn": (3, 28, 10, 10), "svhn_to_mnist": (3, 32, 10, 10),
    "mnist_to_fashion": (1, 28, 10, 10), "mnist_to_kmnist": (1, 28, 10, 10), "cifar10_to_stl10": (3, 32, 9, 9),
    "cifar10_to_cifar100": (3, 32, 10, 20), "mnist5k_to_fashion": (1, 28, 10, 10),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", IN_MEMORY)
def test_a_pair_is_read_at_the_size_of_the_source_with_the_channels_of_both(name, root):
    pair, (channels, side, *classes) = load_pair(name, 0), IN_MEMORY[name]
    assert pair.image_shape == pair.target.train[0][0].shape == (channels, side, side)
    assert [len(pair.source.classes), len(pair.target.classes)] == classes
    for domain in (pair.source, pair.target):
        for split in (domain.train, domain.val, domain.test):
            assert split.tensors[0].dtype == torch.float32
            assert set(split.tensors[1].tolist()) <= set(range(len(domain.classes)))
    assert pair.shared_head == (name in ("mnist_to_usps", "mnist_to_svhn", "svhn_to_mnist", "cifar10_to_stl10"))


def test_the_source_has_mean_0_and_deviation_1_and_the_target_its_numbers(root):
    x = load_pair("svhn_to_mnist", 0).source.train.tensors[0]
    assert torch.allclose(x.mean((0, 2, 3)), torch.zeros(3), atol=1e-4)
    assert torch.allclose(x.std((0, 2, 3)), torch.ones(3), atol=1e-4)
    small = load_pair("mnist_to_usps", 0)
    assert small.target.train.tensors[0].min() == pytest.approx(small.source.train.tensors[0].min().item(), abs=0.05)


def test_cifar10_and_stl10_are_the_nine_classes_of_both_by_the_same_number(root):
    pair = load_pair("cifar10_to_stl10", 0)
    assert pair.source.classes == pair.target.classes
    assert not {"frog", "monkey"} & set(pair.target.classes)
    car = pair.target.classes.index("automobile")
    cars = vision.arrays(datasets.STL10(root, "test"))[0][labels() == STL10.index("car")]
    assert (pair.target.test.tensors[1] == car).sum() == len(cars) == N // 10


def test_the_official_test_images_are_the_test_images_of_every_seed(root):
    a, b = (load_pair("mnist_to_kmnist", seed).target for seed in (0, 1))
    assert torch.equal(a.test.tensors[1], torch.as_tensor(labels()))
    assert len(a.test) == N
    assert len(a.train) + len(a.val) == N
    assert not torch.equal(a.train.tensors[0], b.train.tensors[0])


def test_size_and_channels_can_be_chosen(root):
    assert load_pair("svhn_to_mnist", 0, Loading(size=16, channels=1)).image_shape == (1, 16, 16)


def write_eurosat(root: Path) -> None:
    for name in ("Forest", "River"):
        folder = root / "eurosat" / "2750" / name
        folder.mkdir(parents=True)
        for i in range(20):
            Image.fromarray(pixels(64, 64, 3)).save(folder / f"{name}_{i}.jpg")


def write_dtd(root: Path) -> None:
    base = root / "dtd" / "dtd"
    (base / "labels").mkdir(parents=True)
    for name in ("banded", "braided"):
        (base / "images" / name).mkdir(parents=True)
        for i in range(20):
            Image.fromarray(pixels(30, 40, 3)).save(base / "images" / name / f"{name}_{i:04d}.jpg")
    lines = [f"{name}/{name}_{i:04d}.jpg" for i in range(20) for name in ("banded", "braided")]
    for half in ("train1", "test1"):
        (base / "labels" / f"{half}.txt").write_text("\n".join(lines))


def test_photographs_are_streamed_and_split_where_there_is_no_test_half(tmp_path, monkeypatch):
    write_eurosat(tmp_path)
    write_dtd(tmp_path)
    monkeypatch.setitem(vision.TORCHVISION, "imagenet", vision.TORCHVISION["eurosat"])
    pair = load_pair("imagenet_to_dtd", 0, Loading(size=56))
    assert pair.image_shape == pair.target.test[3][0].shape == (3, 56, 56)
    assert [len(d) for d in (pair.source.train, pair.source.val, pair.source.test)] == [26, 4, 10]
    assert [len(d) for d in (pair.target.train, pair.target.val, pair.target.test)] == [36, 4, 40]
    assert pair.target.classes == ("banded", "braided")
    assert not pair.shared_head
    transfer(build_model("cnn", 2, 3, 56), pair, "finetune", steps=1)


def test_data_that_is_not_there_says_which_files_to_put_where(tmp_path, monkeypatch):
    def offline(*_: object, **__: object) -> None:
        raise OSError("no network here")

    monkeypatch.setattr(datasets.mnist, "download_and_extract_archive", offline)
    with pytest.raises(
        BadSetting, match=r"data set 'mnist' is not at .*no network here.*train-images-idx3-ubyte.gz.*--data-root"
    ):
        load_pair("mnist_to_usps", 0)


def test_imagenet_is_never_downloaded(tmp_path):
    with pytest.raises(BadSetting, match=r"'imagenet' is not at .*ILSVRC2012_img_val.tar"):
        load_pair("imagenet_to_pets", 0)


@pytest.mark.skipif(not DEBIAN.exists(), reason="Debian's package dataset-fashion-mnist is not installed")
def test_the_real_fashion_mnist_is_read(tmp_path):
    raw = tmp_path / "FashionMNIST" / "raw"
    raw.mkdir(parents=True)
    for file in DEBIAN.glob("*.gz"):  # packed anew by Debian, so their checksums are not those that torchvision knows
        (raw / file.stem).write_bytes(gzip.decompress(file.read_bytes()))
    pair = load_pair("mnist5k_to_fashion", 0)
    assert [len(d) for d in (pair.target.train, pair.target.val, pair.target.test)] == [54_000, 6_000, 10_000]
    with gzip.open(DEBIAN / "t10k-labels-idx1-ubyte.gz") as file:
        assert pair.target.test.tensors[1].tolist() == list(file.read()[8:])
    assert torch.bincount(pair.target.train.tensors[1]).tolist() == [5_400] * 10
