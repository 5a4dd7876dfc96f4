"""Settings: what is refused and how it is said, notebooks' parameters, keys by content."""

import math

import pytest

from maskutils.core.checks import BadSetting, content_key, known, register
from maskutils.study.setup import Compute, Images, Setup, checked, from_notebook

PARAMETERS = 'pair: str = "mnist_to_digits"\nseeds: list[int] = [0]\nmask_steps = 300\noutput = ""\n'


def ran(*cells: str) -> dict:
    """The globals of a notebook that ran `cells`, with IPython's history of them."""
    namespace = {"In": ["", *cells]}
    for cell in cells:
        exec(cell, namespace)
    return namespace


def test_no_settings_give_the_defaults():
    assert checked(Setup, {}) == Setup()


def test_given_settings_are_kept_and_lists_become_tuples():
    setup = checked(Setup, {"seeds": [3, 1], "densities": [0.2], "source_lr": 0.5, "per_layer": True})
    assert (setup.seeds, setup.densities, setup.source_lr, setup.per_layer) == ((3, 1), (0.2,), 0.5, True)


def test_a_setup_cannot_be_changed():
    with pytest.raises(ValueError, match="frozen"):
        Setup().pair = "other"


@pytest.mark.parametrize(
    ("misspelt", "meant"),
    [("seed", "seeds"), ("mask_step", "mask_steps"), ("sourcelr", "source_lr"), ("modle", "model")],
)
def test_a_misspelt_setting_is_refused_with_a_suggestion(misspelt, meant):
    with pytest.raises(BadSetting, match=f"unknown parameter '{misspelt}'.*Did you mean '{meant}'"):
        checked(Setup, {misspelt: 1})


@pytest.mark.parametrize("name", [n for n, f in Setup.model_fields.items() if f.annotation in (int, float, bool)])
@pytest.mark.parametrize("value", ["1", None, [1]])
def test_a_setting_of_the_wrong_type_is_refused_by_name(name, value):
    with pytest.raises(BadSetting, match=f"parameter {name} = "):
        checked(Setup, {name: value})


@pytest.mark.parametrize("name", ["mask_steps", "target_steps", "batch_size"])
@pytest.mark.parametrize("value", [0, -1, 2.0, True])
def test_steps_are_integers_of_at_least_one(name, value):
    with pytest.raises(BadSetting, match=f"parameter {name} = "):
        checked(Setup, {name: value})


@pytest.mark.parametrize("name", ["source_lr", "target_lr"])
@pytest.mark.parametrize("value", [0.0, -1e-3, math.nan])
def test_learning_rates_are_above_zero(name, value):
    with pytest.raises(BadSetting, match=f"parameter {name} = "):
        checked(Setup, {name: value})


@pytest.mark.parametrize("name", ["source_lr", "target_lr"])
def test_learning_rates_are_finite(name):
    with pytest.raises(BadSetting, match=f"parameter {name} = inf"):
        checked(Setup, {name: math.inf})


@pytest.mark.parametrize("name", ["densities", "alphas"])
@pytest.mark.parametrize("share", [0.0, -0.1, 1.0001, math.nan, math.inf, "0.1", None])
def test_shares_outside_zero_to_one_are_refused_by_place(name, share):
    with pytest.raises(BadSetting, match=rf"parameter {name}\.1 = "):
        checked(Setup, {name: [0.5, share]})


def test_density_one_and_an_integer_for_it_are_allowed():
    assert checked(Setup, {"densities": [1]}).densities == (1.0,)


@pytest.mark.parametrize("seeds", [[], 0, "01", [-1], [0.0], [True], ["1"], [None]])
def test_seeds_are_a_filled_list_of_natural_numbers(seeds):
    with pytest.raises(BadSetting, match=r"parameter seeds"):
        checked(Setup, {"seeds": seeds})


