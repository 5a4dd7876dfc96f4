"""Status and steering: what has become of each run, why it would run again, and which runs an option chooses."""

import json
from pathlib import Path

import filelock
import pytest
from projects import root, write_notebook, write_profile  # noqa: F401
from test_cli import call
from test_plan import state_of

from maskutils.batch import plan, status
from maskutils.batch.profile import load_profile, mark_owner
from maskutils.core import files, paths
from maskutils.core.checks import BadSetting
from maskutils.results.records import COLUMNS
from maskutils.study import inputs
from maskutils.study.provenance import STAGES


@pytest.fixture
def profile(root):  # noqa: F811
    runs = [{"notebook": "first", "each": {"seeds": [[1], [2]]}}, {"notebook": "second", "after": ["first"]}]
    return write_profile(root / "tiny.yaml", [*runs, {"notebook": "broken"}])


def chosen(profile, **options):
    runs = plan.make_plan(profile)
    return [
        run.id for run in status.chosen_runs(profile, runs, {run.id: plan.why(profile, run) for run in runs}, **options)
    ]


def test_each_run_is_done_failed_blocked_changed_running_or_missing(root, profile):  # noqa: F811
    one, two, second, broken = plan.make_plan(profile)
    state_of(root, profile, one)
    state_of(root, profile, two, status="failed", error="it broke", notebook="runs/two.failed.ipynb")
    state_of(root, profile, broken, parts=broken.parts | {"versions": {**broken.parts["versions"], "torch": "1.0"}})
    found = status.statuses(profile, plan.make_plan(profile))
    assert [found[run.id]["status"] for run in (one, two, second, broken)] == ["done", "failed", "blocked", "changed"]
    assert found[two.id]["notebook"] == str(root / "results" / "tiny" / "runs" / "two.failed.ipynb")
    assert found[second.id]["by"] == [two.id]
    assert found[broken.id]["why"].startswith("versions: torch 1.0 -> ")
    plan.state_file(profile, broken.id).unlink()
    assert status.statuses(profile, [broken])[broken.id]["status"] == "missing"
    with filelock.FileLock(paths.runs_dir(profile) / plan.lock_name(broken.id)):
        assert status.statuses(profile, [broken])[broken.id]["status"] == "running"


def test_what_was_made_without_a_failed_run_is_partial_and_taken_by_only_failed(root):  # noqa: F811
    first = {"notebook": "first", "each": {"seeds": [[1], [2]]}}
    rows = [
        first,
        {"notebook": "second", "after": ["first"], "collect": True},
        {"notebook": "broken", "after": ["second"]},
    ]
    profile = write_profile(root / "tiny.yaml", rows)
    one, two, second, last = plan.make_plan(profile)
    table = paths.results_dir(profile) / "records.csv"
    files.write_atomically(table, ",".join(COLUMNS).encode() + b"\n")
    joined = {"outputs": {"records.csv": files.file_digest(table)}}
    state_of(root, profile, one)
    state_of(root, profile, two, status="failed", error="it broke")
    for run, lacks in ((second, two.id), (last, second.id)):
        kept = {before: key for before, key in run.parts["upstream"].items() if before != lacks}
        state_of(root, profile, run, lacks=[lacks], parts=run.parts | {"upstream": kept}, **joined)
        joined = {}
    found = status.statuses(profile, plan.make_plan(profile))
    assert [(found[run.id]["status"], found[run.id]["lacks"]) for run in (second, last)] == [("partial", [two.id])] * 2
    assert found[second.id]["why"] == "made without first-2; runs again once that is done, or with --keep-going"
    assert status.run_details(profile, second, found[second.id])["status"] == "partial"
    assert status.lacking(profile) == [two.id]
    assert chosen(profile, only_failed=True) == [two.id, second.id, last.id]
    for command, told in (("status", "made without first-2"), ("verify", "joined without those of first-2")):
        assert told in call(command, "--profile", profile)[1]
    call("report", "--profile", profile)
    assert "joined without those of first-2" in (paths.results_dir(profile) / "report" / "index.html").read_text()
    write_notebook(root / "notebooks" / "second.ipynb", "print('other code')")
    found = status.statuses(profile, plan.make_plan(profile))
    assert "done, or with --keep-going; changed since: notebook code: code cell 2 (print" in found[second.id]["why"]
    state_of(root, profile, second, outputs={"records.csv": files.file_digest(table)})
    assert status.lacking(profile) == []  # although the last run was made without that one


