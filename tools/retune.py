"""Gives a profile's settings that break a lower rate, and runs again what has another rate than its records say.

Usage: python -m tools.retune PROFILE, from a clean tree; then python -m tools.redraw PROFILE. A rate is tuned at one value of an
approach's knob and can be too high for another, as for a LoRA of higher rank: a larger change then adapts worse than a smaller one. Such
a value tries the next lower rate that was tuned, and the one after it if need be, on the validation images of the study.
"""

import sys
from collections.abc import Iterator, Mapping

import numpy as np
import pandas as pd

from maskutils.batch import plan
from maskutils.core import paths
from maskutils.core.approaches import described
from maskutils.core.files import read_json, write_json
from maskutils.core.progress import bar
from maskutils.results import rates
from maskutils.results.manifest import NAME, checksums
from maskutils.results.records import KNOBS, load_records, save_records, with_approach
from maskutils.study.experiment import configure
from maskutils.study.setup import Setup
from maskutils.study.trials import Trial, records_of

WORSE = 0.03  # accuracy on the target's validation images by which a smaller change is ahead
LOWER = 2  # rates to try
Setups = Mapping[tuple[str, str], Setup]  # of each pair and model
CELL = ["pair", "model", "protocol", "method", "density", "strength", "fraction", "knob"]  # what has one rate


def plain(records: pd.DataFrame) -> pd.DataFrame:
    """The rows of transfers that train, at their own options: those that have a rate."""
    own = records["options"].isna() & records["native_of"].isna() & ~records["per_layer"].astype(bool)
    return records[own & records["target_steps"].notna()]


def alphas(cell: pd.DataFrame) -> tuple[float, ...]:
    """The interpolations that `cell` holds."""
    return tuple(sorted(cell["alpha"].unique()))


def trial_of(row: pd.Series) -> Trial:
    """The trial that a record is of."""
    about = described(row["protocol"])
    knobs = {about.knob: min(about.grid, key=lambda v: abs(v - value_of(row)))} if about.grid else {}
    density = round(row["density"], 3) if "mask" in about.needs else None
    return Trial(about.name, row["method"] if isinstance(row["method"], str) else None, density, knobs=knobs)


def value_of(row: pd.Series) -> float:
    """The value of its knob, in whichever column it is."""
    return float(next(row[name] for name in reversed(KNOBS) if not pd.isna(row[name])))


def broken(records: pd.DataFrame) -> Iterator[tuple[pd.DataFrame, float]]:
    """The records of each value of a knob that adapts worse than a smaller change, and the accuracy of the best smaller one."""
    for (name, *_), own in records.groupby(["protocol", "method", "pair"], dropna=False):
        about, cells = described(name), []
        for _, cell in own.groupby(CELL, dropna=False):
            ended = cell[(cell["alpha"] == 1) & ~cell["rewound"].astype(bool)]
            place = about.grid.index(trial_of(cell.iloc[0]).knobs[about.knob])
            size = ended["stored_bits"].mean() if about.known == "intact" else -place  # a weaker penalty changes more
            cells.append((size, ended["val_target_acc"].mean(), cell))
        best = 0.0
        for _, reached, cell in sorted(cells, key=lambda c: c[0]):
            if reached < best - WORSE:
                yield cell, best
            best = max(best, reached)


def retune(setup: Setup, cell: pd.DataFrame, best: float, tried: pd.Series) -> pd.DataFrame:
    """The table of rates for one value of a knob: its own, and lower ones of those `tried` until it is nearly as good as `best`."""
    first, trial = cell.iloc[0], trial_of(cell.iloc[0])
    setup = setup.changed(tuned=False, target_steps=int(first["target_steps"]), alphas=alphas(cell))
    found = [cell]
    for lr in sorted({lr for lr in tried if lr < first["target_lr"]}, reverse=True)[:LOWER]:
        rows = [row for seed in setup.seeds for row in records_of(setup.changed(target_lr=lr), trial, seed)]
        found.append(with_approach(pd.DataFrame(rows)))
        ended = found[-1][(found[-1]["alpha"] == 1) & ~found[-1]["rewound"]]
        if ended["val_target_acc"].mean() >= best - WORSE:
            break
    joined = pd.concat(found, ignore_index=True)
    interpolated = joined[~joined["rewound"].astype(bool)].assign(approach=trial.approach)
    return rates.ranked(interpolated).assign(knob=next(iter(trial.knobs.values())))


def renewed(setups: Setups, records: pd.DataFrame) -> pd.DataFrame:
    """The `records`, with those made again whose rate or steps are not those that are chosen now."""
    gone: list[pd.Index] = []
    made = []
    for (pair, model, *_), cell in bar(list(plain(records).groupby(CELL, dropna=False)), "transfers", unit="setting"):
        setup = setups[pair, model].changed(alphas=alphas(cell))
        trial, rate = trial_of(cell.iloc[0]), (cell["target_lr"].iloc[0], cell["target_steps"].iloc[0])
        about = described(trial.protocol)
        value = trial.knobs.get(about.knob)
        if about.trains and rate != rates.chosen(pair, model, trial.approach, setup.target_steps, value):
            gone.append(cell.index)
            made.append(
                with_approach(pd.DataFrame([r for seed in setup.seeds for r in records_of(setup, trial, seed)]))
            )
    return pd.concat([records.drop(np.concatenate(gone)), *made], ignore_index=True) if made else records


def lower(setups: Setups, records: pd.DataFrame) -> None:
    """Write the rates of each value of a knob that is broken, unless it has rates of its own already."""
    rows = plain(records)
    grids = rows[rows["protocol"].map(lambda name: bool(described(name).grid))]
    for cell, best in bar(list(broken(grids)), "lower rates", unit="setting"):
        trial, (pair, model) = trial_of(cell.iloc[0]), cell[["pair", "model"]].iloc[0]
        tables = pd.concat([pd.read_csv(file) for file in paths.tuned_rates()], ignore_index=True)
        tables = tables[(tables["pair"] == pair) & (tables["model"] == model)]
        own = tables[
            (tables["approach"] == trial.approach) & (tables["target_steps"] <= setups[pair, model].target_steps)
        ]
        if "knob" not in own or not own["knob"].isin(trial.knobs.values()).any():
            rates.write_rates(pd.concat([tables, retune(setups[pair, model], cell, best, own["target_lr"])]))


def main(profile: str) -> None:
    """Write tables of rates with the values that were tuned again, records of what has another rate now, and the manifest."""
    folder, runs = paths.results_dir(profile), plan.make_plan(profile)
    setups = {(s.pair, s.model): s for run in runs if run.parameters.get("tuned") for s in [configure(run.parameters)]}
    records = renewed(setups, load_records(profile))
    lower(setups, records)
    save_records(renewed(setups, records), folder / "records.csv")
    write_json(folder / NAME, read_json(folder / NAME) | {"checksums": checksums(folder)})


if __name__ == "__main__":
    main(sys.argv[1])
