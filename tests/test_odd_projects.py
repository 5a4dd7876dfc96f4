"""Profiles, notebooks and states that are odd, or change while a batch works: one sentence, and no run but their own fails."""

import io
import json
import os
import re
from pathlib import Path

import pytest
from projects import root, write_notebook, write_profile  # noqa: F401
from rich.console import Console
from test_cli import call
from test_leftovers import profile as done  # noqa: F401
from test_plan import state_of
from test_schedule import Workers, carried_out

from maskutils.batch import cluster, leftovers, plan, schedule, status
from maskutils.batch import run as batch
from maskutils.batch.display import Display
from maskutils.batch.profile import load_profile, mark_owner, read_yaml
from maskutils.core import files, paths
from maskutils.core.caches import cached
from maskutils.core.checks import BadSetting
from maskutils.core.files import DamagedFile
from maskutils.results.manifest import MANIFEST, checksums


@pytest.fixture
def profile(root):  # noqa: F811
    return write_profile(root / "tiny.yaml", [{"notebook": "first"}, {"notebook": "second"}])


# Notebooks that change while a batch works


class Editing(Workers):
    """The second notebook is edited, or spoilt, while the first runs."""

    def __init__(self, file, content):
        super().__init__()
        self.file, self.content = file, content

    def nthreads(self):
        """One worker, so that the runs follow each other."""
        return {"one": 1}

    def submit(self, function, run, *args, **given):
        """A run that ends at once; the notebook is written before the next one."""
        found = super().submit(function, run, *args, **given)
        if self.content is None:
            self.file.unlink(missing_ok=True)
        else:
            self.file.write_text(self.content)
        return found


def test_a_run_is_of_the_notebook_that_was_there_when_it_began(root, profile, monkeypatch):  # noqa: F811
    file, stored = root / "notebooks" / "second.ipynb", {}
    monkeypatch.setattr(
        "maskutils.batch.schedule._write_state", lambda _, run, state: stored.update({run.id: run.parts})
    )
    planned = {run.id: run.parts for run in plan.make_plan(profile)}
    edited = file.read_text().replace("'second'", "'edited'")
    carried_out(profile, Editing(file, edited))
    assert stored["first"] == planned["first"]
    assert stored["second"]["notebook code"] != planned["second"]["notebook code"]
    assert stored["second"] == {run.id: run.parts for run in plan.make_plan(profile)}["second"]


@pytest.mark.parametrize("content", [None, '{"cells": ['])
def test_a_notebook_that_is_gone_or_spoilt_meanwhile_does_not_end_the_batch(root, profile, monkeypatch, content):  # noqa: F811
    monkeypatch.setattr("maskutils.batch.schedule._write_state", lambda *_: None)
    workers = Editing(root / "notebooks" / "second.ipynb", content)
    ends, _ = carried_out(profile, workers)
    assert ends == {"first": "done", "second": "failed"}
    assert workers.calls == ["first"]
    run = plan.Run("second", root / "notebooks" / "second.ipynb", {}, (), False, {})
    Display({"second": 1.0}, Console()).report("started", run, {})


def test_a_module_that_is_half_saved_fails_those_alone_that_import_it(root, monkeypatch):  # noqa: F811
    monkeypatch.setattr("maskutils.batch.schedule._write_state", lambda *_: None)
    helper = root / "notebooks" / "helper.py"
    helper.write_text("x = 1")
    write_notebook(root / "notebooks" / "helped.ipynb", "import helper")
    chain = [{"notebook": "helped", "after": ["first"]}, {"notebook": "second", "after": ["helped"]}]
    profile = write_profile(root / "tiny.yaml", [{"notebook": "first"}, *chain, {"notebook": "broken"}])
    ends, _ = carried_out(profile, Editing(helper, "x = ("))
    assert ends == {"first": "done", "helped": "failed", "second": "blocked", "broken": "done"}
    with pytest.raises(BadSetting, match=r"helper.py, which a notebook imports, is not Python: '\(' was never closed"):
        plan.make_plan(profile)


