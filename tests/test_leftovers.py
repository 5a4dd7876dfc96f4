"""Cleaning: what no profile refers to goes, after asking; what is in use, or not surely ours, stays."""

import os
import shutil
import time
from itertools import chain

import matplotlib.pyplot as plt
import pytest
from projects import root, write_notebook, write_profile  # noqa: F401
from test_cli import call
from test_plan import state_of

from maskutils.batch import leftovers, plan, status
from maskutils.batch import run as batch
from maskutils.batch.profile import HOLDER, mark_owner
from maskutils.core import files, paths
from maskutils.core.caches import USES, cached
from maskutils.results import plots
from maskutils.results.manifest import sealed


def artefact(kind, key, old=True):
    """A cached artefact with its checksum."""
    path = paths.cache_dir(kind) / f"{key * 16}.json"
    cached(path, lambda: {"a": 1}, lambda value, p: files.write_json(p, value), files.read_json)
    if old:
        os.utime(path, (time.time() - 7200,) * 2)
    return path


@pytest.fixture
def profile(root):  # noqa: F811
    """A profile whose two runs are done; the first used the artefact "a"."""
    profile = write_profile(root / "tiny.yaml", [{"notebook": ["first", "second"]}])
    for run, uses in zip(plan.make_plan(profile), ("transfer/" + "a" * 16 + ".json\n", ""), strict=True):
        state_of(root, profile, run)
        (paths.runs_dir(profile) / f"{run.id}.uses").write_text(uses)
        (paths.runs_dir(profile) / f"{run.id}.ipynb").write_text("executed")
    mark_owner(profile)
    return profile


def test_a_run_lists_what_it_uses_of_the_cache(root, monkeypatch):  # noqa: F811
    monkeypatch.setenv(USES, str(root / "uses"))
    artefact("mask", "a"), artefact("mask", "a"), artefact("transfer", "b")
    assert (root / "uses").read_text().split() == ["mask/" + "a" * 16 + ".json"] * 2 + [
        "transfer/" + "b" * 16 + ".json"
    ]


def test_what_is_used_stays_and_what_is_not_goes(root, profile):  # noqa: F811
    used, unused, young = artefact("transfer", "a"), artefact("transfer", "b"), artefact("transfer", "c", old=False)
    mine = paths.cache_dir("transfer") / "notes.txt"
    mine.write_text("not of the cache")
    os.utime(mine, (0, 0))
    assert leftovers.leftovers() == ({"cache: transfer": [unused, leftovers.checksum_of(unused)]}, [])
    another = artefact("of a later version", "d")  # a kind of artefact that this module has not heard of
    assert leftovers.leftovers()[0].pop("cache: of a later version") == [another, leftovers.checksum_of(another)]
    another.unlink(), leftovers.checksum_of(another).unlink()
    code, output = call("clean", "--yes")
    assert code == 0
    assert "cache: transfer, 2 files" in output
    assert [file.exists() for file in (used, unused, young, mine)] == [True, False, True, True]
    assert "nothing to remove" in call("clean")[1]


def test_what_a_kill_left_half_written_goes(root, profile):  # noqa: F811
    folders = [
        paths.cache_dir("mask"),
        paths.cache_dir("checksum"),
        paths.results_dir(profile),
        paths.runs_dir(profile),
    ]
    for file in (folder / f"{files.NEW}{age}" for folder in folders for age in ("old", "young")):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("half of")
        os.utime(file, (time.time() - 7200 * (file.suffix == ".old"),) * 2)
    assert call("clean", "--yes")[0] == 0
    assert [file.name for file in (root / "results").rglob(".new.*")] == [".new.young"] * 4


def test_it_asks_before_it_removes(root, profile, monkeypatch):  # noqa: F811
    unused = artefact("transfer", "b")
    code, output = call("clean")  # nobody answers
    assert "Remove these 2 files" in output
    assert code == 1
    assert unused.exists()


def test_a_run_that_the_profile_no_longer_has_goes_with_what_only_it_used(root, profile):  # noqa: F811
    used = artefact("transfer", "a")
    write_profile(root / "tiny.yaml", [{"notebook": "second"}])
    (paths.runs_dir(profile) / "mine.txt").write_text("mine")
    found, _ = leftovers.leftovers()
    assert set(found) == {"results/tiny: first", "cache: transfer"}
    leftovers.remove(file for some in found.values() for file in some)
    assert not used.exists()
    left = {file.name for file in paths.runs_dir(profile).iterdir()}
    assert left == {".profile", "mine.txt", *(f"second.{kind}" for kind in ("csv", "ipynb", "json", "uses"))}


