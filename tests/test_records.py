"""Records: files, summaries, and the tables made of them."""

import math

import pandas as pd
import pytest

from maskutils.core.files import DamagedFile, read_json, write_json
from maskutils.results.records import (
    ACCURACIES,
    COLUMNS,
    IDENTITY,
    LOSSES,
    at_density,
    collect,
    load_records,
    on_grid,
    save_records,
    summarise,
    with_approach,
)
from maskutils.results.report import headline, percent

BASE = {
    "pair": "a",
    "model": "cnn",
    "protocol": "protect",
    "method": "magnitude",
    "density": 0.1,
    "native_of": None,
    "options": None,
    "strength": None,
    "fraction": None,
    "knob": None,
    "alpha": 1.0,
    "rewound": False,
    "per_layer": False,
    "seed": 0,
}
FREE = {"protocol": "finetune", "method": None, "density": None, "source_acc_masked": None, "drift": None}


def table(*changes: dict) -> pd.DataFrame:
    """A record for each of `changes` to a first one."""
    return pd.DataFrame([BASE | dict.fromkeys([*ACCURACIES, *LOSSES, "seconds"], 0.5) | change for change in changes])


def seeds(n: int = 3, **change) -> list[dict]:
    return [change | {"seed": seed} for seed in range(n)]


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.setenv("MASKUTILS_ROOT", str(tmp_path))
    return tmp_path


def test_saved_records_are_loaded_with_the_same_values(tmp_path):
    made = table({"seed": 1, "target_acc": 1 / 3}, {"native_of": "piggyback", "drift": 0.0}, FREE).assign(note="n")
    save_records(made, tmp_path / "r.csv")
    loaded = load_records(tmp_path / "r.csv")
    expected = with_approach(made.sort_values(IDENTITY, na_position="first")).reset_index(drop=True)
    assert list(loaded.columns) == [*COLUMNS, "note", "approach"]
    pd.testing.assert_frame_equal(loaded, expected[loaded.columns].astype(loaded.dtypes), rtol=1e-5)


def test_the_file_does_not_depend_on_the_order_of_rows_nor_of_columns(tmp_path):
    made = table(*seeds(), FREE, {"method": "random"}, {"density": 0.5})
    save_records(made, tmp_path / "a.csv")
    save_records(made.sample(frac=1, random_state=0)[made.columns[::-1]], tmp_path / "b.csv")
    assert (tmp_path / "a.csv").read_bytes() == (tmp_path / "b.csv").read_bytes()


def test_histories_stay_out_of_the_table(tmp_path):
    save_records(table({}).assign(history=[[{"step": 1}]]), tmp_path / "r.csv")
    assert "history" not in (tmp_path / "r.csv").read_text()


@pytest.mark.parametrize("change", [{}, FREE, {"native_of": "piggyback"}])
def test_two_records_of_the_same_transfer_are_refused(tmp_path, change):
    with pytest.raises(ValueError, match="2 records stand for the same transfer"):
        save_records(table(change, change, {"seed": 9}), tmp_path / "r.csv")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("column", IDENTITY)
def test_a_transfer_is_told_apart_by_every_part_of_its_identity(tmp_path, column):
    numbers = {
        "seed": 7,
        "density": 0.7,
        "strength": 0.7,
        "fraction": 0.7,
        "alpha": 0.7,
        "knob": 0.7,
        "rewound": True,
        "per_layer": True,
    }
    save_records(table({}, {column: numbers.get(column, "other")}), tmp_path / "r.csv")
    assert len(load_records(tmp_path / "r.csv")) == 2


def test_an_empty_path_writes_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save_records(table({}, {}), "")
    assert not list(tmp_path.iterdir())


def test_a_profile_is_loaded_by_name(root):
    save_records(table({}), root / "results" / "mine" / "records.csv")
    assert len(load_records("mine")) == 1


def test_missing_records_are_said_with_the_command_that_makes_them(root):
    (root / "notebooks").mkdir()
    with pytest.raises(
        FileNotFoundError, match=r"no records at .*records\.csv; make them with: maskutils reproduce --profile mine"
    ):
        load_records("mine")
    with pytest.raises(FileNotFoundError, match=r"reproduce --profile mine$"):
        load_records(root / "results" / "mine" / "records.csv")


def test_no_command_makes_a_file_that_is_no_profiles(root):
    (root / "notebooks").mkdir()
    with pytest.raises(FileNotFoundError, match=r"^no records at mine\.csv$"):
        load_records("mine.csv")


