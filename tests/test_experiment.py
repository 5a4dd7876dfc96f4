"""The verbs of a notebook: what is cached, what is made again, and what a record holds."""

import re
import shutil

import pandas as pd
import pytest
import torch
from safetensors.torch import load_file, save_file

from maskutils.core import paths
from maskutils.core.checks import BadSetting
from maskutils.data.batches import some
from maskutils.data.pair import Loading
from maskutils.masks import information, rankings
from maskutils.masks.information import fisher_information
from maskutils.masks.layers import LAYERS
from maskutils.masks.rankings import RANKINGS
from maskutils.models import sizes
from maskutils.results import rates
from maskutils.results.records import ACCURACIES, COLUMNS
from maskutils.study import anatomy, artefacts, experiment, provenance, trials
from maskutils.study.setup import Compute, Images, Setup
from maskutils.training import protocols
from maskutils.training.evaluation import evaluate

pytestmark = pytest.mark.slow  # every record is made anew

TINY = Setup(
    model="mlp", pair="mnist_to_rotated", source_steps=20, mask_steps=10, target_steps=10, densities=(0.1, 0.5)
)
COST = ["seconds", "mask_seconds", "peak_mb"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The cached source network of `TINY`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MASKUTILS_ROOT", str(tmp_path_factory.mktemp("trained")))
        experiment.source_network(TINY, 0)
        return only_file("source")


@pytest.fixture(autouse=True)
def root(request, tmp_path, monkeypatch, trained):
    """A project of its own, in which rankings and the Fisher information see 16 images instead of 500.

    Its caches hold the source network, or nothing where a test counts the costly steps.
    """
    for module in (rankings, information):
        monkeypatch.setattr(module, "some", lambda data, n, seed: some(data, min(n, 16), seed))
    monkeypatch.setenv("MASKUTILS_ROOT", str(tmp_path))
    (tmp_path / "notebooks").mkdir()
    if "calls" not in request.fixturenames:
        paths.cache_dir("source").mkdir(parents=True)
        shutil.copy(trained, paths.cache_dir("source"))
    return tmp_path


@pytest.fixture
def calls(monkeypatch):
    """Names of the costly steps, in the order they are taken."""
    taken = []

    def watch(module, name: str, said: str) -> None:
        step = getattr(module, name)
        monkeypatch.setattr(module, name, lambda *args, **given: taken.append(said) or step(*args, **given))

    watch(artefacts, "fit", "fit")
    watch(artefacts, "learn_mask", "mask")  # of rankings
    watch(artefacts, "learn_subnetwork", "mask")  # of mask layers
    watch(trials, "transfer", "transfer")
    return taken


def only_file(kind: str):
    (path,) = paths.cache_dir(kind).iterdir()
    return path


def same_weights(a: torch.nn.Module, b: torch.nn.Module) -> bool:
    return all(torch.equal(t, b.state_dict()[n]) for n, t in a.state_dict().items())


def timeless(table: pd.DataFrame) -> list[dict]:
    return table.drop(columns=COST).astype(object).where(table.notna(), None).to_dict("records")


def test_a_source_network_is_trained_once_and_found_again(calls):
    first, again = experiment.source_network(TINY, 0), experiment.source_network(TINY, 0)
    assert calls == ["fit"]
    assert same_weights(first, again)
    assert first.training is again.training is False


@pytest.mark.parametrize(
    ("change", "retrained"),
    [
        ({"source_steps": 21}, True), ({"source_lr": 1e-3}, True), ({"batch_size": 16}, True), ({"model": "cnn"}, True),
        ({"pair": "mnist_to_inverted"}, True), ({"mask_steps": 5}, False), ({"target_steps": 5}, False),
        ({"target_lr": 1.0}, False), ({"densities": (0.3,)}, False), ({"per_layer": True}, False),
        ({"seeds": (0, 1)}, False),
    ],
)  # fmt: skip
def test_a_source_network_is_trained_again_exactly_if_what_it_depends_on_changes(calls, change, retrained):
    experiment.source_network(TINY, 0)
    experiment.source_network(TINY.changed(**change), 0)
    assert calls == ["fit"] * (1 + retrained)


def test_another_seed_is_another_network(calls):
    first, other = experiment.source_network(TINY, 0), experiment.source_network(TINY, 1)
    assert calls == ["fit", "fit"]
    assert not same_weights(first, other)


def test_another_version_of_the_first_stage_makes_everything_again(calls, monkeypatch):
    experiment.run_method(TINY.changed(densities=(0.1,)), "magnitude")
    before = list(calls)
    monkeypatch.setitem(provenance.STAGES, "source", -1)
    experiment.run_method(TINY.changed(densities=(0.1,)), "magnitude")
    assert calls == before * 2 == ["fit", "mask", "transfer"] * 2


@pytest.mark.parametrize("method", [*LAYERS, *RANKINGS, "shuffled"])
def test_a_mask_is_found_again_at_any_density_unless_the_method_learns_for_one(calls, method):
    first, again, other = (experiment.source_mask(TINY, method, 0, density) for density in (0.1, 0.1, 0.5))
    learns = method in LAYERS and LAYERS[method].learns_density
    assert calls.count("mask") == 1 + learns
    assert first == again
    assert (first.density, other.density) == (pytest.approx(0.1, abs=1e-4), pytest.approx(0.5, abs=1e-4))


@pytest.mark.parametrize("method", [name for name, cls in LAYERS.items() if cls.trains_weights])
def test_a_method_that_trains_weights_too_gives_the_same_network_again(calls, method):
    (first, mask), (again, mask_again) = (experiment.source_subnetwork(TINY, method, 0, 0.1) for _ in range(2))
    assert calls == ["fit", "mask"]
    assert mask == mask_again
    assert same_weights(first, again)
    assert not same_weights(first, experiment.source_network(TINY, 0))


@pytest.mark.parametrize("damage", [lambda p: p.write_bytes(p.read_bytes()[:50]), lambda p: p.unlink()])
def test_a_damaged_or_missing_network_of_a_mask_is_made_again(calls, recwarn, damage):
    first, _ = experiment.source_subnetwork(TINY, "winning_subnetwork", 0, 0.1)
    damage(only_file("subnetwork"))
    again, _ = experiment.source_subnetwork(TINY, "winning_subnetwork", 0, 0.1)
    assert same_weights(first, again)


def test_a_target_mask_is_another_than_the_sources_and_found_again(calls):
    first, again = (experiment.target_mask(TINY, "gumbel_sigmoid", 0, 0.1) for _ in range(2))
    assert calls == ["fit", "mask"]
    assert first == again != experiment.source_mask(TINY, "gumbel_sigmoid", 0, 0.1)


def test_what_scores_begin_from_decides_whether_a_mask_is_learnt_for_its_density(monkeypatch):
    asked, learn = [], artefacts.learn_subnetwork
    monkeypatch.setattr(artefacts, "learn_subnetwork", lambda *a, **given: asked.append(given) or learn(*a, **given))
    begun = experiment.source_mask(TINY, "gumbel_sigmoid", 0, 0.1, start="magnitude")
    assert begun.history[-1]["density"] == pytest.approx(0.1, abs=1e-3)
    monkeypatch.setattr(sizes, "LARGE", 1)
    experiment.source_mask(TINY, "gumbel_sigmoid", 0, 0.1, start="constant")
    assert [given.get("density") for given in asked] == [0.1, None]


def test_masks_of_a_large_network_are_learnt_for_their_density_and_by_layer(monkeypatch):
    monkeypatch.setattr(sizes, "LARGE", 1)
    asked, learn = [], artefacts.learn_subnetwork
    monkeypatch.setattr(artefacts, "learn_subnetwork", lambda *a, **given: asked.append(given) or learn(*a, **given))
    experiment.target_mask(TINY, "gumbel_sigmoid", 0, 0.1)
    experiment.target_mask(TINY.changed(per_layer=True), "gumbel_sigmoid", 0, 0.1)
    experiment.source_mask(TINY.changed(per_layer=True), "edge_popup", 0, 0.3)
    assert [(given["density"], given.get("per_layer")) for given in asked] == [(0.1, None), (0.1, True), (0.3, True)]


def test_the_importance_of_ewc_is_the_fisher_information_and_found_again(monkeypatch):
    model, data = experiment.source_network(TINY, 0), experiment.source_pair(TINY, 0).source.train
    first = experiment.source_importance(TINY, "ewc", None, 0)
    monkeypatch.setattr(artefacts, "fisher_information", None)
    again = experiment.source_importance(TINY, "ewc", None, 0)
    for name, expected in fisher_information(model, data, seed=0).items():
        assert torch.equal(first[name], again[name])
        assert torch.allclose(first[name], expected)


@pytest.mark.parametrize("control", ["magnitude", "shuffled"])
def test_controls_of_the_elastic_mask_deal_the_same_probabilities_out_otherwise(control):
    p, dealt = (experiment.source_importance(TINY, "elastic_mask", m, 0) for m in ("gumbel_sigmoid", control))
    model, names = experiment.source_network(TINY, 0), ["1.weight", "3.weight"]
    assert all(torch.equal(p[n], torch.ones_like(p[n])) == (n not in names) for n in p)
    flat = [torch.cat([t[n].flatten() for n in names]) for t in (p, dealt)]
    assert torch.equal(flat[0].sort().values, flat[1].sort().values)
    assert not torch.equal(*flat)
    if control == "magnitude":
        weights = torch.cat([model.get_parameter(n).detach().abs().flatten() for n in names])
        assert (flat[1][weights.argsort(stable=True)].diff() >= 0).all()


def test_an_elastic_mask_has_the_options_of_its_mask():
    usual, other = (
        experiment.source_importance(TINY, "elastic_mask", "gumbel_sigmoid", 0, **o) for o in ({}, {"lr": 1.0})
    )
    assert any(not torch.equal(usual[name], other[name]) for name in usual)


def test_an_elastic_mask_of_an_unknown_method_is_refused():
    with pytest.raises(BadSetting, match="gumbel_sigmod"):
        experiment.run_grid(TINY, "elastic_mask", 1, "gumbel_sigmod")


def test_per_layer_is_a_density_too_and_not_learnt_again(calls):
    overall = experiment.source_mask(TINY, "gumbel_sigmoid", 0, 0.1)
    each = experiment.source_mask(TINY.changed(per_layer=True), "gumbel_sigmoid", 0, 0.1)
    assert calls.count("mask") == 1
    assert list(each.densities.values()) == pytest.approx([0.1] * 2, abs=1e-3) != list(overall.densities.values())


@pytest.mark.parametrize("change", [{"mask_steps": 5}, {"source_steps": 21}])
def test_a_mask_is_learnt_again_if_what_it_depends_on_changes(calls, change):
    experiment.source_mask(TINY, "piggyback", 0)
    experiment.source_mask(TINY.changed(**change), "piggyback", 0)
    experiment.source_mask(TINY, "piggyback", 0, threshold=1e-3)
    assert calls.count("mask") == 3


def test_shuffled_permutes_the_cached_mask_of_its_base(calls):
    base, mixed = (
        experiment.source_mask(TINY, "magnitude", 0, 0.1),
        experiment.source_mask(TINY, "shuffled", 0, 0.1, of="magnitude"),
    )
    assert calls.count("mask") == 1
    assert mixed.densities == base.densities
    assert mixed != base


def test_records_are_measured_once_and_found_again(calls):
    first = experiment.run_method(TINY, "magnitude")
    taken = list(calls)
    pd.testing.assert_frame_equal(experiment.run_method(TINY, "magnitude"), first)
    assert calls == taken
    assert calls.count("transfer") == 2


@pytest.mark.parametrize(
    ("change", "again"),
    [
        ({"target_steps": 11}, True), ({"target_lr": 1e-3}, True), ({"per_layer": True}, True),
        ({"mask_steps": 5}, True), ({"alphas": (0.5,)}, True), ({"densities": (0.2,)}, True), ({"seeds": (0,)}, False),
    ],
)  # fmt: skip
def test_a_record_is_measured_again_exactly_if_what_it_depends_on_changes(calls, change, again):
    setup = TINY.changed(densities=(0.1,))
    experiment.run_method(setup, "magnitude")
    experiment.run_method(setup.changed(**change), "magnitude")
    assert calls.count("transfer") == 1 + again


@pytest.mark.parametrize(
    ("protocol", "method"),
    [
        ("protect", "gumbel_sigmoid"),
        ("protect", "shuffled"),
        ("elastic_mask", "magnitude"),
        ("elastic_mask", "shuffled"),
    ],
)
def test_what_is_made_of_a_mask_is_made_again_with_the_code_of_its_layer(calls, monkeypatch, protocol, method):
    own_code, layer = artefacts.own_code, LAYERS["gumbel_sigmoid"]
    for version in (1, 2):
        monkeypatch.setattr(artefacts, "own_code", lambda a, v=version: f"{v}" if a is layer else own_code(a))
        trials.records_of(TINY, trials.Trial(protocol, method, None if protocol == "elastic_mask" else 0.1), 0)
    assert calls.count("transfer") == 2


@pytest.mark.parametrize(("protocol", "again"), [("lora", True), ("finetune", False)])
def test_a_transfer_by_a_library_is_made_again_with_another_version_of_it(calls, monkeypatch, protocol, again):
    for number in ("1", "2"):
        monkeypatch.setattr(trials, "version", lambda library, n=number: {"peft": n}[library])
        experiment.run_protocol(TINY, protocol)
    assert calls.count("transfer") == 1 + again


def test_the_source_is_read_once_for_transfers_at_other_rates_and_steps():
    trials._dense.cache_clear()
    for change in ({}, {"target_lr": 1e-2}, {"target_steps": 5}, {"mask_steps": 5}, {"alphas": (0.5, 1.0)}):
        experiment.run_protocol(TINY.changed(**change), "finetune")
    assert trials._dense.cache_info().misses == 1
    assert artefacts.source_key(trials._of_source(TINY), 3) == artefacts.source_key(TINY, 3)


@pytest.mark.parametrize(
    "change",
    [{"pair": "mnist_to_digits"}, {"model": "cnn"}, {"source_steps": 6}, {"source_lr": 0.1}, {"source_norm": "eval"}, {"batch_size": 9},
     {"weights": "DEFAULT"}, {"images": {"size": 20}}, {"compute": {"precision": "bf16"}}],
    ids=lambda change: next(iter(change)),
)  # fmt: skip
def test_what_a_source_network_depends_on_names_it(change):
    assert artefacts.source_key(TINY.changed(**change), 3) != artefacts.source_key(TINY, 3)


@pytest.mark.parametrize("stage", ["transfer", "score"])
def test_another_version_of_transfers_measures_again_but_keeps_what_it_starts_from(calls, monkeypatch, stage):
    for version in (-1, -2):
        monkeypatch.setitem(provenance.STAGES, stage, version)
        experiment.run_method(TINY.changed(densities=(0.1,)), "magnitude")
    assert calls == ["fit", "mask", "transfer", "transfer"]


def test_the_seed_decides_every_record_but_its_seconds(tmp_path, monkeypatch):
    tables = []
    for name in ("a", "b"):
        monkeypatch.setenv("MASKUTILS_ROOT", str(tmp_path / name))
        tables.append(
            pd.concat([experiment.run_method(TINY, "gumbel_sigmoid"), experiment.run_protocol(TINY, "finetune")])
        )
    assert timeless(tables[0]) == timeless(tables[1])


def test_run_method_has_a_record_for_each_seed_and_density():
    made = experiment.run_method(TINY.changed(seeds=(0, 1)), "random")
    assert list(zip(made["seed"], made["density"].round(2), strict=True)) == [(0, 0.1), (0, 0.5), (1, 0.1), (1, 0.5)]
    assert set(made["approach"]) == {"random"}
    assert (made["drift"] == 0.0).all()
    assert made[ACCURACIES].notna().all(axis=None)
    assert set(COLUMNS) <= set(made.columns)


@pytest.mark.parametrize("protocol", ["source_only", "finetune"])
def test_run_protocol_has_a_record_for_each_seed_without_a_mask(protocol):
    made = experiment.run_protocol(TINY.changed(seeds=(0, 2)), protocol)
    assert made["seed"].tolist() == [0, 2]
    assert set(made["approach"]) == {protocol}
    assert made[["method", "density", "native_of", "source_acc_masked", "drift"]].isna().all(axis=None)
    assert made["late_gain"].notna().all() == (protocol == "finetune")


@pytest.mark.parametrize("method", LAYERS)
def test_run_native_sets_a_random_mask_of_equal_density_beside_a_methods_own(method):
    made = experiment.run_native(TINY, method)
    assert made["method"].tolist() == [method, "random"]
    assert made["native_of"].tolist() == [method, method]
    assert made["density"].nunique() == 1
    assert made["density"].iloc[0] == experiment.source_mask(TINY, method, 0).density


def test_an_anchor_has_a_record_for_each_strength_and_alpha():
    made = experiment.run_grid(TINY.changed(alphas=(0.5, 1.0)), "l2_sp", 2)
    made = made[~made["rewound"]]
    assert made[["strength", "alpha"]].values.tolist() == [[0.1, 0.5], [0.1, 1.0], [1.0, 0.5], [1.0, 1.0]]
    assert made["approach"].tolist() == ["l2_sp + wise_ft", "l2_sp"] * 2
    assert made["source_acc_full"].nunique() > 1


def test_alpha_says_how_far_the_record_is_from_the_source_to_the_target():
    setup = TINY.changed(alphas=(1e-6, 1.0))
    near, far, _ = (row for _, row in experiment.run_protocol(setup, "finetune").iterrows())
    source = experiment.run_protocol(TINY, "source_only").iloc[0]
    assert [near[name] for name in ACCURACIES[3:]] == [source[name] for name in ACCURACIES[3:]]
    assert far["target_acc"] > near["target_acc"]


@pytest.mark.parametrize("strength", [0.0, -1.0, float("nan"), "1"])
def test_a_strength_is_a_number_above_zero(strength):
    with pytest.raises(BadSetting, match=r"strength = .* must be (greater than 0|a number)"):
        experiment.run_protocol(TINY, "l2_sp", strength=strength)
    assert not paths.cache_dir("transfer").exists()


def test_a_grid_has_at_least_one_value_and_belongs_to_a_knob(calls):
    with pytest.raises(BadSetting, match="grid = 0 must be greater than 0"):
        experiment.run_grid(TINY, "l2_sp", 0)
    with pytest.raises(BadSetting, match="'lp_ft' has no grid of values"):
        experiment.run_grid(TINY, "lp_ft", 2)
    assert calls == []


@pytest.mark.parametrize(("protocol", "method"), [("target_mask", None), ("exclusive", "magnitude")])
def test_a_target_mask_is_learnt_for_the_mask_steps_that_the_record_states(monkeypatch, protocol, method):
    taken, learn = [], protocols.learn_subnetwork
    monkeypatch.setattr(protocols, "learn_subnetwork", lambda *a, **k: taken.append(k["steps"]) or learn(*a, **k))
    setup = TINY.changed(densities=(0.1,))
    made = experiment.run_method(setup, method, protocol) if method else experiment.run_protocol(setup, protocol)
    assert made["mask_steps"].tolist() == taken == [10]


def test_a_record_says_what_it_was_made_with():
    row = experiment.run_method(TINY, "gumbel_sigmoid").iloc[0]
    settings = TINY.model_dump(exclude={"seeds", "densities", "alphas", "tuned"}) | {"images": "", "compute": "auto"}
    assert {name: row[name] for name in settings} == settings
    assert torch.__version__.startswith(row["torch"])
    assert re.fullmatch(r"[0-9a-f]{12}(-dirty)?|unknown", row["commit"])
    assert [h["step"] for h in row["history"]] == list(range(1, 11))


def test_a_cached_record_says_what_it_was_made_with_too():
    experiment.run_method(TINY, "gumbel_sigmoid")
    other = experiment.run_method(TINY.changed(mask_steps=7), "gumbel_sigmoid")
    assert list(other["mask_steps"]) == [7, 7]


@pytest.mark.parametrize("steps", [1, 5, 7, 10])
def test_any_number_of_target_steps_gives_a_record(steps):
    setup = TINY.changed(target_steps=steps, densities=(0.1,))
    assert len(experiment.run_method(setup, "magnitude")) == 1


@pytest.mark.parametrize("kind", ["source", "mask", "transfer"])
def test_a_damaged_cache_file_is_named_and_made_again(kind):
    setup = TINY.changed(densities=(0.1,))
    first = experiment.run_method(setup, "piggyback")
    path = only_file(kind)
    path.write_bytes(path.read_bytes()[:50])
    if kind != "transfer":
        only_file("transfer").unlink()
    with pytest.warns(UserWarning, match=f"cache: .*{path.name} is damaged, and is made anew"):
        again = experiment.run_method(setup, "piggyback")
    assert timeless(again) == timeless(first)
    assert path.stat().st_size > 50


@pytest.mark.parametrize(("kind", "at"), [("source", -3), ("mask", -3), ("transfer", 0)])
def test_one_flipped_bit_in_a_cache_file_is_noticed_and_it_is_made_again(kind, at):
    setup = TINY.changed(densities=(0.1,))
    first = experiment.run_method(setup, "piggyback")
    path = only_file(kind)
    whole = path.read_bytes()
    at = whole.index(b'"target_acc": 0.') + 16 if kind == "transfer" else at  # a digit of a number
    path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at:][1:])
    if kind != "transfer":
        only_file("transfer").unlink()
    with pytest.warns(UserWarning, match=f"cache: .*{path.name} is damaged, and is made anew"):
        again = experiment.run_method(setup, "piggyback")
    assert timeless(again) == timeless(first)
    if kind != "transfer":
        assert sorted(path.read_bytes()) == sorted(whole)  # safetensors writes its metadata in any order


