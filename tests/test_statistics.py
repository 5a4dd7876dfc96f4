"""Statistics: intervals and tests by hand and by other code, and how often an interval covers the truth."""

import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from maskutils.results import statistics

T2, T4 = 4.302653, 2.776445  # quantiles 0.975 of Student's t with 2 and 4 degrees of freedom


def long(values: dict[str, list[float]]) -> pd.DataFrame:
    rows = [{"pair": "x", "seed": s, "family": f, "v": v} for f, vs in values.items() for s, v in enumerate(vs)]
    return pd.DataFrame(rows)


def test_paired_differences_t_test_and_holm_by_hand():
    table = long({"o": [0, 0, 0], "a": [0.1, 0.2, 0.3], "b": [0.1, 0.1, 0.4], "c": [0.25, 0.25, 0.25]})
    found = statistics.paired(table, "v", ["a", "b", "c"], "o").set_index("family")
    p = [1 - math.sqrt(12 / 14), 1 - 2 / math.sqrt(6)]  # two-sided with 2 degrees of freedom: 1 - t / sqrt(t^2 + 2)
    assert found["difference"].tolist() == pytest.approx([0.2, 0.2, 0.25])
    assert found.loc[["a", "b"], "p"].tolist() == pytest.approx(p)
    corrected = statistics.holm(found["p"])
    assert corrected[["a", "b"]].tolist() == pytest.approx([2 * p[0], max(p[1], 2 * p[0])])
    assert math.isnan(found.loc["c", "p"])
    assert math.isnan(corrected["c"])
    assert found.loc["c", ["low", "high"]].tolist() == [0.25, 0.25]
    assert found["n"].tolist() == [3, 3, 3]


@pytest.mark.parametrize(
    ("p", "corrected"),
    [
        ([0.04, 0.01, 0.03, 0.9], [0.09, 0.04, 0.09, 0.9]),  # 2 * 0.04 is less than 3 * 0.03, and it ranks after that
        ([0.7, 0.6], [1.0, 1.0]),
        ([0.7], [0.7]),
        ([], []),
    ],
)
def test_a_corrected_p_is_never_below_that_of_a_smaller_one_nor_above_1(p, corrected):
    assert statistics.holm(pd.Series([*p, math.nan])).tolist()[:-1] == pytest.approx(corrected)


def test_pairs_are_averaged_within_a_seed_and_only_common_seeds_are_compared():
    easy = long({"a": [0.3, 0.4, 0.9], "o": [0.2, 0.2]})
    hard = long({"a": [0.5, 0.6], "o": [0.2, 0.2]}).assign(pair="y")
    row = statistics.paired(pd.concat([easy, hard]), "v", ["a"], "o").iloc[0]
    assert row["n"] == 2  # differences 0.4 - 0.2 and 0.5 - 0.2
    assert row["difference"] == pytest.approx(0.25)
    assert row["p"] == pytest.approx(1 - 2 / math.pi * math.atan(5))  # t = 0.25 / 0.05, one degree of freedom


def test_no_p_where_differences_are_equal_but_for_rounding():
    table = long({"o": [0.8, 0.7, 0.3], "a": [0.9, 0.8, 0.4]})
    assert math.isnan(statistics.paired(table, "v", ["a"], "o")["p"].item())


def test_a_t_interval_by_hand():
    low, high = statistics.t_interval(np.array([0.1, 0.2, 0.3]))
    assert (low, high) == pytest.approx((0.2 - T2 * 0.1 / math.sqrt(3), 0.2 + T2 * 0.1 / math.sqrt(3)), rel=1e-6)


def test_values_that_are_missing_do_not_count():
    values = np.array([[0.1, 0.2, 0.3, math.nan], [0.1, 0.2, math.nan, math.nan]])
    low, high = statistics.t_interval(values)
    assert (low[0], high[0]) == pytest.approx(statistics.t_interval(np.array([0.1, 0.2, 0.3])))
    assert np.isnan([low[1], high[1]]).all()  # two are too few


@pytest.mark.parametrize("values", [[], [0.4], [0.4, 0.5], [math.nan] * 5])
def test_fewer_than_three_values_have_no_interval(values):
    assert np.isnan(statistics.t_interval(np.array(values))).all()


def test_an_interval_of_five_seeds_covers_the_mean_in_95_of_100_cases():
    low, high = statistics.t_interval(np.random.default_rng(0).normal(0.3, 0.1, (20_000, 5)))
    assert ((low <= 0.3) & (high >= 0.3)).mean() == pytest.approx(0.95, abs=0.005)


