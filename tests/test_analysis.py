"""Analysis: every comparison against hand-worked numbers; what is chosen is chosen on validation, what is said is test."""

import math

import pandas as pd
import pytest
from rows import make as records_of
from rows import mask

from maskutils.results import analysis, fronts, rates
from maskutils.results.records import on_grid

DEFAULTS = {"source_acc_before": 0.9, "source_acc_full": 0.5, "target_acc": 0.9}


def make(*given: dict) -> pd.DataFrame:
    return records_of(*(DEFAULTS | row for row in given))


def at(source: float, target: float, val: tuple[float, float] | None = None, **rest) -> dict:
    """A row with these test readings (full network), and `val` on validation if they differ."""
    row = {"source_acc_full": source, "target_acc": target}
    if val is not None:
        row |= {"val_source_acc_full": val[0], "val_target_acc": val[1]}
    return row | rest


def l2(strength: float, source: float, target: float, val: tuple[float, float] | None = None, **rest) -> dict:
    return at(source, target, val, protocol="l2_sp", strength=strength, **rest)


# Relative measures and families


@pytest.mark.parametrize(("pair", "before", "best", "full", "target"), [
    ("mnist_to_digits", 0.9, 0.9, 0.5, 0.7),  # chance 1/10: 0.4 / 0.8 and 0.6 / 0.8
    ("mnist_low_to_high", 1.0, 1.0, 0.6, 0.8),  # chance 1/5: 0.4 / 0.8 and 0.6 / 0.8
])  # fmt: skip
def test_retention_and_adaptation_are_corrected_for_chance(pair, before, best, full, target):
    free = at(0.2, best, (0.2, 0.8), pair=pair, source_acc_before=before)
    val = (before, 0.3)
    out = analysis.relative(make(free, l2(1, full, target, val, pair=pair, source_acc_before=before)))
    row, chance = out.iloc[1], 0.2 if pair == "mnist_low_to_high" else 0.1
    assert row["retention_full"] == pytest.approx(0.5)
    assert row["adaptation"] == pytest.approx(0.75)
    assert row["harmonic"] == pytest.approx(0.6)
    assert row["val_retention_full"] == pytest.approx(1.0)
    assert row["val_adaptation"] == pytest.approx((0.3 - chance) / (0.8 - chance))
    assert out.iloc[0]["adaptation"] == pytest.approx(1.0)


def test_chance_is_that_of_the_classes():
    rows = make({"source_classes": 4, "target_classes": 2}, {"source_classes": 10, "target_classes": 5})
    assert analysis.chance(rows, "source").tolist() == [0.25, 0.1]
    assert analysis.chance(rows, "target").tolist() == [0.5, 0.2]


def test_a_pair_that_is_not_shipped_has_its_own_chance_in_every_measure():
    own = {"pair": "mine", "source_classes": 4, "target_classes": 2, "source_acc_before": 1.0}
    rows = make(at(0.5, 1.0, **own), l2(1, 0.55, 0.75, **own))
    row = analysis.relative(rows).iloc[1]
    assert row["retention_full"] == pytest.approx(0.3 / 0.75)
    assert row["adaptation"] == pytest.approx(0.25 / 0.5)
    areas = fronts.hypervolumes(rows).set_index("family")["hypervolume"]
    assert areas["l2_sp"] == pytest.approx(0.3 * 0.25 / (0.75 * 0.5))


READ = [at(0.5, 0.7, protocol="protect", method="snip", density=0.1, source_acc_masked=0.7), at(0.5, 0.7)]
READ += [at(0.5, 0.7, protocol="target_mask", source_acc_masked=0.3)]


@pytest.mark.parametrize(("reading", "values"), [
    ("full", [0.5, 0.5, 0.5]), ("known", [0.7, 0.5, 0.9]),
])  # fmt: skip
def test_the_source_is_read_in_two_ways(reading, values):
    assert analysis.source_read(make(*READ), reading).tolist() == pytest.approx(values, nan_ok=True)
    assert analysis.source_read(make(*READ), reading, "val_").tolist() == pytest.approx(values, nan_ok=True)