def test_a_cache_file_with_part_of_the_weights_does_not_disturb_the_new_training():
    first = experiment.source_network(TINY, 0)
    path = only_file("source")
    weights = load_file(path)
    del weights["5.bias"]
    save_file({name: torch.zeros_like(tensor) for name, tensor in weights.items()}, path)
    with pytest.warns(UserWarning, match="is damaged, and is made anew"):
        again = experiment.source_network(TINY, 0)
    assert same_weights(first, again)


def test_a_cache_file_of_another_shape_is_made_again():
    first, path = experiment.source_network(TINY, 0), only_file("source")
    save_file({name: torch.zeros(2) for name in load_file(path)}, path)
    with pytest.warns(UserWarning, match="is damaged, and is made anew"):
        assert same_weights(experiment.source_network(TINY, 0), first)


def test_an_unknown_or_absent_device_is_an_error_that_says_what_there_is(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(BadSetting, match=r"compute\.device = 'gpu': input should be 'auto', 'cpu', 'cuda' or 'mps'"):
        artefacts.device(Setup().changed(compute={"device": "gpu"}))
    with pytest.raises(BadSetting, match=r"device 'cuda' is not there; present: .*cpu"):
        artefacts.device(Setup(compute=Compute(device="cuda")))


@pytest.mark.parametrize(("cuda", "mps", "chosen"), [(True, True, "cuda"), (False, True, "mps"), (False, False, "cpu")])
def test_auto_is_the_fastest_device_that_is_there(monkeypatch, cuda, mps, chosen):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    assert artefacts.device(Setup()).type == chosen
    assert artefacts.device(Setup(compute=Compute(device="cpu"))).type == "cpu"


def test_a_gpu_that_only_emulates_bf16_is_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda emulated: emulated)
    with pytest.raises(BadSetting, match="only emulates bf16"):
        artefacts.device(Setup(compute=Compute(precision="bf16")))
    assert artefacts.device(Setup()).type == "cuda"