@pytest.mark.parametrize("content", [b"", b"\xff\xfe\x00", b'a,b\n"1,2\n', b"a,b\n1,2\n1,2,3\n"])
def test_a_damaged_table_is_named_with_the_way_out(tmp_path, content):
    (tmp_path / "r.csv").write_bytes(content)
    with pytest.raises(DamagedFile, match=r"(?s)r\.csv is not a table of records .*restore it with git"):
        load_records(tmp_path / "r.csv")


@pytest.mark.parametrize("column", COLUMNS)
def test_a_table_that_lacks_a_column_is_refused_by_its_name(tmp_path, column):
    table({}).drop(columns=column).to_csv(tmp_path / "r.csv", index=False)
    with pytest.raises(DamagedFile, match=f"lacks the columns {column}; restore it"):
        load_records(tmp_path / "r.csv")


@pytest.mark.parametrize(
    ("column", "value", "wanted"),
    [
        ("target_acc", 93.0, "from 0 to 1, or empty"),
        ("source_acc_full", "x", "from 0 to 1, or empty"),
        ("source_acc_before", -0.1, "from 0 to 1, or empty"),
        ("seed", 0.5, "a whole number"),
        ("seed", "one", "a whole number"),
        ("seed", None, "a whole number"),
        ("protocol", None, "a name"),
    ],
)
def test_a_row_that_is_no_record_is_refused_as_it_is_written_and_as_it_is_read(tmp_path, column, value, wanted):
    rows = table({}, {"seed": 1}).astype({column: object})
    rows.loc[1, column] = value
    with pytest.raises(ValueError, match=f"the table has {column} = .* in row 2; it must be {wanted}"):
        save_records(rows, tmp_path / "r.csv")
    rows.to_csv(tmp_path / "r.csv", index=False)
    with pytest.raises(DamagedFile, match=f"has {column} = .* in row 2; it must be {wanted}; restore it"):
        load_records(tmp_path / "r.csv")


def test_a_table_cut_off_within_a_row_is_refused(tmp_path):
    save_records(table(*seeds()), tmp_path / "r.csv")
    (tmp_path / "r.csv").write_bytes((tmp_path / "r.csv").read_bytes()[:-60])
    with pytest.raises(DamagedFile, match=r"r\.csv"):
        load_records(tmp_path / "r.csv")


def test_the_approach_is_the_method_under_protect_and_else_the_protocol():
    assert list(with_approach(table({}, FREE, {"method": "random"}))["approach"]) == ["magnitude", "finetune", "random"]


@pytest.mark.parametrize(
    ("change", "approach"),
    [
        ({"per_layer": True}, "magnitude per layer"),
        ({"alpha": 0.5}, "magnitude + wise_ft"),
        (FREE | {"alpha": 0.5}, "wise_ft"),
        ({"protocol": "packnet"}, "packnet"),
        ({"protocol": "packnet", "method": "random"}, "packnet (random)"),
        ({"protocol": "elastic_mask"}, "elastic_mask (magnitude)"),
        (FREE | {"protocol": "target_mask"}, "target_mask"),
    ],
)
def test_the_approach_says_what_is_unusual(change, approach):
    assert with_approach(table(change))["approach"].item() == approach


def test_collect_joins_tables_and_keeps_a_shared_transfer_once(tmp_path):
    save_records(table({}, FREE), tmp_path / "a.csv")
    save_records(table({}, {"seed": 1}), tmp_path / "b.csv")
    joined = collect([tmp_path / "a.csv", tmp_path / "b.csv"], tmp_path / "out.csv")
    assert len(joined) == len(load_records(tmp_path / "out.csv")) == 3
    assert joined.loc[(joined["protocol"] == "protect") & (joined["seed"] == 0), "target_acc"].tolist() == [0.5]


def test_collect_refuses_transfers_that_differ_in_a_setting_alone(tmp_path):
    for name, lr in {"a": 1e-3, "b": 2e-3}.items():
        save_records(table({"target_lr": lr}), tmp_path / f"{name}.csv")
    with pytest.raises(ValueError, match="2 records stand for the same transfer"):
        collect([tmp_path / "a.csv", tmp_path / "b.csv"], tmp_path / "out.csv")


def test_collect_refuses_two_results_of_one_transfer(tmp_path):
    for name, accuracy in {"a": 0.1, "b": 0.9}.items():
        save_records(table({}, FREE | {"target_acc": accuracy}), tmp_path / f"{name}.csv")
    with pytest.raises(
        ValueError, match=r"same transfer \(.*, finetune, seed 0\), in a\.csv and b\.csv, with other accuracies"
    ):
        collect([tmp_path / "a.csv", tmp_path / "b.csv"], tmp_path / "out.csv")
    save_records(table({}, FREE | {"target_acc": float("nan")}), tmp_path / "b.csv")
    with pytest.raises(ValueError, match="with other accuracies"):
        collect([tmp_path / "a.csv", tmp_path / "b.csv"], tmp_path / "out.csv")


