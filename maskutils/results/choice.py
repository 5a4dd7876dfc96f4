"""The reader's choice (see `analysis`): which approach meets a need, what to expect of it, and whether such a choice holds."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from maskutils.core.checks import known
from maskutils.results import analysis
from maskutils.results.records import on_grid
from maskutils.results.statistics import over_pairs, over_seeds, t_interval

SLACK = 0.02  # source accuracy that may be lost beyond what was allowed, for a choice to be kept
DRAWS = 100  # of the seeds, with replacement, to see how firm a choice is
CLOSE = 0.01  # accuracy that a setting may lie behind the best and still be taken for storing less


class Unmet(ValueError):
    """No approach meets a reader's need; `nearest` says what comes nearest to it."""

    def __init__(self, need: str, nearest: str) -> None:
        super().__init__(f"no approach meets {need}: {nearest}")
        self.nearest = nearest


@dataclass(frozen=True)
class Need:
    """What a reader asks for: exactly one of a source accuracy that may be lost and a target accuracy, and a limit on bits."""

    max_source_drop: float | None = None
    min_target: float | None = None
    max_bits: float | None = None

    def __post_init__(self) -> None:
        given = [need for need in (self.max_source_drop, self.min_target) if need is not None]
        if len(given) != 1 or not 0 <= given[0] <= 1:
            said = f"max_source_drop={self.max_source_drop}, min_target={self.min_target}"
            raise ValueError(f"give one need, max_source_drop= or min_target=, a fraction in [0, 1]; given: {said}")
        if self.max_bits is not None and not self.max_bits >= 0:
            raise ValueError(f"max_bits={self.max_bits} must be a number of bits, 0 or more; leave it out for no limit")

    def __str__(self) -> str:
        return ", ".join(f"{name}={value}" for name, value in vars(self).items() if value is not None)


def recommend(
    records: pd.DataFrame,
    *,
    max_source_drop: float | None = None,
    min_target: float | None = None,
    task_known: bool = False,
    max_bits: float | None = None,
    without: str | Iterable[str] = (),
) -> pd.Series:
    """The approach to choose, with its settings and what to expect of it.

    Give exactly one need, in [0, 1]. It must be met on every pair of domains in `records`.
    `max_source_drop`, the source accuracy that may be lost: takes the best target, and of targets that agree to a hundredth
    the one that loses less. `min_target`, the target accuracy to reach: takes the least source drop.
    `max_bits` limits what may be stored for the added task, on every pair, beside either need. `task_known` says that the task
    is known at test time: see `analysis.source_read`. With the task unknown nothing is stored. `without` leaves out approaches
    by name, with their interpolations: "replay" if you may keep no source data.

    The choice is made on validation. Seeds often cannot tell the best setting from others (`equivalent`). Of these the one with the fewest
    bits is taken (two digits count), of equal bits the one with the fewest training steps, and then the best. No setting is taken that
    another outdoes. With `max_source_drop` that is one that loses a hundredth less, stores no more, and reaches at most a hundredth less.
    With `min_target` it reaches a hundredth more, stores no more, and loses at most a hundredth more. The result has the columns
    `CANDIDATE`, `source_drop`, `target_acc`, `stored_bits` (on the worst pair) and `n`, the seeds. Drop and accuracy are test means over
    pairs and seeds. Their 95 % t intervals over seeds are `_low` and `_high`, `nan` for fewer than three seeds; their means on the worst
    pair are `_worst`. Raises `ValueError` if not exactly one need is given or a value is out of range, `Unmet` if nothing meets it.

    >>> from maskutils import load_records
    >>> recommend(load_records("modality"), max_source_drop=0.02, task_known=True)["approach"]
    'edge_popup'
    """
    need = Need(max_source_drop, min_target, max_bits)
    return Menu(candidates(records, task_known, without)).recommend(need)


def equivalent(
    records: pd.DataFrame, *, task_known: bool = False, without: Iterable[str] = (), **need: Any
) -> pd.DataFrame:
    """The settings that meet the need and cannot be told apart from the best of them, in the order of `recommend`.

    Told apart is what the 95 % interval of its paired difference to the best, on validation (`over_pairs`), puts behind: in target
    accuracy for `max_source_drop`, in source drop for `min_target`. Columns: `CANDIDATE`, stored_bits, steps (of training), and difference,
    low and high (in favour of the best, a fraction). Of few seeds the interval is wide, so the mean must also lie within `CLOSE` of
    the best. A setting that another outdoes (see `recommend`) is left out. With fewer than three seeds
    nothing can be told, and the best stands alone.
    Arguments and errors are those of `recommend`.
    """
    menu = Menu(candidates(records, task_known, without))
    return menu.named(menu.equivalent(Need(**need)))