@pytest.mark.parametrize(
    ("change", "meant"), [({"pair": "mnist_to_digit"}, "mnist_to_digits"), ({"model": "nnc"}, "cnn")]
)
def test_unknown_pairs_and_networks_are_refused_before_any_work(calls, change, meant):
    with pytest.raises(BadSetting, match=f"Did you mean '{meant}'"):
        experiment.check_names(Setup(**change))
    with pytest.raises(BadSetting, match=f"Did you mean '{meant}'"):
        experiment.configure(change)
    assert calls == []


def test_images_of_the_setup_are_what_the_pair_is_loaded_with():
    assert artefacts.loading(Setup()) == Loading()
    given = {"size": 64, "channels": 3, "damaged": "skip", "classes": "common", "workers": 2}
    assert artefacts.loading(Setup(images=Images(**given))) == Loading(**given)


def test_compute_stands_in_records_as_text():
    setup = TINY.changed(densities=(0.1,), compute={"device": "cpu", "channels_last": True})
    assert experiment.run_method(setup, "magnitude")["compute"].item() == "cpu channels_last"


def test_configure_gives_the_setup_of_a_notebook():
    assert experiment.configure({"model": "mlp", "seeds": [3], "other": 1}) == Setup(model="mlp", seeds=(3,))


@pytest.mark.parametrize("run", [experiment.run_method, experiment.run_protocol, experiment.run_native])
def test_an_unknown_method_or_protocol_is_refused_and_leaves_no_record(run):
    with pytest.raises(BadSetting, match=r"unknown (method|protocol) 'gumble'; known: "):
        run(TINY, "gumble")
    assert not paths.cache_dir("transfer").exists()


