"""Images that stay 8-bit in memory: what comes out of them, what they share, and where they are pictures."""

import os

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch.utils.data import TensorDataset
from torchvision import transforms

from maskutils.core import paths
from maskutils.core.checks import BadSetting
from maskutils.data import pair, pictures
from maskutils.data.batches import as_given, batches, some
from maskutils.data.load import load_pair
from maskutils.data.pair import Domain, Pair, Pixels, subset
from maskutils.models.networks import build_model, check_weights
from maskutils.study import inputs

IMAGES = torch.randint(0, 256, (10, 3, 4, 4), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
MEAN, STD = torch.tensor([0.1, 0.2, 0.3])[:, None, None], torch.tensor([0.4, 0.5, 0.6])[:, None, None]
FLOATS = TensorDataset((IMAGES / 255 - MEAN) / STD, torch.arange(10) % 3)
KEPT = Pixels(IMAGES, torch.arange(10), torch.arange(10) % 3).normalised(MEAN, STD)


@pytest.fixture
def name(tmp_path, monkeypatch):
    """A pair of two folders of six 8-bit images, whose pixels are stored whatever their number."""
    for d, domain in enumerate("ab"):
        for c, cls in enumerate(("cat", "dog")):
            (tmp_path / domain / cls).mkdir(parents=True)
            for i in range(3):
                values = np.random.default_rng([d, c, i]).integers(0, 256, (8, 8, 3), dtype=np.uint8)
                Image.fromarray(values).save(tmp_path / domain / cls / f"{i}.png")
    monkeypatch.setattr(pictures, "WORTH_STORING", 1)
    monkeypatch.setattr(paths, "cache_dir", lambda kind: tmp_path / "cache" / kind)
    return f"folders:{tmp_path / 'a'}:{tmp_path / 'b'}"


def forget():
    pictures.pixels.cache_clear()
    pictures.headers.cache_clear()


def test_batches_are_bit_for_bit_those_of_floats():
    for read in (
        lambda d: next(batches(d, 4, 0)),
        lambda d: some(d, 5, 1),
        lambda d: list(as_given(d, 4))[2],
        lambda d: d[7],
    ):
        for ours, theirs in zip(read(KEPT), read(FLOATS), strict=True):
            assert torch.equal(ours, theirs)
            assert ours.dtype == theirs.dtype


def test_parts_share_the_images_and_keep_the_normalisation():
    part = subset(subset(KEPT, [8, 2, 5]), [2, 0])
    assert part.images is IMAGES
    assert len(part) == 2
    assert torch.equal(part[:][0], FLOATS[[5, 8]][0])


def test_folders_are_decoded_once_for_all_seeds_and_processes(name, monkeypatch):
    forget()
    first = load_pair(name, 0)
    read = torch.stack(
        [
            transforms.ToTensor()(Image.open(f))
            for f in sorted(os.fspath(p) for p in (paths.cache_dir("").parent / "a").rglob("*.png"))
        ]
    )
    assert torch.equal(first.source.train.images, (read * 255).round().byte())
    monkeypatch.setattr(pictures, "decoded", lambda file: pytest.fail(f"{file} is decoded again"))
    assert load_pair(name, 1).source.train.images is first.source.train.images
    forget()  # as in another process
    again = load_pair(name, 0)
    assert torch.equal(again.source.train[:][0], first.source.train[:][0])
    assert again.source.train.images.dtype == torch.uint8


def test_images_that_changed_are_decoded_anew(name):
    forget()
    before = load_pair(name, 0).source.train.images
    file = paths.cache_dir("").parent / "a" / "cat" / "0.png"
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(file)
    assert not torch.equal(load_pair(name, 0).source.train.images, before)


def test_another_pillow_decodes_anew(name, monkeypatch):
    forget()
    load_pair(name, 0)
    before = set(paths.cache_dir("pixels").iterdir())
    forget()
    monkeypatch.setattr(pictures.PIL, "__version__", "another")
    load_pair(name, 0)
    assert len(before) == len(set(paths.cache_dir("pixels").iterdir()) - before) == 2


def test_a_damaged_store_is_named_and_made_again(name):
    forget()
    before = load_pair(name, 0).source.train.images
    for file in paths.cache_dir("pixels").iterdir():
        file.write_bytes(file.read_bytes()[:-8] + bytes(8))
    forget()
    with pytest.warns(UserWarning, match=r"cache: .* is damaged"):
        again = load_pair(name, 0).source.train.images
    assert torch.equal(again, before)


def test_data_move_to_a_gpu_once_if_they_fit_into_half_of_what_is_free(monkeypatch):
    domain = Domain("a", KEPT, subset(KEPT, [0]), FLOATS, ("x", "y", "z"))
    there, asked = torch.device("cuda"), []

    def to(tensor, device):
        asked.append(tensor.shape)
        return tensor.detach().clone()

    monkeypatch.setattr(torch.Tensor, "to", to)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (2 * (IMAGES.nbytes + FLOATS.tensors[0].nbytes), 0))
    both = Pair("a", domain, domain)
    moved = pair.on(both, there)
    assert moved.source.train.images is moved.target.val.images is not IMAGES
    assert asked.count(IMAGES.shape) == 2  # the 8-bit ones and the floats, whatever the number of splits
    assert torch.equal(moved.source.test[3][0], FLOATS[3][0])
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (IMAGES.nbytes, 0))
    assert pair.on(both, there) is both
    assert pair.on(both, torch.device("cpu")) is both


def test_weights_of_another_network_are_refused_before_work(tmp_path):
    state = build_model("squeezenet1_1", 7, 3, 64).state_dict()
    save_file({n: t for n, t in state.items() if not n.startswith("classifier.")}, tmp_path / "w.safetensors")
    check_weights("squeezenet1_1", tmp_path / "w.safetensors")
    with pytest.raises(BadSetting, match=r"of another network than alexnet: .*missing"):
        inputs.check_inputs({"pair": "mnist_to_digits", "model": "alexnet", "weights": str(tmp_path / "w.safetensors")})
    (tmp_path / "w.safetensors").write_bytes(b"no tensors")
    with pytest.raises(BadSetting, match="cannot be read"):
        check_weights("squeezenet1_1", tmp_path / "w.safetensors")