def test_all_faults_are_said_at_once():
    with pytest.raises(BadSetting, match=r"(?s)(?=.*mask_steps = 0)(?=.*source_lr = 'x')"):
        checked(Setup, {"mask_steps": 0, "source_lr": "x"})


def test_known_gives_the_name_back():
    assert known("b", {"a": 1, "b": 2}, "letter") == "b"


def test_an_unknown_name_lists_the_known_ones_sorted_and_the_nearest():
    with pytest.raises(
        BadSetting, match=r"unknown method 'magnitud'; known: magnitude, random\. Did you mean 'magnitude'\?"
    ):
        known("magnitud", ["random", "magnitude"], "method")


def test_where_nothing_is_known_that_is_said():
    with pytest.raises(BadSetting, match="unknown knob 'a'; known: none"):
        known("a", (), "knob")


def test_a_name_like_no_other_gets_no_suggestion():
    with pytest.raises(BadSetting) as error:
        known("zzz", ["random", "magnitude"], "method")
    assert "mean" not in str(error.value)


def test_bad_settings_are_value_errors():
    assert issubclass(BadSetting, ValueError)


def test_what_papermill_injects_wins_over_what_the_notebook_declares():
    setup = from_notebook(ran(PARAMETERS, "# Parameters\nseeds = [4, 5]\nmask_steps = 7\n"))
    assert (setup.seeds, setup.mask_steps, setup.pair) == ((4, 5), 7, "mnist_to_digits")


def test_a_misspelt_injected_name_is_refused_with_a_suggestion():
    with pytest.raises(BadSetting, match=r"unknown parameter 'mask_stesp'.*Did you mean 'mask_steps'"):
        from_notebook(ran(PARAMETERS, "# Parameters\nmask_stesp = 7\n"))


def test_a_setting_that_the_notebook_does_not_declare_is_refused_when_injected():
    with pytest.raises(BadSetting, match="unknown parameter 'target_steps'"):
        from_notebook(ran(PARAMETERS, "# Parameters\ntarget_steps = 7\n"))


def test_a_parameter_of_the_notebook_alone_may_be_injected():
    assert from_notebook(ran(PARAMETERS, '# Parameters\noutput = "x.csv"\n')) == Setup(mask_steps=300)


def test_an_injected_value_of_the_wrong_type_is_refused():
    with pytest.raises(BadSetting, match="parameter mask_steps = '7'"):
        from_notebook(ran(PARAMETERS, '# Parameters\nmask_steps = "7"\n'))


def test_cells_with_magics_hide_no_misspelling():
    namespace = ran(PARAMETERS, "# Parameters\nsedes = [1]\n")
    namespace["In"] += ["%matplotlib inline", "!ls", "x = 1; %time f(x)"]
    with pytest.raises(BadSetting, match=r"'sedes'.*Did you mean 'seeds'"):
        from_notebook(namespace)


def test_a_script_without_history_and_with_other_globals_is_read_too():
    assert from_notebook({"seeds": [2], "unrelated": object()}) == Setup(seeds=(2,))


def test_a_content_key_is_the_hash_of_compact_sorted_json():
    # printf '["source",{"a":1,"b":[0.1,null]},3]' | sha256sum | cut -c1-16
    assert content_key("source", {"b": (0.1, None), "a": 1}, 3) == "2b7a8d003bd8b9e2"


def test_a_content_key_ignores_the_order_of_names_but_not_of_parts():
    assert content_key({"a": 1, "b": {"c": 2, "d": 3}}) == content_key({"b": {"d": 3, "c": 2}, "a": 1})
    assert content_key(1, 2) != content_key(2, 1)


@pytest.mark.parametrize(
    "other", [("m", {"k": 0.1}), ("m", {"k": 0.2, "l": None}), ("n", {"k": 0.2}), ("m", {"k": "0.2"}), ("m",)]
)
def test_other_content_has_another_key(other):
    assert content_key(*other) != content_key("m", {"k": 0.2})


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_not_json_has_no_key(value):
    with pytest.raises(ValueError, match="Out of range float"):
        content_key("m", {"k": [value]})


