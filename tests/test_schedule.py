"""Steering a batch that fails: tries, time limits, going on, and stopping. Workers are pretended: what they do is tested with the batch."""

import contextlib
import errno
import os
from collections import Counter

import distributed
import pytest
from projects import root, write_notebook, write_profile  # noqa: F401
from test_plan import state_of

from maskutils.batch import cluster, plan, run, schedule, status
from maskutils.batch.schedule import Schedule
from maskutils.core import paths
from maskutils.core.checks import BadSetting
from maskutils.core.files import naming, read_json, write_atomically
from maskutils.results import records


class Workers:
    """A client whose workers end a run at once, as `ends` says: a list of statuses for each run, by default done."""

    status = "running"

    def __init__(self, **ends):
        self.ends, self.calls, self.timeouts = {run: list(found) for run, found in ends.items()}, [], set()
        self.topics, self.commits = [], set()

    def subscribe_topic(self, topic, handler):
        """No events come."""
        self.topics.append(topic)

    def unsubscribe_topic(self, topic):
        """Nor are they asked for any more."""
        self.topics.remove(topic)

    def nthreads(self):
        """Two workers of a thread."""
        return {"one": 1, "two": 1}

    def submit(self, function, run, folder, timeout, *more, **__):
        """A future that is finished."""
        self.calls.append(run.id)
        self.commits.add(more[-1])
        self.timeouts.add(timeout)
        status = (self.ends.get(run.id) or ["done"]).pop(0)
        state = {"status": status, "seconds": 1.0, "error": "e"} | {"notebook": str(folder / f"{run.id}.ipynb")}
        return Ended(state)


class Ended:
    """A future that is finished."""

    def __init__(self, state, status="finished"):
        self.result = self.exception = lambda: state
        self.status = status

    def add_done_callback(self, heard):
        """It is done."""
        heard(self)


@pytest.fixture
def profile(root, monkeypatch):  # noqa: F811
    monkeypatch.setattr(schedule, "_write_state", lambda *_: None)
    collect = {"notebook": "second", "after": ["first"], "collect": True}
    first = {"notebook": "first", "each": {"seeds": [[1], [2], [3]]}}
    return write_profile(root / "tiny.yaml", [first, collect])


def carried_out(profile, workers, **how):
    """What became of each run, and what was heard."""
    states, heard = {}, []
    runs = plan.make_plan(profile)
    Schedule(profile, runs, states, workers, lambda event, run, state: heard.append((event, run.id)), **how).carry_out()
    return {run: state["status"] for run, state in states.items()}, heard


def test_a_run_that_fails_is_tried_again_as_often_as_asked(profile, monkeypatch):
    monkeypatch.setattr(Schedule, "_collect", lambda self, run: "")
    workers = Workers(**{"first-1": ["failed", "failed", "done"], "first-2": ["failed"] * 3})
    ends, heard = carried_out(profile, workers, retries=2)
    assert ends == {"first-1": "done", "first-2": "failed", "first-3": "done", "second": "blocked"}
    assert Counter(workers.calls) == {"first-1": 3, "first-2": 3, "first-3": 1}
    assert Counter(heard)["retried", "first-1"] == 2


def test_workers_are_told_the_commit_of_the_batch(profile, monkeypatch):
    monkeypatch.setattr(schedule, "git_commit", lambda: "0123456789ab")
    carried_out(profile, workers := Workers(**{"first-1": ["failed"]}))
    assert workers.commits == {"0123456789ab"}


def test_why_no_worker_could_execute_a_run_is_told_with_the_file(profile, monkeypatch):
    with pytest.raises(OSError, match="free some space there") as full, naming(paths.runs_dir(profile)):
        raise OSError(errno.ENOSPC, "No space left on device")
    monkeypatch.setattr(Workers, "submit", lambda *_, **__: Ended(full.value, "error"))
    states = {}
    Schedule(profile, plan.make_plan(profile)[:1], states, Workers(), lambda *_: None).carry_out()
    assert "execute it: OSError: [Errno 28] No space left on device; free some space" in states["first-1"]["error"]
    assert states["first-1"]["error"].endswith(f"'{paths.runs_dir(profile)}'")


def test_a_run_whose_outputs_are_on_another_disk_is_not_done(root):  # noqa: F811
    profile = write_profile(root / "tiny.yaml", [{"notebook": "first"}])
    assert carried_out(profile, Workers())[0] == {"first": "failed"}
    state = read_json(plan.state_file(profile, "first"))
    folder = paths.results_dir(profile)
    assert state["error"] == f"{folder}/runs/first.ipynb is not here; do all machines share {folder}?"
    assert state["status"] == "failed"


