"""Reads, writes and summarises records: one row stands for one transfer. No other module reads or writes them."""

from collections.abc import Iterable, Sequence
from io import StringIO
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.special import stdtrit

from maskutils.core import paths
from maskutils.core.approaches import INTERPOLATED, REWOUND, Approach, every, find
from maskutils.core.files import DamagedFile, write_atomically
from maskutils.results.statistics import LEAST

KNOBS = ("density", "strength", "fraction", "knob")  # what trades retention for adaptation, beside alpha
IDENTITY = ["pair", "model", "protocol", "method", "options", "density", "native_of", "strength", "fraction", "knob"]
IDENTITY += ["alpha", "rewound", "per_layer", "seed"]
SETTINGS = ["source_steps", "mask_steps", "target_steps", "batch_size", "source_lr", "target_lr"]
SETTINGS += ["weights", "images", "compute"]
ACCURACIES = ["source_acc_before", "source_acc_masked_before", "source_acc_masked", "source_acc_full", "target_acc"]
LOSSES = ["masking_cost", "drift", "forgetting"]
COLUMNS = [*IDENTITY, *ACCURACIES, *LOSSES, "seconds"]
MADE_BY = {"maskutils": "maskutils", "commit": "commit", "seeds": "seed"}  # what a figure tells of its records
DERIVED = {"history", "approach", *(f"val_{name}" for name in (*LOSSES, "source_ece", "source_acc_masked_before"))}


def save_records(records: pd.DataFrame, path: str | Path) -> None:
    """Write records as CSV, atomically, in a fixed order of rows and columns. An empty `path` writes nothing.

    Raises `ValueError` where two rows stand for the same transfer, and for what is no record: see `fault`.
    """
    if not str(path):  # an interactive run
        return
    if wrong := fault(records):
        raise ValueError(f"the table {wrong}")
    repeated = records[_transfers(records).duplicated(keep=False)]
    if len(repeated):
        first = repeated[IDENTITY].head().to_string()
        raise ValueError(f"{len(repeated)} records stand for the same transfer:\n{first}")
    rest = [c for c in records.columns if c not in COLUMNS and c not in DERIVED]
    ordered = records.sort_values(IDENTITY, na_position="first", kind="stable")[COLUMNS + rest]
    ordered = ordered.infer_objects()  # a column with None holds objects, whose numbers would not be rounded
    write_atomically(path, ordered.to_csv(index=False, float_format="%.6g").encode())


def _transfers(records: pd.DataFrame) -> pd.DataFrame:
    """The identities of `records`, with numbers as a file holds them, so that the noise of a float makes no new transfer."""
    return records[IDENTITY].assign(**{c: [f"{x:.6g}" for x in records[c].astype(float)] for c in (*KNOBS, "alpha")})


def load_records(where: str | Path = "default") -> pd.DataFrame:
    """The records of a profile ("default") or of a CSV file, with the column `approach` of `with_approach`.

    Raises `FileNotFoundError`, with the command that makes the records of a profile, and `DamagedFile` for a file that holds no records.

    >>> {"pair", "seed", "approach", "target_acc"} <= set(load_records("modality"))
    True
    """
    of_file = str(where).endswith(".csv")
    path = Path(where) if of_file else paths.results_dir(str(where)) / "records.csv"
    if not path.exists():
        raise absent(path, path.absolute().parent.name if of_file else str(where))
    try:
        text = path.read_text(encoding="utf-8")
        records = pd.read_csv(StringIO(text))
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise _damaged(path, f"is not a table of records ({error})") from None
    if not text.endswith("\n"):
        raise _damaged(path, "breaks off in the middle of a row")
    if wrong := fault(records):
        raise _damaged(path, wrong)
    return with_approach(records)


