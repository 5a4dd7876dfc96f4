"""Compares records: relative measures, families and what is stored.

Settings are chosen on validation (columns `val_...`) and reported on test.
"""

from collections.abc import Sequence

import pandas as pd

from maskutils.core import metrics
from maskutils.core.approaches import INTERPOLATED, every, names, the
from maskutils.core.checks import known
from maskutils.core.storage import whole_network
from maskutils.results.records import KNOBS, of_masks, on_grid, summarise

CANDIDATE = ["approach", *KNOBS, "alpha"]  # what a reader can choose
DECIMALS = 6  # of validation means: those that agree in as many are equal, whatever the order of their sum
SOURCE_READINGS = ("full", "known")  # see `source_read`


def chance(records: pd.DataFrame, task: str) -> pd.Series:
    """Accuracy of guessing, 1 / classes in (0, 1], on the `task` ("source" or "target") of each row."""
    return 1 / records[f"{task}_classes"]


def source_read(records: pd.DataFrame, reading: str = "full", prefix: str = "") -> pd.Series:
    """Source accuracy after the transfer, in [0, 1], in one of `SOURCE_READINGS`; `prefix` "val_" for validation.

    "full", the task unknown: one set of weights for both tasks. "known", the task known: what the approach can do for the source when it is
    told the task. A mask is put on. An adapter or a change is taken off and a second network is loaded, which give the source network
    itself. All others have their one set of weights. An interpolated mask has no such reading: `nan`. The description of an approach says
    which (`known`). What this takes to store are the record's `stored_bits`. Raises `BadSetting` for another reading.
    """
    full = records[f"{prefix}source_acc_full"]
    if known(reading, SOURCE_READINGS, "reading") == "full":
        return full
    intact = records["protocol"].isin([a.name for a in every() if a.known == "intact"])
    masked = records[f"{prefix}source_acc_masked"].astype(float)  # a column of None alone holds objects
    return masked.fillna(full).mask(unread(records, prefix)).mask(intact, records[f"{prefix}source_acc_before"])


def both_tasks(records: pd.DataFrame, reading: str, prefix: str = "") -> pd.Series:
    """The mean accuracy of both tasks after the transfer, in [0, 1]; the source as `source_read` has it."""
    return (source_read(records, reading, prefix) + records[f"{prefix}target_acc"]) / 2


def relative(records: pd.DataFrame) -> pd.DataFrame:
    """`records` with `retention_<reading>`, `adaptation`, `harmonic` and `harmonic_known`, for test and (`val_`) validation.

    Retention is the chance-corrected share of the source accuracy before. Adaptation is that of the target, against
    fine-tuning of the same seed, pair and model. The harmonic means are of adaptation and retention: full, or task known.
    """
    free = records[records["approach"] == the("free")].set_index(["pair", "model", "seed"])
    out, reference = records.copy(), pd.MultiIndex.from_frame(records[["pair", "model", "seed"]])
    source, target = chance(out, "source"), chance(out, "target")
    for p in ("", "val_"):
        before, best = out[f"{p}source_acc_before"], free[f"{p}target_acc"].reindex(reference).to_numpy()
        for reading in SOURCE_READINGS:
            after = source_read(out, reading, p)
            out[f"{p}retention_{reading}"] = list(map(metrics.retention, before, after, source))
        out[f"{p}adaptation"] = list(map(metrics.adaptation, out[f"{p}target_acc"], target, best))
        for name, reading in (("harmonic", "full"), ("harmonic_known", "known")):
            retained = out[f"{p}retention_{reading}"]
            out[f"{p}{name}"] = list(map(metrics.harmonic_mean, retained, out[f"{p}adaptation"]))
    return out


def trained(records: pd.DataFrame) -> pd.Series:
    """The approach of each row without its interpolation: what was trained for it."""
    return records["approach"].str.removesuffix(INTERPOLATED).replace({a.family: a.name for a in every() if a.family})


def training_curves(records: pd.DataFrame, seed: int) -> dict[str, list[dict[str, float]]]:
    """Validation accuracy through the training of each approach in `records` that trains: approach -> rows step, source_val, target_val.

    `records` are those of a run: they hold the column `history`, which no file keeps. Step 0 is the source network, as the record of
    what trains nothing reads it; a head of the target's own is untrained there.
    """
    own = records[(records["seed"] == seed) & (records["alpha"] == 1) & ~records["rewound"]].set_index("approach")
    source, target = own.loc[the("untrained"), ["val_source_acc_full", "val_target_acc"]]
    start = {"step": 0, "source_val": source, "target_val": target}
    return {name: [start, *history] for name, history in own["history"].items() if history}