def test_the_corrected_interval_and_p_by_hand():
    values = np.array([0.1, 0.2, 0.3])
    error = 0.1 * math.sqrt(1 / 3 + 25 / 65)
    low, high = statistics.t_interval(values, statistics.OVERLAP)
    assert (low, high) == pytest.approx((0.2 - T2 * error, 0.2 + T2 * error), rel=1e-6)
    t = 0.2 / error
    assert statistics.p_value(values[None], statistics.OVERLAP) == pytest.approx(1 - t / math.sqrt(t**2 + 2))


def test_the_corrected_interval_covers_where_seeds_share_what_they_train_on():
    """Values that correlate by n_test / (n_test + n_train), as Nadeau and Bengio suppose: the plain interval is too narrow."""
    random, rho = np.random.default_rng(0), 25 / 90
    shared, own = random.normal(size=(20_000, 1)), random.normal(size=(20_000, 5))
    values = math.sqrt(rho) * shared + math.sqrt(1 - rho) * own
    covered = [((low <= 0) & (high >= 0)).mean() for low, high in (
        statistics.t_interval(values), statistics.t_interval(values, statistics.OVERLAP))]  # fmt: skip
    assert covered[0] < 0.85
    assert covered[1] == pytest.approx(0.95, abs=0.005)


def test_paired_differences_have_the_corrected_interval_beside_the_plain_one():
    row = statistics.paired(long({"o": [0.0] * 5, "a": [0.1, 0.2, 0.3, 0.2, 0.2]}), "v", ["a"], "o").iloc[0]
    sd = math.sqrt(0.02 / 4)
    assert row["sd"] == pytest.approx(sd)
    assert row["high"] - row["difference"] == pytest.approx(T4 * sd / math.sqrt(5), rel=1e-6)
    assert row["high_corrected"] - row["difference"] == pytest.approx(T4 * sd * math.sqrt(1 / 5 + 25 / 65), rel=1e-6)
    assert row["p"] == pytest.approx(stats.ttest_1samp([0.1, 0.2, 0.3, 0.2, 0.2], 0).pvalue)
    assert row["p"] < row["p_corrected"]


def test_a_seed_without_a_value_is_no_difference():
    row = statistics.paired(long({"o": [0.1] * 4, "a": [0.2, 0.3, 0.4, math.nan]}), "v", ["a"], "o").iloc[0]
    assert (row["n"], row["difference"]) == (3, pytest.approx(0.2))


def test_a_seed_that_lacks_a_pair_is_not_compared():
    easy = long({"o": [0.1] * 4, "a": [0.2] * 4})
    hard = long({"o": [0.1] * 3, "a": [0.6] * 3}).assign(pair="y")
    row = statistics.paired(pd.concat([easy, hard]), "v", ["a"], "o").iloc[0]
    assert (row["n"], row["low"], row["high"]) == (3, pytest.approx(0.3), pytest.approx(0.3))


def on_pairs(**differences: list[float]) -> pd.DataFrame:
    """The family "a" is above "o" by these differences on each pair, one a seed."""
    return pd.concat([long({"o": [0.0] * len(d), "a": d}).assign(pair=pair) for pair, d in differences.items()])


def test_the_random_effects_mean_by_hand():
    """DerSimonian and Laird between pairs, Hartung and Knapp for the interval."""
    d = {"x": [0.0, 0.01, 0.02], "y": [0.1, 0.11, 0.12], "z": [0.2, 0.23, 0.26]}
    effect, variance = np.array([0.01, 0.11, 0.23]), np.array([1, 1, 9]) * 1e-4 / 3
    w = 1 / variance
    q = (w * (effect - (w * effect).sum() / w.sum()) ** 2).sum()
    tau2 = (q - 2) / (w.sum() - (w**2).sum() / w.sum())
    w = 1 / (variance + tau2)
    mean = (w * effect).sum() / w.sum()
    half = T2 * math.sqrt((w * (effect - mean) ** 2).sum() / 2 / w.sum())
    assert statistics.random_effects(on_pairs(**d), "v", "a", "o") == pytest.approx(
        (mean, mean - half, mean + half), rel=1e-5
    )


def test_where_pairs_agree_better_than_chance_would_have_it_the_variance_between_them_is_0():
    """DerSimonian and Laird cut it at 0: the pairs then weigh by their own variance, and the interval lies about their mean.

    Hartung's and Knapp's factor, Q over its degrees of freedom, would make it narrower here: it is at least 1.
    """
    d = {"x": [0.0, 0.1, 0.2], "y": [0.0, 0.2, 0.4], "z": [0.06, 0.16, 0.26]}  # means 0.1, 0.2 and 0.16
    effect, w = np.array([0.1, 0.2, 0.16]), np.array([1, 1 / 4, 1]) * 3 / 1e-2
    mean = (w * effect).sum() / w.sum()
    assert (w * (effect - mean) ** 2).sum() < 2  # Cochran's Q is below its degrees of freedom
    half = T2 * math.sqrt(1 / w.sum())
    assert statistics.random_effects(on_pairs(**d), "v", "a", "o") == pytest.approx(
        (mean, mean - half, mean + half), rel=1e-5
    )