def test_what_comes_after_an_edited_run_is_of_it(root, monkeypatch):  # noqa: F811
    stored = {}
    monkeypatch.setattr(
        "maskutils.batch.schedule._write_state", lambda _, run, state: stored.update({run.id: run.parts})
    )
    chain = [
        {"notebook": "broken"},
        {"notebook": "first", "after": ["broken"]},
        {"notebook": "second", "after": ["first"]},
    ]
    profile, file = write_profile(root / "tiny.yaml", chain), root / "notebooks" / "first.ipynb"
    planned = {run.id: run.parts for run in plan.make_plan(profile)}
    carried_out(profile, Editing(file, file.read_text().replace("'first'", "'edited'")))
    assert stored["second"]["upstream"] != planned["second"]["upstream"]
    assert stored == {run.id: run.parts for run in plan.make_plan(profile)}


def test_committed_results_are_not_made_from_an_edited_notebook(root, profile, monkeypatch):  # noqa: F811
    states = {}
    monkeypatch.setattr("maskutils.batch.schedule._write_state", lambda _, run, state: states.update({run.id: state}))
    monkeypatch.setattr("maskutils.batch.schedule.is_committed", lambda folder: True)
    file = root / "notebooks" / "second.ipynb"
    ends, _ = carried_out(profile, Editing(file, file.read_text().replace("'second'", "'edited'")))
    assert ends == {"first": "done", "second": "failed"}
    assert "was edited since the batch began; commit it, and start the batch again" in states["second"]["error"]


def test_rates_that_a_run_of_the_batch_has_tuned_are_those_of_the_runs_after_it(root, monkeypatch):  # noqa: F811
    stored, rates = {}, root / "rates.csv"
    monkeypatch.setattr(
        "maskutils.batch.schedule._write_state", lambda _, run, state: stored.update({run.id: run.parts})
    )
    monkeypatch.setattr(paths, "tuned_rates", lambda: [rates])
    rates.write_text("1")
    write_notebook(root / "notebooks" / "tuned.ipynb", parameters="tuned: bool = True")
    profile = write_profile(root / "tiny.yaml", [{"notebook": "first"}, {"notebook": "tuned", "after": ["first"]}])
    carried_out(profile, Editing(rates, "2"))
    assert stored["tuned"] == {run.id: run.parts for run in plan.make_plan(profile)}["tuned"]


def test_a_manifest_goes_with_the_tables_that_it_vouches_for(root, profile):  # noqa: F811
    folder = paths.results_dir(profile)
    (folder / "runs").mkdir(parents=True)
    (folder / "table.csv").write_text("a")
    files.write_json(folder / MANIFEST, {"checksums": checksums(folder)})
    batch._write_manifest(profile, plan.make_plan(profile), {})
    assert (folder / MANIFEST).exists()
    (folder / "table.csv").write_text("b")
    batch._write_manifest(profile, plan.make_plan(profile), {})
    assert not (folder / MANIFEST).exists()


def test_the_time_that_is_left_learns_from_runs_of_the_same_notebook(root):  # noqa: F811
    """Of `first` six seconds are expected, as from caches, and forty are taken; `second` takes as long as expected."""
    runs = {
        f"{name}-{n}": plan.Run(f"{name}-{n}", root / f"{name}.ipynb", {}, (), False, {})
        for name in ("first", "second")
        for n in range(9)
    }
    display = Display({run: 6.0 if run.startswith("first") else 600.0 for run in runs}, Console())
    for n in range(4):
        for name, seconds in (("first", 40.0), ("second", 600.0)):
            display.report("done", runs[f"{name}-{n}"], {"seconds": seconds})
    # (160 + 6 pace) / 30 = 5.5 times 6 seconds, five times, and five times 600
    assert display.estimate() == f", about {round((5 * 33.5 + 5 * 600) / 60)} min left"
    for n in range(4, 9):
        display.report("done", runs[f"second-{n}"], {"seconds": 600.0})
    assert display.estimate() == ", about 3 min left"


@pytest.mark.parametrize("terminal", [False, True])
def test_a_failure_is_told_when_it_happens_with_its_reason(root, capsys, terminal):  # noqa: F811
    runs = [plan.Run(name, root, {}, (), False, {}) for name in ("first", "second", "third")]
    told = io.StringIO()
    display = Display(
        dict.fromkeys([run.id for run in runs], 1.0),
        Console(file=told, force_terminal=terminal, highlight=False, width=200),
    )
    failed = {"seconds": 2.0, "error": "code cell 2 (x): OSError: the first line\nanother line"}
    with display.bar:
        display.report("retried", runs[0], failed | {"try": 2})
        display.report("failed", runs[0], failed)
        display.report("blocked", runs[1], {"by": ["first"]})
        heard = told.getvalue() + capsys.readouterr().out
    assert "first: failed (2 s), and try 2 follows: code cell 2 (x): OSError: the first line\n" in heard
    assert "[1/3] first: failed (2 s): code cell 2 (x): OSError: the first line\n" in heard
    assert "[2/3] second: blocked (0 s): first is not done\n" in heard
    assert display.bar.tasks[0].description == "0 of 3 done, 2 failed or blocked"


