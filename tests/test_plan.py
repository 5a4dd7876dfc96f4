"""The plan: parameters are checked before anything starts, and what must run is told from what is done."""

import json
import math
import subprocess
import sys

import pytest
from projects import root, write_notebook, write_profile  # noqa: F401

from maskutils.batch import plan
from maskutils.batch.profile import load_profile, mark_owner, profiles
from maskutils.core import files
from maskutils.core.checks import BadSetting
from maskutils.core.files import file_digest
from maskutils.study import inputs, provenance


def state_of(root, profile, run, **changes):  # noqa: F811
    """Write the state of a finished run, as the batch does, with `changes`."""
    output = plan.records_file(profile, run.id)
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text("records")
    state = {
        "status": "done",
        "seconds": 1.0,
        "parts": dict(run.parts),
        "outputs": {str(output): file_digest(output)},
    }
    files.write_json(plan.state_file(profile, run.id), state | changes)


@pytest.fixture
def profile(root):  # noqa: F811
    return write_profile(
        root / "tiny.yaml", [{"notebook": "first"}, {"notebook": "second", "after": ["first"]}], seeds=[1]
    )


@pytest.mark.parametrize("name", profiles())
def test_every_profile_makes_a_plan_in_dependency_order(name):
    seen = set()
    for run in plan.make_plan(name):
        assert set(run.after) <= seen
        assert run.id not in seen
        seen.add(run.id)


@pytest.mark.parametrize("notebook", sorted(p.stem for p in plan.paths.notebooks_dir().glob("*.ipynb")))
def test_every_notebook_has_parameters_that_are_checked(notebook):
    declared = plan.notebook_parameters(plan.find_notebook(notebook))
    assert plan.check_parameters(notebook, {}, declared).keys() == declared.keys()


def test_unknown_profile_is_refused_with_the_known_ones():
    with pytest.raises(BadSetting, match=r"unknown profile 'defualt'.*Did you mean 'default'"):
        plan.make_plan("defualt")


SEEDS = {"seeds": [[1], [2]]}


@pytest.mark.parametrize(
    ("runs", "message"),
    [
        ([{"notebook": "frist"}], r"unknown notebook \(in .*notebooks\) 'frist'; known: broken, .*\. Did you mean 'first'"),
        ([{"notebook": "first", "parameters": {"sedes": [1]}}], "unknown parameter 'sedes'.*Did you mean 'seeds'"),
        ([{"notebook": "first", "parameters": {"seeds": ["1"]}}], r"seeds = \['1'\] is not of type list\[int\]"),
        ([{"notebook": "first", "parameters": {"seeds": []}}], "seeds"),
        ([{"notebook": "first", "after": ["second"]}], "unknown notebook under after of first"),
        ([{"notbook": "first"}], "notebook"),
        ([], "runs"),
        ([{"notebook": "first", "each": {"seeds": []}}], "each: seeds has no values"),
        ([{"notebook": []}], "notebook"),
        ([{"notebook": "first", "each": SEEDS}, {"notebook": "second", "each": SEEDS, "after": ["first"], "collect": True}],
         "second-1, second-2 would each write records.csv"),
        ([{"notebook": "first", "collect": True}], "collect joins the records of what it comes after"),
        ([{"notebook": "first", "each": {"seeds": [list(range(99))]}}], "too long to name a file"),
        ([{"notebook": "first", "parameters": {"seeds": [7]}, "each": SEEDS}], "first: seeds under both parameters and each"),
        ([{"notebook": "first", "parameters": {"output": "o.csv"}}], "first: the batch itself gives output; leave it out"),
        ([{"notebook": "reals", "parameters": {"x": math.nan}}], "x = nan is not finite; give a number"),
        ([{"notebook": "reals", "parameters": {"xs": [1.0, -math.inf]}}], "xs = .*inf.* is not finite; give a number"),
    ],
)  # fmt: skip
def test_faults_of_a_profile_are_refused_before_anything_runs(root, runs, message):  # noqa: F811
    write_notebook(root / "notebooks" / "reals.ipynb", parameters="x: float = 1.0\nxs: list[float] = [1.0]")
    with pytest.raises(BadSetting, match=message):
        plan.make_plan(write_profile(root / "bad.yaml", runs))