@pytest.mark.parametrize("differences", [{"x": [0.1, 0.2, 0.3]}, {"x": [0.1, 0.2, 0.3], "y": [0.1, 0.2]}])
def test_fewer_than_two_pairs_with_three_seeds_have_no_random_effects_mean(differences):
    assert np.isnan(statistics.random_effects(on_pairs(**differences), "v", "a", "o")).all()


def test_pairs_without_spread_still_have_a_random_effects_mean():
    mean, low, high = statistics.random_effects(on_pairs(x=[0.1] * 3, y=[0.3] * 3), "v", "a", "o")
    assert (mean, low < 0 < high) == (pytest.approx(0.2), True)  # two pairs that disagree show nothing of others


def test_differences_on_each_pair_are_sorted():
    assert statistics.by_pair(on_pairs(x=[0.3, 0.5], y=[-0.1, -0.3]), "v", "a", "o").to_dict() == pytest.approx(
        {"y": -0.2, "x": 0.4}
    )


def test_mean_ranks_by_hand():
    rows = [("x", "a", 0.9), ("x", "b", 0.8), ("x", "c", 0.7), ("y", "a", 0.5), ("y", "b", 0.6), ("y", "c", 0.5)]
    table = pd.DataFrame(rows, columns=["pair", "family", "hypervolume"])
    assert statistics.mean_ranks(table).to_dict() == {"a": 1.75, "b": 1.5, "c": 2.75}  # on y: b, then a and c share 2.5


def test_the_smallest_effect_is_found_in_80_of_100_cases():
    effect = statistics.smallest_effect(5)
    values = np.random.default_rng(0).normal(effect, 1, (20_000, 5))
    low, _ = statistics.t_interval(values)
    assert (low > 0).mean() == pytest.approx(0.8, abs=0.01)


def test_seeds_that_agree_by_chance_have_the_interval_of_independent_pairs():
    """Differences of 0, 2 and 4 points on one pair, 4, 2 and 0 on the other: every seed has a mean of 2, with no spread."""
    rows = [("a", (0.0, 0.02, 0.04)), ("b", (0.04, 0.02, 0.0))]
    table = pd.concat([long({"m": [*d], "o": [0.0] * 3}).assign(pair=pair) for pair, d in rows])
    row = statistics.paired(table, "v", ["m"], "o").iloc[0]
    error = 0.02 * math.sqrt(1 / 2 / 3)  # of a mean over two pairs and three seeds
    assert (row["low"], row["high"]) == pytest.approx((0.02 - T4 * error, 0.02 + T4 * error))
    assert row["p"] == pytest.approx(stats.t.sf(0.02 / error, 4) * 2)
    assert row["sd"] == pytest.approx(0)
    wider = 0.02 * math.sqrt((1 / 3 + statistics.OVERLAP) / 2)
    assert row["high_corrected"] == pytest.approx(0.02 + T4 * wider)


@pytest.mark.parametrize("shared", [0.0, 0.5, 1.0])
def test_the_interval_over_pairs_covers_at_least_its_share_whether_or_not_pairs_move_together(shared):
    random = np.random.default_rng(1)
    draws = random.normal(size=(4_000, 4, 3)) + shared * random.normal(
        size=(4_000, 1, 3)
    )  # pairs, seeds; the truth is 0
    low, high = statistics.over_pairs(draws)
    assert 0.945 < ((low <= 0) & (high >= 0)).mean() < 0.99


def test_seeds_that_lack_a_pair_do_not_count_whichever_it_is():
    rows = [("a", 0, 0.1), ("c", 0, 0.3), ("a", 1, 0.2), ("b", 1, 0.4), ("a", 2, 0.1), ("b", 2, 0.3)]
    table = pd.DataFrame([{"pair": p, "seed": s, "family": f, "v": v * (f == "m")} for p, s, v in rows for f in "mo"])
    row = statistics.paired(table, "v", ["m"], "o").iloc[0]
    assert row["n"] == 0  # no seed has all three pairs
    assert math.isnan(row["difference"])
    row = statistics.paired(table[table["pair"] != "c"], "v", ["m"], "o").iloc[0]
    assert (row["n"], row["difference"]) == (2, pytest.approx(0.25))