def test_a_worker_that_was_lost_is_told(root, capsys):  # noqa: F811
    run = plan.Run("first", root / "notebooks" / "first.ipynb", {}, (), False, {})
    display = Display({"first": 1.0}, Console(file=io.StringIO()))
    for _ in range(2):
        display.report("started", run, {})
    assert "first: its worker was lost, another one begins it anew\n" in capsys.readouterr().out


@pytest.mark.parametrize(("width", "bar"), [(80, 10), (120, 24)])
def test_a_terminal_shows_names_bars_cells_and_times_whole(root, width, bar):  # noqa: F811
    ids = ["12_notebook-" + "of_a_long_name-" * 5, *(f"r{n}" for n in range(299))]
    runs = [plan.Run(name, root / "notebooks" / "first.ipynb", {}, (), False, {}) for name in ids]
    console = Console(file=io.StringIO(), force_terminal=True, color_system=None, width=width)
    display = Display(dict.fromkeys(ids, 60.0), console)
    for run in runs[-112:]:
        display.report("done" if run.id > "r2" else "blocked", run, {"seconds": 60.0})
    display.report("started", runs[0], {})
    display.report("cell", runs[0], {"cell": 1})
    with console.capture() as shown:
        console.print(display.bar.get_renderable())
    every, one = shown.get().splitlines()
    assert re.fullmatch(r"\d+ of 300 done, \d+ failed or blocked +━+╸? +about \d+ h left \d:\d\d:\d\d *", every)
    assert re.fullmatch(r"12_notebook-of_a_long_name-\S+… +━+[╸━ ]+ code cell 1 +\d:\d\d:\d\d *", one)
    assert one.index(" code cell") - one.index("━") >= bar


def test_a_temporary_folder_that_is_about_to_be_locked_stays(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr(cluster, "LONGEST_FOLDER", 1000)
    fresh, left = (tmp_path / f"{cluster.PREFIX}{name}" / ".lock" for name in ("fresh", "left"))
    for lock in (fresh, left):
        files.write_atomically(lock, b"")
    os.utime(left, (0, 0))
    with cluster.temporary_folder() as own:
        assert sorted(tmp_path.iterdir()) == sorted([fresh.parent, own])


def test_sockets_have_a_short_path_whatever_folder_is_usual(tmp_path, monkeypatch):
    usual = tmp_path / ("long" * 25)
    usual.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(usual))
    with cluster.temporary_folder() as own:
        assert len(str(own)) < 70  # a socket has 107 for its path
        assert own.parent != usual


def test_a_lost_worker_is_waited_for_as_long_as_its_start_takes():
    assert schedule.PATIENCE + schedule.LOOK < 60  # until it is said that all are lost
    assert cluster.QUIET["distributed.deploy.lost-worker-timeout"] == "120s"


def test_records_that_were_joined_anew_have_no_manifest_yet(root, monkeypatch):  # noqa: F811
    monkeypatch.setattr("maskutils.batch.schedule._write_state", lambda *_: None)
    monkeypatch.setattr("maskutils.results.records.collect", lambda files, into: None)
    runs = [{"notebook": "first"}, {"notebook": "second", "after": ["first"], "collect": True}]
    profile = write_profile(root / "tiny.yaml", runs)
    manifest = paths.results_dir(profile) / "manifest.json"
    files.write_json(manifest, {})
    carried_out(profile, Workers())
    assert not manifest.exists()


# Whose results they are


@pytest.mark.parametrize("mark", [b"", b"\xff\xfe\x00"])
def test_results_with_a_damaged_mark_are_nobodys_to_remove(root, done, mark):  # noqa: F811
    (paths.runs_dir(done) / ".profile").write_bytes(mark)
    found, stays = leftovers.leftovers()
    assert not any("tiny" in name for name in found)
    assert any("which names the profile of these results, is damaged" in reason for reason in stays)
    code, output = call("plan", "--profile", done)
    assert code == 2
    assert "is damaged; delete it, and run the profile again" in output


