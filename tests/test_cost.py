"""Estimates: measured where there is a measurement, else in proportion to the work."""

import pytest
from projects import root, write_notebook, write_profile  # noqa: F401

from maskutils.batch import estimates as cost
from maskutils.batch import plan
from maskutils.core import files, paths

PARAMETERS = {"pair": "mnist_to_digits", "model": "mlp", "seeds": [0], "densities": [0.1, 0.5], "target_steps": 300}


def test_a_run_takes_what_it_took_last_and_another_what_nothing_is_known_of(root):  # noqa: F811
    profile = write_profile(root / "tiny.yaml", [{"notebook": ["first", "second"]}])
    runs = plan.make_plan(profile)
    files.write_json(plan.state_file(profile, "first"), {"status": "done", "seconds": 7.5})
    assert cost.expected_seconds(profile, runs) == {"first": 7.5, "second": cost.UNKNOWN}


def test_the_longer_of_manifest_and_last_state_is_believed(root):  # noqa: F811
    profile = write_profile(root / "tiny.yaml", [{"notebook": "first"}])
    runs = plan.make_plan(profile)
    files.write_json(paths.results_dir(profile) / "manifest.json", {"runs": [{"id": "first", "seconds": 40.0}]})
    files.write_json(plan.state_file(profile, "first"), {"status": "done", "seconds": 7.5})
    assert cost.measured_seconds(profile, runs) == {"first": 40.0}


def test_a_run_is_as_urgent_as_the_longest_chain_that_begins_with_it(root):  # noqa: F811
    write_notebook(root / "notebooks" / "third.ipynb")
    runs = [
        {"notebook": "first"},
        {"notebook": "second", "after": ["first"]},
        {"notebook": "third", "after": ["second"]},
    ]
    profile = write_profile(root / "tiny.yaml", runs)
    rows = [{"id": n, "seconds": s} for n, s in {"first": 5.0, "second": 7.0, "third": 1.0}.items()]
    files.write_json(paths.results_dir(profile) / "manifest.json", {"runs": rows})
    found = cost.longest_paths(profile, plan.make_plan(profile))
    assert found == {"first": 13.0, "second": 8.0, "third": 1.0}


def test_a_run_never_done_is_scaled_from_the_default_profile_by_its_work(root):  # noqa: F811
    kinds = {"seeds": "list[int]", "densities": "list[float]", "target_steps": "int"}
    lines = [f"{name}: {kinds.get(name, 'str')} = {value!r}  #" for name, value in PARAMETERS.items()]
    write_notebook(root / "notebooks" / "work.ipynb", "pass", parameters="\n".join(lines))
    row = {"id": "work-x", "seconds": cost.START + 10, "parameters": PARAMETERS}
    files.write_json(paths.results_dir("default") / "manifest.json", {"runs": [row]})
    run = {"notebook": "work", "parameters": {"seeds": [0, 1, 2], "target_steps": 600}}
    profile = write_profile(root / "tiny.yaml", [run])
    assert cost.expected_seconds(profile, plan.make_plan(profile))["work"] == pytest.approx(cost.START + 60)


def test_work_grows_with_the_arithmetic_of_the_network():
    small, large = ({**PARAMETERS, "model": model} for model in ("mlp", "resnet18"))
    assert cost.work(large, cost.CORE) > 50 * cost.work(small, cost.CORE) > 50 * 600 * cost.STEP
    assert cost.work(small, cost.GPU) < cost.work(small, cost.CORE)


def test_flops_are_counted_without_computing():
    assert cost.flops("mlp", 1, 28) == 2 * (784 * 160 + 160 * 160 + 160 * 10)
    assert cost.flops("resnet50", 3, 224) == pytest.approx(8.2e9, rel=0.02)


def test_arithmetic_grows_with_the_images_side():
    small, large = (
        {**PARAMETERS, "model": "cnn", "pair": "folders:a:b", "images": {"size": side}} for side in (32, 64)
    )
    assert cost.arithmetic(large) > 3 * cost.arithmetic(small)
