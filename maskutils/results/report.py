"""Tables and sentences for people: every number that a notebook, the terminal or the README shows comes from here."""

import math
from collections.abc import Iterable, Sequence

import pandas as pd

from maskutils.core import paths
from maskutils.core.approaches import every, names, the
from maskutils.core.files import write_atomically
from maskutils.results import analysis, statistics
from maskutils.results.records import KNOBS, at_density, of_masks, on_grid, summarise, usual_density
from maskutils.results.wording import ends, interval, intervals, listed, p_text, points
from maskutils.results.written import note_written

TITLES = {"source_acc_masked": "source through mask (%)", "source_acc_full": "source full network (%)"}
STORED = "kbit stored"
TITLES |= {"target_acc": "target (%)", "other_acc": "other domains (%)", "harmonic": "harmonic mean (%)", "n": "seeds"}


def percent(summary: pd.DataFrame, values: Sequence[str]) -> pd.DataFrame:
    """A table of `summarise` for people: each value as "mean ± half-width" in percent, or a dash."""

    def cell(mean: float, half: float) -> str:
        told = "" if math.isnan(half) else f" ± {100 * half:.1f}"
        return "–" if math.isnan(mean) else f"{100 * mean:.1f}{told}"

    cells = {v: [cell(*row) for row in zip(summary[v], summary[f"{v}_ci"], strict=True)] for v in values}
    return summary.drop(columns=[c for c in summary.columns if c in values or c.endswith("_ci")]).assign(**cells)


def by_density(records: pd.DataFrame) -> pd.DataFrame:
    """Both readings of the source and the target, in percent, of each approach of `records` at every density it has."""
    values, rows = ["source_acc_masked", "source_acc_full", "target_acc"], on_grid(records)
    table = percent(summarise(rows, ["approach", "density"], values), values).rename(columns=TITLES)
    return table.assign(density=table["density"].map("{:g}".format, na_action="ignore").fillna("–"))


def by_setting(records: pd.DataFrame) -> pd.DataFrame:
    """Both tasks with the full network, and the calibration error of the source, in percent, of each setting of each approach.

    Only knobs that some approach of `records` has, and `alpha` only where it varies, are columns.
    """
    values = ["source_acc_full", "target_acc", "source_ece"]
    knobs = [knob for knob in KNOBS if records[knob].notna().any()] + ["alpha"] * (records["alpha"].nunique() > 1)
    table = percent(summarise(on_grid(records), ["approach", *knobs], values), values)
    table = table.rename(columns=TITLES | {"source_ece": "source ECE (%)"})
    return table.assign(**{knob: table[knob].map("{:g}".format, na_action="ignore").fillna("") for knob in knobs})


def headline(records: pd.DataFrame, density: float | None = None) -> pd.DataFrame:
    """The one-look table: the references, and every mask under `protect` at `density` (or `usual_density`), best target first.

    Both readings of the source and the target, in percent over all pairs. Two networks are no full network: they have a dash.
    """
    rows = at_density(records, density or usual_density(records)).query("alpha == 1")
    rows = rows[of_masks(rows) | rows["approach"].isin(names("reference"))]
    rows = rows.assign(source_acc_full=rows["source_acc_full"].mask(analysis.of_second_network(rows)))
    values = ["source_acc_masked", "source_acc_full", "target_acc"]
    table = summarise(rows, ["approach"], values).sort_values("target_acc", ascending=False)
    return percent(table, values).rename(columns=TITLES)


def native_findings(records: pd.DataFrame, method: str) -> str:
    """A Markdown sentence on `method` at its native density, against a random mask of that density and the whole network."""
    native = records[records["native_of"] == method]
    mean = native.groupby("method")[["density", "source_acc_masked_before", "source_acc_before"]].mean()
    own, chance, n = mean.loc[method], mean.loc[the("chance")], native["seed"].nunique()
    seeds = f"means of {n} seeds" if n > 1 else "one seed"
    return (
        f"Left to itself, **{method}** keeps {points(own['density'])} of the weights. Of the source test images the network "
        f"answers {points(own['source_acc_masked_before'])} correctly through that mask, "
        f"{points(chance['source_acc_masked_before'])} through a random mask of the same density, and "
        f"{points(own['source_acc_before'])} whole ({seeds})."
    )


