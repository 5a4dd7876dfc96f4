"""Records that were made again, beside those that they should repeat."""

from pathlib import Path

import pandas as pd

from maskutils.core import paths
from maskutils.results.records import ACCURACIES, IDENTITY, load_records, summarise
from maskutils.results.statistics import LEAST


def comparison(profile: str) -> str:
    """A sentence on the results of `profile` beside the committed records; empty where they are these, or one's own has none."""
    file = paths.committed_results(profile) / "records.csv"
    if paths.results_dir(profile) == file.parent:
        return ""
    if not file.is_file():
        return "" if Path(profile).suffix else f"there are no committed records of {profile} to compare with"
    return f"compared with {file}: {compared(load_records(profile), load_records(file))}"


def compared(ours: pd.DataFrame, theirs: pd.DataFrame) -> str:
    """One sentence: whether every mean over seeds of `ours` is within the 95 % interval of the same mean of `theirs`, and the largest
    difference, in points of accuracy. A mean is that of one reading of one setting on one pair.
    """
    by = ["approach", *(name for name in IDENTITY if name != "seed")]
    # a column that holds no text would be one of numbers
    text = dict.fromkeys(("method", "options", "native_of"), object)
    a, b = (summarise(_settings(records), by, ACCURACIES).astype(text) for records in (ours, theirs))
    both = a.merge(b, on=by, suffixes=("", "_theirs"))
    rows = []
    for name in ACCURACIES:
        apart, interval = (both[name] - both[f"{name}_theirs"]).abs(), both[f"{name}_ci_theirs"]
        rows.append(both[["approach", "pair"]].assign(reading=name, apart=apart, interval=interval))
    means = pd.concat(rows).dropna(subset="apart").reset_index(drop=True)
    if means.empty:
        return "no setting is in both"
    only = {"here": len(a) - len(both), "there": len(b) - len(both)}
    rest = "".join(f"; {n:,} settings are only {where}" for where, n in only.items() if n)
    return _verdict(means) + rest


def _settings(records: pd.DataFrame) -> pd.DataFrame:
    """`records` with densities that name a setting: a mask's native density is a result, and others differ by single weights."""
    density = records["density"].astype(float).round(3).where(records["native_of"].isna())
    return records.assign(density=density)


def _verdict(means: pd.DataFrame) -> str:
    worst = means.loc[means["apart"].idxmax()]
    if not worst["apart"]:
        return f"all {len(means):,} means are the same"
    known = means.dropna(subset="interval")
    outside = int((known["apart"] > known["interval"] + 1e-9).sum())
    if known.empty:
        within = f"{len(means):,} means of fewer than {LEAST} seeds, which have no intervals"
    elif outside:
        within = f"{outside:,} of {len(known):,} means are outside their 95 % intervals"
    else:
        within = f"every mean is within its 95 % interval ({len(known):,} means)"
    return f"{within}; largest difference {100 * worst['apart']:.1f} points ({worst['approach']}, {worst['pair']}, {worst['reading']})"
