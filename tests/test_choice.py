"""The reader's choice: chosen on validation, met on every pair, told by test, and checked on what it has not seen."""

import pytest
from test_analysis import at, l2, make

from maskutils.results import choice

MASK = {"protocol": "protect", "method": "snip", "density": 0.1}
MENU = [at(0.9, 0.3, protocol="source_only"), l2(1, 0.86, 0.7), at(0.6, 0.9), at(0.9, 0.99, protocol="joint")]
MENU += [at(0.86, 0.8, protocol="replay", fraction=0.1), at(0.7, 0.85, source_acc_masked=0.89, **MASK)]


@pytest.mark.parametrize(("need", "approach", "drop", "target"), [
    ({"max_source_drop": 0.0}, "source_only", 0.0, 0.3),
    ({"max_source_drop": 0.05}, "replay", 0.04, 0.8),
    ({"max_source_drop": 0.05, "without": ["replay"]}, "l2_sp", 0.04, 0.7),
    ({"max_source_drop": 0.05, "task_known": True}, "snip", 0.01, 0.85),
    ({"max_source_drop": 1.0}, "finetune", 0.3, 0.9),
    ({"min_target": 0.2}, "source_only", 0.0, 0.3),
    ({"min_target": 0.65}, "replay", 0.04, 0.8),  # as little drop as l2_sp, and a better target
    ({"min_target": 0.82}, "snip", 0.2, 0.85),
    ({"min_target": 0.65, "task_known": True}, "snip", 0.01, 0.85),
])  # fmt: skip
def test_the_choice_meets_the_need_at_the_best_price(need, approach, drop, target):
    chosen = choice.recommend(make(*MENU), **need)
    assert chosen["approach"] == approach
    assert chosen[["source_drop", "target_acc"]].tolist() == pytest.approx([drop, target])


@pytest.mark.parametrize("need", [{}, {"max_source_drop": 0.1, "min_target": 0.5}])
def test_exactly_one_need_is_given(need):
    with pytest.raises(ValueError, match="give one need"):
        choice.recommend(make(*MENU), **need)


def test_where_nothing_meets_the_need_the_nearest_is_named():
    with pytest.raises(ValueError, match=r"max_source_drop=0\.01.*the least drop is 0\.040"):
        choice.recommend(make(*MENU), max_source_drop=0.01, without=["source_only"])
    with pytest.raises(ValueError, match=r"min_target=0\.95.*the best target is 0\.900"):
        choice.recommend(make(*MENU), min_target=0.95)


def test_the_choice_is_made_on_validation_and_its_expectation_is_test_over_seeds():
    rows = [l2(1, f, t, (0.9, 0.8), seed=s) for s, f, t in [(0, 0.8, 0.4), (1, 0.7, 0.5), (2, 0.6, 0.6)]]
    rows += [l2(2, 0.9, 0.99, (0.9, 0.7), seed=s) for s in range(3)]
    chosen = choice.recommend(make(*rows), max_source_drop=0.0)
    assert (chosen["strength"], chosen["n"]) == (1, 3)
    assert chosen[["source_drop", "target_acc"]].tolist() == pytest.approx([0.2, 0.5])
    for name, low, high in (("source_drop", 0.1, 0.3), ("target_acc", 0.4, 0.6)):  # means of three reach the extremes
        assert [chosen[f"{name}_low"], chosen[f"{name}_high"]] == pytest.approx([low, high])


@pytest.mark.parametrize(("protocol", "without"), [("joint", []), ("replay", ["replay"])])
def test_interpolation_opens_no_way_around_what_is_left_out(protocol, without):
    rows = make(at(0.9, 0.3, protocol="source_only"), at(0.9, 0.9, protocol=protocol, alpha=0.5))
    assert choice.recommend(rows, max_source_drop=0.0, without=without)["approach"] == "source_only"


def test_each_seed_is_left_out_of_the_choice_it_checks():
    rows = [at(0.9, 0.3, protocol="source_only", seed=s) for s in range(3)]
    rows += [at(full, 0.8, seed=s) for s, full in enumerate([0.9, 0.9, 0.5])]
    table = choice.check_choice(make(*rows), [0.05])
    assert table["approach"].tolist() == ["source_only", "source_only", "finetune"]
    assert table["promised"].tolist() == pytest.approx([0, 0, 0])
    assert table["found"].tolist() == pytest.approx([0, 0, 0.4])
    assert table["target_acc"].tolist() == pytest.approx([0.3, 0.3, 0.8])


def test_with_one_seed_no_choice_can_be_checked():
    assert choice.check_choice(make(at(0.9, 0.8)), [0.05]).empty


def test_a_need_must_be_met_on_every_pair_and_the_worst_is_told():
    rows = [at(0.9, 0.3, protocol="source_only", pair=p) for p in "ab"]
    rows += [l2(1, full, 0.8, pair=p) for p, full in [("a", 0.9), ("b", 0.7)]]  # loses 0.1 on average
    rows += [l2(2, full, 0.6, pair=p) for p, full in [("a", 0.85), ("b", 0.84)]]
    chosen = choice.recommend(make(*rows), max_source_drop=0.1)
    assert (chosen["strength"], chosen["source_drop_worst"], chosen["target_acc_worst"]) == pytest.approx(
        (2, 0.06, 0.6)
    )
    assert choice.recommend(make(*rows), max_source_drop=0.2)["strength"] == 1
    with pytest.raises(choice.Unmet, match=r"the best target is 0\.800"):
        choice.recommend(make(*rows), min_target=0.81)


def test_of_targets_that_agree_to_a_hundredth_the_one_that_loses_less_is_taken():
    rows = [l2(1, 0.86, 0.801), l2(2, 0.89, 0.799)]
    assert choice.recommend(make(*rows), max_source_drop=0.05)["strength"] == 2


def test_each_pair_is_left_out_of_the_choice_it_checks():
    rows = [at(0.9, 0.3, protocol="source_only", pair=p, seed=s) for p in "abc" for s in (0, 1)]
    rows += [at(full, 0.8, pair=p, seed=s) for p, full in zip("abc", (0.9, 0.9, 0.5), strict=True) for s in (0, 1)]
    table = choice.check_choice(make(*rows), [0.05], unseen="pair")
    assert table["pair"].tolist() == ["a", "b", "c"]
    assert table["approach"].tolist() == ["source_only", "source_only", "finetune"]
    assert table["found"].tolist() == pytest.approx([0, 0, 0.4])
    assert choice.check_choice(make(*rows[:2]), [0.05], unseen="pair").empty


def test_a_candidate_that_was_not_tried_on_every_pair_is_no_choice():
    elsewhere = [row | {"pair": "mnist_to_rotated"} for row in MENU if row.get("protocol") != "replay"]
    chosen = choice.recommend(make(*MENU, *elsewhere), max_source_drop=0.05)
    assert chosen["approach"] == "l2_sp"
    with pytest.raises(ValueError, match=r"give one need.*given: max_source_drop=5"):
        choice.recommend(make(*MENU), max_source_drop=5)