def test_a_profile_with_a_dot_in_its_name_is_refused(root):  # noqa: F811
    with pytest.raises(BadSetting, match="has a dot in its name"):
        plan.make_plan(write_profile(root / "lr0.1.yaml", [{"notebook": "first"}]))


def test_numbers_of_a_profile_may_be_written_as_in_python(root):  # noqa: F811
    write_notebook(root / "notebooks" / "n.ipynb", "1", parameters="source_lr: float = 1e-3\nseeds: list[int] = [0]")
    (root / "own.yaml").write_text("description: x\nparameters: {source_lr: 1e-4, seeds: [10]}\nruns: [{notebook: n}]")
    assert plan.make_plan(str(root / "own.yaml"))[0].parameters == {"source_lr": 1e-4, "seeds": [10]}


def test_a_run_is_named_for_the_settings_it_varies(root):  # noqa: F811
    write_notebook(root / "notebooks" / "n.ipynb", "1", parameters="compute: dict = {}")
    runs = [{"notebook": "n", "each": {"compute": [{"device": "cpu"}, {"device": "cpu", "channels_last": True}]}}]
    made = plan.make_plan(write_profile(root / "own.yaml", runs))
    assert [run.id for run in made] == ["n-device_cpu", "n-channels_last_True_device_cpu"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("description: d\nruns: [{notebook: first}]\nruns: [{notebook: second}]", "'runs' stands twice, line 1"),
        (
            "description: d\ncell_timeout: 0\nruns: [{notebook: first}]",
            "cell_timeout = 0: input should be greater than 0",
        ),
        ("description: d\ncell_timeout: -5\nruns: [{notebook: first}]", "cell_timeout = -5"),
    ],
)
def test_faults_of_a_profiles_text_are_refused(root, text, message):  # noqa: F811
    (root / "bad.yaml").write_text(text)
    with pytest.raises(BadSetting, match=message):
        plan.make_plan(str(root / "bad.yaml"))


def test_a_merged_key_may_be_given_again(root):  # noqa: F811
    text = "description: d\nruns: [{notebook: first, parameters: &p {seeds: [1]}}, {notebook: second, parameters: {<<: *p, seeds: [2]}}]"
    (root / "own.yaml").write_text(text)
    assert [run.parameters["seeds"] for run in plan.make_plan(str(root / "own.yaml"))] == [[1], [2]]


def test_two_profiles_of_one_name_do_not_share_results(root, profile):  # noqa: F811
    plan.paths.runs_dir(profile).mkdir(parents=True)
    mark_owner(profile)
    assert plan.make_plan(profile)
    (root / "other").mkdir()
    other = write_profile(root / "other" / "tiny.yaml", [{"notebook": "first"}])
    with pytest.raises(BadSetting, match=r"holds the results of profile .*tiny\.yaml; rename"):
        plan.make_plan(other)
    (root / "tiny.yaml").unlink()  # it was moved
    assert plan.make_plan(other)


@pytest.mark.slow  # starts Python anew
def test_what_is_done_is_planned_without_torch(root):  # noqa: F811
    profile = write_profile(root / "many.yaml", [{"notebook": "first", "each": {"seeds": [[n] for n in range(20)]}}])
    for run in plan.make_plan(profile):
        state_of(root, profile, run)
    code = f"from maskutils.batch import plan\nassert not any(plan.why({profile!r}, r) for r in plan.make_plan({profile!r}))\n"
    code += "import sys\nassert not {'torch', 'IPython', 'nbformat', 'pandas', 'distributed'} & sys.modules.keys()"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_misspelt_common_parameter_is_refused(root):  # noqa: F811
    with pytest.raises(BadSetting, match="unknown parameter of profile"):
        plan.make_plan(write_profile(root / "bad.yaml", [{"notebook": "first"}], sedes=[1]))


