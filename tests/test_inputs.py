"""What of the user's own is read: named wherever one stands, looked for before work, and known by its content."""

import os
import shutil
import subprocess
import sys

import pytest

from maskutils.core import paths
from maskutils.core.checks import BadSetting
from maskutils.data import embedded
from maskutils.data.load import PAIRS
from maskutils.models.networks import build_model
from maskutils.study import inputs
from maskutils.study.artefacts import source_key
from maskutils.study.setup import Setup


@pytest.fixture
def folders(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    inputs.stamps.cache_clear()
    for side in ("a", "b"):
        (tmp_path / side / "cat").mkdir(parents=True)
        for n in range(1, 4):
            (tmp_path / side / "cat" / f"{n}.png").write_bytes(b"one")
    return tmp_path


def test_paths_are_made_absolute_and_names_are_left_alone(folders):
    given = {"pair": "folders:a:~/b", "weights": "w.safetensors", "seeds": [0]}
    home = os.path.expanduser("~")
    assert inputs.with_whole_paths(given) == {
        "pair": f"folders:{folders}/a:{home}/b",
        "weights": f"{folders}/w.safetensors",
        "seeds": [0],
    }
    assert inputs.with_whole_paths({"pair": "mnist_to_digits", "weights": "DEFAULT"}) == {
        "pair": "mnist_to_digits",
        "weights": "DEFAULT",
    }


def test_what_is_not_there_is_refused(folders):
    with pytest.raises(BadSetting, match=r"w\.safetensors: there is no such file"):
        inputs.check_inputs({"pair": "mnist_to_digits", "weights": "w.safetensors"})
    with pytest.raises(BadSetting, match="c is not a folder"):
        inputs.check_inputs({"pair": "folders:a:c"})
    with pytest.raises(BadSetting, match="c is not a folder"):
        inputs.check_inputs({"pairs": ["mnist_to_digits", "folders:a:c"]})
    with pytest.raises(BadSetting, match="may hold a pickle"):
        inputs.check_inputs({"pair": "mnist_to_digits", "weights": "w.pth"})
    inputs.check_inputs({"pair": "folders:a:b", "weights": ""})


def test_classes_that_do_not_go_together_are_refused_before_any_image_is_opened(folders):
    shutil.copytree(folders / "a" / "cat", folders / "a" / "dog")
    with pytest.raises(BadSetting, match=r"set classes common to keep only those \(in a notebook or profile images: "):
        inputs.check_inputs({"pair": "folders:a:b"})
    inputs.check_inputs({"pair": "folders:a:b", "images": {"classes": "common"}})


def test_pretrained_weights_are_downloaded_once_before_any_kernel_wants_them(monkeypatch):
    asked = []

    def offline(*_: object, **__: object) -> None:
        asked.append(1)
        raise OSError("no network here")

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", offline)
    with pytest.raises(BadSetting, match=r"no network here\); put https"):
        inputs.download_weights({"pair": "mnist_to_digits", "model": "resnet18", "weights": "DEFAULT"})
    state = build_model("resnet18", 1000, 3, 224).state_dict()
    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", lambda *_, **__: asked.append(1) or state)
    wanted = {"pair": "mnist_to_digits", "model": "resnet18", "weights": "DEFAULT"}
    inputs.check_inputs(wanted)  # which downloads nothing
    inputs.download_weights(wanted | {"seeds": [0]}, wanted | {"seeds": [1]})
    assert len(asked) == 2


@pytest.mark.parametrize("change", ["another image", "another content", "one image less", "other weights"])
def test_other_files_under_the_same_name_are_another_source_network(folders, change):
    weights = folders / "w.safetensors"
    weights.write_bytes(b"old")
    setup = Setup(pair=f"folders:{folders}/a:{folders}/b", weights=str(weights))
    before = source_key(setup, 0)
    inputs.stamps.cache_clear()
    assert source_key(setup, 0) == before
    if change == "another image":
        (folders / "b" / "cat" / "4.png").write_bytes(b"two")
    elif change == "another content":
        (folders / "a" / "cat" / "1.png").write_bytes(b"other")
    elif change == "one image less":
        (folders / "a" / "cat" / "1.png").unlink()
    else:
        weights.write_bytes(b"new")
    inputs.stamps.cache_clear()
    assert source_key(setup, 0) != before


def test_what_ships_has_no_stamp():
    assert inputs.packaged() == {name for name in PAIRS if hasattr(embedded, name)} != set()
    assert inputs.stamps("mnist_to_digits") == ()


def test_a_packaged_pair_may_have_more_decorators(tmp_path, monkeypatch):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "embedded.py").write_text(
        "@packaged\n@cache\ndef a(): ...\n@cache\n@packaged\ndef b(): ...\ndef c(): ..."
    )
    monkeypatch.setattr(paths, "PACKAGE", tmp_path)
    assert inputs.packaged.__wrapped__() == {"a", "b"}


def test_where_nothing_is_to_be_checked_torch_is_not_loaded():
    code = (
        "import sys\nfrom maskutils.study.inputs import check_inputs\ncheck_inputs()\nassert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_files_behind_links_count_and_torchvisions_sets_are_known_by_their_root(folders, monkeypatch):
    (folders / "far").mkdir()
    (folders / "far" / "2.png").write_bytes(b"two")
    (folders / "a" / "dog").symlink_to(folders / "far", target_is_directory=True)
    before = inputs.stamps("folders:a:b")
    (folders / "far" / "2.png").write_bytes(b"other")
    inputs.stamps.cache_clear()
    assert inputs.stamps("folders:a:b") != before
    monkeypatch.setenv("MASKUTILS_DATA_ROOT", str(folders / "far"))
    assert inputs.stamps("mnist_to_usps") == (str(folders / "far"),)


def test_all_pairs_of_a_list_are_made_absolute(folders):
    given = {"pairs": ["mnist_to_digits", "folders:a:b"]}
    assert inputs.with_whole_paths(given)["pairs"] == ["mnist_to_digits", f"folders:{folders}/a:{folders}/b"]
