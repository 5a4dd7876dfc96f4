"""The reader's choice: which approach meets a need, what to expect of it, and whether such a choice holds.

Settings are chosen on validation (columns `val_...`) and reported on test.
"""

from collections.abc import Iterable, Iterator, Sequence

from maskutils.core.approaches import every
from maskutils.core.checks import known, needs
from maskutils.results.analysis import CANDIDATE, bootstrap, source_read, trained
from maskutils.results.records import on_grid

with needs("study"):
    import pandas as pd


class Unmet(ValueError):
    """No approach meets a reader's need; `nearest` says what comes nearest to it."""

    def __init__(self, need: str, nearest: str) -> None:
        super().__init__(f"no approach meets {need}: {nearest}")
        self.nearest = nearest


def recommend(
    records: pd.DataFrame,
    *,
    max_source_drop: float | None = None,
    min_target: float | None = None,
    task_known: bool = False,
    without: str | Iterable[str] = (),
) -> pd.Series:
    """The approach to choose, with its settings and what to expect of it.

    Give exactly one need, in [0, 1]. It must be met on every pair of domains in `records`.
    `max_source_drop`, the source accuracy that may be lost: takes the best target, and of targets that agree to a hundredth
    the one that loses less. `min_target`, the target accuracy to reach: takes the least source drop.
    `task_known` says that the source may be read through its mask at test time. `without` leaves out approaches by name,
    with their interpolations: "replay" if you may keep no source data.

    The choice is made on validation. The result has the columns `CANDIDATE`; `source_drop` and `target_acc`, test means
    over pairs and seeds; their 95 % bootstrap intervals over seeds as `_low` and `_high`; their means on the worst pair as
    `_worst`; and `n`, the seeds. Raises `ValueError` if not exactly one need is given, `Unmet` if nothing meets it.
    """
    given = [need for need in (max_source_drop, min_target) if need is not None]
    if len(given) != 1 or not 0 <= given[0] <= 1:
        said = f"max_source_drop={max_source_drop}, min_target={min_target}"
        raise ValueError(f"give one need, max_source_drop= or min_target=, a fraction in [0, 1]; given: {said}")
    rows = _candidates(records, task_known, [without] if isinstance(without, str) else list(without))
    own = rows[rows["candidate"] == _best(rows, max_source_drop, min_target)]
    return pd.concat([own.iloc[0][CANDIDATE], _expectation(own)])


def _candidates(records: pd.DataFrame, task_known: bool, without: Sequence[str] = ()) -> pd.DataFrame:
    """The rows to choose from, with the number of their `candidate`, and the source accuracy lost as `drop` and `val_drop`."""
    for name in without:
        known(name, {*records["approach"], *trained(records)}, "approach")
    rows, banned = on_grid(records), [*without, *(a.name for a in every() if not a.choosable)]
    rows = rows[
        ~(trained(rows).isin(banned) | rows["approach"].isin(banned))
    ]  # interpolation needs what training needs
    for prefix in ("", "val_"):
        reading = source_read(rows, "known" if task_known else "full", prefix)
        rows = rows.assign(**{f"{prefix}drop": rows[f"{prefix}source_acc_before"] - reading})
    return rows.assign(candidate=rows.groupby(CANDIDATE, dropna=False).ngroup())


def _best(rows: pd.DataFrame, max_source_drop: float | None, min_target: float | None = None) -> int:
    """The number of the candidate that meets the need at the best price. Raises `Unmet`."""
    pairs = rows.groupby(["candidate", "pair"])[["val_drop", "val_target_acc"]].mean().groupby("candidate")
    drop, target = pairs["val_drop"], pairs["val_target_acc"]
    columns = {"worst_drop": drop.max(), "worst_target": target.min(), "drop": drop.mean(), "target": target.mean()}
    means = pd.DataFrame(columns).round(6)[pairs.size() == rows["pair"].nunique()]
    if max_source_drop is not None:
        met, nearest = means["worst_drop"] <= max_source_drop, f"the least drop is {means['worst_drop'].min():.3f}"
        ranked = means.assign(near=-means["target"].round(2)).sort_values(["near", "drop"])
    else:
        met, nearest = means["worst_target"] >= min_target, f"the best target is {means['worst_target'].max():.3f}"
        ranked = means.assign(near=-means["target"]).sort_values(["drop", "near"])
    if not met.any():
        raise Unmet(f"max_source_drop={max_source_drop}, min_target={min_target}", nearest)
    return int(ranked.index[met.loc[ranked.index]][0])


def _expectation(own: pd.DataFrame) -> pd.Series:
    """Test mean, 95 % interval over seeds and worst pair of one candidate's source drop and target accuracy."""
    seeds, pairs = (own.groupby(by)[["drop", "target_acc"]].mean() for by in ("seed", "pair"))
    out = {"n": len(seeds), "source_drop_worst": pairs["drop"].max(), "target_acc_worst": pairs["target_acc"].min()}
    for name, column in {"source_drop": "drop", "target_acc": "target_acc"}.items():
        low, high = bootstrap(seeds[column].to_numpy())
        out |= {name: seeds[column].mean(), f"{name}_low": low, f"{name}_high": high}
    return pd.Series(out)


def check_choice(
    records: pd.DataFrame, drops: Sequence[float], task_known: bool = False, unseen: str = "seed"
) -> pd.DataFrame:
    """Checks the choice for each of `drops` on data it has not seen: a row says what was allowed, chosen, promised and found.

    `unseen` "seed" leaves out each seed once, on each pair by itself. "pair" leaves out each pair once and chooses on the
    others. `promised` is the test drop on the data seen; `found` is that on the data left out, `target_acc` its target
    accuracy. A single seed, or a single pair, cannot be checked and gives no row.
    """
    out, columns = [], ["pair", "seed", "allowed", "approach", "promised", "found", "target_acc"]
    folds = _folds(_candidates(records, task_known), known(unseen, ("seed", "pair"), "unseen"))
    for pair, seed, seen, left_out in folds:
        for allowed in drops:
            best = _best(seen, allowed)
            chosen, found = (rows[rows["candidate"] == best] for rows in (seen, left_out))
            promised, approach = chosen.groupby("seed")["drop"].mean().mean(), chosen["approach"].iloc[0]
            out.append([pair, seed, allowed, approach, promised, *found[["drop", "target_acc"]].mean()])
    return pd.DataFrame(out, columns=columns)


def _folds(rows: pd.DataFrame, unseen: str) -> Iterator[tuple[str, int | None, pd.DataFrame, pd.DataFrame]]:
    """Pair, seed, the rows that are seen and those that are left out."""
    pairs = rows.groupby("pair")
    if unseen == "pair":
        yield from ((p, None, rows.drop(own.index), own) for p, own in pairs if len(pairs) > 1)
        return
    for pair, own in pairs:
        seeds = own.groupby("seed")
        yield from ((pair, seed, own.drop(one.index), one) for seed, one in seeds if len(seeds) > 1)