def fault(records: pd.DataFrame) -> str:
    """What is wrong with a table of records, as in "lacks the columns pair"; empty if nothing.

    Each row has a pair, a model and a protocol, a whole number as its seed, and accuracies from 0 to 1, or none for a reading that there
    is not.
    """
    if missing := [c for c in COLUMNS if c not in records.columns]:
        return f"lacks the columns {', '.join(missing)}"
    for column in ("pair", "model", "protocol", "seed", *ACCURACIES):
        values = records[column].reset_index(drop=True)
        if column in ACCURACIES:
            wanted = "from 0 to 1, or empty"
            bad = values.notna() & ~pd.to_numeric(values, errors="coerce").between(0, 1)
        elif column == "seed":
            wanted, bad = "a whole number", pd.to_numeric(values, errors="coerce").mod(1) != 0
        else:
            wanted, bad = "a name", values.isna()
        if bad.any():
            row = int(bad.idxmax())
            return f"has {column} = {values[row]!r} in row {row + 1}; it must be {wanted}"
    return ""


def absent(path: Path, profile: str) -> FileNotFoundError:
    """The error for records that are not at `path`. Where that has the name of a profile's, it tells the command that makes them."""
    first = "" if paths.notebooks_dir().is_dir() else f"; before that, {paths.INIT}"
    made = f"; make them with: maskutils reproduce --profile {profile}{first}"
    return FileNotFoundError(f"no records at {path}{made if path.name == 'records.csv' else ''}")


def provenance(records: pd.DataFrame) -> str:
    """Which versions of maskutils, commits and seeds made `records`, in a line."""
    each = {name: sorted(set(map(str, records[column])), key=lambda v: (len(v), v)) for name, column in MADE_BY.items()}
    return "; ".join(f"{name} {', '.join(values)}" for name, values in each.items())


def _damaged(path: Path, how: str) -> DamagedFile:
    made = (
        "; or delete it and run its profile again"
        if path.name == "records.csv"
        else " or make it again, with records.save_records"
    )
    return DamagedFile(f"{path} {how}; restore it with git{made}")


def with_approach(records: pd.DataFrame) -> pd.DataFrame:
    """`records` with a column `approach`, the name that tables and figures use.

    It is the method under `protect`, else the protocol. Brackets hold a method that is not the protocol's usual one, and
    options that are not the method's defaults. "per layer" means equal density in each layer instead of over all layers.
    "+ wise_ft" means interpolated towards the source; interpolated fine-tuning is `wise_ft` itself. "+ rewind" means the best point
    on the path of training.
    """

    def name(
        protocol: str, method: str | None, options: str | None, alpha: float, rewound: bool, per_layer: bool
    ) -> str:
        about = find(protocol) or Approach(protocol, "protocol")
        base = protocol
        if isinstance(method, str) and method != about.method:
            base = method if about.named_by_mask else f"{protocol} ({method})"
        base += f" ({options})" if isinstance(options, str) else ""
        base += " per layer" if per_layer and about.named_by_mask else ""
        if rewound:
            return base + REWOUND
        return base if alpha == 1 else about.family or base + INTERPOLATED

    columns = records[["protocol", "method", "options", "alpha", "rewound", "per_layer"]].astype(object)
    rows = list(columns.where(columns.notna(), None).itertuples(index=False, name=None))
    named = {row: name(*row) for row in set(rows)}  # few differ
    return records.assign(approach=[named[row] for row in rows])


def collect(files: Iterable[Path], path: Path) -> pd.DataFrame:
    """Join the records of many runs into one table, write it to `path` and return it. A transfer in two runs stands once.

    Raises `ValueError` for transfers that differ only in their settings, which belong in a profile of their own, for those that differ
    only in their accuracies, and where no run left any.
    """
    tables = [table.assign(_file=Path(file).name) for file in files if len(table := load_records(file))]
    if not tables:
        raise ValueError("none of the runs before left a record, so there is nothing to collect")
    joined = pd.concat(tables, ignore_index=True)
    transfers = _transfers(joined)
    again = pd.concat([transfers, joined.filter(SETTINGS)], axis=1)
    _check_numbers(joined, again)
    first = ~again.duplicated()
    joined = joined[first]
    _check_settings(joined, transfers[first])
    joined = joined.drop(columns="_file")
    save_records(joined, path)
    return joined