@pytest.mark.parametrize("text", ["runs: [", "just text", "[1, 2]", ""])
def test_a_profile_that_is_not_a_mapping_is_refused(root, text):  # noqa: F811
    (root / "bad.yaml").write_text(text)
    with pytest.raises(BadSetting, match=r"bad\.yaml"):
        plan.make_plan(str(root / "bad.yaml"))


@pytest.mark.parametrize(
    ("parameters", "value", "message"),
    [
        ("densities: list[float] = [0.5]", {"densities": [1.5]}, "densities.*1.5"),
        ("densities: list[float] = [0.5]", {"densities": [0.0]}, "densities"),
        ('pair: str = "mnist_to_digits"', {"pair": "mnist_to_digit"}, "unknown pair.*Did you mean"),
        ('model: str = "cnn"', {"model": "cmm"}, "unknown model"),
        ("target_steps: int = 3", {"target_steps": 0}, "target_steps"),
        ("target_steps: int = 3", {"target_steps": "3"}, "not of type int"),
        ("per_layer: bool = False", {"per_layer": "true"}, "not of type bool"),
    ],
)
def test_values_out_of_range_are_refused_before_a_kernel_starts(root, parameters, value, message):  # noqa: F811
    write_notebook(root / "notebooks" / "n.ipynb", "1", parameters=parameters)
    with pytest.raises(BadSetting, match=message):
        plan.make_plan(write_profile(root / "bad.yaml", [{"notebook": "n", "parameters": value}]))


@pytest.mark.parametrize("cell", [None, "x = 1", "x: int | None = None", "x: int = 1 + y", "x: set = {1}", "import os"])
def test_a_parameters_cell_of_another_form_is_refused(root, cell):  # noqa: F811
    path = write_notebook(root / "notebooks" / "n.ipynb", "1", parameters=cell)
    with pytest.raises(BadSetting, match=r"n\.ipynb"):
        plan.notebook_parameters(path)


def test_a_damaged_notebook_is_refused(root):  # noqa: F811
    (root / "notebooks" / "n.ipynb").write_text("{")
    with pytest.raises(BadSetting, match=r"n\.ipynb is not a notebook"):
        plan.make_plan(write_profile(root / "bad.yaml", [{"notebook": "n"}]))


def test_what_is_done_stays_and_an_edit_of_prose_changes_nothing(root, profile):  # noqa: F811
    first = plan.make_plan(profile)[0]
    assert plan.why(profile, first) == "not run yet"
    state_of(root, profile, first)
    assert plan.why(profile, first) == ""
    source = (root / "notebooks" / "first.ipynb").read_text()
    (root / "notebooks" / "first.ipynb").write_text(source.replace("# Title", "# Another title"))
    assert plan.why(profile, plan.make_plan(profile)[0]) == ""


def test_an_edit_of_code_reruns_the_notebook_and_what_comes_after_it(root, profile):  # noqa: F811
    for run in plan.make_plan(profile):
        state_of(root, profile, run)
    source = (root / "notebooks" / "first.ipynb").read_text()
    (root / "notebooks" / "first.ipynb").write_text(source.replace("0.5", "0.25"))
    reasons = [plan.why(profile, run) for run in plan.make_plan(profile)]
    assert reasons == ["changed: notebook code", "changed: upstream"]


def test_a_comment_in_a_cell_changes_nothing(root, profile):  # noqa: F811
    state_of(root, profile, plan.make_plan(profile)[0])
    source = (root / "notebooks" / "first.ipynb").read_text()
    (root / "notebooks" / "first.ipynb").write_text(source.replace("NAME = ", "# the name\\nNAME  =  "))
    assert plan.why(profile, plan.make_plan(profile)[0]) == ""


