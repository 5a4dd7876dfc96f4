"""What the explorer shows: the trade-off and the choice of profiles as plain data, and a page that needs no server.

Its front end is `explorer.js`, the same in JupyterLab (`study.explorer`) and on the page.
"""

import json
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.colors import to_hex
from matplotlib.markers import MarkerStyle

from maskutils.core import paths
from maskutils.core.approaches import INTERPOLATED, every, the
from maskutils.core.files import read_json
from maskutils.core.storage import whole_network
from maskutils.results import analysis, choice, findings, fronts
from maskutils.results.plots.style import PAIR_ORDER, in_order, look, ordered, short
from maskutils.results.records import load_records, on_grid, summarise
from maskutils.results.statistics import LEAST
from maskutils.results.wording import interval, settings

SCRIPT, SHEET = ((paths.PACKAGE / "results" / f"explorer.{kind}").read_text(encoding="utf-8") for kind in ("js", "css"))
COMMITTED = {"study": "digits", "photos": "photographs"}  # profiles that are always offered, and what they are called
DROPS = (0.0, 0.005, 0.01, 0.015, 0.02, 0.03, 0.04, 0.05, 0.06, 0.08, 0.1, 0.15, 0.2, 0.3, 0.5)  # of the slider
VALUES = [*analysis.SOURCE_READINGS, "target_acc", "both"]
# What makes a setting better, in each reading.
AXES = {"full": ["val_full", "val_target_acc"], "known": ["few", "val_both"]}


def records_shown(profile: str = "study") -> dict[str, pd.DataFrame]:
    """Records by the name that the explorer gives them: those of `profile` first, then those of `COMMITTED` that this project has."""
    others = [name for name in COMMITTED if name != profile and (paths.results_dir(name) / "records.csv").exists()]
    return {COMMITTED.get(name, Path(name).stem): load_records(name) for name in (profile, *others)}


def explorer_data(records: pd.DataFrame, drops: Sequence[float] = DROPS) -> dict[str, Any]:
    """All that the explorer shows of `records`, ready for JSON. Accuracies are whole hundredths of a percent, on test images.

    `settings` describes each setting once; all others name one by its place there. `first` are the families that are shown at first.
    `pairs` has the points of each pair, and first those of the mean over pairs: see `_points`. For each reading of the source, `front` are
    the settings that no other that may be chosen beats, and `best` those that no other of their family beats, on validation. With the
    task unknown both tasks count, with the task known their mean and the bits stored. `choices` has, for each reading, the
    validation drop of each setting on its `worst` pair, a fraction, and what `choice.recommend` takes for each of `drops`.
    """
    rows = _read(records.reset_index(drop=True))
    pairs, on = ordered(rows["pair"].unique(), PAIR_ORDER), rows.groupby("setting")["pair"].transform("nunique")
    of = {f"mean of {len(pairs)} pairs": rows[on == len(pairs)]} if len(pairs) > 1 else {}
    of |= {short(pair): rows[rows["pair"] == pair] for pair in pairs}
    menu = rows.drop_duplicates("setting").sort_values("setting")
    menu["text"] = [settings(row) for _, row in menu.iterrows()]
    families = in_order(menu["family"].unique())
    return {
        "settings": menu[["approach", "family", "text"]].to_dict("records"),
        "looks": {name: _look(name) for name in families},
        "first": _first(records, families),
        "pairs": {
            name: {"ideal": [_number(v) for v in analysis.ideal(table)], **_points(table)} for name, table in of.items()
        },
        "drops": list(drops),
        "choices": {reading: _choices(rows, drops, reading == "known") for reading in analysis.SOURCE_READINGS},
    }