def test_a_mark_is_written_whole_or_not_at_all(root, profile, monkeypatch):  # noqa: F811
    paths.runs_dir(profile).mkdir(parents=True)
    monkeypatch.setattr("os.replace", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(OSError, match="free some space"):
        mark_owner(profile)
    assert not (paths.runs_dir(profile) / ".profile").exists()
    assert load_profile(profile)


# Variations


@pytest.mark.parametrize(
    ("one", "other"), [("a/b", "a_b"), ("a.b", "a_b"), ("a b", "a_b"), ("0.5", "0/5"), ("0.1", "0_1")]
)
def test_variations_whose_names_would_be_one_have_folders_of_their_own(root, one, other):  # noqa: F811
    write_notebook(root / "notebooks" / "text.ipynb", parameters="s: str = ''")
    profile = write_profile(root / "tiny.yaml", [{"notebook": "text", "parameters": {"s": "z"}}])
    assert status.variation(profile, [f"s='{one}'"]) != status.variation(profile, [f"s='{other}'"])


def test_a_long_variation_has_a_name_that_a_folder_can_have(root):  # noqa: F811
    write_notebook(root / "notebooks" / "text.ipynb", parameters="s: str = ''")
    profile = write_profile(root / "tiny.yaml", [{"notebook": "text", "parameters": {"s": "z"}}])
    one, other = (status.variation(profile, [f"s={'a' * 300}{end}"]) for end in "bc")
    assert one != other
    assert len(Path(one).name) < 255


def test_a_variation_that_is_refused_leaves_nothing(root, profile):  # noqa: F811
    before = sorted(root.rglob("*"))
    code, output = call("reproduce", "--profile", profile, "--param", "seeds=a")
    assert (code, "is not of type list[int]" in output) == (2, True)
    assert sorted(root.rglob("*")) == before


def test_yaml_is_read_as_people_write_it(root):  # noqa: F811
    assert [read_yaml(text) for text in ("1e-4", "1.5e4", "1.e4", ".5e3", "-2E+1")] == [1e-4, 1.5e4, 1e4, 500.0, -20.0]
    merged = read_yaml("base: &a {k: 1}\nx: {y: &b {<<: *a, k: 2}}\nz: {<<: *b}")
    assert (merged["x"], merged["z"]) == ({"y": {"k": 2}}, {"k": 2})


def test_text_that_looks_like_a_number_stays_text_in_a_variation(root):  # noqa: F811
    write_notebook(root / "notebooks" / "text.ipynb", parameters="s: str = ''\nx: float = 1.0")
    (root / "tiny.yaml").write_text('description: d\nparameters: {s: "1e5"}\nruns: [{notebook: text}]\n')
    own = status.variation(str(root / "tiny.yaml"), ["x=1e-4"])
    assert dict(plan.make_plan(own)[0].parameters) == {"s": "1e5", "x": 1e-4}


# What the plan refuses


@pytest.mark.parametrize(
    "text", ["2024-13-45", "!!int abc", "!!int ''", "!!bool x", "!!timestamp x", "1" * 5000, "[" * 1100]
)
def test_values_that_yaml_cannot_make_are_refused(root, profile, text):  # noqa: F811
    (root / "odd.yaml").write_text(f"description: d\nparameters: {{x: {text}}}\nruns: [{{notebook: first}}]\n")
    with pytest.raises(BadSetting, match=r"odd.yaml cannot be read"):
        load_profile(str(root / "odd.yaml"))
    with pytest.raises(BadSetting, match="cannot be read"):
        status.variation(profile, [f"seeds={text}"])


@pytest.mark.parametrize("value", ["{1: a}", "{1: a, z: 2.5}", "{a: 2024-01-02}", "{a: !!set {x}}"])
def test_values_that_json_cannot_keep_are_refused(root, value):  # noqa: F811
    write_notebook(root / "notebooks" / "real.ipynb", parameters="d: dict = {}")
    (root / "odd.yaml").write_text(f"description: d\nparameters: {{d: {value}}}\nruns: [{{notebook: real}}]\n")
    with pytest.raises(
        BadSetting,
        match=r"parameter d = .* cannot be kept as JSON; give numbers, text, lists, and dicts with",
    ):
        plan.make_plan(str(root / "odd.yaml"))


def test_a_default_of_another_type_is_refused(root):  # noqa: F811
    write_notebook(root / "notebooks" / "real.ipynb", parameters="x: int = 'a'")
    message = r"\"x: int = 'a'\" is not `name: type = literal` .the value is not of type int.$"
    with pytest.raises(BadSetting, match=message):
        plan.make_plan(write_profile(root / "tiny.yaml", [{"notebook": "real"}]))


CELL = {"cell_type": "code", "metadata": {"tags": ["parameters"]}, "source": "x: int = 1"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"metadata": {"kernelspec": {"language": "R"}}}, "is a notebook in R; the batch runs those in Python"),
        ({"nbformat": 5}, "is of format 5; convert it with: jupyter nbconvert --to notebook"),
        ({"cells": [{"source": ""}]}, "is not a notebook or is damaged"),
        (
            {"cells": [{**CELL, "metadata": {}}, {**CELL, "cell_type": None, "metadata": None}]},
            "is not a notebook or is damaged",
        ),
        ({"cells": [{**CELL, "source": "\ud800"}]}, "is not a notebook or is damaged"),
        ({"metadata": {"kernelspec": {"language": None}}, "cells": []}, "has 0 cells"),
        ({"cells": [CELL, CELL]}, "has 2 cells tagged 'parameters'; it needs exactly one"),
        ({"cells": [{**CELL, "metadata": {"tags": None}}]}, "has 0 cells tagged 'parameters'"),
    ],
)
def test_notebooks_that_would_not_run_are_refused(root, changes, message):  # noqa: F811
    notebook = {"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": [CELL]}
    (root / "notebooks" / "odd.ipynb").write_text(json.dumps(notebook | changes))
    with pytest.raises(BadSetting, match=message):
        plan.make_plan(write_profile(root / "tiny.yaml", [{"notebook": "odd"}]))