def test_an_unknown_reading_is_refused():
    with pytest.raises(ValueError, match=r"unknown reading 'ful'.*Did you mean 'full'"):
        analysis.source_read(make({}), "ful")


def test_the_harmonic_mean_with_the_task_known_takes_the_mask():
    row = analysis.relative(make(at(0.2, 0.9), READ[0])).iloc[1]
    assert row["retention_known"] == pytest.approx(0.75)
    assert row["harmonic_known"] == pytest.approx(0.75)  # of 0.75 and 0.6 / 0.8
    assert row["harmonic"] == pytest.approx(2 * 0.5 * 0.75 / 1.25)


def test_adaptation_refers_to_finetuning_of_the_same_pair_and_seed():
    frees = [at(0.2, best, seed=s, pair=p) for best, s, p in [(0.5, 0, "a"), (0.7, 1, "a"), (0.9, 0, "b")]]
    own = [l2(1, 0.5, 0.5, seed=s, pair=p) for s, p in [(0, "a"), (1, "a"), (0, "b"), (1, "b")]]
    found = analysis.relative(make(*frees, *own))["adaptation"].tolist()[3:]
    assert found[:3] == pytest.approx([1.0, 0.4 / 0.6, 0.4 / 0.8])
    assert math.isnan(found[3])


def test_training_begins_at_the_source_network_of_the_same_seed():
    none, rows = [], [{"step": 10, "source_val": 0.7, "target_val": 0.4}]
    untrained = [
        at(0.9, 0.1, (0.88, 0.12), protocol="source_only", history=none),
        at(0.9, 0.1, (0.5, 0.5), protocol="source_only", history=none, seed=1),
    ]
    table = make(*untrained, at(0.7, 0.4, history=rows), at(0.8, 0.3, alpha=0.5, history=none))
    start = {"step": 0, "source_val": 0.88, "target_val": 0.12}
    assert analysis.training_curves(table, 0) == {"finetune": [start, *rows]}


def test_a_family_joins_strengths_and_interpolations():
    rows = [{}, {"alpha": 0.5}, l2(1, 0.5, 0.5), l2(1, 0.5, 0.5, alpha=0.5)]
    rows += [{"protocol": "elastic_mask", "method": "shuffled", "alpha": 0.5}, {"protocol": "lp_ft"}]
    names = ["wise_ft", "wise_ft", "l2_sp", "l2_sp", "elastic_mask (shuffled)", "lp_ft"]
    assert analysis.with_family(make(*rows))["family"].tolist() == names


def test_rows_on_the_grid_have_equal_densities_and_no_native_ones():
    mask = {"protocol": "protect", "method": "snip"}
    rows = make(mask | {"density": 0.10003}, mask | {"density": 0.09998}, mask | {"density": 0.3, "native_of": "snip"})
    assert on_grid(rows)["density"].tolist() == [0.1, 0.1]


def test_the_best_of_a_family_is_chosen_on_validation_and_read_on_test():
    low, high = (0.2, 0.2), (0.8, 0.8)
    rows = [at(0.1, 0.9, seed=s) for s in (0, 1)]
    rows += [l2(k, *test, val, seed=s) for s in (0, 1) for k, test, val in ((1, low, high), (2, high, low))]
    best = analysis.best_of_family(make(*rows))
    chosen = best[best["family"] == "l2_sp"]
    assert chosen[["strength", "target_acc"]].to_numpy().tolist() == [[1, 0.2], [1, 0.2]]
    assert sorted(best["family"]) == ["l2_sp", "l2_sp", "wise_ft", "wise_ft"]


def test_the_best_of_a_family_may_be_one_for_all_pairs():
    rows = [at(0.5, 0.9, pair=p) for p in "ab"]
    rows += [l2(k, v, 0.9, pair=p) for k, p, v in [(1, "a", 0.9), (2, "a", 0.8), (1, "b", 0.1), (2, "b", 0.7)]]
    chosen = {each: analysis.best_of_family(make(*rows), each_pair=each) for each in (True, False)}
    strengths = {each: t[t["family"] == "l2_sp"].set_index("pair")["strength"].to_dict() for each, t in chosen.items()}
    assert strengths == {True: {"a": 1, "b": 2}, False: {"a": 2, "b": 2}}


