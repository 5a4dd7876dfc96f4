"""Tables beside the comparison of families: what it depends on, what it costs, and what it can show."""

import pandas as pd

from maskutils.core.approaches import the
from maskutils.results import analysis, fronts, statistics
from maskutils.results.records import of_masks, on_grid, summarise
from maskutils.results.report import STORED, TITLES, markdown, percent
from maskutils.results.wording import intervals, listed, points, settings

LATE = 2  # points of the target that are still gained in the last steps: longer training would show


def by_reference(records: pd.DataFrame) -> pd.DataFrame:
    """How the hypervolume depends on the corner that its box begins at: each family minus WiSE-FT, in points of hypervolume.

    A column for each of `fronts.REFERENCES`, with 95 % intervals. The farther the corner from 0, the more counts
    what lies near perfection on both tasks. Families are in the order of the box from chance.
    """
    tables, yardstick = {}, the("yardstick")
    for name in fronts.REFERENCES:
        areas = fronts.hypervolumes(records, reference=name)
        others = sorted(set(areas["family"]) - {yardstick})
        tables[name] = statistics.paired(areas, "hypervolume", others, yardstick).set_index("family")
    order = tables["chance"]["difference"].sort_values(ascending=False).index
    columns = {f"from {name} (points)": pd.Series(intervals(t), t.index) for name, t in tables.items()}
    return pd.DataFrame(columns).loc[order].reset_index(names="family")


def budgets(records: pd.DataFrame) -> pd.DataFrame:
    """What each family may try on one pair and seed: columns family, settings, trained, target steps and mask steps.

    `trained` are the settings without interpolation, which trains nothing. The steps are summed over these: on the target, and
    for the masks that were learnt, or retrained (each density counts, although one training may give several).
    """
    rows = analysis.with_family(on_grid(records))
    steps = {"target_steps": "target steps", "mask_steps": "mask steps"}
    tried = rows.groupby(["family", *analysis.CANDIDATE], dropna=False)[[*steps]].mean()
    trained = tried[tried.index.get_level_values("alpha") == 1].groupby("family")
    sizes = {"settings": tried.groupby("family").size(), "trained": trained.size()}
    table = pd.DataFrame(sizes).join(trained.sum().rename(columns=steps)).fillna(0).astype(int)
    return table.sort_values("settings", ascending=False, kind="stable").reset_index(names="family")


def minus(records: pd.DataFrame, usual: str) -> pd.DataFrame:
    """Each other approach of `records` minus `usual` at the same density, in points: means over pairs and seeds, a row for each."""
    titles = {
        "source_acc_masked": "source through mask",
        "source_acc_full": "source full network",
        "target_acc": "target",
    }
    rows = records[(records["alpha"] == 1) & records["density"].notna()].round({"density": 3})
    means = rows.groupby(["approach", "density"], sort=False)[[*titles]].mean()
    less = 100 * means.sub(means.loc[usual], level="density")
    return less.drop(index=usual, level="approach").rename(columns=titles)


def storage(records: pd.DataFrame) -> pd.DataFrame:
    """The settings of `analysis.storage_front` that no family beats for as many bits, fewest bits first, as a table for people."""
    table = analysis.storage_front(records)
    table = table[table["front"]].sort_values(["stored_bits", "both"], kind="stable")
    columns = {"family": table["family"], "setting": [settings(row) for _, row in table.iterrows()]}
    columns |= {"kbit stored": (table["stored_bits"] / 1e3).map("{:.0f}".format)}
    titles = {"source": "source, task known (%)", "target": "target (%)", "both": "mean of both (%)"}
    columns |= {title: (100 * table[name]).map("{:.1f}".format) for name, title in titles.items()}
    return pd.DataFrame(columns | {"seeds": table["n"].astype(str)}).reset_index(drop=True)


def removable(records: pd.DataFrame) -> tuple[pd.DataFrame, str]:
    """What each approach reaches with the full network (percent) and stores, fewest bits first; and the cheapest and the best in words."""
    values, rows = ["source_acc_full", "target_acc"], on_grid(records).query("alpha == 1")
    means = summarise(rows, ["approach"], [*values, "stored_bits"])
    means = means.sort_values("stored_bits", kind="stable", ignore_index=True)
    kbit = (means.pop("stored_bits") / 1e3).map("{:.1f}".format)
    ends = {"Fewest bits": 0, "Best on the target": means["target_acc"].idxmax()}
    told = [
        f"{what}: `{means['approach'][i]}`, {points(means['target_acc'][i])} for {kbit[i]} kbit."
        for what, i in ends.items()
    ]
    return percent(means, values).assign(**{STORED: kbit}).rename(columns=TITLES), " ".join(told)


def detectable(volumes: pd.DataFrame, rival: str) -> str:
    """A sentence on the smallest difference to `rival` in hypervolume that the seeds of `volumes` can show."""
    others = sorted(set(volumes["family"]) - {rival})
    rows = statistics.paired(volumes, "hypervolume", others, rival)
    if not rows["n"].max() >= statistics.LEAST:  # nor is nan
        return f"With fewer than {statistics.LEAST} seeds, or {rival} alone, no difference can be told."
    n, sd = int(rows["n"].max()), rows["sd"].median()
    effect = statistics.smallest_effect(n)
    return (
        f"With {n} seeds a difference of {100 * effect * sd:.1f} points of hypervolume is found with a probability of 80 %; smaller ones "
        f"may be there and be missed. (A paired t-test at 5 % finds {effect:.1f} standard deviations over seeds; the points are those "
        "of the median family. Where pairs vary more than their mean, it takes more.)"
    )


def convergence(records: pd.DataFrame) -> str:
    """How many points the target's validation accuracy still gained in the last 30 % of the steps, by pair; and who gained most."""
    rows = on_grid(records)
    own = rows[of_masks(rows, per_layer=True) | (rows["protocol"] == the("free"))]
    gains = 100 * own.groupby("pair")["late_gain"].mean().sort_values()
    told = listed(f"{value + 0.0:+.1f} on `{pair}`" for pair, value in gains.round(1).items())
    means = f"In the last 30 % of the steps fine-tuning and masks gained, on average: {told} (points; the learning rate falls to 0 there)."
    each = 100 * rows[rows["alpha"] == 1].groupby(["approach", "pair"])["late_gain"].mean()
    late = each[each >= LATE].groupby("approach").agg(["max", "idxmax"]).sort_values("max", ascending=False)
    if late.empty:
        return f"{means} No approach gained {LATE} points or more on a pair, over all its settings."
    table = pd.DataFrame(
        {"approach": late.index, "gained": late["max"].map("{:+.1f}".format), "on": late["idxmax"].str[1]}
    )
    return f"{means} Over all their settings, these gained {LATE} or more on a pair; shown is where most:\n\n{markdown(table)}"