def test_what_a_result_lacks_is_no_reason_once_the_profile_has_it_no_more(root, profile):  # noqa: F811
    one, two, second, _ = plan.make_plan(profile)
    for run, changes in ((one, {}), (two, {}), (second, {"lacks": ["first-3"], "outputs": {"gone.csv": "0"}})):
        state_of(root, profile, run, **changes)
    found = status.statuses(profile, plan.make_plan(profile))[second.id]
    assert (found["status"], found["why"]) == ("missing", "missing or damaged: gone.csv")
    assert second.id not in chosen(profile, only_failed=True)


def test_all_that_blocks_a_run_is_told(root):  # noqa: F811
    rows = [
        {"notebook": "first", "each": {"seeds": [[n] for n in range(5)]}},
        {"notebook": "second", "after": ["first"]},
    ]
    profile = write_profile(root / "tiny.yaml", [*rows, {"notebook": "broken", "after": ["second"]}])
    runs = plan.make_plan(profile)
    for run in runs[:5]:
        state_of(root, profile, run, status="failed")
    found = status.statuses(profile, runs)
    assert found["second"]["by"] == found["broken"]["by"] == [run.id for run in runs[:5]]
    assert found["broken"]["why"] == "first-0, first-1, first-2 and 2 more are not done"


def test_of_many_modules_that_changed_three_are_named_but_all_in_the_details(root):  # noqa: F811
    write_notebook(root / "notebooks" / "one.ipynb", "from maskutils.study import artefacts")
    profile = write_profile(root / "tiny.yaml", [{"notebook": "one"}])
    (run,) = plan.make_plan(profile)
    state_of(root, profile, run, parts=run.parts | {"package code": {}})
    (told,) = status.changed_parts(profile, run)
    n = len(run.parts["package code"])
    assert told.endswith(f" and {n - 3} more")
    (every,) = status.run_details(profile, run, status.statuses(profile, [run])[run.id])["changes"]
    assert every.count(",") == n - 1


def test_what_changed_is_named(root, profile):  # noqa: F811
    for run in plan.make_plan(profile):
        state_of(root, profile, run)
    write_notebook(root / "notebooks" / "first.ipynb", "print('other code')")
    text = Path(profile).read_text().replace("notebook: broken", "notebook: broken\n  parameters: {seeds: [7]}")
    Path(profile).write_text(text)
    one, _, second, broken = plan.make_plan(profile)
    assert status.changed_parts(profile, one)[0] == "notebook code: code cell 2 (print('other code'))"
    assert status.changed_parts(profile, second) == ["upstream: first-1, first-2"]
    assert status.changed_parts(profile, broken) == ["parameters: seeds [0] -> [7]"]


def test_what_changed_is_named_in_lists_of_files_too(root, monkeypatch):  # noqa: F811
    for side in "abc":
        (root / side / "cat").mkdir(parents=True)
    pairs, rates = [f"folders:{root}/a:{root}/{side}" for side in "bc"], [root / "one.csv", root / "two.csv"]
    monkeypatch.setattr(paths, "tuned_rates", lambda: [file for file in rates if file.exists()])
    rates[0].write_text("1")
    cell = f"pairs: list[str] = {json.dumps(pairs)}\ntuned: bool = True"
    write_notebook(root / "notebooks" / "one.ipynb", "from maskutils.study import artefacts", "x = 1", parameters=cell)
    profile = write_profile(root / "tiny.yaml", [{"notebook": "one"}])
    (run,) = plan.make_plan(profile)
    state_of(
        root, profile, run, parts={**run.parts, "package code": {**run.parts["package code"], "stage source": "0"}}
    )
    rates[1].write_text("2")
    (root / "c" / "cat" / "1.png").write_bytes(b"new")
    inputs.stamps.cache_clear()
    write_notebook(root / "notebooks" / "one.ipynb", "from maskutils.study import artefacts", parameters=cell)
    (run,) = plan.make_plan(profile)
    assert status.changed_parts(profile, run) == [
        "notebook code: fewer, or in another order",
        f"package code: stage source 0 -> {STAGES['source']}",
        f"files: {pairs[1]}",
        "tuned rates: two.csv",
    ]
    assert {f"stage {name}": str(n) for name, n in STAGES.items()}.items() <= run.parts["package code"].items()


