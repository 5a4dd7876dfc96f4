"""What a run will take, before it runs.

Owns the estimates of `maskutils plan` and of the progress line: measured where a run has been done before, else scaled from the
committed `default` profile by the steps that it takes and the arithmetic of its network.
"""

import contextlib
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from maskutils.batch import plan
from maskutils.batch.plan import Run
from maskutils.core import paths
from maskutils.core.files import DamagedFile, read_json
from maskutils.models.networks import build_model
from maskutils.study.setup import Images

SIDES = {
    "cifar10": 32,
    "svhn": 32,
    "imagenet": 224,
    "folders": 224,
}  # pixels, by the source of a pair; 28 for all others
UNKNOWN = 30.0  # seconds of a notebook of which nothing is known
START = 8.0  # seconds that a kernel, its imports and its figures take whatever it computes
STEP = 0.005  # seconds of a step beside the arithmetic of the network: its images, optimiser and Python
# Operations a second to reckon with: what large networks reach on one core, and on a usual GPU in mixed precision.
CORE, GPU = 5e10, 2e13


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
            state = read_json(plan.state_file(profile, run.id))
            if state["status"] == "done":
                known[run.id] = max(state["seconds"], known.get(run.id, 0.0))
    return known


def _manifest(profile: str) -> list[dict[str, Any]]:
    with contextlib.suppress(FileNotFoundError, DamagedFile, KeyError):
        return read_json(paths.results_dir(profile) / "manifest.json")["runs"]
    return []


def longest_paths(profile: str, runs: Sequence[Run]) -> dict[str, float]:
    """Seconds from the start of each of `runs`, in an order in which they can run, to the end of the longest chain that follows it."""
    seconds, found = expected_seconds(profile, runs), {}
    for run in reversed(runs):
        found[run.id] = seconds[run.id] + max((found[r.id] for r in runs if run.id in r.after), default=0.0)
    return found


def _rates() -> dict[str, float]:
    """How many times its `work` on one core a notebook took in the committed `default` profile, by notebook."""
    return {
        row["id"].split("-")[0]: max(row["seconds"] - START, 1.0) / work(row["parameters"], CORE)
        for row in _manifest("default")
        if "target_steps" in row["parameters"]
    }


def _estimate(run: Run, rates: Mapping[str, float]) -> float:
    if not rates or "target_steps" not in run.parameters:
        return UNKNOWN
    rate = rates.get(run.notebook.stem) or max(rates.values())
    try:
        return START + rate * work(run.parameters, GPU if torch.cuda.is_available() else CORE)
    except (RuntimeError, AssertionError, ValueError, KeyError):  # a size that the network does not take
        return UNKNOWN


def work(parameters: Mapping[str, Any], throughput: float) -> float:
    """Seconds of the target's steps of a notebook with `parameters`, at `throughput` operations a second."""
    return steps(parameters) * (STEP + arithmetic(parameters) / throughput)


def steps(parameters: Mapping[str, Any]) -> float:
    """Optimiser steps that a notebook with `parameters` takes, to a factor that is the same for all its runs."""
    ways = len(parameters.get("densities", [0])) * max(1, len(parameters.get("rankings", [0])))
    return parameters["target_steps"] * len(parameters["seeds"]) * ways


def arithmetic(parameters: Mapping[str, Any]) -> float:
    """Floating point operations of one step: forward and twice as many backward, for a batch."""
    source = str(parameters["pair"]).replace(":", "_").split("_")[0]
    side = Images(**parameters.get("images") or {}).size or SIDES.get(source, 28)  # older manifests have text, empty
    return 3 * parameters.get("batch_size", 32) * flops(parameters["model"], 3 if source in SIDES else 1, side)


@cache
def flops(model: str, channels: int, side: int) -> int:
    """Floating point operations of one image through the network `model`; nothing is computed for it."""
    with torch.device("meta"):
        network = build_model(model, 10, channels, side).eval()
        with FlopCounterMode(display=False) as counter:
            network(torch.empty(1, channels, side, side))
    return counter.get_total_flops()
