"""Tables and sentences that stand on the pages of the site alone, made from the committed records."""

import pandas as pd

from maskutils.core.approaches import REWOUND, the
from maskutils.results import analysis, statistics
from maskutils.results.choice import candidates
from maskutils.results.equal_storage import ABOUT
from maskutils.results.records import KNOBS, on_grid, summarise
from maskutils.results.report import TITLES, percent, plain
from maskutils.results.single import learn_no_mask
from maskutils.results.wording import APART, called, in_doubt, intervals, kbit, points, settings, size, verb, versus

LONGER = " (longer)"  # after the name of an approach whose source was trained longer


def answers(records: pd.DataFrame) -> pd.Series:
    """The best setting for all pairs of each case, and what it reaches on test: source gained or lost, target, and what it stores.

    Cases: with the task unknown anything, what keeps no source images, fine-tuning interpolated, and a learnt mask; with the task known a
    learnt mask, what learns none and stores at most `ABOUT` times as much, and what learns none. Best is the highest mean of both tasks
    on validation. A case that nothing was tried for is left out.
    """
    known, unknown = (_best_first(records, reading) for reading in ("known", "full"))
    masks, none = known[known["mask"]], known[~known["mask"] & analysis.trained(known).isin(learn_no_mask())]
    found = {
        "unknown": unknown,
        "unknown, no source images kept": unknown[unknown["fraction"].isna()],
        "unknown, no source images at all": unknown[unknown["approach"].isin([the("free"), the("yardstick")])],
        "unknown, a learnt mask": unknown[unknown["mask"]],
        "known, a learnt mask": masks,
        "known, no learnt mask, about its size": none[none["bits"] <= ABOUT * masks["bits"].head(1).sum()],
        "known, no learnt mask, any size": none,
    }
    return pd.Series({case: _reached(table.iloc[0]) for case, table in found.items() if len(table)})


def _best_first(records: pd.DataFrame, reading: str) -> pd.DataFrame:
    """The settings tried on every pair and whose bits are known, by the mean of both tasks on validation, and what they reach on test."""
    rows = candidates(records, reading == "known").assign(mask=analysis.learnt)
    rows = rows.assign(val_both=analysis.both_tasks(rows, reading, "val_"))[rows["bits"].notna()]
    about, values = [*analysis.CANDIDATE, "mask"], ["drop", "target_acc", "bits", "val_both"]
    means = analysis.tried_everywhere(rows, about, values).round(analysis.DECIMALS)
    return means.sort_values("val_both", ascending=False, kind="stable")


def _reached(best: pd.Series) -> str:
    """A setting and what it reaches, as "`oft`, block 32: source kept, target 96.4 %, 243 kbit"."""
    moved = round(-100 * best["drop"], 1)
    setting = ", ".join(filter(None, (called(best["approach"]), settings(best))))
    reached = [f"source {moved:+.1f}" if moved else "source kept", f"target {points(best['target_acc'])}"]
    return f"{setting}: {', '.join(reached + [kbit(best)] * bool(best['bits']))}"


def best_settings(records: pd.DataFrame) -> pd.DataFrame:
    """Each family at its best setting for all pairs: its test readings in percent, best first.

    Best is the highest harmonic mean of full retention and adaptation on validation. A setting at an end of three or more is marked,
    because others might do better. Variants (in brackets, per layer) are left out. Domains that took no part have a column if
    they are read for each, on the pairs that have any.
    """
    tried = analysis.with_family(on_grid(records)).groupby("family")[list(KNOBS)].agg(["min", "max", "nunique"])
    best = plain(analysis.best_of_family(records, each_pair=False))
    others = ["other_acc"] if "other_acc" in best and best.groupby("family")["other_acc"].count().all() else []
    values = ["source_acc_full", "target_acc", *others, "harmonic"]
    table = summarise(best, ["family", *analysis.CANDIDATE], values).sort_values("harmonic", ascending=False)
    chosen = [settings(row) + _at_an_end(row, tried.loc[row["family"]]) for _, row in table.iterrows()]
    table = percent(table.assign(setting=chosen), values)
    return table[["family", "setting", "n", *values]].rename(columns=TITLES)


def _at_an_end(candidate: pd.Series, tried: pd.Series) -> str:
    """ " (end of its grid)" if a knob of `candidate` has the least or the greatest of three or more values tried."""
    at = [candidate[k] in tuple(tried[k][["min", "max"]]) for k in KNOBS if tried[k]["nunique"] > 2]
    return " (end of its grid)" if any(at) else ""


