"""The reader's choice: which approach meets a need, what to expect of it, and whether such a choice holds.

Everything is chosen on validation (columns `val_...`) and reported on test. It knows records, not networks.
"""

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import pandas as pd

from maskutils.analysis import CANDIDATE, bootstrap, source_read
from maskutils.config import known
from maskutils.records import on_grid

NOT_FOR_CHOICE = ("joint",)  # needs the whole source: a bound


class Unmet(ValueError):
    """No approach meets a reader's need; after the last ": " the message says what comes nearest."""


def recommend(
    records: pd.DataFrame,
    *,
    max_source_drop: float | None = None,
    min_target: float | None = None,
    task_known: bool = False,
    without: str | Iterable[str] = (),
) -> pd.Series:
    """The approach to choose, with its settings and what to expect of it: a row of `CANDIDATE`, means and intervals.

    Give exactly one need: `max_source_drop`, the source accuracy that may be lost, in [0, 1] (then the best target is
    taken, and of targets that agree to a hundredth the one that loses less), or `min_target`, the target accuracy to reach, in
    [0, 1] (then the least source drop). It must be met on every pair of domains in `records`. `task_known` says whether the
    source may be read through the mask at test time. `without` leaves out approaches by name, with their interpolations
    ("replay" where no source data may be kept). Chosen on validation; `source_drop` and `target_acc` are test means over
    pairs and seeds, `_low` and `_high` their 95 % bootstrap intervals over seeds, `_worst` their means on the worst pair, `n`
    the seeds.

    Raises `ValueError` if the need is not given, `Unmet` if nothing meets it.
    """
    need = max_source_drop if min_target is None else min_target
    if (max_source_drop is None) == (min_target is None) or not 0 <= need <= 1:
        given = f"max_source_drop={max_source_drop}, min_target={min_target}"
        raise ValueError(f"give one need, max_source_drop= or min_target=, a fraction in [0, 1]; given: {given}")
    without = [without] if isinstance(without, str) else list(without)
    for name in without:
        known(name, {*records["approach"], *records["approach"].str.removesuffix(" + wise_ft")}, "approach")
    rows = with_drop(on_grid(records), task_known)
    trained = rows["approach"].str.removesuffix(" + wise_ft")  # an interpolation needs what its training needs
    rows = rows[~(trained.isin([*NOT_FOR_CHOICE, *without]) | rows["approach"].isin([*without]))]
    pairs = rows.groupby([*CANDIDATE, "pair"], dropna=False)[["val_drop", "val_target_acc"]].mean()
    everywhere = pairs.groupby(CANDIDATE, dropna=False)["val_drop"].transform("size") == rows["pair"].nunique()
    means = pairs[everywhere].groupby(CANDIDATE, dropna=False).agg(
        worst_drop=("val_drop", "max"), worst_target=("val_target_acc", "min"),
        drop=("val_drop", "mean"), target=("val_target_acc", "mean"),
    ).round(6).reset_index()  # fmt: skip
    if max_source_drop is not None:
        met, nearest = means["worst_drop"] <= max_source_drop, f"the least drop is {means['worst_drop'].min():.3f}"
        ranked = means.assign(near=-means["target"].round(2)).sort_values(["near", "drop"])
    else:
        met, nearest = means["worst_target"] >= min_target, f"the best target is {means['worst_target'].max():.3f}"
        ranked = means.assign(near=-means["target"]).sort_values(["drop", "near"])
    if not met.any():
        raise Unmet(f"no approach meets max_source_drop={max_source_drop}, min_target={min_target}: {nearest}")
    chosen = ranked[met.loc[ranked.index]].iloc[0]
    return pd.concat([chosen[CANDIDATE], expectation(rows, chosen)])


def expectation(rows: pd.DataFrame, chosen: pd.Series) -> pd.Series:
    """Test mean, 95 % bootstrap interval over seeds and worst pair of the source drop and the target accuracy of one candidate."""
    own = of_candidate(rows, chosen)
    seeds, pairs = (own.groupby(by)[["drop", "target_acc"]].mean() for by in ("seed", "pair"))
    out = {"n": len(seeds), "source_drop_worst": pairs["drop"].max(), "target_acc_worst": pairs["target_acc"].min()}
    for name, column in {"source_drop": "drop", "target_acc": "target_acc"}.items():
        low, high = bootstrap(seeds[column].to_numpy())
        out |= {name: seeds[column].mean(), f"{name}_low": low, f"{name}_high": high}
    return pd.Series(out)


def with_drop(rows: pd.DataFrame, task_known: bool) -> pd.DataFrame:
    """`rows` with `drop` and `val_drop`: source accuracy lost in the reading that is open to the reader; without those it is not."""
    out = rows.copy()
    for prefix in ("", "val_"):
        reading = source_read(out, "known" if task_known else "full", prefix)
        out[f"{prefix}drop"] = out[f"{prefix}source_acc_before"] - reading
    return out


def of_candidate(rows: pd.DataFrame, chosen: pd.Series) -> pd.DataFrame:
    """The rows of one candidate."""
    same = np.logical_and.reduce([(rows[c] == chosen[c]) | (rows[c].isna() & pd.isna(chosen[c])) for c in CANDIDATE])
    return rows[same]


def check_choice(
    records: pd.DataFrame, drops: Sequence[float], task_known: bool = False, unseen: str = "seed"
) -> pd.DataFrame:
    """The reader's choice on what it has not seen, for each of `drops`: a row says what was allowed, chosen, promised and found.

    `unseen` "seed": on each pair by itself, each seed is left out once; "pair": each pair is left out once, and the choice is
    made on the others. `promised` is the test drop on what was seen, `found` that on what was left out, with its target
    accuracy. Where there is but one seed, or one pair, there is nothing to check, and no row.
    """
    out, columns = [], ["pair", "seed", "allowed", "approach", "promised", "found", "target_acc"]
    for pair, seed, seen, left_out in _folds(records, known(unseen, ("seed", "pair"), "unseen")):
        for allowed in drops:
            choice = recommend(seen, max_source_drop=allowed, task_known=task_known)
            found = of_candidate(with_drop(on_grid(left_out), task_known), choice)[["drop", "target_acc"]].mean()
            out.append([pair, seed, allowed, choice["approach"], choice["source_drop"], *found])
    return pd.DataFrame(out, columns=columns)


def _folds(records: pd.DataFrame, unseen: str) -> Iterator[tuple[str, int | None, pd.DataFrame, pd.DataFrame]]:
    """Pair, seed, what is seen and what is left out."""
    pairs = records.groupby("pair")
    if unseen == "pair":
        yield from ((p, None, records.drop(own.index), own) for p, own in pairs if len(pairs) > 1)
        return
    for pair, own in pairs:
        seeds = own.groupby("seed")
        yield from ((pair, seed, own.drop(one.index), one) for seed, one in seeds if len(seeds) > 1)
