"""The command line: exit codes, and one clear error for every kind of bad input."""

import os
import re
import signal
import time

import pandas as pd
import pytest
import torch
from projects import root, write_notebook, write_profile  # noqa: F401
from test_plan import state_of
from typer.main import get_command
from typer.testing import CliRunner

from maskutils.batch import cli, plan, status
from maskutils.batch import run as batch
from maskutils.batch.display import Display
from maskutils.core import paths
from maskutils.core.files import write_json
from maskutils.results.records import COLUMNS, save_records


def call(*arguments):
    result = CliRunner().invoke(cli.app, list(arguments))
    return result.exit_code, result.output


@pytest.mark.parametrize("command", ["plan", "reproduce", "status"])
def test_an_unknown_profile_exits_2_and_lists_the_known(command):
    code, output = call(command, "--profile", "smok")
    assert code == 2
    assert (
        "unknown profile 'smok'; known: default, fashion, modality, paper, photos, photos_longer, smoke, study, tuning"
        in output.replace("\n", " ")
    )
    assert "Traceback" not in output


@pytest.mark.parametrize(
    "arguments", [["reproduce", "--workers", "0"], ["reproduce", "--profil", "smoke"], ["nonsense"]]
)
def test_bad_arguments_exit_2(arguments):
    assert call(*arguments)[0] == 2


def test_a_url_in_the_place_of_a_folder_is_refused_before_work(root, monkeypatch):  # noqa: F811
    monkeypatch.chdir(root)
    profile, before = write_profile(root / "tiny.yaml", [{"notebook": "first"}]), sorted(root.rglob("*"))
    code, output = call("reproduce", "--profile", profile, "--data-root", "s3://bucket/data")
    assert (code, "--data-root s3://bucket/data is a URL, not a folder; mount it" in output) == (2, True)
    monkeypatch.setenv("MASKUTILS_ROOT", "s3://bucket/study")
    for command in ("plan", "reproduce", "status", "verify", "report"):
        code, output = call(command, "--profile", profile)
        assert (code, "MASKUTILS_ROOT s3://bucket/study is a URL" in output) == (2, True), command
    assert sorted(root.rglob("*")) == before


def test_plan_says_what_runs_and_why(root):  # noqa: F811
    code, output = call("plan", "--profile", write_profile(root / "tiny.yaml", [{"notebook": ["first", "second"]}]))
    assert code == 0
    assert "not run yet" in output
    assert "2 of 2 to run" in output


def test_plan_takes_every_option_of_reproduce(root):  # noqa: F811
    options = {name: {p.name for p in c.params} for name, c in get_command(cli.app).commands.items()}
    assert options["reproduce"] <= options["plan"]
    profile = write_profile(root / "tiny.yaml", [{"notebook": "first"}])
    how = ("--workers", "2", "--retries", "1", "--timeout", "9", "--keep-going")
    assert call("plan", "--profile", profile, *how)[0] == 0
    assert call("plan", "--profile", profile, "--retries", "-1")[0] == 2


@pytest.mark.parametrize("command", ["plan", "reproduce"])
def test_to_go_on_and_to_stop_after_a_failure_is_refused(root, command):  # noqa: F811
    profile = write_profile(root / "tiny.yaml", [{"notebook": "first"}])
    code, output = call(command, "--profile", profile, "--fail-fast", "--keep-going")
    assert (code, "--keep-going and --fail-fast exclude each other" in output) == (2, True)
    assert not (root / "results").exists()


def test_what_reproduce_would_refuse_is_said_by_the_plan_and_leaves_no_mark(root):  # noqa: F811
    write_notebook(
        root / "notebooks" / "own.ipynb", "pass", parameters='pair: str = "mnist_to_digits"\ncompute: dict = {}'
    )
    asked = {"pair": f"folders:{root}/a:{root}/b"}
    profile = write_profile(root / "tiny.yaml", [{"notebook": "own"}], **asked)
    code, output = call("plan", "--profile", profile)
    assert (code, f"not yet: reproduce would refuse it here: {root}/a is not a folder" in output) == (0, True)
    code, output = call("reproduce", "--profile", profile)
    assert (code, f"error: {root}/a is not a folder" in output) == (2, True)
    assert not [file for file in (root / "results").rglob("*") if file.is_file() and file.name != ".lock"]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_device_that_this_machine_lacks_is_refused_before_work_but_workers_elsewhere_may_have_it(root):  # noqa: F811
    write_notebook(root / "notebooks" / "own.ipynb", "pass", parameters="compute: dict = {}")
    profile = write_profile(root / "tiny.yaml", [{"notebook": "own"}], compute={"device": "cuda"})
    code, output = call("plan", "--profile", profile)
    assert (code, "would refuse it here: device 'cuda' is not there; present: cpu" in output) == (0, True)
    code, output = call("plan", "--profile", profile, "--scheduler", "tcp://far:8786")
    assert (code, "refuse" in output) == (0, False)
    code, output = call("reproduce", "--profile", profile)
    assert (code, "error: device 'cuda' is not there" in output) == (2, True)


