"""Gives a profile's settings that break a lower rate, and runs again what has another rate than its records say.

Usage: python -m tools.retune PROFILE, from a clean tree; then python -m tools.redraw PROFILE. A rate is tuned at one value of an
approach's knob and can be too high for another, as for a LoRA of higher rank: a larger change then adapts worse than a smaller one. Such
a value tries the next lower rate that was tuned, and the one after it if need be, on the validation images of the study.
"""

import sys
from collections.abc import Iterator, Mapping

import pandas as pd

from maskutils.batch import plan
from maskutils.batch.run import check_clean
from maskutils.core import paths
from maskutils.core.approaches import described
from maskutils.core.files import read_json, write_json
from maskutils.core.progress import bar
from maskutils.results import rates
from maskutils.results.manifest import MANIFEST, check_intact, sealed
from maskutils.results.records import KNOBS, load_records, save_records
from maskutils.study.experiment import run_trials
from maskutils.study.setup import Setup, setup_in
from maskutils.study.trials import Trial

WORSE = 0.03  # accuracy on the target's validation images by which a smaller change is ahead
LOWER = 2  # rates to try
Setups = Mapping[tuple[str, str], Setup]  # of each pair and model
CELL = ["pair", "model", "protocol", "method", *KNOBS]  # what has one rate


def cells(records: pd.DataFrame) -> list[pd.DataFrame]:
    """The records of each setting that trains, at its own options, with all its seeds and interpolations: what has one rate."""
    own = records["options"].isna() & records["native_of"].isna() & ~records["per_layer"].astype(bool)
    return [cell for _, cell in records[own & records["target_steps"].notna()].groupby(CELL, dropna=False)]


def trial_of(cell: pd.DataFrame) -> Trial:
    """The trial that the records of a cell are of."""
    row = cell.iloc[0]
    about = described(row["protocol"])
    column = about.knob if about.knob in KNOBS else "knob"
    knobs = {about.knob: min(about.grid, key=lambda value: abs(value - row[column]))} if about.grid else {}
    density = round(row["density"], 3) if "mask" in about.needs else None
    return Trial(about.name, row["method"] if isinstance(row["method"], str) else None, density, knobs=knobs)


def reached(cell: pd.DataFrame) -> float:
    """The accuracy on the target's validation images where training ended, mean over seeds."""
    return float(cell.loc[(cell["alpha"] == 1) & ~cell["rewound"].astype(bool), "val_target_acc"].mean())


def change(cell: pd.DataFrame) -> float:
    """What the changes of one approach are ordered by: their bits, or, of penalties, how weak they are."""
    about = described(cell["protocol"].iloc[0])
    return float(cell["stored_bits"].mean() if about.known == "intact" else -about.grid.index(trial_of(cell).value))


def broken(records: pd.DataFrame) -> Iterator[tuple[pd.DataFrame, float]]:
    """The cell of each value of a knob that adapts worse than a smaller change, and the accuracy of the best smaller one."""
    for (name, *_), own in records.groupby(["protocol", "method", "pair", "model"], dropna=False):
        if not described(name).grid:
            continue
        best = 0.0
        for cell in sorted(cells(own), key=change):
            if reached(cell) < best - WORSE:
                yield cell, best
            best = max(best, reached(cell))


def again(setup: Setup, cell: pd.DataFrame) -> pd.DataFrame:
    """The transfers of `cell`, with its seeds and interpolations, as `setup` says."""
    setup = setup.changed(
        alphas=tuple(sorted(cell["alpha"].unique())), seeds=tuple(sorted(cell["seed"].unique().tolist()))
    )
    return run_trials(setup, [trial_of(cell)], str(cell["approach"].iloc[0]))


def retune(setup: Setup, cell: pd.DataFrame, best: float, tried: pd.Series) -> pd.DataFrame:
    """The table of rates for one value of a knob: its own, and lower ones of those `tried` until it is nearly as good as `best`."""
    first, trial = cell.iloc[0], trial_of(cell)
    setup, found = setup.changed(tuned=False, target_steps=int(first["target_steps"])), [cell]
    for lr in sorted({lr for lr in tried if lr < first["target_lr"]}, reverse=True)[:LOWER]:
        found.append(again(setup.changed(target_lr=lr), cell))
        if reached(found[-1]) >= best - WORSE:
            break
    joined = pd.concat(found, ignore_index=True)
    return rates.ranked(joined[~joined["rewound"].astype(bool)].assign(approach=trial.approach)).assign(
        knob=trial.value
    )


def renewed(setups: Setups, records: pd.DataFrame) -> pd.DataFrame:
    """The `records`, with those made again whose rate or steps are not those that are chosen now.

    Raises `ValueError` where this machine trains other source networks than those of the records: approaches would not be comparable.
    """
    stale = []
    for cell in cells(records):
        first, trial = cell.iloc[0], trial_of(cell)
        steps = setups[first["pair"], first["model"]].target_steps
        now = rates.chosen(first["pair"], first["model"], trial.approach, steps, trial.value)
        if now != (first["target_lr"], first["target_steps"]):
            stale.append(cell)
    made = [
        again(setups[cell["pair"].iloc[0], cell["model"].iloc[0]], cell)
        for cell in bar(stale, "transfers", unit="setting")
    ]
    if not stale:
        return records
    joined = pd.concat([records.drop(pd.concat(stale).index), *made], ignore_index=True)
    sources = joined.round({"source_acc_before": 6}).groupby(["pair", "model", "seed"])["source_acc_before"].nunique()
    if (sources > 1).any():
        pair, _, seed = sources.idxmax()
        raise ValueError(
            f"the source network of seed {seed} on {pair} is another here than that of the records; make the whole profile anew here"
        )
    return joined


def lower(setups: Setups, records: pd.DataFrame) -> None:
    """Write the rates of each value of a knob that is broken, unless it has rates of its own already."""
    for cell, best in bar(list(broken(records)), "lower rates", unit="setting"):
        trial, (pair, model) = trial_of(cell), cell[["pair", "model"]].iloc[0]
        table = rates.tables()
        table = table[(table["pair"] == pair) & (table["model"] == model)]
        own = table[table["approach"] == trial.approach]
        own = own[own["target_steps"] == cell["target_steps"].iloc[0]]
        if not (own["knob"] == trial.value).any():
            rates.write_rates(pd.concat([table, retune(setups[pair, model], cell, best, own["target_lr"])]))


def main(profile: str) -> None:
    """Write tables of rates with the values that were tuned again, records of what has another rate now, and the manifest.

    Raises `BadSetting` in a checkout whose code is not committed, `ValueError` for files that are not as the manifest says.
    """
    check_clean(profile)
    folder, runs = paths.results_dir(profile), plan.make_plan(profile)
    tables = paths.results_dir("tuning")
    vouching = [folder, *[tables] * (tables / MANIFEST).exists()]
    for known in vouching:
        check_intact(known)
    tuned = [setup_in(run.parameters) for run in runs if run.parameters.get("tuned")]
    setups = {(setup.pair, setup.model): setup for setup in tuned}
    records = renewed(setups, load_records(profile))
    lower(setups, records)
    save_records(renewed(setups, records), folder / "records.csv")
    for known in vouching:
        write_json(known / MANIFEST, sealed(known, read_json(known / MANIFEST)))


if __name__ == "__main__":
    main(sys.argv[1])