def test_options_are_recorded_where_they_are_not_the_defaults():
    usual = experiment.run_method(TINY, "gumbel_sigmoid", tau=1.0)
    other = experiment.run_method(TINY, "gumbel_sigmoid", tau=0.5)
    assert usual["options"].isna().all()
    assert set(usual["approach"]) == {"gumbel_sigmoid"}
    assert set(other["approach"]) == {"gumbel_sigmoid (tau 0.5)"}


def test_an_option_that_is_the_default_is_neither_learnt_nor_transferred_again():
    made = lambda: {kind: len(list(paths.cache_dir(kind).iterdir())) for kind in ("mask", "transfer")}  # noqa: E731
    experiment.run_method(TINY, "gumbel_sigmoid", tau=1.0)
    before = made()
    experiment.run_method(TINY, "gumbel_sigmoid")
    experiment.source_mask(TINY, "shuffled", 0, 0.1, of="gumbel_sigmoid")
    assert made() == before
    experiment.run_method(TINY, "gumbel_sigmoid", tau=0.5)
    assert made()["mask"] == before["mask"] + 1


def test_tuning_reads_masks_on_validation_images_only(monkeypatch):
    pair = experiment.source_pair(TINY, 0)
    network = experiment.source_network(TINY, 0)
    table = experiment.tune(TINY, "gumbel_sigmoid", {"lr": 0.1})
    assert table["native"].tolist() == [True, *[False] * len(TINY.densities)]
    assert set(table["setting"]) == {"lr 0.1"}
    assert table["val_acc_before"].iloc[0] == evaluate(network, pair.source.val)
    native = experiment.source_mask(TINY, "gumbel_sigmoid", 0, lr=0.1)
    assert table["val_acc"].iloc[0] == evaluate(native.apply(network), pair.source.val)