def test_results_of_a_profile_that_is_gone_go_but_for_what_was_changed_by_hand(root, profile):  # noqa: F811
    folder = paths.results_dir(profile)
    for name in ("records.csv", "table.md", "table.tex", "other.md", "other.tex", "notes.md", "mine.csv"):
        (folder / name).write_text(name)
    files.write_json(folder / "manifest.json", sealed(folder, {"runs": []}))
    (folder / "table.md").write_text("corrected by hand")
    assert leftovers.leftovers() == ({}, [])
    (root / "tiny.yaml").unlink()
    assert call("clean", "--yes")[0] == 0
    assert {file.name for file in folder.rglob("*")} == {"table.md", "notes.md", "mine.csv"}


def test_figures_of_a_profile_that_is_gone_go_but_for_those_of_others(root, profile):  # noqa: F811
    drawn = plots.save_figure(plt.figure(), "a", profile)
    (drawn[0].parent / "mine.png").write_bytes(b"my own")
    assert leftovers.leftovers() == ({}, [])
    (root / "tiny.yaml").unlink()
    assert set(drawn) < set(chain(*leftovers.leftovers()[0].values()))
    call("clean", "--yes")
    assert [file.name for file in (root / "figures").rglob("*.*")] == ["mine.png"]


def test_results_of_a_profile_outside_a_project_that_has_moved_stay(tmp_path, monkeypatch):
    monkeypatch.setenv("MASKUTILS_ROOT", str(tmp_path / "here"))
    write_notebook(tmp_path / "here" / "notebooks" / "first.ipynb")
    profile = write_profile(tmp_path / "tiny.yaml", [{"notebook": "first"}])
    varied = status.variation(profile, ["seeds=[9]"])
    for own in (profile, varied):
        state_of(tmp_path, own, *plan.make_plan(own))
        (paths.runs_dir(own) / "first.uses").write_text("transfer/" + "a" * 16 + ".json\n")
        mark_owner(own)
    artefact("transfer", "a")
    assert leftovers.leftovers() == ({}, [])
    (tmp_path / "far" / "away").mkdir(parents=True)
    shutil.move(tmp_path / "here", tmp_path / "far" / "away")
    monkeypatch.setenv("MASKUTILS_ROOT", str(tmp_path / "far" / "away" / "here"))
    found, stays = leftovers.leftovers()
    assert found == {}
    sought = tmp_path / "far" / "away" / "tiny.yaml"
    assert [f"its profile is not found at {sought}; run it once with --profile" in reason for reason in stays] == [
        True
    ] * 2
    mark_owner(profile)
    assert leftovers.leftovers()[1] == stays[1:]  # of the variation


@pytest.mark.parametrize("name", ["tiny.yaml", "profiles/tiny.yaml"])
def test_a_variation_goes_with_its_profile(root, name):  # noqa: F811
    (root / "profiles").mkdir()
    write_profile(root / name, [{"notebook": "first"}])
    own = status.variation(str(root / name) if "/" not in name else "tiny", ["seeds=[9]"])
    for run in plan.make_plan(own):
        state_of(root, own, run)
        (paths.runs_dir(own) / f"{run.id}.uses").write_text("transfer/" + "a" * 16 + ".json\n")
    mark_owner(own)
    used = artefact("transfer", "a")
    assert leftovers.leftovers() == ({}, [])
    (paths.runs_dir(own) / HOLDER).write_text("process 1")  # as a kill leaves it
    (root / name).unlink()
    assert call("clean", "--yes")[0] == 0
    assert not used.exists()
    assert not list((root / "results").glob("tiny*"))


def test_results_of_a_profile_that_cannot_be_read_stay_with_their_caches(root, profile):  # noqa: F811
    artefact("transfer", "a")
    (root / "tiny.yaml").write_text("runs: [")
    found, (reason,) = leftovers.leftovers()
    assert found == {}
    assert "tiny.yaml cannot be read" in reason


def test_a_cache_of_which_a_run_does_not_tell_what_it_uses_stays(root, profile):  # noqa: F811
    artefact("transfer", "b")
    (paths.runs_dir(profile) / "second.uses").unlink()
    found, (reason,) = leftovers.leftovers()
    assert found == {}
    assert "results/tiny: second left no list of what it uses" in reason


def test_nothing_is_cleaned_while_a_batch_is_at_work(root, profile):  # noqa: F811
    with batch.held_by_us(profile):
        code, output = call("clean", "--yes")
    assert code == 2
    assert "a batch works on" in output


def test_what_a_run_that_was_stopped_has_made_stays(root, profile):  # noqa: F811
    (paths.runs_dir(profile) / "first.json").unlink()
    used = artefact("transfer", "a")
    assert used not in {file for files in leftovers.leftovers()[0].values() for file in files}