def rewinding(records: pd.DataFrame) -> pd.DataFrame:
    """Three ways to end a training: as it ended, interpolated towards the source, or rewound to the best point on its path.

    For each family the harmonic mean of retention (full network) and adaptation on test, in percent, at the setting that is best on
    validation in each way. Beside it rewound minus interpolated, in points with the 95 % interval. Families are in the order of
    `interpolated`. Empty if no record is rewound.
    """
    records = records[records["native_of"].isna()]
    rows = analysis.relative(records.assign(density=records["density"].astype(float).round(3)))
    rewound, ended = rows["rewound"].astype(bool), rows["alpha"] == 1
    rows = analysis.with_family(rows.assign(approach=rows["approach"].str.removesuffix(REWOUND)))
    rows = rows[rows["family"].isin(rows["family"][rewound])]
    picked = {
        way: analysis.best_on_validation(rows[which.loc[rows.index]], "harmonic").assign(way=way)
        for way, which in {"ended": ended & ~rewound, "interpolated": ~rewound, "rewound": rewound}.items()
    }
    both, found = pd.concat(picked.values()), {}
    for family, own in both.groupby("family"):
        row = statistics.paired(own, "harmonic", ["rewound"], "interpolated", by="way")
        found[family] = own.groupby("way")["harmonic"].mean().mul(100).round(1).to_dict()
        found[family] |= {"rewound - interpolated (points)": intervals(row)[0], "seeds": int(row["n"].iloc[0])}
    table = pd.DataFrame.from_dict(found, orient="index")
    return table.sort_values("interpolated", ascending=False).reset_index(names="family") if found else table


def trained_longer(records: pd.DataFrame, longer: pd.DataFrame) -> pd.DataFrame:
    """How a learnt mask compares with its rivals where the source trains longer, as it also does while a mask is learnt.

    The mean of both tasks with the task known, mask minus rival in points, with 95 % intervals over seeds; `longer` holds one setting of
    each, and `records` the same settings after the usual steps. A column for each pair, and last their mean. Rows: the accuracy of
    the source network and through the mask, each after the usual and the longer training. Then for each rival the difference after the
    usual training, where the rival alone has the longer one, and where both have.
    """
    both, mask, rivals = _usual_and_longer(records, longer)
    rows = {}
    for pair, own in [*both.groupby("pair"), (f"mean of {both['pair'].nunique()}", both)]:
        row = {
            f"{what}, {when} (%)": f"{100 * own.loc[own['family'] == name, value].mean():.1f}"
            for what, value in {"source": "source_acc_before", f"source through {mask}": "source_acc_masked"}.items()
            for when, name in {"usual": mask, "longer": mask + LONGER}.items()
        }
        for rival in rivals:
            ways = {
                "usual": (mask, rival),
                "rival longer": (mask, rival + LONGER),
                "both longer": (mask + LONGER, rival + LONGER),
            }
            told = {way: intervals(statistics.paired(own, "both", [of], other))[0] for way, (of, other) in ways.items()}
            row |= {f"{mask} - {rival}, {way}": difference for way, difference in told.items()}
        rows[pair] = row
    return pd.DataFrame(rows).reset_index(names="")


def trained_alike(records: pd.DataFrame, longer: pd.DataFrame) -> str:
    """Sentences on the rows "both longer" of `trained_longer`, over all pairs, and on the target alone where that is certain."""
    both, mask, rivals = _usual_and_longer(records, longer)

    def minus(value: str, rival: str) -> pd.Series:
        return statistics.paired(both, value, [mask + LONGER], rival + LONGER).iloc[0]

    told = []
    for rival in rivals:
        row, target = minus("both", rival), minus("target_acc", rival)
        told.append(versus(row, called(rival)))
        if verb(target) != APART and not in_doubt(target):
            told[-1] += f"; on the target alone it {verb(target)} by {size(target)} points"
    return f"With all sources trained as long, {called(mask)} {'. It '.join(told)}."


def _usual_and_longer(records: pd.DataFrame, longer: pd.DataFrame) -> tuple[pd.DataFrame, str, list[str]]:
    """The rows of both for `trained_longer`, with `both` and as family the approach, `LONGER` or not; the learnt mask, and its rivals."""
    there = on_grid(longer)[analysis.CANDIDATE].drop_duplicates().astype({"alpha": float})
    tables = {"": on_grid(records).merge(there, on=analysis.CANDIDATE), LONGER: on_grid(longer)}
    both = [
        rows.assign(family=rows["approach"] + which, both=analysis.both_tasks(rows, "known"))
        for which, rows in tables.items()
    ]
    learnt = analysis.learnt(both[0])
    (mask,), rivals = (both[0].loc[those, "approach"].unique() for those in (learnt, ~learnt))
    return pd.concat(both), mask, list(rivals)