def test_fine_tuning_that_learnt_nothing_is_told_every_time():
    setup = TINY.changed(target_lr=1e-9, pair="mnist_to_inverted", source_steps=60)
    for _ in range(2):  # made, and from the cache
        with pytest.warns(
            UserWarning, match=r"reaches \d+ % on the target, where guessing reaches 10 %.*lower target_lr"
        ):
            experiment.run_protocol(setup, "finetune")


def test_a_record_says_mask_steps_only_where_a_mask_is_learnt():
    """Notebook 01 has no `mask_steps`, 07 has: their fine-tuning is one transfer, with one record and one place in the cache."""
    other = TINY.changed(mask_steps=5)
    first, second = (experiment.run_protocol(setup, "finetune") for setup in (TINY, other))
    assert first["mask_steps"].isna().all()
    assert timeless(first) == timeless(second)
    assert len(list(paths.cache_dir("transfer").iterdir())) == 1
    assert list(experiment.run_method(other, "gumbel_sigmoid")["mask_steps"]) == [5, 5]
    assert experiment.run_method(other, "random")["mask_steps"].isna().all()


def test_the_rewound_record_is_the_best_point_on_the_path_by_validation(monkeypatch):
    row = {"alpha": 1.0, "rewound": False}
    history = [
        {"source_val": 0.9, "target_val": 0.1},
        {"source_val": 0.6, "target_val": 0.7},
        {"source_val": 0, "target_val": 1},
    ]
    path = [torch.nn.Linear(2, 2) for _ in history]
    ends = list(trials._ends(TINY, path[0], path[2], history, path))
    assert [at for at, _ in ends] == [row, row | {"rewound": True}]
    assert ends[1][1] is path[1]
    table = experiment.run_protocol(TINY.changed(alphas=(0.5, 1.0)), "finetune")
    assert table[["alpha", "rewound", "approach"]].values.tolist() == [
        [0.5, False, "wise_ft"], [1.0, False, "finetune"], [1.0, True, "finetune + rewind"],
    ]  # fmt: skip
    best = max(trials.harmonic_mean(r["source_val"], r["target_val"]) for r in table["history"][1])
    assert trials.harmonic_mean(table["val_source_acc_full"][2], table["val_target_acc"][2]) == pytest.approx(best)


