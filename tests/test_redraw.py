"""Committed figures and tables, drawn again from committed records."""

import pytest
from projects import root, write_notebook, write_profile  # noqa: F401
from rows import at, make

from maskutils.batch import plan
from maskutils.core import files
from maskutils.results import manifest
from maskutils.results.records import save_records
from tools.redraw import redraw

ONE, OTHER = "mnist_to_digits", "mnist_to_inverted"
READER = (
    "from maskutils.core import paths\nfrom maskutils.results.records import load_records\ntable = load_records(profile)\n"
    "_ = write and (paths.results_dir(profile) / 'told.md').write_text(f\"{sorted(set(table['pair']))}\")"
)


def records(pair):
    """One record on `pair`."""
    return make(at(0.9, 0.8, pair=pair))


@pytest.fixture
def study(root):  # noqa: F811
    """A profile of one notebook on two pairs, of which one is committed; and the notebook that reads the records."""
    parameters = "pair: str = 'mnist_to_digits'  # pair\noutput: str = ''  # file"
    write_notebook(root / "notebooks" / "first.ipynb", "", parameters=parameters)
    parameters = "profile: str = 'x'  # whose\nwrite: bool = False  # tables"
    write_notebook(root / "notebooks" / "reader.ipynb", READER, parameters=parameters)
    collecting = {"notebook": "reader", "after": ["first"], "collect": True, "parameters": {"write": True}}
    profile = write_profile(root / "mine.yaml", [{"notebook": "first", "each": {"pair": [ONE, OTHER]}}, collecting])
    save_records(records(ONE), root / "results" / "mine" / "records.csv")
    rows = [{"id": name, "key": "old", "seconds": 4.0, "parameters": {}} for name in (f"first-{ONE}", "reader")]
    files.write_json(root / "results" / "mine" / "manifest.json", {"commit": "old", "runs": rows, "checksums": {}})
    return profile


def add(study, of, status="done", **settings):
    """The state of the run on the pair `of`, with its records beside it; returns its file."""
    run = next(run for run in plan.make_plan(study) if run.id == f"first-{of}")
    file = plan.state_file(study, run.id)
    save_records(records(of).assign(**settings), file.with_suffix(".csv"))
    files.write_json(file, {"status": status, "seconds": 2.5, "outputs": {}, "parts": plan.as_stored(run.parts)})
    return file


@pytest.mark.slow
def test_tables_are_drawn_again_and_a_new_pair_joins(root, study):  # noqa: F811
    folder = root / "results" / "mine"
    redraw(study)
    assert (folder / "told.md").read_text() == f"['{ONE}']"
    assert manifest.damaged(folder) == []
    assert len(manifest.vouched(folder)) == 2
    assert files.read_json(folder / "manifest.json")["commit"] == "old"

    new = add(study, OTHER)
    redraw(study, [new])
    assert (folder / "told.md").read_text() == f"['{ONE}', '{OTHER}']"
    found = files.read_json(folder / "manifest.json")
    keys = {row["id"]: row["key"] for row in found["runs"]}
    assert keys == {f"first-{ONE}": "old", f"first-{OTHER}": plan.make_plan(study)[1].key, "reader": "old"}
    assert found["kernel_seconds"] == 10.5
    assert manifest.damaged(folder) == []


def test_records_of_other_settings_do_not_join(root, study):  # noqa: F811
    state = add(study, OTHER, pair=ONE, target_steps=7)
    with pytest.raises(ValueError, match="with other settings: target_steps"):
        redraw(study, [state])


def test_a_run_that_is_there_already_is_renewed_and_not_added(study):
    with pytest.raises(ValueError, match="first-mnist_to_digits is in the manifest already; renew the whole profile"):
        redraw(study, [add(study, ONE)])


def test_damaged_records_are_not_vouched_for(root, study):  # noqa: F811
    file = root / "results" / "mine" / "manifest.json"
    files.write_json(file, files.read_json(file) | {"checksums": {"records.csv": "0"}})
    with pytest.raises(ValueError, match=r"records\.csv is not what was written.*; restore it with git"):
        redraw(study)


def test_a_run_that_is_not_done_does_not_join(study):
    with pytest.raises(ValueError, match=r"first-mnist_to_inverted\.json is the state of a run that is not done"):
        redraw(study, [add(study, OTHER, status="failed")])


def test_a_run_that_the_profile_does_not_have_does_not_join(root, study):  # noqa: F811
    state = add(study, OTHER)
    strange = state.with_name("third-mnist_to_rotated.json")
    state.rename(strange)
    before = (root / "results" / "mine" / "records.csv").read_text()
    with pytest.raises(
        ValueError, match=r"third-mnist_to_rotated is no run of .*mine.*; write it into the profile first"
    ):
        redraw(study, [strange])
    assert (root / "results" / "mine" / "records.csv").read_text() == before
