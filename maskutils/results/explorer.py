"""What the explorer shows: the trade-off and the choice of a profile as plain data, and a page that needs no server.

Its front end is `explorer.js`, the same in JupyterLab (`study.explorer`) and on the page.
"""

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.colors import to_hex
from matplotlib.markers import MarkerStyle

from maskutils.core import paths
from maskutils.core.files import read_json
from maskutils.results import analysis, choice, fronts
from maskutils.results.plots.style import PAIR_ORDER, in_order, look, ordered, short
from maskutils.results.records import load_records, on_grid, summarise
from maskutils.results.statistics import LEAST
from maskutils.results.wording import interval, settings

SCRIPT, STYLE = ((paths.PACKAGE / "results" / f"explorer.{kind}").read_text(encoding="utf-8") for kind in ("js", "css"))
DROPS = (0.0, 0.005, 0.01, 0.015, 0.02, 0.03, 0.04, 0.05, 0.06, 0.08, 0.1, 0.15, 0.2, 0.3, 0.5)  # of the slider
BY_TASK = ("full", "known")  # with the task unknown, and with the task known
VALUES = [*BY_TASK, "target_acc"]


def explorer_data(records: pd.DataFrame, drops: Sequence[float] = DROPS) -> dict[str, Any]:
    """All that the explorer shows of `records`, ready for JSON. Accuracies are fractions in [0, 1], on test images.

    `settings` describes each setting once; all others name one by its place there. `pairs` has the points of each pair, and first
    those of the mean over pairs: see `_points`. `choices` has, for each reading of the source, the validation drop of each setting on its
    `worst` pair, and what `choice.recommend` takes for each of `drops`.
    """
    rows = _read(records.reset_index(drop=True))
    pairs, on = ordered(rows["pair"].unique(), PAIR_ORDER), rows.groupby("setting")["pair"].transform("nunique")
    tables = {f"mean of {len(pairs)} pairs": rows[on == len(pairs)]} if len(pairs) > 1 else {}
    tables |= {short(pair): rows[rows["pair"] == pair] for pair in pairs}
    menu = rows.drop_duplicates("setting").sort_values("setting")
    menu["text"] = [settings(row) for _, row in menu.iterrows()]
    return {
        "settings": menu[["approach", "family", "text"]].to_dict("records"),
        "looks": {name: _look(name) for name in in_order(menu["family"].unique())},
        "pairs": {
            name: {"ideal": [_number(v) for v in analysis.ideal(table)], "points": _points(table)}
            for name, table in tables.items()
        },
        "drops": list(drops),
        "choices": {reading: _choices(rows, drops, reading == "known") for reading in BY_TASK},
    }


def _read(records: pd.DataFrame) -> pd.DataFrame:
    """The rows on the grid, with family, the number of the setting, and both readings of the source on test and (`val_`) validation."""
    rows = analysis.with_family(on_grid(records))
    one = ~analysis.of_second_network(rows)  # that answers nothing if the task is unknown
    for prefix in ("", "val_"):
        rows[f"{prefix}full"] = analysis.source_read(rows, "full", prefix).astype(float).where(one)
        rows[f"{prefix}known"] = analysis.source_read(rows, "known", prefix).astype(float)
    return rows.assign(setting=rows.groupby(analysis.CANDIDATE, dropna=False).ngroup())


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


def _points(rows: pd.DataFrame) -> dict[str, list[Any]]:
    """A list a column, with an entry a setting: its number, means, half-widths of 95 % intervals (`_ci`), seeds (n, and values of each).

    `front_<reading>`: whether no other that may be chosen beats it on both tasks, on validation.
    """
    means = summarise(rows, ["setting"], [*VALUES, *(f"val_{value}" for value in VALUES)])
    seeds = rows.groupby(["setting", "seed"])[VALUES].mean()
    of_each = seeds.groupby("setting").apply(lambda one: [list(map(_number, values)) for values in one.to_numpy()])
    out = {"setting": means["setting"].tolist(), "n": means["n"].tolist(), "seeds": of_each[means["setting"]].tolist()}
    out |= {c: [_number(x) for x in means[c]] for value in VALUES for c in (value, f"{value}_ci")}
    choosable = set(analysis.choosable(rows))
    may = means["setting"].isin(rows.loc[rows["approach"].isin(choosable), "setting"])
    for reading in BY_TASK:
        values = means.loc[may, [f"val_{reading}", "val_target_acc"]].dropna()
        out[f"front_{reading}"] = means.index.isin(fronts.unbeaten(values, *values).index).tolist()
    return out


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


def _number(value: float) -> float | None:
    return None if math.isnan(value) else round(float(value), 4)


def page_of(profile: str) -> str:
    """The `page` of the committed records of a profile, and of the masks that 16_explore wrote for it, if it did."""
    masks = paths.results_dir(profile) / "masks.json"
    return page(explorer_data(load_records(profile)), read_json(masks) if masks.exists() else {})


def page(tradeoff: Mapping[str, Any], masks: Mapping[str, Any]) -> str:
    """A page of HTML with the explorer and all its data in it: it opens from disk and offline, and asks no server for anything.

    `tradeoff` is that of `explorer_data`; `masks` is what `study.explorer.Masked.states` gives, or empty.
    """
    data = json.dumps({"tradeoff": tradeoff, "masks": masks}, separators=(",", ":")).replace("</", "<\\/")
    return f"""<!doctype html>
<html lang="en">
<head><meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>maskutils: explorer</title>
<link rel="icon" href="data:,">
<style>:root {{ color-scheme: light dark; }} body {{ margin: 0 auto; max-width: 1100px; padding: 8px; font-family: system-ui, sans-serif; }}
{STYLE}</style></head>
<body><p><a href="index.html">maskutils</a></p><h1>Explorer</h1><main id="explorer"></main>
<script type="application/json" id="data">{data}</script>
<script type="module">
{SCRIPT}
const data = JSON.parse(document.getElementById("data").textContent);
render({{ model: {{ get: (name) => data[name], on: () => {{}} }}, el: document.getElementById("explorer") }});
</script></body></html>
"""