def test_records_without_their_columns_fail_the_run_that_wrote_them(root, monkeypatch):  # noqa: F811
    rows = [{"notebook": ["first", "broken"]}, {"notebook": "second", "after": ["first"], "collect": True}]
    profile = write_profile(root / "tiny.yaml", rows)
    for name in ("first", "broken"):
        write_atomically(plan.records_file(profile, name), b"a,b\n1,2\n")
    monkeypatch.setattr(schedule, "file_digest", lambda path: "0")
    ends, _ = carried_out(profile, Workers())
    assert ends == {"first": "failed", "broken": "done", "second": "blocked"}  # nobody joins those of the other
    error = read_json(plan.state_file(profile, "first"))["error"]
    assert error.startswith(f"{plan.records_file(profile, 'first')} lacks the columns pair, model")
    assert error.endswith("with records.save_records")


def test_without_retries_a_run_is_tried_once(profile):
    workers = Workers(**{"first-1": ["failed", "done"]})
    assert carried_out(profile, workers)[0]["first-1"] == "failed"
    assert workers.calls.count("first-1") == 1


@pytest.mark.parametrize(("asked", "given"), [(7, 7), (None, 3600)])
def test_the_time_of_a_cell_is_what_was_asked_for_else_the_profiles(profile, asked, given):
    workers = Workers(**{f"first-{n}": ["failed"] for n in (1, 2, 3)})
    carried_out(profile, workers, timeout=asked)
    assert workers.timeouts == {given}


def test_with_keep_going_the_records_that_are_there_are_collected(profile, monkeypatch):
    collected = []
    monkeypatch.setattr(records, "collect", lambda files, path: collected.extend(f.name for f in files))
    ends, _ = carried_out(profile, Workers(**{"first-2": ["failed"]}), keep_going=True)
    assert ends["second"] == "done"
    assert collected == ["first-1.csv", "first-3.csv"]
    nothing = Workers(**{f"first-{n}": ["failed"] for n in (1, 2, 3)})
    assert carried_out(profile, nothing, keep_going=True)[0]["second"] == "blocked"


def test_with_fail_fast_nothing_more_is_started(root, monkeypatch):  # noqa: F811
    monkeypatch.setattr(schedule, "_write_state", lambda *_: None)
    after = {"notebook": "second", "after": ["first"], "each": {"seeds": [[1], [2]]}}
    profile = write_profile(root / "tiny.yaml", [{"notebook": "first", "each": {"seeds": [[1], [2]]}}, after])
    ends = {"first-1": ["failed"]}
    assert carried_out(profile, Workers(**ends))[0]["second-2"] == "done"  # it does not come after what failed
    workers = Workers(**ends)
    assert set(carried_out(profile, workers, fail_fast=True)[0]) == {
        "first-1",
        "first-2",
    }  # both had been started
    assert set(workers.calls) == {"first-1", "first-2"}


@pytest.mark.parametrize("later", [["second", "broken"], ["broken", "second"]])
def test_with_fail_fast_records_that_cannot_be_joined_stop_it_too(root, profile, monkeypatch, later):  # noqa: F811
    others = [{"notebook": name, "after": ["first"], "collect": name == "second"} for name in later]
    profile = write_profile(root / "tiny.yaml", [{"notebook": "first"}, *others])
    monkeypatch.setattr(Schedule, "_collect", lambda self, run: "two records stand for one transfer")
    ends, _ = carried_out(profile, Workers(), fail_fast=True)
    assert ends == {"first": "done", "second": "failed"}


def test_what_was_collected_without_a_failed_run_is_made_again_once_that_is_done(root, monkeypatch):  # noqa: F811
    first = {"notebook": "first", "each": {"seeds": [[1], [2]]}}
    second, last = (
        {"notebook": "second", "after": ["first"], "collect": True},
        {"notebook": "broken", "after": ["second"]},
    )
    profile = write_profile(root / "tiny.yaml", [first, second, last])
    monkeypatch.setattr(records, "collect", lambda files, path: None)
    for folder in (paths.runs_dir(profile), paths.results_dir(profile)):
        folder.mkdir(parents=True, exist_ok=True)
    monkeypatch.setattr(schedule, "file_digest", lambda path: "0")
    carried_out(profile, Workers(**{"first-2": ["failed"]}), keep_going=True)
    lacking = [read_json(plan.state_file(profile, run))["parts"]["upstream"] for run in ("second", "broken")]
    assert [set(found) for found in lacking] == [{"first-1"}, set()]


def test_what_a_run_was_made_without_is_forgotten_once_the_profile_has_it_no_more(root, monkeypatch):  # noqa: F811
    profile = write_profile(root / "tiny.yaml", [{"notebook": ["first", "second"]}])
    monkeypatch.setattr(schedule, "_write_state", lambda *_: None)
    monkeypatch.setattr(run, "client", lambda *_: contextlib.nullcontext(Workers()))
    monkeypatch.setattr(plan, "why", lambda profile, run: "" if run.id == "second" else "not run yet")
    monkeypatch.setattr(plan, "last_state", lambda *_: {"status": "done", "lacks": ["first-2"]})
    monkeypatch.setattr(run, "_write_manifest", lambda *_: None)
    assert run.reproduce(profile)["second"] == {"status": "done"}