def test_what_a_run_comes_after_must_run_with_its_values(root):  # noqa: F811
    runs = [
        {"notebook": "first", "each": {"seeds": [[1]]}},
        {"notebook": "second", "after": ["first"], "each": {"seeds": [[2]]}},
    ]
    with pytest.raises(
        BadSetting, match=r"comes after first, which profile .* does not run before it with seeds = \[2\]"
    ):
        plan.make_plan(write_profile(root / "tiny.yaml", runs))


def test_an_empty_address_is_no_wish_to_run_here():
    with pytest.raises(BadSetting, match=r"no Dask scheduler at '' .the address is empty."), cluster.client(1, ""):
        pass


# Damaged files


def test_a_damaged_checksum_makes_the_artefact_anew(root):  # noqa: F811
    path = paths.cache_dir("mask") / "a.json"
    cached(path, lambda: 1, lambda value, p: files.write_json(p, value), files.read_json)
    leftovers.checksum_of(path).write_bytes(b"\xff\xfe")
    with pytest.warns(UserWarning, match="is damaged, and is made anew"):
        assert cached(path, lambda: 2, lambda value, p: files.write_json(p, value), files.read_json) == 2


@pytest.mark.parametrize("damage", [{"parts": None}, {"seconds": None}, {"outputs": None}])
def test_a_damaged_state_is_told_and_run_again(root, profile, damage):  # noqa: F811
    run = plan.make_plan(profile)[0]
    state_of(root, profile, run, **damage)
    assert plan.why(profile, run) == "its state file is damaged"
    details = status.run_details(profile, run, status.statuses(profile, [run])[run.id])
    assert details["why"] == "its state file is damaged"


def test_damaged_rows_of_a_manifest_and_lists_of_uses_are_passed_over(root, done):  # noqa: F811
    files.write_json(paths.results_dir(done) / "manifest.json", {"runs": [{"key": "k"}]})
    (paths.runs_dir(done) / "first.uses").write_bytes(b"\xff\xfe")
    assert call("plan", "--profile", done)[0] == 0
    assert leftovers.leftovers()


def test_a_damaged_notebook_is_named_by_the_report(root, profile):  # noqa: F811
    from maskutils.batch.page import write_page

    for run in plan.make_plan(profile):
        state_of(root, profile, run)
        (paths.runs_dir(profile) / f"{run.id}.ipynb").write_text("{")
    with pytest.raises(DamagedFile, match=r"first.ipynb is damaged"):
        write_page(profile)
