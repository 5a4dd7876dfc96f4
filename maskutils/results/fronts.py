"""Fronts (see `analysis`): the settings of a family that no other of its settings beats on both tasks, and the area that they cover."""

from collections.abc import Callable, Sequence
from typing import Any

import pandas as pd

from maskutils.core.checks import known
from maskutils.results.analysis import CANDIDATE, DECIMALS, chance, of_second_network, source_read, with_family
from maskutils.results.records import on_grid

Point = tuple[float, float]  # source and target accuracy
REFERENCES: dict[str, Callable[[float], float]] = {  # corners of the hypervolume's box, from the accuracy of chance
    "zero": lambda chance: 0.0,
    "chance": lambda chance: chance,
    "halfway": lambda chance: (1 + chance) / 2,
}


def hypervolumes(
    records: pd.DataFrame, reading: str = "full", split: str = "", reference: str = "chance"
) -> pd.DataFrame:
    """The area that each family covers, as a fraction of the box up to 1: columns pair, seed, family and hypervolume.

    The points on the front are chosen by validation means over seeds. The area is that of their test points, so a family
    with many strengths gains nothing from noise. `reading` is one of `SOURCE_READINGS`; rows without it are left out.
    `split` "val_" gives the area of the validation points, to choose families by. The box begins at `reference`, one of
    `REFERENCES`: accuracy "zero", "chance" of the pair, or "halfway" from chance to 1. Raises `BadSetting` for another.
    """
    corner = REFERENCES[known(reference, REFERENCES, "reference")]
    rows = with_family(on_grid(records if reading != "full" else records[~of_second_network(records)]))
    x, val_x = source_read(rows, reading, split), source_read(rows, reading, "val_")
    rows = rows.assign(x=x, val_x=val_x, y=rows[f"{split}target_acc"], val_y=rows["val_target_acc"])
    rows = rows.assign(source=chance(rows, "source"), target=chance(rows, "target"))[x.notna()]
    rows = rows.assign(candidate=rows.groupby(["pair", "family", *CANDIDATE], dropna=False).ngroup())
    means = rows.groupby(["pair", "family", "candidate"])[["val_x", "val_y"]].mean().round(DECIMALS)
    tried: dict[tuple[str, str], dict[int, Point]] = {}
    for (pair, family, candidate), *point in means.itertuples(name=None):
        tried.setdefault((pair, family), {})[candidate] = tuple(point)
    best = [c for points in tried.values() for c, on in zip(points, on_front([*points.values()]), strict=True) if on]
    reached: dict[tuple[Any, ...], list[Point]] = {}
    kept = rows.loc[rows["candidate"].isin(best), ["pair", "seed", "family", "source", "target", "x", "y"]]
    for *group, x, y in kept.sort_values(["pair", "family", "seed"]).itertuples(index=False):
        reached.setdefault(tuple(group), []).append((x, y))
    areas = [[*of, hypervolume(points, (corner(s), corner(t)))] for (*of, s, t), points in reached.items()]
    return pd.DataFrame(areas, columns=["pair", "seed", "family", "hypervolume"])


def largest(areas: pd.DataFrame, families: Sequence[str]) -> str:
    """The one of `families` with the largest mean area in `areas`, a table of `hypervolumes`; empty if it holds none of them."""
    means = areas[areas["family"].isin(families)].groupby("family")["hypervolume"].mean()
    return "" if means.empty else str(means.idxmax())


def front(rows: pd.DataFrame, reading: str = "full") -> pd.DataFrame:
    """Test means in percent of the settings of `rows` that no other beats on both tasks on validation, from the highest source down.

    Columns source and target. `reading` is one of `SOURCE_READINGS`; rows without it are left out.
    """
    rows = rows.assign(source=source_read(rows, reading), val_source=source_read(rows, reading, "val_"))
    values = ["source", "target_acc", "val_source", "val_target_acc"]
    means = rows.groupby(CANDIDATE, dropna=False)[values].mean().dropna()
    best = 100 * unbeaten(means, "val_source", "val_target_acc")[["source", "target_acc"]]
    return best.set_axis(["source", "target"], axis=1).sort_values("source", ascending=False)


def unbeaten(means: pd.DataFrame, *values: str) -> pd.DataFrame:
    """The rows of `means` of which no other has two greater `values`, or one greater and the other equal."""
    return means.loc[on_front(list(map(tuple, means[[*values]].to_numpy().round(DECIMALS))))]


def on_front(points: Sequence[Point]) -> list[bool]:
    """Which of `points` no other one beats."""
    best = set(pareto_front(points))
    return [point in best for point in points]


def pareto_front(points: Sequence[Point]) -> list[Point]:
    """The points that no other point beats in both coordinates, from the highest first coordinate to the lowest."""
    front: list[Point] = []
    for point in sorted(set(points), reverse=True):
        if not front or point[1] > front[-1][1]:
            front.append(point)
    return front


def hypervolume(points: Sequence[Point], reference: Point) -> float:
    """Area that `points` dominate, as a fraction of the box from `reference` to (1, 1): in [0, 1], higher is better.

    HV = sum_i (a_S,i - r_S)(a_T,i - a_T,i-1) over the front sorted by falling a_S, with a_T,0 = r_T. Points are cut to the
    box. Source: Zitzler & Thiele 1999. Raises `ValueError` if the box is empty.
    """
    r_s, r_t = reference
    if max(reference) >= 1:
        raise ValueError(f"reference {reference} must lie below 1 in both coordinates")
    area, reached = 0.0, r_t
    for s, t in pareto_front([(min(max(s, r_s), 1.0), min(max(t, r_t), 1.0)) for s, t in points]):
        area, reached = area + (s - r_s) * (t - reached), t
    return area / ((1 - r_s) * (1 - r_t))
