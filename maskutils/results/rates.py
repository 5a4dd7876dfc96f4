"""What was tuned on validation: rate and steps of each approach, and settings of mask layers. How they are ranked, kept, read and told."""

from functools import lru_cache
from pathlib import Path

import pandas as pd

from maskutils.core import paths
from maskutils.core.approaches import every, names
from maskutils.core.checks import BadSetting
from maskutils.core.files import write_atomically
from maskutils.results.analysis import chance, source_read
from maskutils.results.fronts import hypervolume
from maskutils.results.wording import listed, points
from maskutils.results.written import note_written

SETTING = ["pair", "model", "approach", "target_lr", "target_steps"]
AREAS = {"area_unknown": "full", "area_known": "known"}  # and the readings of the source that they are of
RATE_COLUMNS = [*SETTING, *AREAS, "area", "n", "knob"]  # of tables of rates


def ranked(records: pd.DataFrame) -> pd.DataFrame:
    """Each approach's settings in a table of `experiment.tune_rates`, best first: `SETTING`, area_unknown, area_known, area and n.

    The areas are hypervolumes on validation, in [0, 1], of one value of the knob with its interpolations, means over n seeds: with
    the task unknown and with the task known. Settings are ranked by `area`, the mean of both. What can be taken off, and two networks,
    are made for the task known and ranked by that alone. Equal ones are in order of steps, then of the rate.
    """
    rows = records.assign(source=chance(records, "source"), target=chance(records, "target"))
    rows = rows.assign(**{area: source_read(records, reading, "val_") for area, reading in AREAS.items()})
    # interpolated masks are read with the full network here
    rows["area_known"] = rows["area_known"].fillna(rows["area_unknown"])

    def areas(one: pd.DataFrame) -> pd.Series:
        reference = (one["source"].iloc[0], one["target"].iloc[0])
        fronts = {area: zip(one[area], one["val_target_acc"], strict=True) for area in AREAS}
        return pd.Series({area: hypervolume(list(points), reference) for area, points in fronts.items()})

    each = rows.groupby([*SETTING, "seed"])[["source", "target", "val_target_acc", *AREAS]].apply(areas)
    by_setting = each.groupby(SETTING)
    found = by_setting.mean().assign(n=by_setting.size()).reset_index()
    off = found["approach"].isin([a.name for a in every() if a.known == "intact"])
    area = found[list(AREAS)].mean(axis=1).mask(off, found["area_known"]).round(6)
    found.insert(found.columns.get_loc("n"), "area", area)
    order = ["pair", "model", "approach", "area", "target_steps", "target_lr"]
    return found.sort_values(order, ascending=[True, True, True, False, True, True]).reset_index(drop=True)


def write_rates(table: pd.DataFrame) -> None:
    """Write a table of `ranked`, of one pair and model, as results/tuning/rates-<model>-<pair>.csv. Other approaches keep their rows."""
    file = paths.results_dir("tuning") / paths.rates_name(*map(str, table[["model", "pair"]].iloc[0]))
    if file.exists():
        there = pd.read_csv(file)
        table = pd.concat([table, there[~there["approach"].isin(table["approach"])]], ignore_index=True)
    write_atomically(file, table.to_csv(index=False, float_format="%.6g").encode())
    note_written(file)


def write_settings(ranked: pd.DataFrame, method: str) -> None:
    """Write the ranked settings of a mask layer (`analysis.rank_settings`) as results/tuning/<method>.csv."""
    text = ranked.to_csv(index=False, float_format="%.4f")
    write_atomically(file := paths.results_dir("tuning") / f"{method}.csv", text.encode())
    note_written(file)


def settings_tried() -> pd.DataFrame:
    """The committed tables of all mask layers in one: method, and the columns of `analysis.rank_settings`; best first for each."""
    files = {name: paths.committed_results("tuning") / f"{name}.csv" for name in names("mask")}
    return pd.concat(
        [pd.read_csv(file).assign(method=name) for name, file in files.items() if file.exists()], ignore_index=True
    )


def settings_findings(table: pd.DataFrame) -> str:
    """Markdown lines on `settings_tried` with columns `default` and `trains_weights`: the spread over settings, and which defaults are not
    the best allowed.
    """
    lines, behind = [], {}
    for name, own in table.groupby("method", sort=False):
        best, spread = own.iloc[0], own["val_acc"].agg(["min", "max"])
        behind[name] = best["val_acc"] - own.loc[own["default"], "val_acc"].max()
        dear = (~own["affordable"]).sum()
        called = f"`{name}`{' (also trains weights)' * bool(own['trains_weights'].any())}"
        lines.append(
            f"- {called}: {len(own)} settings, {points(spread['min'])} to {points(spread['max'])} through the mask. The rule takes "
            f"{best['setting']} ({points(best['val_acc'])}){f'; {dear} cost too much' * bool(dear)}."
        )
    others = [f"`{name}` ({100 * lost:.1f} points behind)" for name, lost in behind.items() if lost > 0]
    same = len(behind) - len(others)
    told = f"The default is what the rule takes for {same} of {len(behind)} layers"
    return "\n".join([*lines, "", f"{told}, but not for {listed(others)}." if others else f"{told}."])


def at_ends(table: pd.DataFrame) -> str:
    """A sentence on how many best rates in a table of rates (or of `ranked`) are the least or the greatest that were tried."""
    rows = table[table["knob"].isna()] if "knob" in table else table
    by = rows.groupby(["pair", "model", "approach"])["target_lr"]  # the best stands first
    best, least, most = by.first(), by.min(), by.max()
    low, high = (best == least).sum(), (best == most).sum()
    ends = f"{low} at the least, {high} at the greatest"
    return f"Of {len(best)} best rates, one for each approach and pair, {low + high} lie at an end of what was tried: {ends}."


def chosen(pair: str, model: str, approach: str, steps: int, value: float | None = None) -> tuple[float, int]:
    """The best learning rate and number of steps, at most `steps`, of an approach on a pair.

    Where a `value` of its knob has a rate of its own for these steps, it is that (results/tuning/README.md says which have).
    Raises `BadSetting` if none was tuned.
    """
    table = tables()
    table = table[(table["pair"] == pair) & (table["model"] == model)]
    own = table[(table["approach"] == approach) & (table["target_steps"] <= steps)]
    common = own[own["knob"].isna()]
    if common.empty:
        raise BadSetting(
            f"no learning rate was tuned for {approach} with {model} on {pair} and at most {steps} steps; run "
            f"`maskutils reproduce --profile tuning{' --renew' * bool(len(table))}` with it, or set tuned = False to use target_lr and "
            "target_steps"
        )
    best = common.iloc[0]
    special = own[(own["knob"] == value) & (own["target_steps"] == best["target_steps"])]
    best = best if special.empty else special.iloc[0]
    return float(best["target_lr"]), int(best["target_steps"])


def tables() -> pd.DataFrame:
    """All tables of rates in one (`RATE_COLUMNS`). `knob` is empty in rows that hold for all values of the knob."""
    return _load(tuple((file, file.stat().st_mtime_ns) for file in paths.tuned_rates()))


@lru_cache(maxsize=4)
def _load(stamped: tuple[tuple[Path, int], ...]) -> pd.DataFrame:
    found = [pd.read_csv(file).reindex(columns=RATE_COLUMNS) for file, _ in stamped]
    return pd.concat(found, ignore_index=True) if found else pd.DataFrame(columns=RATE_COLUMNS)
