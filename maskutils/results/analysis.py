"""What records say when they are compared: relative measures, families, fronts and paired differences.

Everything is chosen on validation (columns `val_...`) and reported on test. It knows records, not networks.
"""

from collections.abc import Sequence

import numpy as np

from maskutils.core.approaches import INTERPOLATED, every, the
from maskutils.core.checks import known, needs
from maskutils.results import metrics
from maskutils.results.records import at_density, on_grid

with needs("study"):
    import pandas as pd

CANDIDATE = ["approach", "density", "strength", "fraction", "alpha"]  # what a reader can choose
SOURCE_READINGS = ("full", "masked", "known")  # see `source_read`
CLASSES = {"mnist_low_to_high": 5}  # of pairs whose records do not say; 10 unless said here


def chance(records: pd.DataFrame, task: str) -> pd.Series:
    """Accuracy of guessing, 1 / classes in (0, 1], on the `task` ("source" or "target") of each row.

    From the column `<task>_classes`; where it is missing or empty, by the name of a pair that the project ships.
    """
    shipped = records["pair"].map(CLASSES).fillna(10)
    return 1 / records.get(f"{task}_classes", shipped).fillna(shipped)


def source_read(records: pd.DataFrame, reading: str = "full", prefix: str = "") -> pd.Series:
    """Source accuracy after the transfer, in [0, 1], in one of `SOURCE_READINGS`; `prefix` "val_" for validation.

    "full": with the full network. "masked": through the mask, `nan` without one. "known": the best that is open to whoever
    knows the task at test time: through the mask, of the whole source network where only a mask of the target was put on it
    (`piggyback`), with the full network where there is no mask. Raises `BadParameter` for another reading.
    """
    full, masked = records[f"{prefix}source_acc_full"], records[f"{prefix}source_acc_masked"]
    if known(reading, SOURCE_READINGS, "reading") != "known":
        return full if reading == "full" else masked
    intact = records["approach"].isin([a.label or a.name for a in every() if a.known == "intact"])
    return masked.fillna(full).mask(intact, records[f"{prefix}source_acc_before"])


def relative(records: pd.DataFrame) -> pd.DataFrame:
    """`records` with, for test and validation, `retention_<reading>`, `adaptation` and their mean `harmonic`, `harmonic_known`.

    Retention is chance-corrected, of the source accuracy before. Adaptation is the same of the target, against free
    fine-tuning from the same seed on the same pair; `harmonic` is that of full retention and adaptation, `harmonic_known`
    that of retention with the task known.
    """
    free = records[records["approach"] == the("free")].set_index(["pair", "model", "seed"])
    out = records.copy()
    reference = pd.MultiIndex.from_frame(out[["pair", "model", "seed"]])
    source, target = chance(out, "source"), chance(out, "target")
    for prefix in ("", "val_"):
        before, best = out[f"{prefix}source_acc_before"], free[f"{prefix}target_acc"].reindex(reference).to_numpy()
        for name in SOURCE_READINGS:
            out[f"{prefix}retention_{name}"] = list(
                map(metrics.retention, before, source_read(out, name, prefix), source)
            )
        out[f"{prefix}adaptation"] = list(map(metrics.adaptation, out[f"{prefix}target_acc"], target, best))
        for name, reading in (("harmonic", "full"), ("harmonic_known", "known")):
            pairs = zip(out[f"{prefix}retention_{reading}"], out[f"{prefix}adaptation"], strict=True)
            out[f"{prefix}{name}"] = [metrics.harmonic_mean(r, a) for r, a in pairs]
    return out


def trained(records: pd.DataFrame) -> pd.Series:
    """The approach of each row without its interpolation: what was trained for it."""
    return records["approach"].str.removesuffix(INTERPOLATED)


def with_family(records: pd.DataFrame) -> pd.DataFrame:
    """`records` with a column `family`: a training method with every strength and every share of interpolation.

    Fine-tuning and its interpolations are the family `wise_ft`. Replay of different fractions is one family.
    """
    family = trained(records).replace({a.name: a.family for a in every() if a.family})
    return records.assign(family=family)


def best_of_family(records: pd.DataFrame, value: str = "harmonic", each_pair: bool = True) -> pd.DataFrame:
    """For each family the test rows (one a pair and seed) of the candidate with the highest mean `value` on validation.

    `value` is a column of `relative`. The candidate is chosen for each pair, or one for all pairs without `each_pair`.
    """
    rows, by = with_family(on_grid(relative(records))), ["pair", "family"] if each_pair else ["family"]
    found = rows.groupby([*by, *CANDIDATE], dropna=False).agg(mean=(f"val_{value}", "mean"), pairs=("pair", "nunique"))
    everywhere = found["pairs"] == found.groupby(by)["pairs"].transform("max")  # on all pairs of its family
    means = found[everywhere]["mean"].dropna().rename(f"val_{value}").reset_index()
    best = means.loc[means.groupby(by)[f"val_{value}"].idxmax()].drop(columns=f"val_{value}")
    return rows.merge(best, on=[*by, *CANDIDATE])


