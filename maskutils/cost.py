"""What a run will take, before it runs.

Owns the estimates of `maskutils plan` and of the progress line: measured where a run has been done before, else scaled from the
committed `default` profile by the work that it asks for.
"""

import contextlib
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from maskutils import paths, plan, records
from maskutils.config import options
from maskutils.files import DamagedFile
from maskutils.models import build_model
from maskutils.plan import Run

SIDES = {
    "cifar10": 32,
    "svhn": 32,
    "imagenet": 224,
    "folders": 224,
}  # pixels, by the source of a pair; 28 for all others
UNKNOWN = 30.0  # seconds of a notebook of which nothing is known
START = 8.0  # seconds that a kernel, its imports and its figures take whatever it computes


def expected_seconds(profile: str, runs: Sequence[Run]) -> dict[str, float]:
    """Seconds that each run takes with an empty cache: as measured last, or else estimated for a machine like that of `default`."""
    measured = measured_seconds(profile, runs)
    rates = _rates()
    return {run.id: measured.get(run.id) or _estimate(run, rates) for run in runs}


def measured_seconds(profile: str, runs: Sequence[Run]) -> dict[str, float]:
    """Seconds of the runs that were done: from the manifest or the last state, whichever says more (a cache makes it less)."""
    known = {row["id"]: row["seconds"] for row in _manifest(profile)}
    for run in runs:
        with contextlib.suppress(FileNotFoundError, DamagedFile, KeyError, TypeError):
            state = records.read_json(plan.state_file(profile, run.id))
            if state["status"] == "done":
                known[run.id] = max(state["seconds"], known.get(run.id, 0.0))
    return known


def _manifest(profile: str) -> list[dict[str, Any]]:
    with contextlib.suppress(FileNotFoundError, DamagedFile, KeyError):
        return records.read_json(paths.results_dir(profile) / "manifest.json")["runs"]
    return []


def _rates() -> dict[str, float]:
    """Seconds for a unit of work, by notebook, from the committed `default` profile."""
    rows = [(row["id"].split("-")[0], row) for row in _manifest("default")]
    return {
        name: max(row["seconds"] - START, 1.0) / work(row["parameters"])
        for name, row in rows
        if "target_steps" in row["parameters"]
    }


def _estimate(run: Run, rates: Mapping[str, float]) -> float:
    rate = rates.get(run.notebook.stem)
    return UNKNOWN if rate is None or "target_steps" not in run.parameters else START + rate * work(run.parameters)


def work(parameters: Mapping[str, Any]) -> float:
    """Floating point operations that a notebook with `parameters` asks for, to a factor that is the same for all its runs."""
    images = parameters["target_steps"] * parameters.get("batch_size", 32)
    transfers = (
        len(parameters["seeds"]) * len(parameters.get("densities", [0])) * max(1, len(parameters.get("rankings", [0])))
    )
    source = str(parameters["pair"]).replace(":", "_").split("_")[0]
    side = options(parameters.get("images", "")).get("size") or SIDES.get(source, 28)
    return images * transfers * flops(parameters["model"], 3 if source in SIDES else 1, int(side))


@cache
def flops(model: str, channels: int, side: int) -> int:
    """Floating point operations of one image through the network `model`; nothing is computed for it."""
    with torch.device("meta"):
        network = build_model(model, 10, channels, side).eval()
        with FlopCounterMode(display=False) as counter:
            network(torch.empty(1, channels, side, side))
    return counter.get_total_flops()
