"""How every figure looks: names in order, one colour and one marker for a method everywhere; and how it is saved."""

import contextlib
import re
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from maskutils.core import paths

METHODS = ["gumbel_sigmoid", "hard_concrete", "edge_popup", "piggyback"]
METHODS += ["continuous_sparsification", "bernoulli", "winning_subnetwork"]
RANKINGS = ["magnitude", "snip", "fisher", "shuffled", "random"]
BASELINES = ["wise_ft", "l2_sp", "ewc", "elastic_mask", "lwf", "replay", "packnet", "lp_ft", "bias_only"]
BOUNDS = ["source_only", "linear_probe", "finetune", "joint"]
ORDER = [*METHODS, *RANKINGS, *BASELINES, *BOUNDS]
COLOURS = dict(zip(METHODS, [*sns.color_palette("colorblind", 5), "#56b4e9", "#b8860b"], strict=True))
COLOURS |= dict(zip(RANKINGS, ["#8c564b", "#5b7f95", "#7a5195", "#999999", "#444444"], strict=True))
COLOURS |= dict(
    zip(BASELINES, ["#d62728", "#9467bd", "#2ca02c", "#ff1493", "#17becf", "#bcbd22", *["#7f7f7f"] * 3], strict=True)
)
COLOURS |= dict.fromkeys(BOUNDS, "black")
MARKERS = dict(zip(METHODS, ["o", "s", "^", "D", "p", "h", "*"], strict=True))
MARKERS |= dict(zip(RANKINGS, ["P", "<", ">", "X", "v"], strict=True))
MARKERS |= dict(
    zip(BASELINES, ["d", (8, 1, 0), (4, 1, 0), "H", (5, 1, 180), (6, 1, 0), "8", "+", "x"], strict=True)
)  # tuples are stars
MARKERS |= {name: rf"$\mathrm{{{name[0].upper()}}}$" for name in BOUNDS}
READINGS = {
    "source_acc_masked": "through the source mask (task known)",
    "source_acc_full": "full network (task not known)",
}
PAIRS = ["mnist_to_digits", "mnist_to_rotated", "mnist_to_inverted", "mnist_low_to_high"]

STYLE = {
    "figure.dpi": 100,
    "savefig.dpi": 160,
    "figure.constrained_layout.use": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "legend.frameon": False,
    "font.size": 10,
}


@contextlib.contextmanager
def styled() -> Iterator[None]:
    """Draw in the project's style inside the block.

    A notebook's backend is chosen with its first figure, hence inside, and turns the interactive mode on: that is kept on
    leaving, or no later figure would be shown.
    """
    with plt.rc_context(STYLE):
        yield
        interactive = plt.isinteractive()
    matplotlib.interactive(interactive)


def look(name: str) -> dict[str, Any]:
    """Colour and marker of an approach, everywhere the same; of one without its own, picked by its name, and hollow."""
    if name in COLOURS:
        return {"color": COLOURS[name], "marker": MARKERS[name]}
    spare, digest = sns.color_palette("dark", 10).as_hex(), zlib.crc32(name.encode())
    return {"color": spare[digest % 10], "marker": "os^vDP*"[digest // 10 % 7], "markerfacecolor": "white"}


def ordered(names: Sequence[str], order: Sequence[str]) -> list[str]:
    """`names` in the order of `order`; unknown ones last, by name."""
    return sorted(names, key=lambda n: (order.index(n) if n in order else len(order), n))


def short(pair: str) -> str:
    """The name of a pair as a title: of image folders the last part of each path."""
    sides = [Path(part).name for part in pair.split(":")]
    return " → ".join(sides[1:]) if len(sides) == 3 else pair


def save_figure(figure: Figure, name: str, profile: str = "default", folder: Path | None = None) -> list[Path]:
    """Write `figure` as PNG and PDF, the same bytes for the same figure; returns the paths."""
    folder = folder or paths.figures_dir(profile)
    folder.mkdir(parents=True, exist_ok=True)
    metadata = {"png": {"Software": None}, "pdf": {"Creator": None, "Producer": None, "CreationDate": None}}
    stem = re.sub(r"[^\w.+-]+", "_", name)  # a pair of image folders is named by their paths
    files = [folder / f"{stem}.{kind}" for kind in metadata]
    with styled():
        for file in files:
            figure.savefig(file, metadata=metadata[file.suffix[1:]])
    return files


def legend(figure: Figure, records: pd.DataFrame) -> None:
    """One legend for all panels, beside them: the approaches of `records`."""
    names = ordered(records["approach"].unique(), ORDER)
    lines = dict.fromkeys(BASELINES, ":") | dict.fromkeys(BOUNDS, "")
    handles = [plt.Line2D([], [], linestyle=lines.get(n, "-"), label=n, **look(n)) for n in names]
    figure.legend(handles=handles, loc="outside right center")


def within(axis: Axes, along: str, least: float = 10) -> None:
    """Limits in percent: what there is, where an interval may be wider; at least `least` points, lest noise fill the panel."""
    low, high = getattr(axis, f"get_{along}lim")()
    room = max(least - (high - low), 0) / 2
    getattr(axis, f"set_{along}lim")(max(low - room, -3), min(high + room, 103))