def test_a_run_depends_on_the_rates_of_its_own_network_and_pair_alone(root):  # noqa: F811
    cell = 'pair: str = "mnist_to_digits"\nmodel: str = "cnn"\ntuned: bool = True'
    write_notebook(root / "notebooks" / "one.ipynb", parameters=cell)
    profile = write_profile(root / "tiny.yaml", [{"notebook": "one"}])
    own, other = (root / "results" / "tuning" / paths.rates_name("cnn", f"mnist_to_{to}") for to in ("digits", "usps"))
    for file in (own, other):
        files.write_atomically(file, b"1")
    state_of(root, profile, *plan.make_plan(profile))
    other.write_text("2")
    assert plan.why(profile, *plan.make_plan(profile)) == ""
    own.write_text("2")
    assert status.changed_parts(profile, *plan.make_plan(profile)) == [f"tuned rates: {own.name}"]


def test_a_pattern_chooses_runs_and_what_they_need(root, profile):  # noqa: F811
    one, two, second, broken = (run.id for run in plan.make_plan(profile))
    assert chosen(profile) == [one, two, second, broken]
    assert chosen(profile, only=["sec*"]) == [one, two, second]
    assert chosen(profile, only=["*1*", "broken"]) == [one, broken]
    state_of(root, profile, plan.make_plan(profile)[0])
    assert chosen(profile, only=["second"]) == [two, second]
    assert chosen(profile, only=[one]) == []
    assert chosen(profile, only=[one], force=True) == [one]
    with pytest.raises(BadSetting, match=r"no run matches 'thrid'; there are: first-"):
        chosen(profile, only=["thrid"])


def test_only_failed_chooses_what_failed_although_it_was_mended_since(root, profile):  # noqa: F811
    state_of(root, profile, plan.make_plan(profile)[3], status="failed")
    assert chosen(profile, only_failed=True) == ["broken"]
    write_notebook(root / "notebooks" / "broken.ipynb", "x = 'mended'")
    assert chosen(profile, only_failed=True) == ["broken"]


def test_a_variation_is_a_profile_of_its_own_with_results_of_its_own(root, profile):  # noqa: F811
    own = status.variation(profile, ["seeds=[5, 6]"])
    assert Path(own).parent == paths.results_dir(own) != paths.results_dir(profile)
    assert [run.parameters["seeds"] for run in plan.make_plan(own)] == [[5, 6]] * 3
    assert load_profile(own).description == "a test (seeds=[5, 6])"
    assert status.variation(profile, ["seeds=[5, 6]"]) == own
    assert status.variation(profile, []) == profile
    with pytest.raises(BadSetting, match="'seeds' is not of the form name=value"):
        status.variation(profile, ["seeds"])
    with pytest.raises(BadSetting, match=r"unknown parameter of profile .* 'sedes'"):
        status.variation(profile, ["sedes=[1]"])


def test_a_fraction_in_a_variation_is_kept_whole_in_its_name(root):  # noqa: F811
    write_notebook(root / "notebooks" / "real.ipynb", parameters="x: float = 1.0")
    profile = write_profile(root / "tiny.yaml", [{"notebook": "real"}])
    assert paths.results_dir(status.variation(profile, ["x=0.5"])).name == "tiny+x=0_5"
    assert status.variation(profile, ["x=0.5"]) != status.variation(profile, ["x=0.25"])