def stability(
    records: pd.DataFrame, *, n: int = DRAWS, task_known: bool = False, without: Iterable[str] = (), **need: Any
) -> pd.DataFrame:
    """How often each setting is chosen when the seeds are drawn again with replacement, `n` times: columns `CANDIDATE`, share.

    The most frequent comes first. The shares add up to less than 1 where some draws have no setting that meets the need.
    The draws are the same in every call.
    Arguments and errors are those of `recommend`.
    """
    menu, asked, random = Menu(candidates(records, task_known, without)), Need(**need), np.random.default_rng(0)
    chosen = []
    for _ in range(n):
        try:
            chosen.append(menu.choose(asked, random.integers(menu.seeds, size=menu.seeds)))
        except Unmet:
            continue
    share = pd.Series(chosen, dtype=int).value_counts() / n
    return menu.named(share.to_frame("share"))


def candidates(records: pd.DataFrame, task_known: bool, without: str | Iterable[str] = ()) -> pd.DataFrame:
    """The rows to choose from, with columns candidate (number), bits, steps; source accuracy and drop, on test and (`val_`) validation."""
    without = [without] if isinstance(without, str) else list(without)
    for name in without:
        known(name, {*records["approach"], *analysis.trained(records)}, "approach")
    rows = on_grid(records[records["approach"].isin(analysis.choosable(records))])
    rows = rows if task_known else rows[~analysis.of_second_network(rows)]
    # Interpolation needs what training needs.
    rows = rows[~analysis.trained(rows).isin(without) & ~rows["approach"].isin(without)]
    for p in ("", "val_"):
        source = analysis.source_read(rows, "known" if task_known else "full", p)
        rows = rows.assign(**{f"{p}source": source, f"{p}drop": rows[f"{p}source_acc_before"] - source})
    rows = rows.dropna(subset=["drop"])
    numbers = rows.groupby(analysis.CANDIDATE, dropna=False).ngroup()
    rows = rows.assign(candidate=numbers, bits=analysis.stored_bits(rows, task_known))
    return rows.assign(steps=rows["mask_steps"].fillna(0) + rows["target_steps"].fillna(0))


class Menu:
    """The rows of `candidates`, made ready once to be asked for many needs.

    It holds their validation means as arrays (candidate, pair, seed), so that seeds can be drawn again.
    """

    def __init__(self, rows: pd.DataFrame) -> None:
        self.rows = rows
        pairs, seeds = sorted(rows["pair"].unique()), sorted(rows["seed"].unique())
        self.index, self.seeds = pd.Index(sorted(rows["candidate"].unique())), len(seeds)
        full = pd.MultiIndex.from_product([self.index, pairs, seeds])
        means = rows.groupby(["candidate", "pair", "seed"])[["val_drop", "val_target_acc"]].mean().reindex(full)
        shape = (len(self.index), len(pairs), len(seeds))
        self.drop, self.target = (means[name].to_numpy().reshape(shape) for name in ("val_drop", "val_target_acc"))
        self.bits = rows.groupby(["candidate", "pair"])["bits"].mean().groupby("candidate").max()
        self.steps = rows.groupby("candidate")["steps"].mean()

    def named(self, table: pd.DataFrame) -> pd.DataFrame:
        """A `table` by the number of the candidate, with what the candidate is in front."""
        own = self.rows.drop_duplicates("candidate").set_index("candidate")[analysis.CANDIDATE]
        return own.loc[table.index].join(table).reset_index(drop=True)

    def recommend(self, need: Need) -> pd.Series:
        """The result of `recommend`. Raises `Unmet`."""
        own = self.rows[self.rows["candidate"] == self.choose(need)]
        return pd.concat([own.iloc[0][analysis.CANDIDATE], _expectation(own)])

    def worst_drops(self) -> pd.Series:
        """Source accuracy that each candidate loses on its worst pair, on validation; `nan` where it was not tried on every pair."""
        return pd.Series(over_seeds(self.drop).max(axis=1), index=self.index).round(analysis.DECIMALS)

    def choose(self, need: Need, draw: np.ndarray | None = None) -> int:
        """The number of the candidate that `recommend` takes, of all seeds or of those in `draw`. Raises `Unmet`."""
        return int(self.equivalent(need, draw).index[0])

    def equivalent(self, need: Need, draw: np.ndarray | None = None) -> pd.DataFrame:
        """The table of `equivalent` by the number of the candidate, the recommended first."""
        draw = np.arange(self.seeds) if draw is None else draw
        ranked = self._ranked(need, draw)
        values = -self.drop if need.max_source_drop is None else self.target
        met = values[self.index.get_indexer(ranked)][:, :, draw]
        behind = met[:1] - met
        low, high = (end.round(analysis.DECIMALS) for end in over_pairs(behind))
        table = pd.DataFrame({"stored_bits": self.bits.loc[ranked], "steps": self.steps.loc[ranked]})
        table = table.assign(difference=over_seeds(behind.mean(axis=1)), low=low, high=high)
        same = (table["low"] <= 0) & (table["difference"].round(analysis.DECIMALS) <= CLOSE)
        same.iloc[0] = True
        about = table["stored_bits"].map("{:.2g}".format).astype(float)
        return table[same].assign(about=about).sort_values(["about", "steps"], kind="stable").drop(columns="about")

    def _ranked(self, need: Need, draw: np.ndarray) -> list[int]:
        """The numbers of the candidates that meet the need on every pair and are not outdone, by validation means, the best first."""
        if self.index.empty:
            raise Unmet(str(need), "the records hold nothing to choose from")
        pairs = {"drop": over_seeds(self.drop[:, :, draw]), "target": over_seeds(self.target[:, :, draw])}
        columns = {"worst_drop": pairs["drop"].max(axis=1), "worst_target": pairs["target"].min(axis=1)}
        columns |= {name: values.mean(axis=1) for name, values in pairs.items()}
        means = pd.DataFrame(columns, index=self.index).round(analysis.DECIMALS).dropna()  # tried on every pair
        if means.empty:
            raise Unmet(str(need), "no setting was tried on every pair of domains")
        if need.max_bits is not None:
            means = means[self.bits.loc[means.index] <= need.max_bits]
            if means.empty:
                raise Unmet(str(need), f"the least storage is {self.bits.min():.0f} bits")
        if need.max_source_drop is not None:
            met = means["worst_drop"] <= need.max_source_drop
            nearest = f"the least drop is {means['worst_drop'].min():.3f}"
            ranked = means.assign(near=-means["target"].round(2)).sort_values(["near", "drop"], kind="stable")
        else:
            met = means["worst_target"] >= need.min_target
            nearest = f"the best target is {means['worst_target'].max():.3f}"
            ranked = means.assign(near=-means["target"]).sort_values(["drop", "near"], kind="stable")
        if not met.any():
            raise Unmet(str(need), nearest)
        ranked = ranked[met.loc[ranked.index]]
        first, second = ranked["target"], -ranked["drop"]
        if need.min_target is not None:
            first, second = second, first
        outdone = _outdone(first.to_numpy(), second.to_numpy(), self.bits.loc[ranked.index].to_numpy())
        return list(ranked.index[~outdone])


