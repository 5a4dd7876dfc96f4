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


def over_pairs(values: np.ndarray, overlap: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """95 % interval of the mean of `values` (..., pairs, seeds): the wider of two. `nan` for fewer than `LEAST` seeds.

    One is the `t_interval` of the seeds' means over pairs. Few seeds may agree by chance there while each pair varies. The other takes
    the pairs as independent, with a standard deviation from all of them. For independent seeds the wider one covers the truth in 95
    to 99 of 100 cases. `overlap` as in `t_interval`.
    """
    means = values.mean(axis=-2)
    (low, high), (error, degrees) = t_interval(means, overlap), _independent(values, overlap)
    middle, half = over_seeds(means), stdtrit(degrees, 0.975) * error
    return np.where(middle - half < low, middle - half, low), np.where(middle + half > high, middle + half, high)


def _independent(values: np.ndarray, overlap: float) -> tuple[np.ndarray, int]:
    """Standard error of the mean of independent pairs, from `values` (..., pairs, seeds), and its degrees of freedom."""
    pairs, n = values.shape[-2:]
    if n < LEAST or pairs < 2:
        return np.full(values.shape[:-2], np.nan), 1
    return np.sqrt(values.var(axis=-1, ddof=1).mean(axis=-1) / pairs * (1 / n + overlap)), pairs * (n - 1)


def paired(table: pd.DataFrame, value: str, of: Sequence[Name], against: Name, by: str = "family") -> pd.DataFrame:
    """Paired differences of `value` over seeds, each of `of` minus `against`; pairs of domains are averaged within a seed.

    A seed that lacks a value on one of the pairs does not count: a mean over other pairs is no paired value.

    Columns: `by`, against, difference, low and high (`over_pairs`), p (`p_value`), n (seeds that have both), sd (the standard deviation
    of the means over seeds), low_corrected, high_corrected and p_corrected (the same with `OVERLAP`). No p allows for the number of
    tests: see `holm`.
    """
    wide, rows = _by_seed(table, value, by), []
    for name in of:
        values = (wide[name] - wide[against]).dropna().unstack("seed").dropna(axis=1).to_numpy()
        means = values.mean(axis=0)
        plain, corrected = ([*map(float, over_pairs(values, o)), p_value(values, o)] for o in (0.0, OVERLAP))
        sd = means.std(ddof=1) if len(means) > 1 else np.nan
        rows.append([name, against, float(over_seeds(means)), *plain, len(means), sd, *corrected])
    tested = ["low", "high", "p"]
    columns = [by, "against", "difference", *tested, "n", "sd", *(f"{name}_corrected" for name in tested)]
    return pd.DataFrame(rows, columns=columns)


def _by_seed(table: pd.DataFrame, value: str, by: str) -> pd.DataFrame:
    """Means of `value`: a row for each pair of domains and seed, a column for each of `by`."""
    return table.groupby(["pair", "seed", by])[value].mean().unstack()


def p_value(values: np.ndarray, overlap: float = 0.0) -> float:
    """The larger two-sided p of two t-tests that the mean of `values` (pairs, seeds) is 0, in the two ways of `over_pairs`.

    `nan` where all values are equal. `overlap` as in `t_interval`.
    """
    mean, error, n = _error(values.mean(axis=0), overlap)
    tests = [(error, n - 1), _independent(values, overlap)]
    found = [2 * stdtr(degrees, -abs(mean) / e) if e > SAME else np.nan for e, degrees in tests]
    return float(np.fmax.reduce(found))


def holm(p: pd.Series) -> pd.Series:
    """`p` corrected by Holm's method for the number of tests; `nan` is no test and stays."""
    from statsmodels.stats.multitest import multipletests

    corrected, tested = p.copy(), p.notna()
    if tested.sum() > 1:
        corrected[tested] = multipletests(p[tested], method="holm")[1]
    return corrected


def by_pair(table: pd.DataFrame, value: str, of: Name, against: Name, by: str = "family") -> pd.Series:
    """`value` of `of` minus that of `against` on each pair of domains, means over seeds, from the least to the greatest."""
    wide = _by_seed(table, value, by)
    return (wide[of] - wide[against]).groupby("pair").mean().dropna().sort_values()


def random_effects(table: pd.DataFrame, value: str, of: Name, against: Name) -> tuple[float, float, float]:
    """Mean difference over pairs of domains and its 95 % interval (low, high), for pairs like these and not these alone.

    Pairs with fewer than `LEAST` seeds are left out; fewer than two pairs give `nan`. The model has random effects: the variance
    between pairs is DerSimonian & Laird's (1986), at least 0, and the interval Hartung's and Knapp's, with Student's t, which few
    studies need (IntHout, Ioannidis & Borm 2014, BMC Medical Research Methodology 14:25). It is never narrower than the one without
    their factor (Röver, Knapp & Friede 2015, 15:99): pairs that agree by chance would make it so.
    """
    from statsmodels.stats.meta_analysis import combine_effects

    wide = _by_seed(table, value, "family")
    pairs = (wide[of] - wide[against]).groupby("pair").agg(["mean", "var", "count"])
    pairs = pairs[pairs["count"] >= LEAST]
    if len(pairs) < 2:
        return np.nan, np.nan, np.nan
    variance = (pairs["var"] / pairs["count"]).clip(lower=1e-8)  # a hundredth of a point: no pair counts without limit
    with np.errstate(invalid="ignore"):  # statsmodels does not cut the variance between pairs at 0
        effects = combine_effects(pairs["mean"].to_numpy(), variance.to_numpy(), method_re="chi2", use_t=True)
        fixed, random, *by_knapp = effects.conf_int(use_t=True)
    differ = effects.tau2 > 0  # else the pairs weigh as in a model with fixed effects
    low, high = zip(random if differ else fixed, by_knapp[int(differ)], strict=True)
    return float(effects.mean_effect_re if differ else effects.mean_effect_fe), float(min(low)), float(max(high))


def mean_ranks(volumes: pd.DataFrame) -> pd.Series:
    """Mean rank of each family over pairs of domains, by its mean hypervolume on a pair: 1 is best on every pair. Ties share a rank."""
    means = volumes.groupby(["pair", "family"])["hypervolume"].mean().round(9)  # else float noise parts a tie
    return means.groupby("pair").rank(ascending=False).groupby("family").mean()


def smallest_effect(n: int) -> float:
    """The smallest mean difference that `n` seeds, two or more, can show, in its standard deviations over seeds.

    It is found with a probability of 80 % by a two-sided paired t-test at 5 %.
    """
    from statsmodels.stats.power import TTestPower

    return float(TTestPower().solve_power(nobs=n, alpha=0.05, power=0.8))
