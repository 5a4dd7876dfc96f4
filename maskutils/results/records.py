"""Records: the only reader and writer of results.

Owns the row that stands for one transfer, how rows are stored, loaded and summarised. It must not know networks.
"""

import math
from collections.abc import Iterable, Sequence
from io import StringIO
from pathlib import Path

from maskutils.core import paths
from maskutils.core.approaches import INTERPOLATED, Approach, every, find
from maskutils.core.checks import needs
from maskutils.core.files import DamagedFile, write_atomically

with needs("study"):
    import pandas as pd
    from scipy.special import stdtrit

IDENTITY = [
    "pair",
    "model",
    "protocol",
    "method",
    "options",
    "density",
    "native_of",
    "strength",
    "fraction",
    "alpha",
    "per_layer",
]
IDENTITY += ["seed"]
SETTINGS = ["source_steps", "mask_steps", "target_steps", "batch_size", "source_lr", "target_lr"]
SETTINGS += ["weights", "images", "compute"]
READINGS = ["source_acc_before", "source_acc_masked_before", "source_acc_masked", "source_acc_full", "target_acc"]
LOSSES = ["masking_cost", "drift", "forgetting"]
COLUMNS = [*IDENTITY, *READINGS, *LOSSES, "seconds"]


def save_records(records: pd.DataFrame, path: str | Path) -> None:
    """Write records as CSV, atomically, in a fixed order of rows and columns. An empty `path` writes nothing (an
    interactive run).

    Raises `ValueError` where two rows stand for the same transfer.
    """
    if not str(path):
        return
    repeated = records[records.duplicated(IDENTITY, keep=False)]
    if len(repeated):
        raise ValueError(
            f"{len(repeated)} records stand for the same transfer:\n{repeated[IDENTITY].head().to_string()}"
        )
    derived = {"history", "approach", *(f"val_{name}" for name in (*LOSSES, "source_ece", "source_acc_masked_before"))}
    rest = [c for c in records.columns if c not in COLUMNS and c not in derived]
    ordered = records.sort_values(IDENTITY, na_position="first", kind="stable")[COLUMNS + rest]
    write_atomically(path, ordered.to_csv(index=False, float_format="%.6g").encode())


def load_records(where: str | Path = "default") -> pd.DataFrame:
    """The records of a profile ("default") or of a CSV file, with a column `approach`: the method under `protect`, else
    the protocol.

    Raises `FileNotFoundError` with the command that makes them, `DamagedFile` for a table that is not one of records.
    """
    path = Path(where) if str(where).endswith(".csv") else paths.results_dir(str(where)) / "records.csv"
    if not path.exists():
        raise FileNotFoundError(f"no records at {path}; make them with: maskutils reproduce --profile {where}")
    try:
        text = path.read_text(encoding="utf-8")
        records = pd.read_csv(StringIO(text))
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise DamagedFile(f"{path} is not a table of records ({error}); restore it with git or make it again") from None
    if not text.endswith("\n"):
        raise DamagedFile(f"{path} breaks off in the middle of a row; restore it with git or make it again")
    missing = [c for c in COLUMNS if c not in records.columns]
    if missing:
        raise DamagedFile(f"{path} lacks the columns {', '.join(missing)}; restore it with git or make it again")
    if words := [c for c in READINGS if not pd.api.types.is_numeric_dtype(records[c])]:
        raise DamagedFile(f"{path} holds what is no number in {', '.join(words)}; restore it with git or make it again")
    return with_approach(records)


def with_approach(records: pd.DataFrame) -> pd.DataFrame:
    """`records` with a column `approach`, the name that tables and figures use.

    The method under `protect`, else the protocol, with the method in brackets where it is not the protocol's usual one;
    options of the method that are not its defaults stand in brackets too;
    equal density in each layer instead of over all adds "per layer"; interpolation towards the source adds "+ wise_ft"
    (fine-tuning with it is `wise_ft` itself).
    """

    def name(protocol: str, method: str | None, options: str | None, alpha: float, per_layer: bool) -> str:
        about = find(protocol) or Approach(protocol, "protocol")
        base = about.label or protocol
        if isinstance(method, str) and method != about.method:
            base = method if about.named_by_mask else f"{protocol} ({method})"
        base += f" ({options})" if isinstance(options, str) else ""
        base += " per layer" if per_layer and about.named_by_mask else ""
        return base if alpha == 1 else about.family or base + INTERPOLATED

    columns = records[["protocol", "method", "options", "alpha", "per_layer"]].itertuples(index=False)
    return records.assign(approach=[name(*row) for row in columns])


def collect(files: Iterable[Path], path: Path) -> pd.DataFrame:
    """Join the records of many runs into one table, write it to `path`, return it. A transfer that two runs share
    stands once. Raises `ValueError` for transfers that differ in their settings alone: a profile of its own is for them.
    """
    tables = [load_records(file) for file in files]
    joined = pd.concat([t for t in tables if len(t)], ignore_index=True)
    joined = joined.drop_duplicates(IDENTITY + [name for name in SETTINGS if name in joined])
    save_records(joined, path)
    return joined


def on_grid(records: pd.DataFrame) -> pd.DataFrame:
    """Without the rows at native densities: what is compared at equal density, and what has none.

    Densities are rounded to three places: a mask keeps whole weights, so 0.1 of them can be 0.09999.
    """
    return records[records["native_of"].isna()].assign(density=lambda r: r["density"].astype(float).round(3))


def of_masks(records: pd.DataFrame, per_layer: bool = False) -> pd.Series:
    """Which rows are of a mask under `protect`, known by its name alone; of equal density in each layer only with `per_layer`."""
    named = records["protocol"].isin([a.name for a in every() if a.named_by_mask])
    return named & (per_layer | ~records["per_layer"].astype(bool))


def at_density(records: pd.DataFrame, density: float) -> pd.DataFrame:
    """The rows of `on_grid(records)` at `density`, and those that have none."""
    rows = on_grid(records)
    return rows[rows["density"].isna() | (rows["density"] == round(density, 3))]


def summarise(records: pd.DataFrame, by: Sequence[str], values: Sequence[str] = (*READINGS, *LOSSES)) -> pd.DataFrame:
    """Mean of `values` for each group of `by`, with the half-width of its 95 % interval as `<value>_ci` and the number
    of seeds `n`.

    Rows of one seed (several pairs, say) are averaged first; the interval is Student's t over seeds, `nan` for one
    seed.
    """
    by, values = list(by), list(values)
    seeds = records.groupby([*by, "seed"], dropna=False, observed=True)[values].mean().reset_index()
    groups = seeds.groupby(by, dropna=False, observed=True)[values]
    n = groups.size().rename("n")
    factor = n.map(lambda k: stdtrit(k - 1, 0.975) / math.sqrt(k) if k > 1 else math.nan)
    half = groups.std().mul(factor, axis=0).add_suffix("_ci")
    return pd.concat([groups.mean(), half, n], axis=1).reset_index()