def test_what_is_taken_off_again_is_not_rewound():
    assert not experiment.run_protocol(TINY.changed(alphas=(0.5, 1.0)), "two_networks")["rewound"].any()


def test_a_rate_at_which_training_diverges_is_no_rate_of_that_approach_alone(root):
    setup = TINY.changed(seeds=(7, 8))
    with pytest.warns(UserWarning, match=r"finetune at a rate of 1e\+30 on mnist_to_rotated: .*diverged"):
        table = experiment.tune_rates(setup, [1e-3, 1e30], [5], ["finetune"])
    assert set(table["target_lr"]) == {1e-3}
    assert set(table["seed"]) == {7, 8}
    with pytest.raises(BadSetting, match=r"no approach \(source_only\) trained to its end at lrs = \[0.001\]"):
        experiment.tune_rates(setup, [1e-3], [5], ["source_only"])


def test_rates_are_tuned_on_validation_alone_and_then_used_by_name(root, calls):
    setup = TINY.changed(densities=(0.2,), seeds=(7,))
    every = set(experiment.tune_rates(setup, [1e-2], [5])["approach"])
    assert {"gumbel_sigmoid", "magnitude", "ewc", "finetune", "packnet", "two_networks"} <= every
    assert not {"source_only", "target_mask", "protect", "bn_only"} & every
    table = experiment.tune_rates(setup, [1e-3, 1e-2], [5, 10], ["magnitude", "ewc"])
    assert not {"source_acc_full", "target_acc"} & set(table)
    assert not any(table["history"])  # nobody reads it, and it costs as much as training
    assert table.groupby("approach").size().to_dict() == {"magnitude": 4, "ewc": 4}
    ranked = rates.ranked(table)
    assert (ranked.groupby("approach")["area"].diff().dropna() <= 0).all()
    rates.write_rates(ranked)
    rates.write_rates(ranked.assign(pair="folders:/a b:/c"))
    rates.write_rates(ranked[ranked["approach"] == "ewc"])  # tuned alone, it leaves the others theirs
    assert [f.name for f in paths.tuned_rates()] == ["rates-mlp-folders_a_b_c.csv", "rates-mlp-mnist_to_rotated.csv"]
    best = ranked[ranked["approach"] == "ewc"].iloc[0]
    record = experiment.run_grid(TINY.changed(tuned=True), "ewc", 1).iloc[0]
    assert (record["target_lr"], record["target_steps"]) == (best["target_lr"], best["target_steps"])
    short = experiment.run_method(TINY.changed(tuned=True, target_steps=5), "magnitude")
    assert set(short["target_steps"]) == {5}
    with pytest.raises(
        BadSetting, match="no learning rate was tuned for magnitude with mlp on mnist_to_digits and at most 10"
    ):
        experiment.run_method(TINY.changed(tuned=True, pair="mnist_to_digits"), "magnitude")