def test_an_edit_of_a_module_beside_the_notebook_reruns(root):  # noqa: F811
    (root / "notebooks" / "near.py").write_text("import far\n")
    (root / "notebooks" / "far.py").write_text("x = 1  # one\n")
    write_notebook(root / "notebooks" / "one.ipynb", "%time\nfrom near import far")
    own = write_profile(root / "tiny.yaml", [{"notebook": "one"}])
    state_of(root, own, plan.make_plan(own)[0])
    (root / "notebooks" / "far.py").write_text("x = 1\n")
    assert plan.why(own, plan.make_plan(own)[0]) == ""
    (root / "notebooks" / "far.py").write_text("x = 2\n")
    assert plan.why(own, plan.make_plan(own)[0]) == "changed: modules beside the notebook"


@pytest.mark.parametrize(
    "line", ["import pkg", "from pkg.core import f", "import pkg.core as c", "from pkg import core"]
)
def test_an_edit_of_a_package_beside_the_notebook_reruns(root, line):  # noqa: F811
    written = {"__init__": "from .core import f", "core": "from . import far\nfrom ..pkg.far import x", "far": "x = 1"}
    for name, text in written.items():
        files.write_atomically(root / "notebooks" / "pkg" / f"{name}.py", text.encode())
    (root / "notebooks" / "core.py").write_text("of another name")
    write_notebook(root / "notebooks" / "one.ipynb", line)
    own = write_profile(root / "tiny.yaml", [{"notebook": "one"}])
    for name, text in written.items():
        state_of(root, own, plan.make_plan(own)[0])
        assert plan.why(own, plan.make_plan(own)[0]) == ""
        (root / "notebooks" / "pkg" / f"{name}.py").write_text(f"{text}\ny = 2")
        assert plan.why(own, plan.make_plan(own)[0]) == "changed: modules beside the notebook"


@pytest.mark.parametrize("library", ["torch", "numpy", "scikit-learn", "torchvision"])
def test_another_version_of_a_library_reruns(root, profile, monkeypatch, library):  # noqa: F811
    state_of(root, profile, plan.make_plan(profile)[0])
    monkeypatch.setattr(plan, "versions", lambda: {**provenance.versions(), library: "0.0"})
    assert plan.why(profile, plan.make_plan(profile)[0]) == "changed: versions"


def test_an_edit_of_the_package_reruns(root, profile, monkeypatch):  # noqa: F811
    state_of(root, profile, plan.make_plan(profile)[0])
    monkeypatch.setattr(plan, "code_keys", lambda *modules: {"maskutils": "another"})
    assert plan.why(profile, plan.make_plan(profile)[0]) == "changed: package code"


@pytest.mark.parametrize("cell", ['pair: str = "{}"', 'pairs: list[str] = ["{}"]'])
def test_another_image_in_a_folder_reruns(root, cell):  # noqa: F811
    for side in ("a", "b"):
        (root / side / "cat").mkdir(parents=True)
    write_notebook(root / "notebooks" / "one.ipynb", "pass", parameters=cell.format(f"folders:{root}/a:{root}/b"))
    own = write_profile(root / "tiny.yaml", [{"notebook": "one"}])
    state_of(root, own, plan.make_plan(own)[0])
    assert plan.why(own, plan.make_plan(own)[0]) == ""
    (root / "b" / "cat" / "1.png").write_bytes(b"new")
    inputs.stamps.cache_clear()  # it is asked once in a process
    assert plan.why(own, plan.make_plan(own)[0]) == "changed: files"


@pytest.mark.parametrize("outputs", [{}, []])
def test_a_run_that_says_of_no_output_is_not_done(root, profile, outputs):  # noqa: F811
    first = plan.make_plan(profile)[0]
    state_of(root, profile, first, outputs=outputs)
    assert plan.why(profile, first) == "its state file is damaged"