def density_findings(records: pd.DataFrame, approaches: Sequence[str]) -> str:
    """A Markdown line for each of `approaches` at every density it has: what it retains and how it adapts."""
    rows, lines = on_grid(records), []
    second = set(rows.loc[analysis.of_second_network(rows), "approach"])  # it answers for the source by itself
    summary = summarise(rows[rows["approach"].isin(approaches)], ["approach", "density"])
    for row in summary.sort_values(["approach", "density"]).itertuples():
        at = "" if math.isnan(row.density) else f" at density {row.density:.2g}"
        masked = "" if math.isnan(row.source_acc_masked) else f"{points(row.source_acc_masked)} through the mask and "
        source = f"{masked}{points(row.source_acc_full)} with the full network"
        source = f"{points(row.source_acc_before)} with the task known" if row.approach in second else source
        lines.append(f"- **{row.approach}**{at}: source {source}, target {points(row.target_acc)}")
    return "\n".join(lines)


def control_findings(table: pd.DataFrame, method: str) -> str:
    """Markdown sentences on the curves of `table` (accuracies as fractions, rows densities): what learning added to the best control.

    A sentence for each density where that is a point or more, and one for the others together.
    """
    gains = table[method] - table.drop(columns=method).max(axis=1)
    best = table.drop(columns=method).idxmax(axis=1)
    told = [
        f"At density {d:g} the source keeps {points(table.loc[d, method])} through **{method}** and "
        f"{points(table.loc[d, best[d]])} through `{best[d]}`, the best control shown: {100 * gain:+.1f} points."
        for d, gain in gains.items()
        if abs(gain) >= 0.01
    ]
    near = [f"{d:g}" for d, gain in gains.items() if abs(gain) < 0.01]
    if near:
        told.append(f"At {listed(near)} **{method}** and the best control are less than one point apart.")
    return " ".join(told)


def tradeoff_findings(records: pd.DataFrame, density: float | None = None) -> str:
    """Markdown lines on the whole study, with masks at `density` (or `usual_density`): what they retain, and how they adapt."""
    rows, density = on_grid(records).query("alpha == 1"), density or usual_density(records)
    protected = rows[of_masks(rows)]
    at = summarise(protected[protected["density"] == round(density, 3)], ["approach"]).set_index("approach")
    references = summarise(rows[rows["approach"] == the("free")], ["approach"])
    if references.empty or at.empty:
        return f"The records hold no masks of density {density} beside fine-tuning."
    free, masked, full, target = references.iloc[0], at["source_acc_masked"], at["source_acc_full"], at["target_acc"]
    controls = [a for a in reversed(every()) if a.rival and a.kind == "control" and a.name in masked]
    compared = " and ".join(f"{points(masked[a.name])} for {a.phrase or a.name}" for a in controls)
    lines = [
        f"Fine-tuning takes the source from {points(free['source_acc_before'])} to {points(free['source_acc_full'])} and "
        f"reaches {points(free['target_acc'])} on the target.",
        f"Through the mask, at density {density}, {_best(masked, 'retain')} most: {points(masked.max())}"
        f"{', against ' if controls else ''}{compared}.",
        f"With the full network the masks of density {density} lie between {points(full.min())} and {points(full.max())}: "
        f"{_best(full, 'retain')} most, {_best(target, 'adapt')} best ({points(target.max())} on the target).",
        f"The largest drift through the mask, of {len(protected)} protected transfers, is {protected['drift'].abs().max():g}.",
    ]
    return "\n".join(f"- {line}" for line in lines)


