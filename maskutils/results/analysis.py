"""Compares records: relative measures, families, fronts and paired differences.

Settings are chosen on validation (columns `val_...`) and reported on test.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from maskutils.core.approaches import INTERPOLATED, every, the
from maskutils.core.checks import known, needs
from maskutils.results import metrics
from maskutils.results.records import at_density, on_grid

with needs("study"):
    import pandas as pd

CANDIDATE = ["approach", "density", "strength", "fraction", "knob", "alpha"]  # what a reader can choose
SOURCE_READINGS = ("full", "masked", "known")  # see `source_read`
CLASSES = {"mnist_low_to_high": 5}  # of pairs whose records do not say; all others have 10


def chance(records: pd.DataFrame, task: str) -> pd.Series:
    """Accuracy of guessing, 1 / classes in (0, 1], on the `task` ("source" or "target") of each row.

    The classes are those of the column `<task>_classes`, or those of the project's own pairs where it is missing or empty.
    """
    shipped = records["pair"].map(CLASSES).fillna(10)
    return 1 / records.get(f"{task}_classes", shipped).fillna(shipped)


def source_read(records: pd.DataFrame, reading: str = "full", prefix: str = "") -> pd.Series:
    """Source accuracy after the transfer, in [0, 1], in one of `SOURCE_READINGS`; `prefix` "val_" for validation.

    "full": with the full network. "masked": through the mask, `nan` without one. "known": the best reading open to someone
    who knows the task at test time. That is through the mask if there is one, with the source network itself if only a mask
    of the target was put on it (`piggyback`), and else with the full network. Raises `BadSetting` for another reading.
    """
    full, masked = records[f"{prefix}source_acc_full"], records[f"{prefix}source_acc_masked"]
    if known(reading, SOURCE_READINGS, "reading") != "known":
        return full if reading == "full" else masked
    intact = records["approach"].isin([a.label or a.name for a in every() if a.known == "intact"])
    return masked.fillna(full).mask(intact, records[f"{prefix}source_acc_before"])


def relative(records: pd.DataFrame) -> pd.DataFrame:
    """`records` with `retention_<reading>`, `adaptation`, `harmonic` and `harmonic_known`, for test and (`val_`) validation.

    Retention is the chance-corrected share of the source accuracy before. Adaptation is that of the target, against free
    fine-tuning of the same seed, pair and model. The harmonic means are of adaptation and retention: full, or task known.
    """
    free = records[records["approach"] == the("free")].set_index(["pair", "model", "seed"])
    out, reference = records.copy(), pd.MultiIndex.from_frame(records[["pair", "model", "seed"]])
    source, target = chance(out, "source"), chance(out, "target")
    for p in ("", "val_"):
        before, best = out[f"{p}source_acc_before"], free[f"{p}target_acc"].reindex(reference).to_numpy()
        for reading in SOURCE_READINGS:
            after = source_read(out, reading, p)
            out[f"{p}retention_{reading}"] = list(map(metrics.retention, before, after, source))
        out[f"{p}adaptation"] = list(map(metrics.adaptation, out[f"{p}target_acc"], target, best))
        for name, reading in (("harmonic", "full"), ("harmonic_known", "known")):
            retained = out[f"{p}retention_{reading}"]
            out[f"{p}{name}"] = list(map(metrics.harmonic_mean, retained, out[f"{p}adaptation"]))
    return out


def trained(records: pd.DataFrame) -> pd.Series:
    """The approach of each row without its interpolation: what was trained for it."""
    return records["approach"].str.removesuffix(INTERPOLATED)


def with_family(records: pd.DataFrame) -> pd.DataFrame:
    """`records` with a column `family`: a training method with every strength, fraction and share of interpolation.

    Fine-tuning and its interpolations are the family `wise_ft`.
    """
    return records.assign(family=trained(records).replace({a.name: a.family for a in every() if a.family}))


def best_of_family(records: pd.DataFrame, value: str = "harmonic", each_pair: bool = True) -> pd.DataFrame:
    """For each family the test rows (one a pair and seed) of the candidate with the highest mean `value` on validation.

    `value` is a column of `relative`. The candidate is chosen for each pair, or one for all pairs without `each_pair`.
    """
    rows, by = with_family(on_grid(relative(records))), ["pair", "family"] if each_pair else ["family"]
    found = rows.groupby([*by, *CANDIDATE], dropna=False).agg(mean=(f"val_{value}", "mean"), pairs=("pair", "nunique"))
    everywhere = found["pairs"] == found.groupby(by)["pairs"].transform("max")  # on all pairs of its family
    means = found.loc[everywhere, "mean"].dropna().reset_index()
    best = means.loc[means.groupby(by)["mean"].idxmax()].drop(columns="mean")
    return rows.merge(best, on=[*by, *CANDIDATE])


def hypervolumes(records: pd.DataFrame, reading: str = "full", split: str = "") -> pd.DataFrame:
    """The area over chance of each family, as a fraction of the box up to 1: columns pair, seed, family and hypervolume.

    The points on the front are chosen by validation means over seeds. The area is that of their test points, so a family
    with many strengths gains nothing from noise. `reading` is one of `SOURCE_READINGS`; rows without it are left out.
    `split` "val_" gives the area of the validation points, to choose families by.
    """
    rows = with_family(on_grid(records))
    x, val_x = source_read(rows, reading, split), source_read(rows, reading, "val_")
    rows = rows.assign(x=x, val_x=val_x, y=rows[f"{split}target_acc"], val_y=rows["val_target_acc"])
    rows = rows.assign(source=chance(rows, "source"), target=chance(rows, "target"))[x.notna()]
    rows = rows.assign(candidate=rows.groupby(["pair", "family", *CANDIDATE], dropna=False).ngroup())
    means = rows.groupby(["pair", "family", "candidate"])[["val_x", "val_y"]].mean()
    best = [candidate for _, group in means.groupby(["pair", "family"]) for candidate in _on_front(group)]
    points: dict[tuple[Any, ...], list[metrics.Point]] = {}
    kept = rows.loc[rows["candidate"].isin(best), ["pair", "seed", "family", "source", "target", "x", "y"]]
    for *group, x, y in kept.sort_values(["pair", "family", "seed"]).itertuples(index=False):
        points.setdefault(tuple(group), []).append((x, y))
    areas = [[*group, metrics.hypervolume(front, (s, t))] for (*group, s, t), front in points.items()]
    return pd.DataFrame(areas, columns=["pair", "seed", "family", "hypervolume"])


def _on_front(means: pd.DataFrame) -> list[int]:
    """The candidates, last in the index of `means`, whose two values no other candidate beats."""
    points = list(means.itertuples(index=False, name=None))
    front = set(metrics.pareto_front(points))
    return [c for c, point in zip(means.index.get_level_values("candidate"), points, strict=True) if point in front]


def paired(table: pd.DataFrame, value: str, of: Sequence[str], against: str, by: str = "family") -> pd.DataFrame:
    """Paired differences of `value` over seeds, each of `of` minus `against`; pairs of domains are averaged within a seed.

    Columns: `by`, against, difference, low and high (the 95 % percentile bootstrap interval over seeds), p (of a two-sided
    paired t-test), n (seeds) and p_holm (Holm's correction over `of`).
    """
    from scipy import stats  # here, because it takes a second to import

    wide, rows = table.groupby(["seed", by])[value].mean().unstack(), []
    for name in of:
        found = (wide[name] - wide[against]).dropna().to_numpy()
        p = stats.ttest_1samp(found, 0).pvalue if len(found) > 1 and np.ptp(found) > 1e-9 else np.nan
        rows.append([name, against, found.mean(), *bootstrap(found), p, len(found)])
    frame = pd.DataFrame(rows, columns=[by, "against", "difference", "low", "high", "p", "n"])
    return frame.assign(p_holm=holm(frame["p"]))


def holm(p: pd.Series) -> pd.Series:
    """`p` corrected by Holm's method for the number of tests; `nan` is no test and stays."""
    from statsmodels.stats.multitest import multipletests

    corrected, tested = p.copy(), p.notna()
    if tested.sum() > 1:
        corrected[tested] = multipletests(p[tested], method="holm")[1]
    return corrected


def by_pair(table: pd.DataFrame, value: str, of: str, against: str, by: str = "family") -> pd.Series:
    """`value` of `of` minus that of `against` on each pair of domains, means over seeds, from the least to the greatest."""
    wide = table.groupby(["pair", by])[value].mean().unstack()
    return (wide[of] - wide[against]).dropna().sort_values()


def bootstrap(values: np.ndarray) -> tuple[float, float]:
    """95 % percentile bootstrap interval of the mean; the value itself, twice, where there is nothing to resample."""
    if len(values) < 2 or np.ptp(values) == 0:
        return float(np.mean(values)), float(np.mean(values))
    from scipy import stats

    result = stats.bootstrap((values,), np.mean, method="percentile", n_resamples=10_000, rng=np.random.default_rng(0))
    return float(result.confidence_interval.low), float(result.confidence_interval.high)


def rank_settings(table: pd.DataFrame, max_cost: float = 0.02) -> pd.DataFrame:
    """Ranks a method's settings in a table of `experiment.tune`: setting, val_acc, native_density, cost, affordable, n.

    `val_acc` is the mean through the mask over densities, pairs and seeds. `cost` is the accuracy that the native mask
    loses of the network's. The best come first, those whose cost is above `max_cost` after all others.
    """
    native, on_densities = table[table["native"]].groupby("setting"), table[~table["native"]].groupby("setting")
    out = pd.DataFrame({"val_acc": on_densities["val_acc"].mean(), "native_density": native["density"].mean()})
    out["cost"] = native["val_acc_before"].mean() - native["val_acc"].mean()
    out["affordable"], out["n"] = out["cost"] <= max_cost, native.size()
    return out.sort_values(["affordable", "val_acc"], ascending=False).reset_index()


def for_storage(records: pd.DataFrame, density: float = 0.1) -> pd.DataFrame:
    """Rows for the storage figure, with a column `source`: its accuracy when the task is known.

    Masks are those at `density`, equal over all layers. Approaches that answer with one set of weights in any case are left out.
    """
    rows, serves = at_density(records, density).query("alpha == 1"), [a for a in every() if a.known != "full"]
    layered = rows["per_layer"].astype(bool) & rows["protocol"].isin([a.name for a in serves if a.named_by_mask])
    rows = rows.assign(source=source_read(rows, "known"))
    return rows[~layered & rows["protocol"].isin([a.name for a in serves])]