def test_a_force_that_is_stopped_is_gone_on_with(root, monkeypatch):  # noqa: F811
    profile = write_profile(root / "tiny.yaml", [{"notebook": ["first", "second", "broken"]}])
    runs = plan.make_plan(profile)
    for each in runs:
        state_of(root, profile, each)
    monkeypatch.setattr(run, "client", lambda *_: contextlib.nullcontext(Workers()))
    monkeypatch.setattr(schedule, "_write_state", lambda profile, run, state: state_of(root, profile, run))

    def stopped(self):
        raise KeyboardInterrupt

    def nobody(*_):
        raise BadSetting("no Dask scheduler")

    with monkeypatch.context() as refused:
        refused.setattr(run, "client", nobody)
        with pytest.raises(BadSetting):
            run.reproduce(profile, force=True)
    assert [plan.why(profile, each) for each in runs] == ["", "", ""]  # a batch that is refused leaves no mark
    with monkeypatch.context() as until:
        until.setattr(Schedule, "carry_out", stopped)
        with pytest.raises(KeyboardInterrupt):
            run.reproduce(profile, force=True, only=["first", "second"])
    found = status.statuses(profile, runs)
    assert [found[each.id]["status"] for each in runs] == ["changed", "changed", "done"]
    assert found["first"]["why"] == plan.FORCED
    run.reproduce(profile)
    assert [plan.why(profile, each) for each in runs] == ["", "", ""]


def test_the_last_run_of_a_batch_has_as_many_threads_as_all_others(root, monkeypatch):  # noqa: F811
    profile, asked = write_profile(root / "tiny.yaml", [{"notebook": "first"}]), {}

    def cluster_of(**how):
        asked.update(how, threads=os.environ["OMP_NUM_THREADS"])
        return contextlib.nullcontext()

    monkeypatch.setattr(cluster, "cores", lambda: 8)
    monkeypatch.setattr(distributed, "LocalCluster", cluster_of)
    monkeypatch.setattr(distributed, "Client", lambda *_, **__: contextlib.nullcontext(Workers()))
    monkeypatch.setattr(schedule, "_write_state", lambda *_: None)
    monkeypatch.setattr(run, "_write_manifest", lambda *_: None)
    monkeypatch.setattr(run, "find_spec", lambda _: None)
    run.reproduce(profile, workers=4)
    assert (asked["n_workers"], asked["threads"]) == (1, "2")


def test_no_run_waits_with_a_busy_worker_and_the_longest_chain_begins(root, monkeypatch):  # noqa: F811
    monkeypatch.setattr(schedule, "_write_state", lambda *_: None)
    monkeypatch.setattr(
        schedule, "longest_paths", lambda profile, todo: {"first-1": 5.0, "first-2": 1.0, "first-3": 9.0}
    )
    profile = write_profile(root / "tiny.yaml", [{"notebook": "first", "each": {"seeds": [[1], [2], [3]]}}])
    workers, held = Workers(), []
    end = Ended.add_done_callback
    monkeypatch.setattr(Ended, "add_done_callback", lambda self, heard: held.append(lambda: end(self, heard)))
    work = Schedule(profile, plan.make_plan(profile), {}, workers, lambda *_: None)
    work._launch()
    assert workers.calls == ["first-3", "first-1"], "as many as there are workers"
    held[0]()
    work._finish(work.events.get())
    work._launch()
    assert workers.calls == ["first-3", "first-1", "first-2"]


def test_a_batch_that_is_stopped_listens_no_more(profile):
    """Else the scheduler writes a traceback for each cell that a worker tells of while the batch ends."""
    workers = Workers()

    def stop(event, run, state):
        assert workers.topics
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Schedule(profile, plan.make_plan(profile), {}, workers, stop).carry_out()
    assert not workers.topics


def test_a_run_is_told_of_images_as_they_are_when_it_is_submitted(root):  # noqa: F811
    for side in ("a", "b"):
        (root / side / "cat").mkdir(parents=True)
    cell = f'pair: str = "folders:{root}/a:{root}/b"\nseeds: list[int] = [0]'
    write_notebook(root / "notebooks" / "one.ipynb", "pass", parameters=cell)
    own, seen = write_profile(root / "tiny.yaml", [{"notebook": "one", "each": {"seeds": [[1], [2], [3]]}}]), []

    class Adding(Workers):
        def submit(self, function, run, *rest, **how):
            seen.append(run.parts["files"])
            (root / "b" / "cat" / f"{len(seen)}.png").write_bytes(b"new")
            return super().submit(function, run, *rest, **how)

    carried_out(own, Adding())
    assert len(seen) == len({str(files) for files in seen}) == 3