def test_a_run_is_compared_with_those_alone_that_it_comes_after(root, monkeypatch):  # noqa: F811
    looked, make = [], plan._run
    monkeypatch.setattr(plan, "_run", lambda *given: looked.append(len(given[-1])) or make(*given))
    runs = [{"notebook": "first", "each": SEEDS}, {"notebook": "second", "each": SEEDS, "after": ["first"]}]
    plan.make_plan(write_profile(root / "tiny.yaml", [*runs, {"notebook": "broken", "each": SEEDS}]))
    assert looked == [0, 0, 2, 2, 0, 0]


def test_an_output_that_was_never_written_is_missing(root, profile):  # noqa: F811
    first = plan.make_plan(profile)[0]
    state_of(root, profile, first, outputs={"runs/never.csv": ""})
    assert plan.why(profile, first) == "missing or damaged: never.csv"


@pytest.mark.parametrize("damage", ["delete", "edit"])
def test_missing_or_damaged_outputs_are_run_again(root, profile, damage):  # noqa: F811
    first = plan.make_plan(profile)[0]
    state_of(root, profile, first)
    output = plan.records_file(profile, first.id)
    output.unlink() if damage == "delete" else output.write_text("half a rec")
    assert plan.why(profile, first) == "missing or damaged: first.csv"


@pytest.mark.parametrize(
    "content",
    [
        "", "{", "[]", "null", json.dumps({"status": "done"}), json.dumps({"parts": 3, "outputs": 1}),
        json.dumps({"status": "done", "parts": {}, "outputs": ["first.csv"]}),
    ],
)  # fmt: skip
def test_a_damaged_state_is_run_again(root, profile, content):  # noqa: F811
    first = plan.make_plan(profile)[0]
    state_of(root, profile, first)
    plan.state_file(profile, first.id).write_text(content)
    assert plan.why(profile, first) == "its state file is damaged"


def test_a_failed_run_is_run_again(root, profile):  # noqa: F811
    first = plan.make_plan(profile)[0]
    state_of(root, profile, first, status="failed")
    assert plan.why(profile, first) == "failed before"


def test_one_run_listed_twice_is_refused(root):  # noqa: F811
    profile = write_profile(
        root / "tiny.yaml", [{"notebook": "first"}, {"notebook": "first", "parameters": {"seeds": [1]}}]
    )
    with pytest.raises(BadSetting, match="runs first twice"):
        plan.make_plan(profile)


def test_a_notebook_of_ones_own_may_have_what_it_likes_by_names_that_ours_use(root):  # noqa: F811
    own = 'pairs: str = "all"  # a\ncurve: float = 0.5  # b\ngrid: list[float] = [0.1]  # d'
    write_notebook(root / "notebooks" / "first.ipynb", parameters=own)
    [run] = plan.make_plan(write_profile(root / "tiny.yaml", [{"notebook": "first"}]))
    assert run.parameters == {"pairs": "all", "curve": 0.5, "grid": [0.1]}


def test_a_profile_of_ones_own_must_not_write_over_one_that_ships(root):  # noqa: F811
    with pytest.raises(BadSetting, match="name of one that ships"):
        plan.make_plan(write_profile(root / "study.yaml", [{"notebook": "first"}]))


