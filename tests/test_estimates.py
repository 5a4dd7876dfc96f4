"""Estimates: measured where there is a measurement, else in proportion to the work."""

import pytest
from projects import root, write_notebook, write_profile  # noqa: F401

from maskutils.batch import estimates, plan
from maskutils.core import files, paths

PARAMETERS = {"pair": "mnist_to_digits", "model": "mlp", "seeds": [0], "densities": [0.1, 0.5], "target_steps": 300}


@pytest.fixture
def work(root):  # noqa: F811
    """A notebook with the parameters of training; gives a function that says the seconds expected for a run of it."""
    kinds = {"seeds": "list[int]", "densities": "list[float]", "target_steps": "int"}
    lines = [f"{name}: {kinds.get(name, 'str')} = {value!r}  #" for name, value in PARAMETERS.items()]
    write_notebook(root / "notebooks" / "work.ipynb", "pass", parameters="\n".join(lines))

    def expected(**parameters):
        profile = write_profile(root / "tiny.yaml", [{"notebook": "work", "parameters": parameters}])
        return estimates.expected_seconds(profile, plan.make_plan(profile))["work"]

    return expected


def ran(profile, run, seconds, **parameters):
    """Write a manifest that says how long a run took."""
    write_manifest(profile, {"id": run, "seconds": seconds, "parameters": PARAMETERS | parameters})


def write_manifest(profile, *rows):
    files.write_json(paths.results_dir(profile) / "manifest.json", {"runs": rows})


def done(seconds, **parameters):
    """The state of a run that is done."""
    return {"status": "done", "seconds": seconds, "parts": {"parameters": parameters}}


def test_a_run_takes_what_it_took_last_and_another_what_nothing_is_known_of(root):  # noqa: F811
    profile = write_profile(root / "tiny.yaml", [{"notebook": ["first", "second"]}])
    runs = plan.make_plan(profile)
    files.write_json(plan.state_file(profile, "first"), done(7.5))
    assert estimates.expected_seconds(profile, runs) == {"first": 7.5, "second": estimates.UNKNOWN_SECONDS}


def test_the_last_state_is_believed_before_the_manifest(root):  # noqa: F811
    profile = write_profile(root / "tiny.yaml", [{"notebook": "first"}])
    runs = plan.make_plan(profile)
    write_manifest(profile, {"id": "first", "seconds": 40.0, "parameters": {}})
    assert estimates.expected_seconds(profile, runs) == {"first": 40.0}
    files.write_json(plan.state_file(profile, "first"), done(7.5))
    assert estimates.expected_seconds(profile, runs) == {"first": 7.5}
    files.write_json(plan.state_file(profile, "first"), {"status": "failed", "seconds": 1.0})
    assert estimates.expected_seconds(profile, runs) == {"first": 40.0}


def test_a_run_is_as_urgent_as_the_longest_chain_that_begins_with_it(root):  # noqa: F811
    write_notebook(root / "notebooks" / "third.ipynb")
    runs = [
        {"notebook": "first"},
        {"notebook": "second", "after": ["first"]},
        {"notebook": "third", "after": ["second"]},
    ]
    profile = write_profile(root / "tiny.yaml", runs)
    rows = [{"id": n, "seconds": s, "parameters": {}} for n, s in {"first": 5.0, "second": 7.0, "third": 1.0}.items()]
    write_manifest(profile, *rows)
    found = estimates.longest_paths(profile, plan.make_plan(profile))
    assert found == {"first": 13.0, "second": 8.0, "third": 1.0}


def test_a_run_never_done_is_scaled_by_its_steps_from_another_profile(work, monkeypatch):
    monkeypatch.setattr(estimates, "step_seconds", None)  # the same network: nothing is measured
    ran("study", "work-x", estimates.START + 10)
    assert work(seeds=[0, 1, 2], target_steps=600) == pytest.approx(estimates.START + 60)


def test_a_run_with_other_parameters_than_last_time_is_scaled_from_that(work, monkeypatch, root):  # noqa: F811
    monkeypatch.setattr(estimates, "step_seconds", None)  # the same network: nothing is measured
    profile = write_profile(root / "tiny.yaml", [{"notebook": "work"}])
    ran("study", "work-x", 1000.0, target_steps=100)
    files.write_json(plan.state_file(profile, "work"), done(estimates.START + 10, **PARAMETERS))
    assert work(seeds=[5]) == estimates.START + 10
    assert work(seeds=[0, 1, 2]) == pytest.approx(estimates.START + 30)