def test_the_plan_is_made_once_and_nothing_is_estimated_of_what_is_done(root, monkeypatch):  # noqa: F811
    profile, made, make = write_profile(root / "tiny.yaml", [{"notebook": "first"}]), [], plan.make_plan
    monkeypatch.setattr(plan, "make_plan", lambda name: made.append(name) or make(name))
    monkeypatch.setattr(Display, "estimate", None)
    own = status.variation(profile, ["seeds=[5]"])
    for name, asked in ((profile, ()), (own, ("--param", "seeds=[5]"))):
        state_of(root, name, make(name)[0])
        made.clear()
        code, output = call("reproduce", "--profile", profile, *asked)
        assert (code, "1 of 1 runs done" in output, len(made)) == (0, True, 1)


def test_a_variation_is_verified_and_reported_by_its_name(root):  # noqa: F811
    profile = write_profile(root / "tiny.yaml", [{"notebook": "first"}])
    code, output = call("verify", "--profile", profile, "--param", "seeds=[5]")
    assert code == 1
    assert f"make them with: maskutils reproduce --profile {profile} --param seeds=[5]" in output.replace("\n", " ")
    own = status.variation(profile, ["seeds=[5]"])
    code, output = call("report", "--profile", profile, "--param", "seeds=[5]")
    page = paths.results_dir(own) / "report" / "index.html"
    assert (code, str(page) in output.replace("\n", "")) == (0, True)
    assert f"<h1>{paths.results_dir(own).name}</h1>" in page.read_text()
    write_json(paths.results_dir(own) / "manifest.json", {"checksums": {"records.csv": "0"}})
    code, output = call("verify", "--profile", profile, "--param", "seeds=[5]")
    assert code == 1
    assert f"make it again: maskutils reproduce --profile {profile} --param seeds=[5]" in output


def test_status_shows_done_failed_and_missing_and_the_failed_notebook(root):  # noqa: F811
    profile = write_profile(root / "tiny.yaml", [{"notebook": ["first", "second", "broken"]}])
    runs = {run.id: run for run in plan.make_plan(profile)}
    state_of(root, profile, runs["first"])
    way_out = "RuntimeError: put https://download.example.org/models/of/a/long/name-0123456789abcdef.pth into /root/.cache/torch/hub"
    failed = {"status": "failed", "error": way_out, "notebook": "results/broken.failed.ipynb"}
    state_of(root, profile, runs["broken"], **failed)
    code, output = call("status", "--profile", profile)
    assert code == 1
    for word in ("broken.failed.ipynb", way_out):  # in one line, to be copied
        assert word in output
    for run, state in {"first": "done", "second": "missing", "broken": "failed"}.items():
        assert re.search(rf"│ {run} +│ {state}", output)


def test_reproduce_exits_0_when_all_is_done_and_1_when_some_failed(root, monkeypatch):  # noqa: F811
    profile = write_profile(root / "tiny.yaml", [{"notebook": ["first", "second"]}])
    states = {
        "first": {"status": "done", "seconds": 1.0},
        "second": {"status": "failed", "seconds": 1.0, "error": "e", "notebook": "n"},
    }

    def pretend(name, workers, scheduler, force, report, **_):
        for run in plan.make_plan(name):
            report("started", run, {})
            report(states[run.id]["status"], run, states[run.id])
        return states

    monkeypatch.setattr(batch, "reproduce", pretend)
    code, output = call("reproduce", "--profile", profile)
    assert code == 1
    assert "[2/2] second: failed" in output
    assert not {"\x1b", "\r"} & set(output)  # of a terminal; this is a log
    states["second"]["status"] = "done"
    code, output = call("reproduce", "--profile", profile)
    assert code == 0
    assert "2 of 2 runs done" in output


def test_another_batch_at_work_exits_1(root):  # noqa: F811
    profile = write_profile(root / "tiny.yaml", [{"notebook": "first"}])
    with batch.held_by_us(profile):
        code, output = call("reproduce", "--profile", profile)
    assert code == 1
    assert "another batch works on" in output


