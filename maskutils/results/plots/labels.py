"""Names beside curves instead of a legend, each where it covers least."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke
from matplotlib.text import Annotation, Text
from matplotlib.transforms import Bbox

# Of lines without a name.
BEHIND: dict[str, Any] = {"color": "#c8c8c8", "linewidth": 1, "marker": ".", "markersize": 4, "zorder": 1}
REACH = (6, 15, 26, 40, 60, 90)  # points from a curve to its name; the far ones get a thin line
MARKER_WEIGHT = 6  # how much a point weighs, against four pixels of a line
CROSSING = 12  # how much it weighs if the thin line of one name meets another name
AS_ONE = 6  # pixels within which two lines look like one
SIDES = [(x, y) for x in (1, -1, 0) for y in (0, 1, -1) if x or y]
ALIGNED = ({1: "left", -1: "right", 0: "center"}, {1: "bottom", -1: "top", 0: "center"})
Place = tuple[tuple[float, float], float, tuple[int, int]]  # a point of the line in data, the reach, and the side


def name_curves(panels: Mapping[Axes, Mapping[str, Line2D]], last: bool = False) -> None:
    """Write the name of each line (axes -> name -> line) in its colour beside one of its points, at an end if there is room.

    With `last`, beside its last point in any case, best on the right. A name covers no other name, and as little as can be of what is
    drawn, and stays within its axes. Call this last: limits, titles and labels must stand, for room is measured in pixels.
    """
    for figure in {axis.get_figure(root=True) for axis in panels}:
        assert figure is not None
        figure.draw_without_rendering()
    for axis, lines in panels.items():
        drawn, taken, leaders = _pixels(axis, set(lines.values())), list[Bbox](), list[Bbox]()
        for name, line in lines.items():
            text = _written(axis, name, line)
            found, room = [], Text.get_window_extent(text)  # without its line
            for dear, place in _places(axis, line, drawn, last):
                box = _box(axis, room, place)
                inside = axis.bbox.contains(*box.min) and axis.bbox.contains(*box.max)
                if inside and not any(map(box.overlaps, taken)):
                    own = _leader(axis, place, box)
                    met = any(map(box.overlaps, leaders)) + any(name.overlaps(part) for part in own for name in taken)
                    found.append((dear + _covered(box, drawn) + CROSSING * met, place, box, own))
            if not found:  # all of its points are outside the axes
                text.remove()
                continue
            _, place, box, own = min(found, key=lambda f: f[0])
            _put(text, place)
            taken.append(box)
            leaders += own


def _written(axis: Axes, name: str, line: Line2D) -> Annotation:
    """The name, darker than its line so that light colours can be read, not at its place yet."""
    colour = tuple(0.75 * part for part in to_rgb(line.get_color()))
    leader = {"arrowstyle": "-", "color": colour, "linewidth": 0.7, "shrinkA": 0, "shrinkB": 3}
    text = axis.annotate(
        name, (0, 0), (0, 0), textcoords="offset points", color=colour, fontsize=9, arrowprops=leader, zorder=6
    )
    text.set_path_effects([withStroke(linewidth=2.5, foreground="white")])
    text.set_in_layout(False)
    assert text.arrow_patch is not None
    text.arrow_patch.set_visible(False)
    return text


def _offset(reach: float, side: tuple[int, int]) -> np.ndarray:
    """From the point of a line to its name, in points of 1/72 inch."""
    return reach * np.array(side) / np.hypot(*side)


def _put(text: Annotation, place: Place) -> None:
    text.xy, reach, side = place
    text.set_position(tuple(_offset(reach, side)))
    text.set(ha=ALIGNED[0][side[0]], va=ALIGNED[1][side[1]])
    assert text.arrow_patch is not None
    text.arrow_patch.set_visible(reach >= REACH[1])


def _box(axis: Axes, room: Bbox, place: Place) -> Bbox:
    """The pixels that a name of the size `room` takes at `place`."""
    point, reach, side = place
    dpi = axis.get_figure(root=True).dpi  # type: ignore[union-attr]
    x, y = axis.transData.transform(point) + _offset(reach, side) * dpi / 72
    left, low = x + (side[0] - 1) / 2 * room.width, y + (side[1] - 1) / 2 * room.height
    return Bbox.from_bounds(left - 2, low, room.width + 4, room.height)


def _leader(axis: Axes, place: Place, box: Bbox) -> list[Bbox]:
    """Pixels along the thin line from a point to the middle of its name in `box`; none where the name is near."""
    if place[1] < REACH[1]:
        return []
    along = np.linspace(axis.transData.transform(place[0]), box.get_points().mean(axis=0), 16)
    return [Bbox.from_bounds(x - 1, y - 1, 2, 2) for x, y in along]


def _places(axis: Axes, line: Line2D, drawn: np.ndarray, last: bool) -> Iterator[tuple[float, Place]]:
    """Places for the name of `line` beside its points within `axis`, each with its own cost: the last point and near places cost least.

    A point where other named lines pass costs more: a name there may be taken for theirs.
    """
    points = np.asarray(line.get_xydata(), dtype=float)
    points = points[[axis.bbox.contains(*pixel) for pixel in axis.transData.transform(points)]]
    beyond = max(float(line.get_markersize()) / 2 - 4, 0)  # a large marker reaches further itself
    for i, (x, y) in enumerate(points[-1:] if last else points):
        inner = 0 if i == len(points) - 1 else 2 if i == 0 else 3
        inner += 6 * _crossed(axis, line, axis.transData.transform((x, y)), drawn)
        for far, reach in enumerate(REACH):
            for side in SIDES:
                yield inner + 4 * far + 20 * (last and side[0] < 1), ((float(x), float(y)), reach + beyond, side)


def _pixels(axis: Axes, named: set[Line2D]) -> np.ndarray:
    """Points along all lines of `axis` in pixels: rows x, y, weight, number of the line. Markers weigh most, unnamed lines least."""
    rows = [np.empty((0, 4))]
    for number, line in enumerate(axis.get_lines()):
        corners = line.get_transform().transform(np.asarray(line.get_xydata(), dtype=float))
        corners = corners[np.isfinite(corners).all(axis=1)]  # the interval of a single seed is missing
        steps = [np.linspace(a, b, 2 + int(np.hypot(*(b - a)) / 4)) for a, b in zip(corners, corners[1:], strict=False)]
        along = np.concatenate([corners, *steps] if line.get_linestyle() != "None" else [corners])
        weight, which = (np.full(len(along), value) for value in (1.0 if line in named else 0.1, number))
        weight[: len(corners)] *= MARKER_WEIGHT
        rows.append(np.column_stack([along, weight, which]))
    return np.concatenate(rows)


def _crossed(axis: Axes, line: Line2D, pixel: np.ndarray, drawn: np.ndarray) -> int:
    """How many other named lines pass within `AS_ONE` of `pixel`."""
    x, y, weight, which = drawn.T
    near = (weight >= 1) & (np.hypot(x - pixel[0], y - pixel[1]) < AS_ONE)
    return len({*which[near]} - {list(axis.get_lines()).index(line)})


def _covered(box: Bbox, drawn: np.ndarray) -> float:
    x, y, weight, _ = drawn.T
    return float(weight[(x > box.x0) & (x < box.x1) & (y > box.y0) & (y < box.y1)].sum())
