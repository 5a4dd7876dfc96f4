"""How long a run will take: what it took before, else in proportion to a similar run, else from one measured training step."""

import contextlib
import math
import time
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

from maskutils.batch import plan
from maskutils.batch.plan import Run
from maskutils.batch.profile import profiles
from maskutils.core import paths
from maskutils.core.checks import BadSetting
from maskutils.core.files import DamagedFile, read_json
from maskutils.results.manifest import MANIFEST
from maskutils.study.inputs import listed, packaged

UNKNOWN_SECONDS = 30.0  # of a notebook of which nothing is known
START = 8.0  # seconds of a notebook's kernel, imports and figures, whatever it trains
STEP = 0.002  # seconds of a training step outside the network: its images, the optimiser and Python
ENOUGH = 0.5  # seconds that a measured step may take
DECIDING = ("pair", "model", "images", "batch_size")  # parameters that decide how long a step takes
TRIED = ("seeds", "densities", "rankings", "lrs", "settings", "pairs")  # lists of which each value is trained for
USUAL_APPROACHES = 20  # that a notebook runs where none are `chosen`

Network = tuple[str, int, int, int]  # name, channels, pixels a side, images a step


def expected_seconds(profile: str, runs: Sequence[Run]) -> dict[str, float]:
    """Seconds of each run, as its last time in `profile` if that trained as much; else an estimate, which may measure for two seconds."""
    last = _last(profile)
    rows = [*last.values(), *(row for name in profiles() for row in _manifest(name))]
    return {run.id: _again(run, last.get(run.id)) or _estimate(run, rows) for run in runs}


def longest_paths(profile: str, runs: Sequence[Run]) -> dict[str, float]:
    """Seconds from the start of each of `runs`, in an order in which they can run, to the end of the longest chain that follows it."""
    seconds, found = expected_seconds(profile, runs), dict.fromkeys((run.id for run in runs), 0.0)
    for run in reversed(runs):
        found[run.id] += seconds[run.id]
        for before in found.keys() & run.after:
            found[before] = max(found[before], found[run.id])
    return found


def _last(profile: str) -> dict[str, dict[str, Any]]:
    """Id, seconds and parameters of the runs that were done before, by their state or, where that is gone, by the manifest."""
    found = {row["id"]: row for row in _manifest(profile)}
    for file in sorted(paths.runs_dir(profile).glob("*.json")):
        state = plan.read_state(file)
        with contextlib.suppress(KeyError, TypeError):
            if state["status"] == "done":
                found[file.stem] = {
                    "id": file.stem,
                    "seconds": state["seconds"],
                    "parameters": state["parts"]["parameters"],
                }
    return found


def _again(run: Run, row: Mapping[str, Any] | None) -> float | None:
    """The seconds of `row`, the last time of `run`, if that took as many steps of the same kind."""
    if row is None:
        return None
    mine, last = ([steps(p), *map(p.get, DECIDING)] for p in (run.parameters, row["parameters"]))
    return row["seconds"] if mine == last else None


def _manifest(profile: str) -> list[dict[str, Any]]:
    """The runs of the last manifest of `profile`, else those of the committed one."""
    for folder in (paths.results_dir(profile), paths.committed_results(profile)):
        with contextlib.suppress(FileNotFoundError, DamagedFile, KeyError, TypeError):
            runs: list[dict[str, Any]] = read_json(folder / MANIFEST)["runs"]
            whole = [row for row in runs if isinstance(row, dict) and {"id", "seconds", "parameters"} <= row.keys()]
            return [row for row in whole if isinstance(row["parameters"], dict)]
    return []


def _estimate(run: Run, rows: Sequence[Mapping[str, Any]]) -> float:
    """Scaled from the run in `rows` of the same notebook that is most like `run`; without one, its steps at the measured pace."""
    mine, work = _network(run.parameters), steps(run.parameters)
    same = [row for row in rows if f"{row['id']}-".startswith(f"{run.notebook.stem}-")]
    if same and not work:  # what decides its time is not known; the rows of this profile stand first
        return float(same[0]["seconds"])
    same = [row for row in same if steps(row["parameters"])]
    if not (same and work):
        return START + work * step_seconds(mine) if mine and work else UNKNOWN_SECONDS

    def unlike(row: Mapping[str, Any]) -> tuple[bool, float]:
        return _network(row["parameters"]) != mine, abs(math.log(steps(row["parameters"]) / work))

    row = min(same, key=unlike)
    ratio, other = work / steps(row["parameters"]), _network(row["parameters"])
    if mine and other and mine != other:
        ratio *= step_seconds(mine) / step_seconds(other)
    return START + max(float(row["seconds"]) - START, 1.0) * ratio


def steps(parameters: Mapping[str, Any]) -> float:
    """Optimiser steps that a notebook with `parameters` takes, to a factor that all its runs share; 0 if unknown."""
    ways: list[float] = [max(1, len(listed(parameters, name))) for name in TRIED]
    if isinstance(chosen := parameters.get("chosen"), list):
        ways.append(len(chosen) or USUAL_APPROACHES)
    ways.append(_number(parameters.get("grid", 1)))  # values of the knob of each
    target, mask = (_number(parameters.get(name)) for name in ("target_steps", "mask_steps"))
    return float((target or sum(map(_number, listed(parameters, "steps"))) or mask) * math.prod(ways))


def _number(value: Any) -> float:
    """`value` if it is a number, else 0: a notebook of one's own may have what it likes by these names."""
    return value if isinstance(value, int | float) else 0


def _network(parameters: Mapping[str, Any]) -> Network | None:
    """What decides how long a step takes; None where the parameters do not say it. No image is read."""
    from maskutils.study.artefacts import loading  # here and below, for torch is not needed where all has run before
    from maskutils.study.setup import setup_in

    if not {"pair", "model"} <= parameters.keys():
        return None
    try:
        setup = setup_in(parameters)
        how = loading(setup)
    except BadSetting:  # a manifest of an older version
        return None
    shape = (1, 28) if setup.pair in packaged() else (how.channels or 3, how.size or (224 if how.transform else 32))
    return setup.model, *shape, setup.batch_size


@cache
def step_seconds(network: Network) -> float:
    """Seconds of one training step of `network` on this machine; of a large one, a part of a batch is measured.

    `STEP` alone for a network that does not take images of that size.
    """
    import torch
    from torch.nn import functional as F

    from maskutils.models.networks import build_model

    model, channels, side, batch = network
    device = "cuda" if torch.cuda.is_available() else "cpu"

    def seconds(images: int) -> float:
        x, begun = torch.ones(images, channels, side, side, device=device), time.perf_counter()
        F.cross_entropy(built(x), torch.zeros(images, dtype=torch.long, device=device)).backward()
        if device == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - begun

    few = min(2, batch)  # norm layers need two
    try:
        built = build_model(model, 10, channels, side).to(device)
        first = min(seconds(few), seconds(few))  # the first one warms up
        images = max(few, min(batch, int(few * ENOUGH / first)))
        return STEP + min(seconds(images), seconds(images)) * batch / images
    except (RuntimeError, ValueError):
        return STEP