def test_it_is_scaled_from_the_run_that_is_most_like_it(work, monkeypatch):
    monkeypatch.setattr(estimates, "step_seconds", {"mlp": 1.0, "cnn": 5.0}.__getitem__)
    monkeypatch.setattr(estimates, "_network", lambda parameters: parameters["model"])
    ran("default", "work-x", estimates.START + 1000, model="cnn")
    ran("study", "work-x", estimates.START + 10, target_steps=150)
    assert work() == pytest.approx(estimates.START + 20)
    ran("study", "other-x", 1.0)
    assert work() == pytest.approx(estimates.START + 200)


def test_a_notebook_may_have_hyphens_in_its_name(root, monkeypatch):  # noqa: F811
    monkeypatch.setattr(estimates, "step_seconds", None)  # the same network: nothing is measured
    parameters = 'pair: str = "mnist_to_digits"\nmodel: str = "mlp"\nseeds: list[int] = [0]\ntarget_steps: int = 300'
    write_notebook(root / "notebooks" / "my-work.ipynb", parameters=parameters)
    profile = write_profile(root / "tiny.yaml", [{"notebook": "my-work"}])
    whose = {"pair": "mnist_to_digits", "model": "mlp", "seeds": [0], "target_steps": 300}
    rows = [
        {"id": f"my{of}-x", "seconds": estimates.START + s, "parameters": whose} for of, s in (("-work", 20), ("", 1))
    ]
    write_manifest("study", *rows)
    assert estimates.expected_seconds(profile, plan.make_plan(profile)) == {"my-work": estimates.START + 20}


def test_what_a_notebook_tunes_multiplies_its_steps():
    assert (
        estimates.steps({"seeds": [100], "lrs": [0.001, 0.01, 0.1], "steps": [300, 900], "mask_steps": 7}) == 3 * 1200
    )
    assert estimates.steps({"settings": [{}, {}], "pairs": ["a", "b"], "mask_steps": 300}) == 4 * 300
    assert estimates.steps({"target_steps": 50, "chosen": ["ewc", "lora"]}) == 100
    assert estimates.steps({"target_steps": 50, "chosen": ["ewc", "lora"], "grid": 4}) == 400
    assert estimates.steps({"target_steps": 50, "chosen": []}) == 50 * estimates.USUAL_APPROACHES
    assert estimates.steps({"seeds": [0]}) == 0
    assert estimates.steps({"steps": 100, "lrs": 0.1, "chosen": True, "mask_steps": 5}) == 5  # a notebook's own
    assert estimates.steps({"steps": ["load", "fit"], "grid": ["a"], "target_steps": "all"}) == 0


def test_a_notebook_that_never_ran_anywhere_takes_its_steps_at_the_measured_pace(work, monkeypatch):
    monkeypatch.setattr(estimates, "step_seconds", lambda network: 2.0 if network == ("mlp", 1, 28, 32) else None)
    assert work() == pytest.approx(estimates.START + 600 * 2.0)


def test_the_step_of_a_network_is_measured_once_and_grows_with_its_batch():
    small, large = ("mlp", 1, 28, 2), ("cnn", 3, 64, 64)
    assert estimates.STEP < estimates.step_seconds(small) < estimates.step_seconds(large) < 5
    assert estimates.step_seconds(large) == estimates.step_seconds(large)


def test_a_network_that_does_not_take_images_of_that_size_is_no_error():
    assert estimates.step_seconds(("vgg11", 1, 1, 2)) == estimates.STEP


@pytest.mark.parametrize(("pair", "shape"), [("mnist_to_digits", (1, 28)), ("cifar10_to_stl10", (3, 32))])
def test_the_size_of_images_is_known_without_reading_one(pair, shape):
    assert estimates._network(PARAMETERS | {"pair": pair, "batch_size": 8}) == ("mlp", *shape, 8)


def test_parameters_of_an_older_manifest_are_no_error():
    assert estimates._network(PARAMETERS | {"batch_size": "many"}) is None
    assert estimates._network({"seeds": [0]}) is None