# Hypervolumes


def test_the_front_is_chosen_on_validation_and_its_area_is_that_of_test():
    rows = [l2(1, 0.8, 0.4, (0.9, 0.5)), l2(2, 0.5, 0.9, (0.5, 0.9)), l2(3, 1.0, 1.0, (0.4, 0.4))]
    found = fronts.hypervolumes(make(*rows))
    assert found[["pair", "seed", "family"]].to_numpy().tolist() == [["mnist_to_digits", 0, "l2_sp"]]
    # steps of (0.8, 0.4) and (0.5, 0.9) over chance, in a box of 0.9 squared; the third is not on the validation front
    assert found["hypervolume"].item() == pytest.approx((0.7 * 0.3 + 0.4 * 0.5) / 0.81)


def test_all_seeds_share_the_front_of_the_validation_means():
    val = {(1, 0): (0.9, 0.9), (2, 0): (0.2, 0.2), (1, 1): (0.5, 0.5), (2, 1): (0.6, 0.6)}
    rows = [l2(k, *{1: (0.6, 0.6), 2: (1.0, 1.0)}[k], val[k, s], seed=s) for k in (1, 2) for s in (0, 1)]
    assert fronts.hypervolumes(make(*rows))["hypervolume"].tolist() == pytest.approx([0.25 / 0.81] * 2)


def test_the_box_begins_at_the_chance_of_the_pair():
    found = fronts.hypervolumes(make(l2(1, 0.6, 0.6, pair="mnist_low_to_high"), l2(1, 0.6, 0.6)))
    assert dict(zip(found["pair"], found["hypervolume"], strict=True)) == pytest.approx(
        {"mnist_low_to_high": 0.16 / 0.64, "mnist_to_digits": 0.25 / 0.81}
    )


def test_with_the_task_known_what_has_no_mask_is_read_whole():
    found = fronts.hypervolumes(make(*READ, l2(1, 0.6, 0.6)), "known").set_index("family")["hypervolume"]
    expected = {"snip": 0.6 * 0.6, "wise_ft": 0.4 * 0.6, "target_mask": 0.8 * 0.6, "l2_sp": 0.25}
    assert found.to_dict() == pytest.approx({name: area / 0.81 for name, area in expected.items()})


def test_ties_on_validation_are_not_broken_by_float_noise():
    """0.1 + 0.2 and 0.3 agree: both settings are on the front, whichever comes first."""
    for noisy in (1, 2):
        rows = [l2(k, 0.8, 0.5 + 0.2 * (k == 2), (0.5, 0.3 if k == noisy else 0.1 + 0.2)) for k in (1, 2)]
        assert fronts.hypervolumes(make(*rows))["hypervolume"].item() == pytest.approx(0.7 * 0.6 / 0.81)


@pytest.mark.parametrize(("reference", "area"), [
    ("zero", 0.6 * 0.8), ("chance", 0.5 * 0.7 / 0.81), ("halfway", 0.05 * 0.25 / 0.45**2),
])  # fmt: skip
def test_the_box_may_begin_at_another_corner(reference, area):
    found = fronts.hypervolumes(make(l2(1, 0.6, 0.8)), reference=reference)
    assert found["hypervolume"].item() == pytest.approx(area)


def test_the_family_of_the_largest_area_is_found_by_its_mean_over_seeds():
    areas = fronts.hypervolumes(make(l2(1, 0.6, 0.6), l2(1, 0.9, 0.9, seed=1), at(0.8, 0.8), at(0.8, 0.8, seed=1)))
    assert fronts.largest(areas, ["l2_sp", "wise_ft"]) == "wise_ft"
    assert fronts.largest(areas, ["l2_sp", "ewc"]) == "l2_sp"
    assert fronts.largest(areas, ["ewc"]) == ""


def test_an_unknown_corner_is_refused():
    with pytest.raises(ValueError, match=r"unknown reference 'half'.*known: chance, halfway, zero"):
        fronts.hypervolumes(make({}), reference="half")


# Storage and settings