def hypervolumes(records: pd.DataFrame, reading: str = "full", split: str = "") -> pd.DataFrame:
    """Hypervolume of each family, pair and seed over chance, as a fraction of the box up to 1: pair, seed, family, hypervolume.

    The front is chosen by validation means over seeds; the area is that of its test points, so a family with many strengths
    gains nothing from their noise. `reading` is one of `SOURCE_READINGS`; what has none is left out. `split` "val_" gives the area of
    the validation points, to choose families by.
    """
    rows, key = with_family(on_grid(records)), ["pair", "family", *CANDIDATE]
    readings = {"x": source_read(rows, reading, split), "val_x": source_read(rows, reading, "val_")}
    readings |= {"y": rows[f"{split}target_acc"], "val_y": rows["val_target_acc"]}
    rows = rows[[*key, "seed"]].assign(**readings, source=chance(rows, "source"), target=chance(rows, "target"))
    rows = rows[rows["x"].notna()]
    rows = rows.assign(candidate=rows.groupby(key, dropna=False).ngroup())
    means = rows.groupby(["pair", "family", "candidate"])[["val_x", "val_y"]].mean()
    best = {candidate for _, group in means.groupby(["pair", "family"]) for candidate in _on_front(group)}
    points: dict[tuple, list] = {}
    kept = rows.loc[rows["candidate"].isin(best), ["pair", "seed", "family", "x", "y", "source", "target"]]
    for *group, x, y, source, target in kept.sort_values(["pair", "family", "seed"]).itertuples(index=False):
        points.setdefault((*group, (source, target)), []).append((x, y))
    areas = [[*group, metrics.hypervolume(front, worst)] for (*group, worst), front in points.items()]
    return pd.DataFrame(areas, columns=["pair", "seed", "family", "hypervolume"])


def _on_front(group: pd.DataFrame) -> list[int]:
    """The candidates, last in the index of `group`, whose two values no other's beat."""
    listed = list(zip(group.index.get_level_values("candidate"), *(group[name] for name in group), strict=True))
    front = set(metrics.pareto_front([(x, y) for _, x, y in listed]))
    return [candidate for candidate, x, y in listed if (x, y) in front]


def paired(table: pd.DataFrame, value: str, of: Sequence[str], against: str, by: str = "family") -> pd.DataFrame:
    """Paired differences of `value`, each of `of` minus `against`, over seeds (pairs of domains averaged within a seed first).

    Mean, 95 % bootstrap interval (percentile, over seeds), p of a two-sided paired t-test and its Holm correction over `of`.
    """
    from scipy import stats  # here, for it takes a second to import

    wide, rows = table.groupby(["seed", by])[value].mean().unstack(), []
    for name in of:
        difference = (wide[name] - wide[against]).dropna().to_numpy()
        low, high = bootstrap(difference)
        p = stats.ttest_1samp(difference, 0).pvalue if len(difference) > 1 and np.ptp(difference) > 1e-9 else np.nan
        rows.append(
            {
                by: name,
                "against": against,
                "difference": difference.mean(),
                "low": low,
                "high": high,
                "p": p,
                "n": len(difference),
            }
        )
    frame = pd.DataFrame(rows, columns=[by, "against", "difference", "low", "high", "p", "n"])
    return frame.assign(p_holm=holm(frame["p"]))


def holm(p: pd.Series) -> pd.Series:
    """`p` corrected for the number of those that are not `nan`, by Holm's method."""
    from statsmodels.stats.multitest import multipletests

    corrected, tested = p.copy(), p.notna()
    if tested.sum() > 1:
        corrected[tested] = multipletests(p[tested], method="holm")[1]
    return corrected


def by_pair(table: pd.DataFrame, value: str, of: str, against: str, by: str = "family") -> pd.Series:
    """Mean over seeds of `value` of `of` minus that of `against`, for each pair of domains: what a mean over pairs may hide."""
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
    """The settings of a method in a table of `experiment.tune`, best first: setting, val_acc, native_density, cost, affordable, n.

    `val_acc` is the mean through the mask over densities, pairs and seeds; `cost` what the native mask loses of the network's
    accuracy. Those whose cost is above `max_cost` come after all others.
    """
    native, on_densities = table[table["native"]].groupby("setting"), table[~table["native"]].groupby("setting")
    out = pd.DataFrame({"val_acc": on_densities["val_acc"].mean(), "native_density": native["density"].mean()})
    out["cost"] = native["val_acc_before"].mean() - native["val_acc"].mean()
    out["affordable"], out["n"] = out["cost"] <= max_cost, native.size()
    return out.sort_values(["affordable", "val_acc"], ascending=False).reset_index()


def for_storage(records: pd.DataFrame, density: float = 0.1) -> pd.DataFrame:
    """Rows for the storage figure: masks at `density`, others in their best setting, and `source` in the task-known reading.

    Where nothing but a second network serves both tasks, that network's source is the source network itself.
    """
    rows = at_density(records, density)
    rows, about = rows[rows["alpha"] == 1], {a.name: a for a in every()}
    served = rows["protocol"].map({name: a.stored for name, a in about.items()})
    usual = ~(rows["per_layer"].astype(bool) & rows["protocol"].isin([n for n, a in about.items() if a.named_by_mask]))
    rows, served = rows[usual & (served != "")], served[usual & (served != "")]
    return rows.assign(source=rows["source_acc_before"].where(served == "intact", rows["source_acc_masked"]))