def _outdone(first: np.ndarray, second: np.ndarray, bits: np.ndarray) -> np.ndarray:
    """Which of N settings another outdoes: by `CLOSE` or more ahead in `second`, at most `CLOSE` behind in `first`, with no more bits."""
    ahead = (second[:, None] - second).round(analysis.DECIMALS) >= CLOSE
    level = (first - first[:, None]).round(analysis.DECIMALS) <= CLOSE
    return (ahead & level & (bits[:, None] <= bits)).any(axis=0)


def _expectation(own: pd.DataFrame) -> pd.Series:
    """Test mean, 95 % interval over seeds and worst pair of one candidate's source drop and target accuracy, and its bits."""
    seeds, pairs = (own.groupby(by)[["drop", "target_acc"]].mean() for by in ("seed", "pair"))
    out = {"n": len(seeds), "source_drop_worst": pairs["drop"].max(), "target_acc_worst": pairs["target_acc"].min()}
    for name, column in {"source_drop": "drop", "target_acc": "target_acc"}.items():
        low, high = t_interval(seeds[column].to_numpy())
        out |= {name: seeds[column].mean(), f"{name}_low": low, f"{name}_high": high}
    return pd.Series(out | {"stored_bits": own.groupby("pair")["bits"].mean().max()})


def check_choice(
    records: pd.DataFrame, drops: Sequence[float], task_known: bool = False, left_out: str = "seed"
) -> pd.DataFrame:
    """Checks the choice for each of `drops` on what it was not made on: a row says what was allowed, chosen, promised and found.

    `left_out` "seed" leaves out each seed once, on each pair by itself: other draws of training images and initial weights,
    read on the same test images. "pair" leaves out each pair once and chooses on the others. `promised` is the test drop of what
    was chosen on; `found` is that of what was left out, `target_acc` its target accuracy. A single seed, or a single pair,
    cannot be checked and gives no row.
    """
    out, columns = [], ["pair", "seed", "allowed", "approach", "promised", "found", "target_acc"]
    rows = candidates(records, task_known)
    for pair, seed, seen, other in _folds(rows, known(left_out, ("seed", "pair"), "left_out")):
        menu = Menu(seen)
        for allowed in drops:
            best = menu.choose(Need(allowed))
            chosen, found = (part[part["candidate"] == best] for part in (seen, other))
            promised, approach = chosen.groupby("seed")["drop"].mean().mean(), chosen["approach"].iloc[0]
            if found.empty:
                continue  # it was not tried there
            out.append([pair, seed, allowed, approach, promised, *found[["drop", "target_acc"]].mean()])
    return pd.DataFrame(out, columns=columns)


def held(checked: pd.DataFrame) -> pd.Series:
    """Which rows of `check_choice` lose at most `SLACK` more than allowed, whatever the noise of a float."""
    return checked["found"] - checked["allowed"] <= SLACK + 1e-9


def _folds(rows: pd.DataFrame, left_out: str) -> Iterator[tuple[str, int | None, pd.DataFrame, pd.DataFrame]]:
    """Pair, seed, the rows to choose on and those that are left out."""
    for pair, own in rows.groupby("pair"):
        whole, parts = (rows, [(None, own)]) if left_out == "pair" else (own, own.groupby("seed"))
        yield from ((pair, seed, whole.drop(part.index), part) for seed, part in parts if len(part) < len(whole))