def test_areas_of_rates_as_worked_by_hand():
    rows = [(0.1, 0.5, 0.9), (0.1, 1.0, 0.4), (0.2, 0.6, 0.6)]  # rate, source and target on validation
    about = {"pair": "p", "model": "m", "target_steps": 9, "seed": 0, "val_source_acc_before": 1.0, "alpha": 1.0}
    about |= {"source_classes": 10, "target_classes": 10}
    named = [{"approach": name, "protocol": name} for name in ("ewc", "two_networks")]
    table = pd.DataFrame(
        about | name | {"target_lr": lr, "val_source_acc_full": s, "val_source_acc_masked": None, "val_target_acc": t}
        for name in named
        for lr, s, t in rows
    )  # fmt: skip
    found = rates.ranked(table).set_index(["approach", "target_lr"])
    assert found.loc[("ewc", 0.1), "area_unknown"] == pytest.approx((0.9 * 0.3 + 0.4 * 0.5) / 0.81)
    assert found.loc[("ewc", 0.2), "area"] == pytest.approx(0.5 * 0.5 / 0.81, abs=1e-6)
    assert found.loc[("ewc", 0.1), "area"] == pytest.approx((0.9 * 0.3 + 0.4 * 0.5) / 0.81, abs=1e-6)
    two = found.loc[("two_networks", 0.1)]
    assert (
        two["area"] == pytest.approx(two["area_known"], abs=1e-6) == pytest.approx(0.8 / 0.9)
    )  # the source stays as it was
    assert list(found.loc["ewc"].index) == [0.1, 0.2]


def test_masks_of_source_and_target_and_of_a_second_training_are_compared():
    shared = anatomy.source_and_target(TINY, "gumbel_sigmoid", 0.1)
    assert shared.index.tolist() == ["seed 0"]
    source = experiment.source_mask(TINY, "gumbel_sigmoid", 0, 0.1)
    target = experiment.target_mask(TINY, "gumbel_sigmoid", 0, 0.1)
    both = sum(int((bits & target.bits[name]).sum()) for name, bits in source.bits.items())
    assert shared.iloc[0].tolist() == pytest.approx([both / (source.kept + target.kept - both), both / target.kept])
    masks = {name: experiment.source_mask(TINY, name, 0, 0.1) for name in ("piggyback", "magnitude")}
    again = anatomy.learnt_again(TINY, masks, 0, 0.1)
    assert again.index.tolist() == ["piggyback"]
    assert 0 < again.item() < 1


def test_approaches_without_a_mask_are_those_that_fit_any_network():
    names = [a.name for a in experiment.maskless("intact")]
    assert {"lora", "two_networks"} <= set(names)
    assert not {"bn_only", "select", "exclusive", "ewc"} & set(names)
    assert [a.name for a in experiment.maskless("full", ["ewc", "lora"])] == ["ewc"]