def test_storage_compares_what_serves_both_tasks_with_the_task_known():
    through = {"protocol": "protect", "method": "snip", "density": 0.1, "source_acc_masked": 0.7}
    kept = [through, through | {"protocol": "select"}, {}, {"protocol": "target_mask"}, {"protocol": "source_only"}]
    left = [through | {"per_layer": True}, {"alpha": 0.5}, {"protocol": "l2_sp"}]
    found = analysis.for_storage(make(*kept, *left))
    # what `select` changed is taken off; one network is one
    assert dict(zip(found["approach"], found["source"], strict=True)) == {
        "snip": 0.7,
        "select (snip)": 0.9,
        "finetune": 0.5,
        "target_mask": 0.9,
        "source_only": 0.5,
    }


def test_storage_compares_the_setting_that_is_best_on_validation_over_all_pairs():
    mask = {"protocol": "protect", "method": "snip"}
    reached = {0.1: (0.6, 0.9), 0.2: (0.8, 0.7)}  # on validation and on test
    rows = [
        mask | {"pair": p, "density": d, "source_acc_masked": s, "val_source_acc_masked": v}
        for p in "ab"
        for d, (v, s) in reached.items()
    ]
    found = analysis.for_storage(make(*rows, rows[0] | {"density": 0.3, "val_source_acc_masked": 1.0}))
    assert found["density"].tolist() == [0.2, 0.2]
    assert found["source"].tolist() == [0.7, 0.7]


def test_what_is_taken_off_leaves_the_source_whatever_its_mask_and_interpolation():
    mask = {"method": "snip", "density": 0.1, "source_acc_masked": 0.3}
    rows = [{"protocol": "select", "alpha": a} | mask for a in (1.0, 0.5)] + [
        {"protocol": "two_networks", "alpha": 0.5}
    ]
    assert analysis.source_read(make(*rows), "known").tolist() == [0.9, 0.9, 0.9]


def test_the_storage_front_has_the_best_settings_for_the_bits():
    """With the task known; the mean of both tasks on validation is 0.7 for `finetune`, and as given for others."""
    mask = {"protocol": "protect", "method": "snip", "source_acc_masked": 0.8}
    rows = [at(0.5, 0.9, stored_bits=0), at(0.1, 0.9, protocol="two_networks", stored_bits=32)]
    rows += [
        at(0.2, t, density=d, stored_bits=b, **mask) for d, t, b in ((0.1, 0.86, 5), (0.2, 0.84, 9), (0.3, 0.88, 10))
    ]
    found = analysis.storage_front(make(*rows, at(1, 1, protocol="joint", stored_bits=0)))
    expected = {"snip": [(5, 0.83), (10, 0.84)], "two_networks": [(32, 0.9)], "wise_ft": [(0, 0.7)]}
    told = {f: list(zip(t["stored_bits"], t["both"].round(6), strict=True)) for f, t in found.groupby("family")}
    assert told == expected
    assert found["front"].all()
    worse = analysis.storage_front(make(*rows[:1], at(0.5, 0.8, protocol="l2_sp", strength=1, stored_bits=0)))
    assert worse.set_index("family")["front"].to_dict() == {"l2_sp": False, "wise_ft": True}


def test_the_storage_front_is_chosen_on_validation_from_settings_of_all_pairs():
    rows = [l2(k, 0.5, t, (0.5, v), pair=p, stored_bits=0) for p in "ab" for k, t, v in ((1, 0.2, 0.9), (2, 0.9, 0.2))]
    found = analysis.storage_front(make(*rows, l2(3, 0.9, 0.9, pair="a", stored_bits=0)))
    assert found[["strength", "target", "n"]].to_numpy().tolist() == [[1, 0.2, 1]]


def test_records_that_do_not_say_what_is_stored_have_no_storage_front():
    assert analysis.storage_front(make(at(0.5, 0.9, protocol="two_networks"))).empty


def test_with_the_task_unknown_nothing_is_stored():
    rows = make({"protocol": "two_networks", "stored_bits": 7.0})
    assert analysis.stored_bits(rows, task_known=False).tolist() == [0]
    assert analysis.stored_bits(rows).tolist() == [7]
    assert math.isnan(analysis.stored_bits(make({"protocol": "two_networks"})).item())


