"""Results of a checkout: made beside the committed ones, and compared with them; checksums tell what was damaged."""

import pandas as pd
import pytest
from projects import root, write_profile  # noqa: F401
from rows import at, make, mask
from test_cli import call

from maskutils.batch import local
from maskutils.core import files, paths
from maskutils.core.checks import BadSetting
from maskutils.results import manifest, rates, reproduced
from maskutils.results.records import save_records
from maskutils.results.reproduced import compared


@pytest.fixture
def clone(root, monkeypatch):  # noqa: F811
    """As if the project were the checkout."""
    monkeypatch.setattr(paths, "checkout", lambda: root)
    return root


def test_a_checkout_keeps_its_committed_results(clone):
    with local.placed(committed=False):
        assert paths.results_dir("study") == clone / "results" / "local" / "study"
        assert paths.figures_dir("default") == clone / "figures" / "local" / "default"
        assert paths.cache_dir("mask") == clone / "results" / ".cache" / "mask"  # which both share
        assert paths.variables()[paths.LOCAL] == "1"  # for kernels
    with local.placed(committed=True):
        assert paths.results_dir("study") == clone / "results" / "study"
    assert paths.results_dir("study") == clone / "results" / "study"


def test_a_project_of_ones_own_has_no_other_place(root):  # noqa: F811
    with local.placed(committed=False):
        assert paths.results_dir("study") == root / "results" / "study"


def test_rates_are_the_committed_ones_also_after_a_local_tuning(clone):
    for folder in ("results/tuning", "results/local/tuning"):
        files.write_atomically(clone / folder / "rates-cnn-p.csv", b"x")
    with local.placed(committed=False):
        assert paths.tuned_rates() == [clone / "results" / "tuning" / "rates-cnn-p.csv"]


def test_rates_of_a_pair_that_has_no_committed_ones_are_those_of_the_local_tuning(clone):
    files.write_atomically(clone / "results" / "tuning" / "rates-cnn-p.csv", b"x")
    table = pd.DataFrame([{"pair": "a:b", "model": "cnn", "approach": "ewc", "target_lr": 0.1, "target_steps": 9}])
    with local.placed(committed=False):
        with pytest.raises(BadSetting, match="run `maskutils reproduce --profile tuning` with it"):
            rates.chosen("a:b", "cnn", "ewc", 9)
        (clone / "results" / "tuning" / "rates-cnn-p.csv").unlink()
        rates.write_rates(table)
        assert [file.parent for file in paths.tuned_rates()] == [clone / "results" / "local" / "tuning"]
        assert rates.chosen("a:b", "cnn", "ewc", 9) == (0.1, 9)
        with pytest.raises(BadSetting, match="run `maskutils reproduce --profile tuning --renew` with it"):
            rates.chosen("a:b", "cnn", "lora", 9)


def test_committed_results_are_shown_until_there_are_own_ones(clone):
    with local.shown("study", committed=False):
        assert paths.results_dir("study") == clone / "results" / "study"
    files.write_atomically(clone / "results" / "local" / "study" / ".lock", b"")  # a batch that was stopped
    with local.shown("study", committed=False):
        assert paths.results_dir("study") == clone / "results" / "study"
    files.write_atomically(clone / "results" / "local" / "study" / "records.csv", b"x")
    with local.shown("study", committed=False):
        assert paths.results_dir("study") == clone / "results" / "local" / "study"


def test_what_was_made_again_is_compared_with_what_is_committed(clone):
    with local.placed(committed=False):
        assert reproduced.comparison("mine") == "there are no committed records of mine to compare with"
        assert reproduced.comparison("mine.yaml") == ""
        for folder in ("results/mine", "results/local/mine"):
            save_records(made(0.8, 0.9), clone / folder / "records.csv")
        assert "all 3 means are the same" in reproduced.comparison("mine")
        fewer = made(0.8, 0.9)  # no mask, as in the committed ones
        save_records(pd.concat([fewer, make(mask("snip", 0.9, 0.5, 0.8))]), clone / "results/mine/records.csv")
        assert "all 3 means are the same; 1 settings are only there" in reproduced.comparison("mine")
    assert reproduced.comparison("mine") == ""  # these are the committed ones


def made(*targets, **changes):
    """Records of fine-tuning, a seed for each accuracy on the target."""
    return make(*(at(0.9, target, seed=seed, **changes) for seed, target in enumerate(targets)))


def test_the_largest_difference_is_named_and_whether_it_is_within_its_interval():
    theirs = made(0.80, 0.82, 0.84)
    within = compared(made(0.81, 0.82, 0.85), theirs)
    assert within.startswith("every mean is within its 95 % interval (")
    assert within.endswith("largest difference 0.7 points (finetune, mnist_to_digits, target_acc)")
    assert "1 of 3 means are outside their 95 % intervals" in compared(made(0.70, 0.71, 0.72), theirs)


def test_means_without_intervals_and_settings_of_one_side_are_told():
    assert "means of fewer than 3 seeds, which have no intervals" in compared(made(0.8), made(0.7))
    ours = pd.concat([made(0.8, 0.9), made(0.8, pair="mnist_to_rotated")])
    assert compared(ours, made(0.8, 0.9)) == "all 3 means are the same; 1 settings are only here"
    assert compared(made(0.8), made(0.8, pair="mnist_to_rotated")).startswith("no setting is in both")


def test_a_density_that_was_learnt_names_no_setting():
    native = {"protocol": "untrained", "method": "piggyback", "native_of": "piggyback"}
    assert compared(made(0.8, density=0.41, **native), made(0.8, density=0.42, **native)).startswith("all 3 means")


@pytest.fixture
def vouched(root):  # noqa: F811
    """A folder of results with its manifest."""
    folder = root / "results" / "mine"
    save_records(made(0.8, 0.9), folder / "records.csv")
    (folder / "headline.md").write_text("| a |")
    (folder / "README.md").write_text("not a result")
    files.write_json(folder / "manifest.json", {"checksums": manifest.checksums(folder)})
    return folder


def test_one_flipped_bit_is_noticed_and_the_file_named(root, vouched):  # noqa: F811
    profile = write_profile(root / "mine.yaml", [{"notebook": "first"}])
    assert set(manifest.vouched(vouched)) == {"records.csv", "headline.md"}
    assert "2 files are as the manifest says" in call("verify", "--profile", profile)[1]
    for name in ("records.csv", "headline.md"):
        whole = (vouched / name).read_bytes()
        (vouched / name).write_bytes(whole[:-2] + bytes([whole[-2] ^ 1]) + whole[-1:])
        code, output = call("verify", "--profile", profile)
        assert code == 1
        assert f"DAMAGED {vouched / name} is not what was written" in output
        (vouched / name).unlink()
        assert f"{vouched / name} is missing" in call("verify", "--profile", profile)[1]
        (vouched / name).write_bytes(whole)
    assert manifest.damaged(vouched) == []


COMMITTED = sorted((paths.PACKAGE.parent / "results").glob("*/manifest.json"))


@pytest.mark.parametrize("folder", [file.parent for file in COMMITTED], ids=lambda folder: folder.name)
def test_what_is_committed_is_as_its_manifest_says(folder):
    assert len(manifest.vouched(folder)) > 2
    assert manifest.damaged(folder) == []
