"""Paired differences over seeds: their intervals, tests and corrections, and summaries over pairs of domains.

One seed gives one paired difference: both approaches start from the same source network and read the same test images.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy.special import stdtr, stdtrit  # as scipy.stats has them, whose import takes a second

Name = str | int  # of what is compared: a family or an approach, or the number of a candidate
LEAST = 3  # seeds: fewer give no interval of a difference and no verdict
OVERLAP = 25 / 65  # test images to training images of a seed: see `t_interval`
SAME = 1e-9  # differences that spread less are equal but for rounding


def t_interval(values: np.ndarray, overlap: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """95 % interval of the mean of `values` over the last axis, the seeds, by Student's t. `nan` values do not count.

    Fewer than `LEAST` values give `nan`. `overlap` widens the interval: the variance of the mean is s^2 (1 / n + overlap), the
    corrected variance of Nadeau & Bengio 2003 (Machine Learning 52, 239-281), where overlap is n_test / n_train. They derive it
    for training sets that overlap because each is a random draw from the same images, which makes the plain interval too narrow.

    Here a pair's test images, 25 % of all, are fixed. A seed trains on 65 % of all images, drawn from the other 75 %, so
    `OVERLAP` is 25 / 65. Two things stay dependent. Two seeds share about 87 % of their training images, which is what the
    correction is for. All seeds share the test images: no interval over seeds covers what other test images would change.
    """
    mean, error, n = _error(values, overlap)
    half = stdtrit(np.maximum(n - 1, 1), 0.975) * np.where(n >= LEAST, error, np.nan)
    return mean - half, mean + half


def p_value(values: np.ndarray, overlap: float = 0.0) -> float:
    """Two-sided p of the paired t-test that the mean is 0; `overlap` as in `t_interval`. `nan` where all values are equal."""
    mean, error, n = _error(values, overlap)
    return float(2 * stdtr(n - 1, -abs(mean) / error)) if n > 1 and error > SAME else np.nan


def over_seeds(values: np.ndarray) -> np.ndarray:
    """Mean of `values` over the last axis, the seeds. `nan` values do not count; of no values the mean is `nan`."""
    there = ~np.isnan(values)
    n = there.sum(axis=-1)
    return np.where(n > 0, np.where(there, values, 0.0).sum(axis=-1) / np.maximum(n, 1), np.nan)


def _error(values: np.ndarray, overlap: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean over the last axis, its standard error (0 for one value) and the number of values."""
    there = ~np.isnan(values)
    n, mean = there.sum(axis=-1), over_seeds(values)
    squares = (np.where(there, values - mean[..., None], 0.0) ** 2).sum(axis=-1)
    return mean, np.sqrt(squares / np.maximum(n - 1, 1) * (1 / np.maximum(n, 1) + overlap)), n


def paired(table: pd.DataFrame, value: str, of: Sequence[Name], against: Name, by: str = "family") -> pd.DataFrame:
    """Paired differences of `value` over seeds, each of `of` minus `against`; pairs of domains are averaged within a seed.

    A seed that lacks a value on one of the pairs does not count: a mean over other pairs is no paired value. The means of few
    seeds may agree by chance while each pair varies, so the interval is the wider of two: that of these means (`t_interval`), and
    that of pairs taken as independent, whose standard deviation comes from all of them. It covers the truth in 95 to 99 of 100 cases.

    Columns: `by`, against, difference, low, high, p (the larger of two), n (seeds that have both), sd (the standard deviation of the
    means over seeds), low_corrected, high_corrected and p_corrected (the same with `OVERLAP`). No p allows for the number of tests:
    see `holm`.
    """
    pairs = ["pair"] if "pair" in table else []
    wide, rows = table.groupby([*pairs, "seed", by])[value].mean().unstack(), []
    for name in of:
        each = (wide[name] - wide[against]).dropna()
        each = each[(size := each.groupby("seed").transform("size")) == size.max()]
        found = each.groupby("seed").mean().to_numpy()
        by_pair = (
            each.to_numpy().reshape(-1, len(found)) if len(found) else np.empty((1, 0))
        )  # sorted by pair, then seed
        sd = found.std(ddof=1) if len(found) > 1 else np.nan
        plain, corrected = (_wider(by_pair, o) for o in (0.0, OVERLAP))
        rows.append([name, against, found.mean() if len(found) else np.nan, *plain, len(found), sd, *corrected])
    tested = ["low", "high", "p"]
    columns = [by, "against", "difference", *tested, "n", "sd", *(f"{name}_corrected" for name in tested)]
    return pd.DataFrame(rows, columns=columns)