def test_register_files_a_function_under_its_own_name_and_gives_it_back():
    registry = {}

    def probe() -> None: ...

    assert register(registry)(probe) is probe
    assert registry == {"probe": probe}


def test_a_name_is_registered_once():
    def cnn() -> None: ...

    registry = {"cnn": cnn}
    with pytest.raises(ValueError, match="'cnn' is registered already"):
        register(registry)(cnn)


def test_settings_without_a_trained_source_are_refused():
    with pytest.raises(BadSetting, match=r"^source_steps = 0 trains no source network; give weights="):
        Setup().changed(source_steps=0)
    assert Setup(source_steps=0, weights="DEFAULT").weights == "DEFAULT"


# Settings by field


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({}, "auto"),
        ({"device": "cuda", "precision": "bf16"}, "cuda bf16"),
        ({"deterministic": True, "channels_last": True, "device": "cpu"}, "cpu channels_last deterministic"),
        ({"precision": "bf16", "channels_last": True}, "auto bf16 channels_last"),
    ],
)
def test_compute_is_given_by_field_and_recorded_as_text(given, text):
    assert str(checked(Setup, {"compute": given}).compute) == str(Setup(compute=Compute(**given)).compute) == text


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({}, ""),
        ({"workers": 8}, ""),
        ({"damaged": "skip", "size": 64, "channels": 3}, "size 64 channels 3 damaged skip"),
    ],
)
def test_images_are_given_by_field_and_recorded_as_text(given, text):
    assert str(checked(Setup, {"images": given}).images) == str(Setup(images=Images(**given)).images) == text


@pytest.mark.parametrize(("name", "value", "message"), [
    ("compute", {"device": "gpu"}, r"compute\.device = 'gpu': input should be 'auto', 'cpu', 'cuda' or 'mps'"),
    ("compute", {"precision": "fp16"}, r"compute\.precision = 'fp16': input should be 'float32' or 'bf16'"),
    ("compute", {"deterministic": "yes"}, r"compute\.deterministic = 'yes'"),
    ("compute", {"presicion": "bf16"}, "unknown option of compute 'presicion'.*Did you mean 'precision'"),
    ("images", {"size": "224"}, r"images\.size = '224': input should be a valid integer"),
    ("images", {"size": -1}, r"images\.size = -1"),
    ("images", {"channels": 2}, r"images\.channels = 2: input should be 1 \(grey\), 3"),
    ("images", {"channels": True}, r"images\.channels = True"),
    ("images", {"damaged": "ignore"}, r"images\.damaged = 'ignore': input should be 'refuse' or 'skip'"),
    ("images", {"classes": "shared"}, r"images\.classes = 'shared': input should be 'all' or 'common'"),
    ("images", {"workers": 1.0}, r"images\.workers = 1\.0"),
    ("images", {"colour": 3}, "unknown option of images 'colour'"),
    ("images", [224], r"images = \[224\]"),
    ("images", None, "images = None"),
])  # fmt: skip
def test_a_bad_field_is_refused_by_its_name(name, value, message):
    with pytest.raises(BadSetting, match=f"^parameter .*{message}"):
        checked(Setup, {name: value})


@pytest.mark.parametrize(("name", "form"), [("compute", "compute: {device: auto}"), ("images", "images: {size: 0}")])
@pytest.mark.parametrize("given", ["cuda bf16", "", 3])
def test_what_is_not_given_by_field_is_refused_with_an_example(name, given, form):
    with pytest.raises(BadSetting) as error:
        checked(Setup, {name: given})
    assert str(error.value) == f"parameter {name} = {given!r}: it is given by field, as {form}"