def _read(records: pd.DataFrame) -> pd.DataFrame:
    """The rows on the grid, with family, the number of the setting, and both readings of the source on test and (`val_`) validation.

    `both` is the mean of source and target with the task known; `kbit` are then stored, and `few` is the less of them the greater.
    """
    rows = analysis.with_family(on_grid(records))
    one = ~analysis.of_second_network(rows)  # that answers nothing if the task is unknown
    for prefix in ("", "val_"):
        rows[f"{prefix}full"] = analysis.source_read(rows, "full", prefix).astype(float).where(one)
        rows[f"{prefix}known"] = analysis.source_read(rows, "known", prefix).astype(float)
        rows[f"{prefix}both"] = analysis.both_tasks(rows, "known", prefix)
    rows["kbit"] = analysis.stored_bits(rows) / 1e3
    return rows.assign(few=-rows["kbit"], setting=rows.groupby(analysis.CANDIDATE, dropna=False).ngroup())


def _first(records: pd.DataFrame, families: Sequence[str]) -> list[str]:
    """The families that the first page names, with the yardstick and two networks; all, if the records are too few for findings."""
    _, brief = findings.findings(records)
    named = {name.removesuffix(INTERPOLATED) for name in re.findall(r"`([^`]+)`", brief)}
    beside = {the("yardstick"), *(a.name for a in every() if a.bits is whole_network)}
    return [name for name in families if not named or name in named | beside]


def _look(family: str) -> dict[str, Any]:
    """Colour of a family in all figures, and its marker as an SVG path of at most 1 from its middle."""
    style = look(family)
    marker = MarkerStyle(style["marker"])
    path = marker.get_path().transformed(marker.get_transform())
    outlines = [np.asarray(line, dtype=float).tolist() for line in path.to_polygons(closed_only=False)]
    largest = max(float(np.abs(line).max()) for line in outlines)
    lines = ["M" + "L".join(f"{x / largest:.2f} {-y / largest:.2f}" for x, y in line) for line in outlines]
    return {
        "colour": to_hex(style["color"]),
        "path": "".join(line + "Z" * marker.is_filled() for line in lines),
        "hollow": "markerfacecolor" in style,
    }


def _points(rows: pd.DataFrame) -> dict[str, Any]:
    """`points`, `front` and `best` of a pair: see `explorer_data`.

    `points` has one list per column, one entry per setting. Columns: setting, `VALUES` and their 95 % half-widths (`_ci`), kbit, n, and
    `seeds`: for each of the n seeds all `VALUES` but `both`, the mean of two of them.
    """
    means = summarise(rows, ["setting", "family"], [*VALUES, *(f"val_{value}" for value in VALUES), "kbit", "few"])
    seeds = rows.groupby(["setting", "seed"])[VALUES[:-1]].mean()
    of_each = seeds.groupby("setting").apply(lambda one: [list(map(_number, values)) for values in one.to_numpy()])
    out = {"setting": means["setting"].tolist(), "n": means["n"].tolist(), "seeds": of_each[means["setting"]].tolist()}
    out |= {c: [_number(x) for x in means[c]] for value in VALUES for c in (value, f"{value}_ci")}
    out["kbit"] = [None if math.isnan(x) else float(f"{x:.4g}") for x in means["kbit"]]
    choosable = set(analysis.choosable(rows))
    may = set(rows.loc[rows["approach"].isin(choosable), "setting"])
    front, best = {}, {}
    for reading, axes in AXES.items():
        there = means.dropna(subset=axes)
        front[reading] = fronts.unbeaten(there[there["setting"].isin(may)], *axes)["setting"].tolist()
        own = [fronts.unbeaten(family, *axes)["setting"] for _, family in there.groupby("family")]
        best[reading] = [int(number) for numbers in own for number in numbers]
    return {"points": out, "front": front, "best": best}


def _choices(rows: pd.DataFrame, drops: Sequence[float], known: bool) -> dict[str, Any]:
    """The `worst` drop of each setting (None if it is no candidate), and for each of `drops` what is chosen (`asked`)."""
    menu = choice.Menu(choice.candidates(rows, known))
    number = dict(zip(menu.rows["candidate"], rows.loc[menu.rows.index, "setting"], strict=True))
    worst = menu.worst_drops().rename(number).reindex(range(rows["setting"].max() + 1))
    return {
        "worst": [None if math.isnan(drop) else float(drop) for drop in worst],
        "asked": [_asked(menu, drop, known, number) for drop in drops],
    }