def with_family(records: pd.DataFrame) -> pd.DataFrame:
    """`records` with a column `family`: a training method with every strength, fraction and share of interpolation.

    Fine-tuning and its interpolations are the family `wise_ft`.
    """
    alone = records["approach"].str.removesuffix(INTERPOLATED)
    return records.assign(family=alone.replace({a.name: a.family for a in every() if a.family}))


def best_of_family(records: pd.DataFrame, value: str = "harmonic", each_pair: bool = True) -> pd.DataFrame:
    """For each family the test rows (one a pair and seed) of the candidate with the highest mean `value` on validation.

    `value` is a column of `relative`. The candidate is chosen for each pair, or one for all pairs without `each_pair`. Two networks
    are left out of "harmonic", which reads the source with the task unknown.
    """
    read = records[~of_second_network(records)] if value == "harmonic" else records
    return best_on_validation(with_family(on_grid(relative(read))), value, ["pair"] * each_pair + ["family"])


def best_on_validation(rows: pd.DataFrame, value: str, by: Sequence[str] = ("family",)) -> pd.DataFrame:
    """For each group of `by` the `rows` of the candidate with the highest mean `val_<value>`, of those tried on all of its pairs."""
    by = list(by)
    found = rows.groupby([*by, *CANDIDATE], dropna=False).agg(mean=(f"val_{value}", "mean"), pairs=("pair", "nunique"))
    everywhere = found["pairs"] == found.groupby(by)["pairs"].transform("max")
    means = found.loc[everywhere, "mean"].round(DECIMALS).dropna().reset_index()
    best = means.loc[means.groupby(by)["mean"].idxmax()].drop(columns="mean")
    return rows.merge(best, on=[*by, *CANDIDATE])


def tried_everywhere(rows: pd.DataFrame, described: Sequence[str], means: Sequence[str]) -> pd.DataFrame:
    """What the candidates (column `candidate`) tried on every pair in `rows` are (columns `described`), and their `means`."""
    groups = rows.groupby("candidate")
    table = groups.agg(dict.fromkeys(described, "first") | dict.fromkeys(means, "mean"))
    return table[groups["pair"].nunique() == rows["pair"].nunique()]


def rank_settings(table: pd.DataFrame, max_cost: float = 0.02) -> pd.DataFrame:
    """Ranks a method's settings in a table of `experiment.tune`: setting, val_acc, native_density, cost, affordable, n.

    `val_acc` is the mean through the mask over densities, pairs and seeds. `cost` is the accuracy that the native mask
    loses of the network's. The best come first, those whose cost is above `max_cost` after all others.
    """
    native, on_densities = table[table["native"]].groupby("setting"), table[~table["native"]].groupby("setting")
    out = pd.DataFrame({"val_acc": on_densities["val_acc"].mean(), "native_density": native["density"].mean()})
    out["cost"] = native["val_acc_before"].mean() - native["val_acc"].mean()
    out["affordable"], out["n"] = out["cost"] <= max_cost, native.size()
    return out.sort_values(["affordable", "val_acc"], ascending=False).reset_index()


def for_storage(records: pd.DataFrame) -> pd.DataFrame:
    """Rows for the storage figure: each approach at the setting, one for all pairs, with the highest mean of both tasks on validation.

    Columns `source`, its accuracy when the task is known, and `both`, the mean of both tasks. Masks have one density over all layers.
    Approaches that answer with one set of weights in any case are left out, but for the references: they have no knob.
    """
    rows = with_family(on_grid(records).query("alpha == 1"))
    serves = [a for a in every() if a.choosable and (a.known != "full" or a.kind == "reference")]
    layered = of_masks(rows, per_layer=True) & ~of_masks(rows)
    rows = rows[~layered & rows["protocol"].isin([a.name for a in serves])]
    both, val = (both_tasks(rows, "known", p) for p in ("", "val_"))
    return best_on_validation(rows.assign(source=source_read(rows, "known"), both=both, val_both=val), "both")