def test_a_mask_that_is_not_read_is_not_stored():
    mask = {"protocol": "protect", "method": "snip", "density": 0.1, "stored_bits": 7.0, "source_acc_masked": 0.9}
    rows = make(
        mask,
        mask | {"alpha": 0.5, "source_acc_masked": math.nan},
        {"protocol": "two_networks", "alpha": 0.5, "stored_bits": 9.0},
    )
    assert analysis.stored_bits(rows).tolist() == [7, 0, 9]


def test_best_rates_at_an_end_of_what_was_tried_are_counted():
    tried = {"a": [3, 1, 2], "b": [1, 2, 3], "c": [2, 1, 3]}  # best first
    rows = [{"pair": "p", "model": "m", "approach": name, "target_lr": lr} for name, lrs in tried.items() for lr in lrs]
    table = pd.DataFrame([*rows, {**rows[0], "target_lr": 9, "knob": 4.0}])  # of one value of the knob
    assert rates.at_ends(table) == (
        "Of 3 best rates, one for each approach and pair, 2 lie at an end of what was tried: 1 at the least, 1 at the greatest."
    )


def test_settings_are_ranked_by_their_masks_after_those_that_cost_too_much():
    rows = [
        ("a", True, 0.90),
        ("a", False, 0.80),
        ("b", True, 0.94),
        ("b", False, 0.70),
        ("c", True, 0.93),
        ("c", False, 0.75),
    ]
    table = pd.DataFrame([{"setting": s, "native": n, "val_acc": v, "density": 0.1} for s, n, v in rows])
    ranked = analysis.rank_settings(table.assign(val_acc_before=0.95), max_cost=0.02 + 1e-9)
    assert ranked["setting"].tolist() == ["c", "b", "a"]
    assert ranked["cost"].tolist() == pytest.approx([0.02, 0.01, 0.05])
    assert ranked["affordable"].tolist() == [True, True, False]


def test_a_second_network_answers_for_nothing_with_the_task_unknown():
    rows = make(at(0.5, 0.9), at(0.5, 0.9, protocol="two_networks"))
    assert set(fronts.hypervolumes(rows)["family"]) == {"wise_ft"}
    assert set(fronts.hypervolumes(rows, "known")["family"]) == {"wise_ft", "two_networks"}
    assert set(analysis.best_of_family(rows)["family"]) == {"wise_ft"}
    assert set(analysis.best_of_family(rows, "harmonic_known")["family"]) == {"wise_ft", "two_networks"}


def test_the_ideal_forgets_nothing_and_learns_the_target_as_a_network_of_its_own():
    free, two = at(0.5, 0.8, source_acc_before=0.95), at(0.5, 0.9, protocol="two_networks", source_acc_before=0.95)
    assert analysis.ideal(make(free, two, at(0.7, 0.99, protocol="ewc"))) == pytest.approx((0.95, 0.9))
    assert analysis.ideal(make(free, at(0.7, 0.99, protocol="ewc"))) == pytest.approx((0.95, 0.8))
    assert math.isnan(analysis.ideal(make(at(0.7, 0.99, protocol="ewc")))[1])


def test_the_front_is_chosen_on_validation_and_shown_on_test():
    rows = make(
        l2(1, 0.6, 0.9, val=(0.6, 0.9)), l2(2, 0.8, 0.5, val=(0.8, 0.5)), l2(3, 0.9, 0.95, val=(0.5, 0.8)), l2(4, 0.1, 0.1, val=(0.7, 0.7))
    )  # fmt: skip
    assert fronts.front(rows).round(6).to_numpy().tolist() == [[80, 50], [60, 90], [10, 10]]


def test_the_source_through_masks_is_a_table_of_densities():
    rows = [mask("snip", 0.8, 0.6, 0.7), mask("snip", 0.6, 0.6, 0.7, seed=1), mask("fisher", 0.9, 0.6, 0.7, 0.4)]
    table = analysis.recorded_through_masks(records_of(*rows, at(0.5, 0.9)))
    assert list(table) == ["fisher", "snip"]
    assert table.loc[0.1, "snip"] == pytest.approx(0.7)
