"""How every figure looks: names in order, one colour and one marker for a method everywhere; and how it is saved."""

import contextlib
import re
import zlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from maskutils.core import paths
from maskutils.core.approaches import every, find
from maskutils.results.records import provenance
from maskutils.results.written import note_written

PAIR_ORDER = ["mnist_to_digits", "mnist_to_rotated", "mnist_to_inverted", "mnist_low_to_high"]
LEGEND_BESIDE: dict[str, Any] = {"loc": "upper left", "bbox_to_anchor": (1, 1)}  # of a single panel
STYLE: dict[Any, Any] = {"figure.dpi": 100, "savefig.dpi": 160, "figure.constrained_layout.use": True, "font.size": 10}
STYLE |= {"axes.spines.top": False, "axes.spines.right": False, "legend.frameon": False}
STYLE |= {"axes.grid": True, "grid.alpha": 0.25}
MANY = 74  # dots per inch on screen of figures with many panels, so that a notebook stays small
STAR: dict[str, Any] = {"marker": "*", "color": "black", "linestyle": "", "zorder": 5}  # the ideal
STAR |= {"markerfacecolor": "none", "markersize": 15}
# of an interval behind a marker, which takes the marker's colour as `ecolor`
BARS: dict[str, Any] = {"fmt": "none", "alpha": 0.3, "linewidth": 1, "zorder": 2}


@contextlib.contextmanager
def styled() -> Iterator[None]:
    """Draw in the project's style inside the block, or in the function that `@styled()` decorates.

    The first figure of a notebook chooses the backend, which turns the interactive mode on. Leaving the block must not turn
    it off again, or no later figure would be shown.
    """
    with plt.rc_context(STYLE):
        yield
        interactive = plt.isinteractive()
    matplotlib.interactive(interactive)


def look(name: str) -> dict[str, Any]:
    """Colour and marker of an approach, the same in every figure.

    One whose description has none gets a colour and a hollow marker that depend on its name alone.
    """
    about = find(name)
    if about and about.colour:
        return {"color": about.colour, "marker": about.marker}
    spare, digest = sns.color_palette("dark", 10).as_hex(), zlib.crc32(name.encode())
    return {"color": spare[digest % 10], "marker": "os^vDP*"[digest // 10 % 7], "markerfacecolor": "white"}


def in_order(approaches: Iterable[str]) -> list[str]:
    """Approaches in the order of legends; those without a place last, by name."""
    return ordered(approaches, [a.name for a in every() if a.colour])


def ordered(names: Iterable[str], order: Sequence[str]) -> list[str]:
    """`names` in the order of `order`; unknown ones last, by name."""
    return sorted(names, key=lambda n: (order.index(n) if n in order else len(order), n))


def short(pair: str) -> str:
    """The name of a pair as a title: both domains, then their collection; of image folders the last part of each path."""
    collection, *sides = pair.split(":")
    if len(sides) < 2:
        return pair.replace(":", " → ")
    return " → ".join(Path(side).name for side in sides) + f" ({collection})" * (collection != "folders")


def save_figure(figure: Figure, name: str, profile: str = "default", records: pd.DataFrame | None = None) -> list[Path]:
    """Write `figure` as PNG and PDF, the same bytes for the same figure and records; returns the paths.

    Both tell the profile and what made the `records` that are shown, as their description or subject. No date, and nothing of this
    run.
    """
    folder = paths.figures_dir(profile)
    folder.mkdir(parents=True, exist_ok=True)
    made = "; ".join([f"profile {Path(profile).stem}", *([] if records is None else [provenance(records)])])
    metadata: dict[str, dict[str, str | None]] = {"png": {"Title": name, "Description": made, "Software": None}}
    metadata["pdf"] = {"Title": name, "Subject": made, "Creator": None, "Producer": None, "CreationDate": None}
    stem = re.sub(r"[^\w.+-]+", "_", name)  # a pair of image folders is named by their paths
    files = [folder / f"{stem}.{kind}" for kind in metadata]
    with styled():
        for file in files:
            figure.savefig(file, metadata=metadata[file.suffix[1:]])
    note_written(*files)
    return files


def half_width(points: pd.DataFrame, column: str) -> pd.Series:
    """Half-widths of the intervals of `column` in percent."""
    return 100 * points[f"{column}_ci"]


def within(axis: Axes) -> None:
    """Keep the limits of the vertical `axis` within -6 and 103 %, and at least 10 points apart, so that noise does not fill it."""
    low, high = axis.get_ylim()
    room = max(10 - (high - low), 0) / 2
    axis.set_ylim(max(low - room, -6), min(high + room, 103))


def density_axis(axis: Axes, densities: Sequence[float], every: int = 1, **style: Any) -> None:
    """Make the horizontal axis a logarithmic one with a tick at each of `densities`, of which each `every`-th has a name."""
    axis.set_xscale("log")
    axis.set_xticks(densities, ["" if i % every else f"{d:g}" for i, d in enumerate(densities)], **style)
    axis.minorticks_off()


def framed(axis: Axes) -> None:
    """Make `axis` the frame of a picture: a thin line around it, so that white pictures have an edge, no ticks and no grid."""
    axis.set(xticks=[], yticks=[])
    axis.grid(False)
    axis.spines[:].set(visible=True, color="#666666", linewidth=0.6)


def visible(picture: np.ndarray) -> np.ndarray:
    """A normalised image (C, H, W), an array or a tensor on any device, as (H, W) or (H, W, 3) in [0, 1]."""
    here = picture.cpu() if hasattr(picture, "cpu") else picture
    pixels: np.ndarray = np.moveaxis(np.asarray(here, dtype=float), 0, -1)
    pixels = (pixels - pixels.min()) / max(np.ptp(pixels), 1e-9)
    return pixels.squeeze(-1) if pixels.shape[-1] == 1 else pixels