def _check_numbers(joined: pd.DataFrame, again: pd.DataFrame) -> None:
    """Raises `ValueError` that names two records of one transfer, the same in all of `again`, that have other accuracies."""
    rows = pd.Series(joined.index, joined.index)
    first = rows.groupby(again.groupby(list(again), dropna=False).ngroup()).transform("first")
    numbers = joined[ACCURACIES].astype(float).round(5)
    before = numbers.loc[first].set_axis(rows.index)
    same = numbers.eq(before) | (numbers.isna() & before.isna())
    if len(differ := rows[~same.all(axis=1)]):
        a, b = joined.loc[first[differ.iloc[0]]], joined.loc[differ.iloc[0]]
        raise ValueError(
            f"2 records stand for the same transfer ({a['pair']}, {a['protocol']}, seed {a['seed']}), in {a['_file']} and {b['_file']}, "
            "with other accuracies; what tells the two apart must be a column of a record, as density or knob"
        )


def _check_settings(joined: pd.DataFrame, transfers: pd.DataFrame) -> None:
    """Raises `ValueError` that names two records of different settings with one identity in `transfers`, and what differs."""
    groups = transfers.groupby(IDENTITY, dropna=False).ngroup()
    for _, rows in joined[groups.duplicated(keep=False)].groupby(groups):
        a, b = rows.iloc[0], rows.iloc[1]
        which = ", ".join(f"{name} {a[name]}" for name in IDENTITY if not pd.isna(a[name]))
        pairs = a.filter(SETTINGS).compare(b.filter(SETTINGS)).itertuples()
        differ = ", ".join(f"{name} {x} and {y}" for name, x, y in pairs)
        raise ValueError(
            f"2 records stand for the same transfer ({which}), in {a['_file']} and {b['_file']}, with other settings: {differ}; give both "
            "notebooks the same, or a profile each"
        )


def on_grid(records: pd.DataFrame) -> pd.DataFrame:
    """The rows that are compared at equal density, or have none: all but those at a mask's native density, and those rewound.

    Densities are rounded to three places: a mask keeps whole weights, so 0.1 of them can be 0.09999.
    """
    records = records[records["native_of"].isna() & ~records["rewound"].astype(bool)]
    return records.assign(density=lambda r: r["density"].astype(float).round(3))


def of_masks(records: pd.DataFrame, per_layer: bool = False) -> pd.Series:
    """Which rows protect a mask (`named_by_mask`). Masks of equal density in each layer count only with `per_layer`."""
    named = records["protocol"].isin([a.name for a in every() if a.named_by_mask])
    return named & (per_layer | ~records["per_layer"].astype(bool))


def at_density(records: pd.DataFrame, density: float) -> pd.DataFrame:
    """The rows of `on_grid(records)` at `density`, and those that have none."""
    rows = on_grid(records)
    return rows[rows["density"].isna() | (rows["density"] == round(density, 3))]


def usual_density(records: pd.DataFrame) -> float:
    """The density at which masks are shown where none is chosen: 0.1, or the next above it that masks of `records` have."""
    there = on_grid(records[of_masks(records)])["density"].unique()
    return min((float(density) for density in there if density >= 0.1), default=0.1)


def summarise(records: pd.DataFrame, by: Sequence[str], values: Sequence[str] = (*ACCURACIES, *LOSSES)) -> pd.DataFrame:
    """For each group of `by`: means of `values`, half-widths of their 95 % intervals as `<value>_ci`, and seeds as `n`.

    Rows of one seed (several pairs, say) are averaged first. The interval is Student's t over the seeds that have the value;
    `nan` for fewer than `LEAST`. A seed counts in `n` if it has at least one of the values.
    """
    by, values = list(by), list(values)
    seeds = records.groupby([*by, "seed"], dropna=False, observed=True)[values].mean().reset_index()
    groups = seeds.groupby(by, dropna=False, observed=True)[values]
    n = groups.count()
    half = (groups.std() * (stdtrit(n - 1, 0.975) / np.sqrt(n))).where(n >= LEAST)
    return pd.concat([groups.mean(), half.add_suffix("_ci"), n.max(axis=1).rename("n")], axis=1).reset_index()