def test_a_batch_that_is_stopped_says_how_to_go_on(root, monkeypatch):  # noqa: F811
    def stopped(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(batch, "reproduce", stopped)
    profile = write_profile(root / "tiny.yaml", [{"notebook": "first"}])
    code, output = call("reproduce", "--force", "--profile", profile)
    assert code == 130
    assert "the same command goes on from there" in output  # for it had not come to mark what is to run again
    state_of(root, profile, *plan.make_plan(profile), forced=True)
    for force in ((), ("--force",)):
        output = call("reproduce", *force, "--profile", profile)[1]
        assert "the same command, without --force, goes on from there" in output


def test_claims_are_not_judged_on_records_without_what_they_read(root):  # noqa: F811
    profile = write_profile(root / "tiny.yaml", [{"notebook": "first"}])
    rows = [dict.fromkeys(COLUMNS, 0.5) | {"protocol": "finetune", "pair": "a", "seed": seed} for seed in range(3)]
    save_records(pd.DataFrame(rows), paths.results_dir(profile) / "records.csv")
    code, output = call("verify", "--profile", profile)
    assert code == 0
    assert "the records lack stored_bits, source_classes" in output
    assert "so there are no claims to check" in output


def test_the_end_tells_what_was_left_out_from_what_was_not_started(root, monkeypatch):  # noqa: F811
    profile = write_profile(root / "tiny.yaml", [{"notebook": ["first", "second", "broken"]}])

    def fails_fast(profile, workers, scheduler, force, report, *, runs, **how):
        report("left out", runs[2], {})
        return {"first": {"status": "failed", "error": "one line\nanother"}}

    monkeypatch.setattr(batch, "reproduce", fails_fast)
    code, output = call("reproduce", "--profile", profile, "--fail-fast", "--only", "first", "--only", "second")
    assert code == 1
    assert "0 of 3 runs done, 1 not, 1 not started, 1 left out, in" in output
    assert "\n    one line\n    another\n" in output


@pytest.mark.parametrize("kind", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_is_answered_at_once_and_ends_the_batch(root, monkeypatch, kind):  # noqa: F811
    def ended(*_: object, **__: object) -> None:
        os.kill(os.getpid(), kind)
        time.sleep(60)

    monkeypatch.setattr(batch, "reproduce", ended)
    before = signal.signal(kind, signal.default_int_handler)
    try:
        code, output = call("reproduce", "--profile", write_profile(root / "tiny.yaml", [{"notebook": "first"}]))
        assert (code, output.splitlines()[0]) == (128 + kind, "stopping ...")
        signal.signal(kind, signal.SIG_IGN)  # as under nohup
        assert kind not in cli.enders()
    finally:
        signal.signal(kind, before)


def test_a_report_is_one_page_that_opens_offline(root):  # noqa: F811
    rows = [{"notebook": "first"}, {"notebook": "second", "after": ["first"]}, {"notebook": "broken"}]
    profile = write_profile(root / "tiny.yaml", rows)
    runs, results = paths.runs_dir(profile), paths.results_dir(profile)
    runs.mkdir(parents=True)
    (runs / "first.ipynb").write_bytes((paths.notebooks_dir() / "first.ipynb").read_bytes())
    (runs / "broken.failed.ipynb").write_bytes((paths.notebooks_dir() / "broken.ipynb").read_bytes())
    state_of(root, profile, plan.make_plan(profile)[2], status="failed", error="code cell 2 (x < 1): it broke")
    (results / "headline.md").write_text("| approach | source |\n|---|---|\n| <b>held</b> | 93 |\n")
    (results / "manifest.json").write_text(
        '{"commit": "abc123", "versions": {"torch": "2"}, "cores": 2, "kernel_seconds": 7200}'
    )
    code, output = call("report", "--profile", profile)
    assert code == 0
    assert str(results / "report" / "index.html") in output.replace("\n", "")
    page = (results / "report" / "index.html").read_text()
    assert "<td>abc123</td>" in page
    assert "torch 2" in page
    assert "<td>2 h</td>" in page
    assert "<table" in page.partition("<h3>headline</h3>")[2]
    assert '<a href="notebooks/first.html">first</a>' in page
    assert '">second</a>' not in page
    assert '<a href="notebooks/broken.html">broken</a>' in page
    assert "<td>failed before<pre>code cell 2 (x &lt; 1): it broke</pre></td>" in page
    assert "<td>first</td>" in page.partition("comes after</th>")[2]
    assert "<td>missing</td>" in page
    assert (results / "report" / "notebooks" / "first.html").read_text().startswith("<!DOCTYPE html>")
    assert 'src="http' not in page + (results / "report" / "notebooks" / "first.html").read_text()