@pytest.mark.parametrize(("declared", "given", "said"), [
    ('rankings: list[str] = ["random"]', {"rankings": ["randm"]}, "unknown method 'randm'"),
    ('method: str = "piggyback"', {"method": "pigyback"}, "unknown method 'pigyback'"),
    ("chosen: list[str] = []", {"chosen": ["finetune", "ewcc"]}, r"unknown approach 'ewcc'.* Did you mean 'ewc'"),
    ("grid: int = 2", {"grid": 0}, r"grid = 0 must be greater than 0"),
    ("curve: list[float] = [0.1]", {"curve": [2.0]}, r"curve 2\.0 is outside"),
    ("images: dict = {}", {"images": {"colour": 3}}, "unknown option of images 'colour'"),
    ("images: dict = {}", {"images": "size 224"}, r"images = 'size 224': .* as images: {size: 0}"),
    ("compute: dict = {}", {"compute": "cuda bf16"}, r"compute = 'cuda bf16': .* as compute: {device: auto}"),
    ('compute: str = "auto"', {}, r"compute = 'auto': .* as compute: {device: auto}"),
    ('method: str = "piggyback"\nsettings: list[dict] = []', {"settings": [{"lr": 1, "tua": 2}]}, "unknown option of piggyback 'tua'"),
    ("settings: list[dict] = []", {"settings": ["lr 0.1"]}, r"settings = \['lr 0.1'\] is not of type list\[dict\]"),
    ("seeds: list[int] = [0]", {"seeds": [1, 1]}, "seeds = .*holds a value twice"),
    ("densities: list[float] = [0.1]", {"densities": [0.2, 0.2]}, "densities = .*holds a value twice"),
])  # fmt: skip
def test_what_a_notebook_would_find_out_late_is_said_by_the_plan(root, declared, given, said):  # noqa: F811
    write_notebook(root / "notebooks" / "one.ipynb", "pass", parameters=declared)
    with pytest.raises(BadSetting, match=said):
        plan.make_plan(write_profile(root / "tiny.yaml", [{"notebook": "one", "parameters": given}]))


def test_an_option_of_images_is_not_a_parameter_and_is_told_its_place(root):  # noqa: F811
    with pytest.raises(BadSetting, match=r"size is an option of `images`: write images: \{size: 32\}"):
        plan.make_plan(write_profile(root / "tiny.yaml", [{"notebook": "first"}], size=32))


def test_a_parameters_cell_that_is_no_python_is_said_to_be_none(root):  # noqa: F811
    write_notebook(root / "notebooks" / "one.ipynb", "pass", parameters="seeds: list[int] = [0")
    with pytest.raises(BadSetting, match=r"parameters cell: .*never closed"):
        plan.make_plan(write_profile(root / "tiny.yaml", [{"notebook": "one"}]))


@pytest.mark.parametrize(
    "source", ["%%bash\nls -l", "import os?", "files = !ls", "%matplotlib inline\nimport maskutils.mask"]
)
def test_a_notebook_may_hold_what_only_ipython_reads(root, source):  # noqa: F811
    write_notebook(root / "notebooks" / "one.ipynb", source)
    assert plan.make_plan(write_profile(root / "tiny.yaml", [{"notebook": "one"}]))


def test_a_profile_that_reads_records_and_collects_none_is_refused(root):  # noqa: F811
    write_notebook(
        root / "notebooks" / "reads.ipynb", "print(profile)", parameters='profile: str = "study"  # whose records'
    )
    runs = [{"notebook": "first"}, {"notebook": "reads", "after": ["first"]}]
    with pytest.raises(
        BadSetting, match="reads reads the records of this profile, and no run collects them; write `collect: true`"
    ):
        plan.make_plan(write_profile(root / "mine.yaml", runs))
    assert len(plan.make_plan(write_profile(root / "mine.yaml", [runs[0], runs[1] | {"collect": True}]))) == 2


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("runs: [{notebook: first}]", "description is missing"),
        (
            "description: x\nruns: [{notebok: first}]",
            "unknown key of entry 1 under runs 'notebok'; known: after, collect, each, notebook, parameters. "
            "Did you mean 'notebook'?",
        ),
    ],
)
def test_a_missing_or_misspelt_key_is_told_in_a_line(root, text, told):  # noqa: F811
    (root / "tiny.yaml").write_text(text)
    with pytest.raises(BadSetting) as error:
        load_profile(str(root / "tiny.yaml"))
    assert str(error.value) == f"profile {root / 'tiny.yaml'}: {told}"