@pytest.mark.parametrize(
    ("made", "text"),
    [
        (Compute(device="cuda", precision="bf16", channels_last=True), "cuda bf16 channels_last"),
        (Images(size=64, channels=1, damaged="skip", workers=2), "size 64 channels 1 damaged skip"),
    ],
)
def test_settings_by_field_are_recorded_as_text(made, text):
    assert str(made) == text


@pytest.mark.parametrize(
    ("field", "value", "place"), [("size", 32, "images: {size: 32}"), ("device", "cpu", "compute: {device: cpu}")]
)
def test_a_field_in_the_place_of_a_setting_is_told_its_own(field, value, place):
    for use in (
        lambda: checked(Setup, {field: value}),
        lambda: from_notebook(ran(PARAMETERS, f"# Parameters\n{field} = {value!r}\n")),
    ):
        with pytest.raises(BadSetting, match=f"{field} is an option of `.*`: write {place}"):
            use()


def test_papermill_injects_fields_as_a_dict():
    setup = from_notebook(
        ran(
            "compute: dict = {}\nimages: dict = {}\n",
            '# Parameters\ncompute = {"device": "cpu", "channels_last": True}\n',
        )
    )
    assert setup == Setup(compute=Compute(device="cpu", channels_last=True))


# Changes


def test_a_change_gives_other_settings_and_leaves_the_first_as_they_were():
    setup = Setup(seeds=(1,))
    other = setup.changed(alphas=[0.5, 1.0], compute={"device": "cpu"})
    assert (other.seeds, other.alphas, other.compute) == ((1,), (0.5, 1.0), Compute(device="cpu"))
    assert setup == Setup(seeds=(1,))
    assert setup.changed() == setup
    assert hash(setup.changed(seeds=[1])) == hash(setup)


@pytest.mark.parametrize(
    "change",
    [lambda s, **u: s.changed(**u), lambda s, **u: s.model_copy(update=u)],
    ids=["changed", "model_copy"],
)
@pytest.mark.parametrize(
    ("update", "message"),
    [
        ({"alphas": (0.5, 0.5, 7.0)}, r"parameter alphas\.2 = 7\.0"),
        ({"alphas": (0.5, 0.5)}, r"parameter alphas = \(0\.5, 0\.5\): holds a value twice"),
        ({"densities": (0.0121, 0.0124)}, r"holds a value twice \(records tell densities apart by three places\)"),
        ({"target_steps": "3"}, "parameter target_steps = '3'"),
        ({"seed": 1}, "unknown parameter 'seed'.*Did you mean 'seeds'"),
        ({"compute": {"device": "gpu"}}, r"parameter compute\.device = 'gpu'"),
    ],
)
def test_a_change_is_checked_as_new_settings_are(change, update, message):
    with pytest.raises(BadSetting, match=message):
        change(Setup(), **update)


def test_a_change_of_a_part_is_checked_too():
    with pytest.raises(BadSetting, match="parameter device = 'gpu'"):
        Compute().model_copy(update={"device": "gpu"})


def test_a_misspelt_name_in_the_parameters_cell_is_refused():
    with pytest.raises(BadSetting, match=r"unknown parameter 'mask_step'.*Did you mean 'mask_steps'"):
        from_notebook(ran(PARAMETERS + "\nmask_step = 7"))
    assert from_notebook(ran(PARAMETERS, "mask_step = 7")) == from_notebook(
        ran(PARAMETERS)
    )  # another cell's name is its own
    assert from_notebook(ran(PARAMETERS + "\nmask_step = 7", PARAMETERS)) == from_notebook(ran(PARAMETERS))  # mended
    with pytest.raises(BadSetting, match="unknown parameter 'mask_step'"):
        from_notebook(ran(PARAMETERS, "shown: int = 3\nmask_step = 7"))  # with types, so of parameters too
    assert Setup(alphas=(0.9991, 0.9994)).alphas == (0.9991, 0.9994)  # which records do tell apart