def test_a_run_may_leave_no_records_but_not_all(tmp_path):
    some, none, both = (tmp_path / f"{name}.csv" for name in ("some", "none", "both"))
    save_records(table({}), some)
    save_records(table({}).iloc[:0], none)
    assert len(collect([some, none], both)) == 1
    with pytest.raises(ValueError, match="none of the runs before left a record"):
        collect([none], both)


def test_collect_of_a_damaged_table_names_it(tmp_path):
    save_records(table({}), tmp_path / "a.csv")
    (tmp_path / "b.csv").write_bytes(b"")
    with pytest.raises(DamagedFile, match=r"b\.csv"):
        collect([tmp_path / "a.csv", tmp_path / "b.csv"], tmp_path / "out.csv")


def test_the_grid_is_what_has_no_native_density():
    made = table({}, FREE, {"native_of": "piggyback"})
    assert list(on_grid(made).index) == [0, 1]


def test_summarise_gives_mean_t_interval_and_seeds():
    values = [0.80, 0.86, 0.83]
    summary = summarise(
        table(*[{"seed": s, "target_acc": v} for s, v in enumerate(values)]), ["method"], ["target_acc"]
    )
    row = summary.iloc[0]
    assert (row["method"], row["n"]) == ("magnitude", 3)
    assert row["target_acc"] == pytest.approx(0.83)
    assert row["target_acc_ci"] == pytest.approx(4.302653 * 0.03 / math.sqrt(3), rel=1e-5)  # t(0.975, 2), s = 0.03


def test_pairs_are_averaged_within_a_seed_before_the_interval_is_taken():
    rows = [
        {"pair": p, "seed": s, "target_acc": a}
        for p, s, a in (("a", 0, 0.2), ("b", 0, 0.6), ("a", 1, 0.5), ("b", 1, 0.7), ("a", 2, 0.3), ("b", 2, 0.7))
    ]
    row = summarise(table(*rows), ["method"], ["target_acc"]).iloc[0]
    assert (row["n"], row["target_acc"]) == (3, pytest.approx(0.5))  # 0.4, 0.6 and 0.5
    assert row["target_acc_ci"] == pytest.approx(4.302653 * 0.1 / math.sqrt(3), rel=1e-5)


def test_one_seed_has_no_interval_and_what_is_missing_stays_missing():
    summary = summarise(table(FREE, *seeds(2)), ["protocol", "method", "density"])
    free = summary[summary["protocol"] == "finetune"].iloc[0]
    assert free["n"] == 1
    assert math.isnan(free["target_acc_ci"])
    assert math.isnan(free["source_acc_masked"])
    assert len(summary) == 2


def test_percent_writes_mean_and_half_width_a_single_mean_and_a_dash():
    means, halves = [0.12345, 0.5, math.nan], [0.0123, math.nan, math.nan]
    shown = percent(pd.DataFrame({"k": list("xyz"), "v": means, "v_ci": halves, "n": [3, 1, 1]}), ["v"])
    assert shown["v"].tolist() == ["12.3 ± 1.2", "50.0", "–"]
    assert list(shown.columns) == ["k", "n", "v"]


def test_the_headline_has_one_row_an_approach_at_the_density_in_percent():
    off_grid = [{"density": 0.5}, {"native_of": "piggyback", "method": "random"}]
    made = table(*seeds(target_acc=0.8), *off_grid, FREE | {"target_acc": 0.9})
    shown = headline(with_approach(made)).set_index("approach")
    assert list(shown.index) == ["finetune", "magnitude"]
    assert shown["target (%)"].tolist() == ["90.0", "80.0 ± 0.0"]
    assert shown["source through mask (%)"].tolist() == ["–", "50.0 ± 0.0"]
    assert shown["seeds"].tolist() == [1, 3]


@pytest.mark.parametrize(("better", "worse"), [(0.9, 0.8), (1.0, 0.95), (0.85, 0.095)])
def test_the_headline_is_sorted_by_target_accuracy(better, worse):
    made = with_approach(table({"method": "worse", "target_acc": worse}, {"method": "better", "target_acc": better}))
    assert list(headline(made)["approach"]) == ["better", "worse"]


def test_json_is_read_back_as_it_was_written(tmp_path):
    value = {"a": [1, 0.1, None, "ü"], "b": {"c": True}}
    write_json(tmp_path / "sub" / "v.json", value)
    assert read_json(tmp_path / "sub" / "v.json") == value