def _asked(menu: choice.Menu, drop: float, known: bool, number: Mapping[int, int]) -> dict[str, Any]:
    """What is chosen for one drop: its setting, the `same` ones that cannot be told apart, and why in a few sentences."""
    need, most = choice.Need(max_source_drop=drop), f"{100 * drop:g} points"
    try:
        best, same = menu.recommend(need), menu.equivalent(need)
    except choice.Unmet as unmet:
        said = f"No setting loses at most {most} on every pair (validation images): {unmet.nearest}."
        return {"setting": None, "same": [], "text": said}
    words, met, others = settings(best), int((menu.worst_drops() <= drop).sum()), len(same) - 1
    lost, reached = (interval(best[c], best[f"{c}_low"], best[f"{c}_high"]) for c in ("source_drop", "target_acc"))
    by = "stores least (to two digits)" if known else "trains in the fewest steps"
    rivals = f"{others} other{'s' * (others > 1)}"
    why = f"It cannot be told apart from {rivals} at the best target accuracy, and {by}." if others else ""
    text = [
        f"Choose {best['approach']}{f' ({words})' if words else ''}.",
        f"{met} of {len(menu.index)} settings lose at most {most} on the validation images of every pair.",
        why or "Of these it has the best target accuracy.",
        f"Expect on test images: {lost} points of the source lost, {reached} % on the target",
        f"(means over pairs, 95 % intervals of {best['n']:g} seeds)." if best["n"] >= LEAST else "(means over pairs).",
        f"It stores {best['stored_bits'] / 1e3:,.0f} kbit for the target." if best["stored_bits"] > 0 else "",
    ]
    return {
        "setting": number[int(same.index[0])],
        "same": [number[int(c)] for c in same.index[1:]],
        "text": " ".join(filter(None, text)),
    }


def _number(value: float) -> int | None:
    """A fraction in hundredths of a percent: shorter in JSON, and as exact as anybody reads it."""
    return None if math.isnan(value) else round(1e4 * float(value))


def page_of(profile: str) -> str:
    """The `page` of the committed `tables`, those of a profile first, and of the masks that 16_explore wrote for it, if it did."""
    masks = paths.results_dir(profile) / "masks.json"
    shown = {name: explorer_data(records) for name, records in records_shown(profile).items()}
    return page(shown, read_json(masks) if masks.exists() else {})


def page(tradeoffs: Mapping[str, Any], masks: Mapping[str, Any]) -> str:
    """A page of HTML with the explorer and all its data in it: it opens from disk and offline, and asks no server for anything.

    `tradeoffs` holds by name what `explorer_data` gives; `masks` is what `study.explorer.Masked.states` gives, or empty.
    """
    data = json.dumps({"tradeoffs": tradeoffs, "masks": masks}, separators=(",", ":")).replace("</", "<\\/")
    return f"""<!doctype html>
<html lang="en">
<head><meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>maskutils: explorer</title>
<link rel="icon" href="data:,">
<style>:root {{ color-scheme: light dark; }} body {{ margin: 0 auto; max-width: 1100px; padding: 8px; font-family: system-ui, sans-serif; }}
{SHEET}</style></head>
<body><p><a href="index.html">maskutils</a> · <a href="explore.html">How to read this page</a></p><h1>Explorer</h1>
<main id="explorer"></main>
<script type="application/json" id="data">{data}</script>
<script type="module">
{SCRIPT}
const data = JSON.parse(document.getElementById("data").textContent);
render({{ model: {{ get: (name) => data[name], on: () => {{}} }}, el: document.getElementById("explorer") }});
</script></body></html>
"""