def test_what_made_a_result_is_told(root, profile):  # noqa: F811
    run = plan.make_plan(profile)[0]
    state_of(root, profile, run, commit="0123456789ab", maskutils="1.2.3", machine={"processor": "p", "threads": "1"})
    code, output = call("status", run.id, "--profile", profile, "--json")
    told = json.loads(output)
    assert code == 0
    assert (told["commit"], told["maskutils"]) == ("0123456789ab", "1.2.3")
    assert told["machine"]["processor"] == "p"
    assert told["parameters"]["seeds"] == [1]
    assert "torch" in told["versions"]
    assert told["why"] == ""
    assert "commit      0123456789ab\n" in call("status", run.id, "--profile", profile)[1]
    assert call("status", "second", "--profile", profile)[0] == 1
    code, output = call("status", "frist", "--profile", profile)
    assert code == 2
    assert "unknown run 'frist'" in output


def test_status_and_plan_print_json(root, profile):  # noqa: F811
    code, output = call("status", "--profile", profile, "--json")
    assert code == 1  # nothing is done
    assert [row["status"] for row in json.loads(output)] == ["missing"] * 4
    code, output = call("plan", "--profile", profile, "--json", "--only", "broken", "--param", "seeds=[9]")
    assert code == 0
    rows = json.loads(output)
    assert [bool(row["why"]) for row in rows] == [False, False, True]
    assert [row["what"] for row in rows] == ["left out", "left out", "run"]
    assert rows[2]["parameters"]["seeds"] == [9]
    assert not list((root / "results").glob("*"))  # it only looked
    state_of(root, profile, plan.make_plan(profile)[3], status="failed")
    code, output = call("plan", "--profile", profile, "--json", "--only-failed")
    assert [row["run"] for row in json.loads(output) if row["why"]] == ["broken"]
    state_of(root, profile, plan.make_plan(profile)[0])
    rows = json.loads(call("plan", "--profile", profile, "--json", "--only-failed")[1])
    assert [row["what"] for row in rows] == ["done", "left out", "left out", "run"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("seeds=[17", "cannot be read"),
        ("profile=study", "the batch itself gives profile"),
        ("seeds", "not of the form"),
    ],
)
def test_a_change_that_says_nothing_is_refused(root, profile, change, message):  # noqa: F811
    with pytest.raises(BadSetting, match=message):
        status.variation(profile, [change])


def test_a_variation_is_planned_after_its_results_are_there(root, profile):  # noqa: F811
    own = status.variation(profile, ["seeds=[9]"])
    paths.runs_dir(own).mkdir(parents=True)
    mark_owner(own)
    assert call("plan", "--profile", profile, "--param", "seeds=[9]")[0] == 0


def test_a_run_that_failed_is_so_too_after_a_change(root, profile):  # noqa: F811
    broken = plan.make_plan(profile)[-1]
    parts = broken.parts | {"versions": {**broken.parts["versions"], "torch": "1.0"}}
    state_of(root, profile, broken, parts=parts, status="failed", error="it broke")
    found = status.statuses(profile, [broken])[broken.id]
    assert (found["status"], found["error"]) == ("failed", "it broke")
    assert found["why"].startswith("failed before; changed since: versions: torch 1.0 -> ")


def test_a_pattern_may_be_the_name_of_a_notebook(profile):
    assert chosen(profile, only=["first"]) == chosen(profile, only=["first-*"]) != []
    with pytest.raises(BadSetting, match="no run matches 'frist'"):
        chosen(profile, only=["first", "frist"])


def test_only_failed_takes_what_failed_blocks_and_a_run_that_failed_by_itself_is_failed(root):  # noqa: F811
    rows = [{"notebook": ["first", "broken"]}, {"notebook": "second", "after": ["first"], "collect": True}]
    profile = write_profile(root / "tiny.yaml", rows)
    first, _, second = plan.make_plan(profile)
    state_of(root, profile, first, status="failed")
    assert chosen(profile, only_failed=True) == ["first", "second"]
    table = paths.results_dir(profile) / "records.csv"
    files.write_atomically(table, b"joined")
    outputs = {"records.csv": files.file_digest(table)}
    state_of(root, profile, second, status="failed", error="it broke too", lacks=["first"], outputs=outputs)
    found = status.statuses(profile, plan.make_plan(profile))["second"]
    assert (found["status"], found["error"]) == ("failed", "it broke too")
    assert status.lacking(profile) == ["first"]
