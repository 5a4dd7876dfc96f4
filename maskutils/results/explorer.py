"""What the explorer shows: the trade-off and the choice of a profile as plain data, and a page that needs no server.

The front end is `explorer.js`, the same in JupyterLab (`study.explorer`) and on the page.
"""

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from maskutils.core import paths
from maskutils.core.approaches import the
from maskutils.core.checks import needs
from maskutils.results import analysis, choice
from maskutils.results.plots.style import in_order, look
from maskutils.results.records import on_grid, summarise
from maskutils.results.wording import interval, settings

with needs("study"):
    import numpy as np
    import pandas as pd
    from matplotlib.markers import MarkerStyle

SCRIPT, STYLE = (paths.PACKAGE / "results" / f"explorer.{kind}" for kind in ("js", "css"))
DROPS = (0.0, 0.005, 0.01, 0.02, 0.03, 0.04, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3)  # positions of the slider
ALL = "all pairs"
READINGS = ("full", "known")  # the task unknown, and known


def explorer_data(records: pd.DataFrame, drops: Sequence[float] = DROPS) -> dict[str, Any]:
    """All that the explorer shows of `records`, ready for JSON; accuracies are fractions in [0, 1], on test.

    `settings` are described once; `pairs` holds for each pair, and for all together, a point a setting: means, half-widths
    of 95 % intervals, seeds, and on which fronts it lies. A front is chosen on validation. `choices` holds for each reading
    and each of `drops` what `choice.recommend` takes, and why.
    """
    rows = _read(records)
    everywhere = rows.groupby(analysis.CANDIDATE, dropna=False)["pair"].transform("nunique") == rows["pair"].nunique()
    tables = {ALL: rows[everywhere]} if rows["pair"].nunique() > 1 else {}
    tables |= dict(iter(rows.groupby("pair")))
    menu = rows.drop_duplicates(["approach", "text"]).sort_values(["family", "approach", "text"])
    number = {(a, t): i for i, (a, t) in enumerate(zip(menu["approach"], menu["text"], strict=True))}
    choosable = set(analysis.choosable(records))
    return {
        "settings": menu[["approach", "family", "text"]].to_dict("records"),
        "looks": {name: _look(name) for name in in_order(menu["family"].unique())},
        "pairs": {name: _panel(name, table, number, choosable) for name, table in tables.items()},
        "drops": list(drops),
        "choices": {reading: [_choice(records, d, reading, number) for d in drops] for reading in READINGS},
    }


def _read(records: pd.DataFrame) -> pd.DataFrame:
    """Rows on the grid with family, the words of their settings, and both readings of the source, on test and validation."""
    rows = analysis.with_family(on_grid(records))
    one = rows.index.isin(
        analysis.of_one_network(rows).index
    )  # a second network answers nothing if the task is unknown
    for prefix in ("", "val_"):
        rows[f"{prefix}full"] = analysis.source_read(rows, "full", prefix).astype(float).where(one)
        rows[f"{prefix}known"] = analysis.source_read(rows, "known", prefix).astype(float)
    words = {i: settings(row) for i, row in rows.drop_duplicates(["approach", *analysis.CANDIDATE]).iterrows()}
    texts = rows.loc[list(words), analysis.CANDIDATE].assign(text=list(words.values()))
    return rows.merge(texts, on=analysis.CANDIDATE, how="left")


def _look(family: str) -> dict[str, Any]:
    """Colour and marker of a family as an SVG path of about 2 units across."""
    style = look(family)
    marker = MarkerStyle(style["marker"])
    outlines = marker.get_path().transformed(marker.get_transform()).to_polygons(closed_only=False)
    largest = max(float(np.abs(o).max()) for o in outlines)
    paths_ = ["M" + "L".join(f"{x / largest:.2f} {-y / largest:.2f}" for x, y in o) for o in outlines]
    closed = "Z" if marker.is_filled() else ""
    return {
        "colour": style["color"],
        "path": closed.join([*paths_, ""]) or paths_[0],
        "hollow": "markerfacecolor" in style,
    }