def _best(values: pd.Series, verb: str) -> str:
    """The names of the highest `values`, to a tenth of a point, and the verb for one or for many."""
    best = [f"**{name}**" for name in values.index[values.round(3) == values.round(3).max()]]
    return f"{' and '.join(best)} {verb}{'s' * (len(best) == 1)}"


def plain(table: pd.DataFrame) -> pd.DataFrame:
    """The rows of families as they are usually given: no variants in brackets or per layer."""
    return table[~table["family"].str.contains(r" \(| per layer")]


def against(volumes: pd.DataFrame, rival: str) -> pd.DataFrame:
    """Hypervolume of each family and its paired difference to `rival`, in points of hypervolume, best first.

    Intervals are of 95 % over seeds (`statistics.over_pairs`). "corrected" are interval and p for training images that seeds share
    (`statistics.t_interval`). With several pairs of domains there are also the mean difference on each, from the least to the
    greatest, the random-effects mean over pairs (`statistics.random_effects`), and the mean rank over pairs, 1 the best.
    """
    means = volumes.groupby("family")["hypervolume"].mean().sort_values(ascending=False)
    others = [name for name in means.index if name != rival]
    rows = statistics.paired(volumes, "hypervolume", others, rival).set_index("family")
    columns = {f"minus {rival} (points)": intervals(rows), "p (Holm)": statistics.holm(rows["p"]).map(p_text)}
    columns |= {"corrected": [ends(*e, "+") for e in zip(rows["low_corrected"], rows["high_corrected"], strict=True)]}
    columns |= {"corrected p (Holm)": statistics.holm(rows["p_corrected"]).map(p_text), "seeds": rows["n"].astype(str)}
    shown = pd.DataFrame({"hypervolume (%)": (100 * means).round(1).astype(str)})
    if volumes["pair"].nunique() > 1:
        columns |= _on_pairs(volumes, others, rival)
        shown["mean rank"] = statistics.mean_ranks(volumes).map("{:.1f}".format)
    return shown.join(pd.DataFrame(columns, index=rows.index)).fillna("").reset_index()


def brief(table: pd.DataFrame, pairs: Iterable[str]) -> pd.DataFrame:
    """The columns of a table of `against` to read first, and those of `pairs`, whose names lose their `mnist_`."""
    first = [name for name in table if name in ("family", "hypervolume (%)", "p (Holm)") or name.startswith("minus ")]
    shown = table[[*first, *(pair for pair in sorted(pairs) if pair in table)]]
    return shown.rename(columns=lambda name: name.removeprefix("mnist_"))


def _on_pairs(volumes: pd.DataFrame, families: Sequence[str], rival: str) -> dict[str, list[str]]:
    """The columns of `against` on pairs of domains."""
    on = [100 * statistics.by_pair(volumes, "hypervolume", name, rival) for name in families]
    means = [statistics.random_effects(volumes, "hypervolume", name, rival) for name in families]
    each = {p: [f"{d[p]:+.1f}" if p in d else "" for d in on] for p in sorted(volumes["pair"].unique())}
    return {
        "by pair": [f"{d.min():+.1f} to {d.max():+.1f}" for d in on],
        **each,
        "random effects": ["" if math.isnan(m[0]) else interval(*m, "+") for m in means],
    }


def markdown(table: pd.DataFrame) -> str:
    """A table for people as Markdown. Texts that look like numbers keep their decimals."""
    return str(table.to_markdown(index=False, disable_numparse=True))


def write_tables(table: pd.DataFrame, profile: str, name: str) -> None:
    """Write a table for people as Markdown and LaTeX beside the records of `profile`."""
    folder, shown = paths.results_dir(profile), table.style.hide(axis="index").format(escape="latex")
    latex = shown.format_index(escape="latex", axis="columns").to_latex(hrules=True)
    texts = {folder / f"{name}.md": markdown(table) + "\n", folder / f"{name}.tex": latex.replace("<", "$<$")}
    for file, text in texts.items():
        write_atomically(file, text.encode())
    note_written(*texts)