def _wider(values: np.ndarray, overlap: float) -> tuple[float, float, float]:
    """Low, high and p of the mean of `values` (pairs, seeds): of the means over pairs, or of independent pairs where that is wider."""
    means, (pairs, n) = values.mean(axis=0), values.shape
    (low, high), p = map(float, t_interval(means, overlap)), p_value(means, overlap)
    if n < LEAST or pairs < 2:
        return low, high, p
    error, degrees = np.sqrt(values.var(axis=1, ddof=1).mean() / pairs * (1 / n + overlap)), pairs * (n - 1)
    mean, half = float(values.mean()), float(stdtrit(degrees, 0.975) * error)
    other = float(2 * stdtr(degrees, -abs(mean) / error)) if error > SAME else np.nan
    return min(low, mean - half), max(high, mean + half), float(np.fmax(p, other))


def holm(p: pd.Series) -> pd.Series:
    """`p` corrected by Holm's method for the number of tests; `nan` is no test and stays."""
    from statsmodels.stats.multitest import multipletests

    corrected, tested = p.copy(), p.notna()
    if tested.sum() > 1:
        corrected[tested] = multipletests(p[tested], method="holm")[1]
    return corrected


def by_pair(table: pd.DataFrame, value: str, of: Name, against: Name, by: str = "family") -> pd.Series:
    """`value` of `of` minus that of `against` on each pair of domains, means over seeds, from the least to the greatest."""
    return _on_pairs(table, value, of, against, by).groupby("pair").mean().sort_values()


def _on_pairs(table: pd.DataFrame, value: str, of: Name, against: Name, by: str) -> pd.Series:
    """The differences of each pair and seed that has both."""
    wide = table.groupby(["pair", "seed", by])[value].mean().unstack()
    return (wide[of] - wide[against]).dropna()


def random_effects(
    table: pd.DataFrame, value: str, of: Name, against: Name, by: str = "family"
) -> tuple[float, float, float]:
    """Mean difference over pairs of domains and its 95 % interval (low, high), for pairs like these and not these alone.

    Pairs with fewer than `LEAST` seeds are left out; fewer than two pairs give `nan`. The model has random effects: the variance
    between pairs is DerSimonian & Laird's (1986), at least 0, and the interval Hartung's and Knapp's, with Student's t, which few
    studies need (IntHout, Ioannidis & Borm 2014, BMC Medical Research Methodology 14:25).
    """
    from statsmodels.stats.meta_analysis import combine_effects

    pairs = _on_pairs(table, value, of, against, by).groupby("pair").agg(["mean", "var", "count"])
    pairs = pairs[pairs["count"] >= LEAST]
    if len(pairs) < 2:
        return np.nan, np.nan, np.nan
    variance = (pairs["var"] / pairs["count"]).clip(lower=1e-8)  # a hundredth of a point: no pair counts without limit
    with np.errstate(invalid="ignore"):  # statsmodels does not cut the variance between pairs at 0
        effects = combine_effects(pairs["mean"].to_numpy(), variance.to_numpy(), method_re="chi2", use_t=True)
        _, _, fixed, random = effects.conf_int(use_t=True)  # the last two by Hartung and Knapp
    differ = effects.tau2 > 0  # else the pairs weigh as in a model with fixed effects
    low, high = random if differ else fixed
    return float(effects.mean_effect_re if differ else effects.mean_effect_fe), float(low), float(high)


def mean_ranks(table: pd.DataFrame, value: str = "hypervolume", by: str = "family") -> pd.Series:
    """Mean rank of each of `by` over pairs of domains, by its mean `value` on a pair: 1 is best on every pair. Ties share a rank."""
    means = table.groupby(["pair", by])[value].mean()
    return means.groupby("pair").rank(ascending=False).groupby(by).mean()


def smallest_effect(n: int, power: float = 0.8) -> float:
    """The smallest mean difference that `n` seeds can show, in its standard deviations over seeds; `nan` for one seed.

    It is found with probability `power` by a two-sided paired t-test at 5 %.
    """
    from statsmodels.stats.power import TTestPower

    return float(TTestPower().solve_power(nobs=n, alpha=0.05, power=power)) if n > 1 else np.nan