def learnt(records: pd.DataFrame) -> pd.Series:
    """Which rows protect a learnt mask and read the source through it, which is lost by interpolation."""
    return of_masks(records) & records["method"].isin(names("mask")) & (records["alpha"] == 1)


def of_second_network(records: pd.DataFrame) -> pd.Series:
    """Which rows are of approaches that keep a second network, which answers for nothing if the task is unknown."""
    return records["protocol"].isin([a.name for a in every() if a.bits is whole_network])


def ideal(records: pd.DataFrame) -> tuple[float, float]:
    """Source and target accuracy of the ideal: nothing is forgotten, and the target is learnt as by a network of its own.

    Without two networks in `records` the target is as after fine-tuning; `nan` without either.
    """
    rows = on_grid(records).query("alpha == 1")
    second = rows[of_second_network(rows)]
    own = second if len(second) else rows[rows["approach"] == the("free")]
    return float(own["source_acc_before"].mean()), float(own["target_acc"].mean())


def stored_bits(records: pd.DataFrame, task_known: bool = True) -> pd.Series:
    """Bits that each row stores for its added task; 0 with the task unknown, where one set of weights serves both tasks.

    A mask through which the source is not read, as after interpolation, is not stored.
    """
    if not task_known:
        return pd.Series(0.0, records.index)
    return records["stored_bits"].astype(float).mask(unread(records), 0.0)


def recorded_through_masks(records: pd.DataFrame) -> pd.DataFrame:
    """Mean source accuracy through each mask (columns) at each density (rows) of `records`."""
    rows = on_grid(records).query("alpha == 1")
    return rows[of_masks(rows)].pivot_table("source_acc_masked", "density", "approach")


def unread(records: pd.DataFrame, prefix: str = "") -> pd.Series:
    """Which rows hold a mask through which the source is not read: those interpolated towards the source."""
    masked = records["protocol"].isin([a.name for a in every() if a.known == "masked"])
    return masked & records[f"{prefix}source_acc_masked"].isna()


def storage_front(records: pd.DataFrame) -> pd.DataFrame:
    """What each family reaches for the bits that it stores, with the task known: its best settings from few bits to many.

    A setting is listed if no other of its family has a higher mean of both tasks on validation and stores no more. Columns:
    family, `CANDIDATE`, stored_bits, source, target and both (test means over pairs and seeds), n (seeds), `front`: whether no family at
    all does better on validation for as many bits, and both_ci (of `summarise`). Settings that were not tried on all pairs are left out.
    """
    rows = with_family(on_grid(records[records["approach"].isin(choosable(records))]))
    columns = {"stored_bits": stored_bits(rows), "source": source_read(rows, "known"), "target": rows["target_acc"]}
    columns |= {f"{p}both": both_tasks(rows, "known", p) for p in ("", "val_")}
    rows, about = rows.assign(**columns).dropna(subset=["source"]), ["family", *CANDIDATE]
    found = rows.groupby(about, dropna=False).agg(
        pairs=("pair", "nunique"), n=("seed", "nunique"), **{c: (c, "mean") for c in columns}
    )
    found = found[found["pairs"] == rows["pair"].nunique()].dropna(subset=["stored_bits"]).reset_index()
    found = found.round({"val_both": DECIMALS})
    found = found.sort_values(["stored_bits", "val_both"], ascending=[True, False], kind="stable")
    found = found[_rises(found["val_both"], found["family"])]
    found = found.assign(front=_rises(found["val_both"], pd.Series("", found.index)))
    found = found.merge(summarise(rows, about, ["both"])[[*about, "both_ci"]], on=about)
    kept = [*about, "stored_bits", "source", "target", "both", "n", "front", "both_ci"]
    return found.sort_values(["family", "stored_bits"], kind="stable")[kept].reset_index(drop=True)


def _rises(values: pd.Series, group: pd.Series) -> pd.Series:
    """Which of `values` are above all that stand before them in their group."""
    before = values.groupby(group).cummax().groupby(group).shift()
    return ~(values <= before)


def choosable(records: pd.DataFrame) -> list[str]:
    """The approaches in `records` that a reader may choose: interpolation opens no way around what is left out."""
    banned = [a.name for a in every() if not a.choosable]
    return list(records.loc[~trained(records).isin(banned), "approach"].unique())