@pytest.mark.parametrize("content", [b"", b'{"a": 1', b"\xff\xfe\xfd"])
def test_damaged_json_is_named_with_the_way_out(tmp_path, content):
    (tmp_path / "v.json").write_bytes(content)
    with pytest.raises(DamagedFile, match=r"v\.json is damaged .*delete it and run again"):
        read_json(tmp_path / "v.json")


def test_nan_is_not_written_and_leaves_what_was_there(tmp_path):
    write_json(tmp_path / "v.json", 1)
    with pytest.raises(ValueError, match="Out of range float"):
        write_json(tmp_path / "v.json", {"a": math.nan})
    assert read_json(tmp_path / "v.json") == 1


def test_options_that_are_not_the_defaults_are_in_the_name():
    named = with_approach(table({"options": "tau 0.5"}, {"alpha": 0.5, "options": "tau 0.5"}, {}))
    assert named["approach"].tolist() == ["magnitude (tau 0.5)", "magnitude (tau 0.5) + wise_ft", "magnitude"]


def test_rows_at_a_density_include_those_that_have_none():
    rows = at_density(table({"density": 0.10004}, {"density": 0.2}, {"density": None}, {"native_of": "piggyback"}), 0.1)
    assert rows["density"].tolist()[0] == 0.1
    assert rows["density"].isna().tolist() == [False, True]


def test_rows_without_any_density_are_on_the_grid():
    assert len(on_grid(table({"density": None}))) == 1


def test_a_seed_without_a_value_counts_in_no_interval():
    values = [0.80, 0.81, 0.82, math.nan]
    row = summarise(
        table(*[{"seed": s, "target_acc": v} for s, v in enumerate(values)]), ["method"], ["target_acc"]
    ).iloc[0]
    assert (row["n"], row["target_acc"]) == (3, pytest.approx(0.81))
    assert row["target_acc_ci"] == pytest.approx(4.302653 * 0.01 / math.sqrt(3), rel=1e-5)  # and not 3.182 * 0.01 / 2


def test_a_seed_without_one_of_the_values_counts_for_the_others():
    rows = [{"seed": s, "target_acc": 0.8, "source_acc_masked": v} for s, v in enumerate([0.9, 0.7, math.nan])]
    row = summarise(table(*rows), ["method"], ["target_acc", "source_acc_masked"]).iloc[0]
    assert (row["n"], row["target_acc_ci"]) == (3, 0)
    assert row["source_acc_masked"] == pytest.approx(0.8)
    assert math.isnan(row["source_acc_masked_ci"])  # of two


def test_a_transfer_of_two_notebooks_stands_once_whatever_its_missing_values_and_float_noise(tmp_path):
    gumbel = [{"method": "gumbel_sigmoid", "density": d, "mask_steps": 300} for d in (0.1, 0.4)]
    other = [
        row | {"density": row["density"] * (1 + 1e-9), "options": math.nan, "native_of": math.nan} for row in gumbel
    ]
    tables = {"02": table(*gumbel), "10": table(*other, FREE).astype({"strength": object})}
    files = [tmp_path / f"{name}.csv" for name in tables]
    for file, made in zip(files, tables.values(), strict=True):
        save_records(made, file)
        file.write_text(file.read_text().replace("0.4,", "0.4000000001,") if "10" in file.name else file.read_text())
    joined = collect(files, tmp_path / "out.csv")
    assert sorted(joined["approach"]) == ["finetune", "gumbel_sigmoid", "gumbel_sigmoid"]


def test_records_that_float_noise_alone_tells_apart_are_not_saved(tmp_path):
    with pytest.raises(ValueError, match="2 records stand for the same transfer"):
        save_records(table({"density": 0.1 + 0.2}, {"density": 0.3}), tmp_path / "r.csv")


def test_what_differs_between_two_records_is_named_and_missing_settings_are_not(tmp_path):
    for name, lr in {"a": 1e-3, "b": 2e-3}.items():
        save_records(table({"target_lr": lr, "mask_steps": None}), tmp_path / f"{name}.csv")
    with pytest.raises(ValueError, match=r"with other settings: target_lr 0\.001 and 0\.002; give"):
        collect([tmp_path / "a.csv", tmp_path / "b.csv"], tmp_path / "out.csv")


def test_approaches_of_one_profile_may_have_steps_and_rates_of_their_own(tmp_path):
    save_records(table({"target_lr": 1e-3, "target_steps": 300}), tmp_path / "a.csv")
    save_records(table(FREE | {"target_lr": 5e-4, "target_steps": 900}), tmp_path / "b.csv")
    assert len(collect([tmp_path / "a.csv", tmp_path / "b.csv"], tmp_path / "out.csv")) == 2