def _panel(name: str, rows: pd.DataFrame, number: Mapping[tuple[str, str], int], choosable: set[str]) -> dict[str, Any]:
    """The points of one pair, or of the mean over pairs, and the ideal: nothing lost, the target as after free fine-tuning."""
    values = ["full", "known", "target_acc"]
    means = summarise(rows, ["approach", "text"], [*values, "val_full", "val_known", "val_target_acc"])
    seeds = rows.groupby(["approach", "text", "seed"])[values].mean()
    fronts = {r: _front(means[means["approach"].isin(choosable)], r) for r in READINGS}
    points = [
        {
            "setting": number[row["approach"], row["text"]],
            "n": int(row["n"]),
            "target": _number(row["target_acc"]),
            "target_ci": _number(row["target_acc_ci"]),
            **{f"{r}{kind}": _number(row[f"{r}{kind}"]) for r in READINGS for kind in ("", "_ci")},
            "front": [r for r in READINGS if i in fronts[r]],
            "seeds": [
                {"full": _number(f), "known": _number(k), "target": _number(t)}
                for f, k, t in seeds.loc[row["approach"], row["text"]].itertuples(index=False)
            ],
        }
        for i, row in means.iterrows()
    ]
    free = rows.loc[rows["approach"] == the("free"), "target_acc"].mean()
    best = free if not math.isnan(free) else rows["target_acc"].max()
    return {"name": name, "points": points, "ideal": [_number(rows["source_acc_before"].mean()), _number(best)]}


def _front(means: pd.DataFrame, reading: str) -> set[int]:
    """The rows that no other beats on both tasks, on validation."""
    ranked = means.dropna(subset=[f"val_{reading}"]).sort_values([f"val_{reading}", "val_target_acc"], ascending=False)
    best = ranked["val_target_acc"].cummax().shift(fill_value=-1.0)
    return set(ranked.index[ranked["val_target_acc"] > best])


def _choice(records: pd.DataFrame, drop: float, reading: str, number: Mapping[tuple[str, str], int]) -> dict[str, Any]:
    """What `choice.recommend` takes for a drop, as the number of its setting, and a few sentences that say why."""
    known, points = reading == "known", f"{100 * drop:g} points"
    try:
        best = choice.recommend(records, max_source_drop=drop, task_known=known)
        others = len(choice.equivalent(records, max_source_drop=drop, task_known=known)) - 1
    except choice.Unmet as unmet:
        return {"setting": None, "text": f"No setting loses at most {points} on every pair: {unmet.nearest}."}
    words = settings(best)
    lost, got = (interval(best[c], best[f"{c}_low"], best[f"{c}_high"]) for c in ("source_drop", "target_acc"))
    same = f"{others} other settings cannot be told apart from the best; this one stores least." if others else ""
    text = (
        f"Choose {best['approach']}{f' ({words})' if words else ''}. It loses at most {points} on the validation images of every pair, "
        f"and no setting that does so is clearly better on the target. {same} Expect on test images: {lost} points of the source lost, "
        f"target accuracy {got} % (means over pairs and {best['n']:g} seeds, 95 % intervals)."
    )
    return {"setting": number[best["approach"], words], "text": " ".join(text.split())}


def _number(value: float) -> float | None:
    return None if math.isnan(value) else round(float(value), 4)


def page(profiles: Mapping[str, Any], masks: Mapping[str, Any]) -> str:
    """A page of HTML with the explorer and all its data in it: it opens from disk and offline, and asks no server for anything.

    `profiles` holds `explorer_data` by name; `masks` is what `study.explorer.mask_data` wrote, or empty.
    """
    data = json.dumps({"profiles": profiles, "masks": masks}, separators=(",", ":")).replace("</", "<\\/")
    return f"""<!doctype html>
<html lang="en">
<head><meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>maskutils explorer</title>
<link rel="icon" href="data:,">
<style>:root {{ color-scheme: light dark; }} body {{ margin: 0 auto; max-width: 1100px; }}
{STYLE.read_text(encoding="utf-8")}</style></head>
<body><p><a href="index.html">maskutils</a></p><main id="explorer"></main>
<script type="application/json" id="data">{data}</script>
<script type="module">
{SCRIPT.read_text(encoding="utf-8")}
const data = JSON.parse(document.getElementById("data").textContent);
render({{ model: {{ get: (name) => data[name], on: () => {{}} }}, el: document.getElementById("explorer") }});
</script></body></html>
"""
