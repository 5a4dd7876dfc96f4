"""What is measured in a fresh process each: memory, since freed memory stays with a process, and imports, which happen once.

As a script: `python benchmarks/processes.py masked 16 32` prints the bytes that one kind of training takes, on 16 images of 32 pixels.
"""

import copy
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import torch

from benchmarks.layers import masked, stepper
from benchmarks.timing import row
from maskutils.masks.mask import Mask
from maskutils.masks.protection import protect
from maskutils.models.networks import build_model
from maskutils.models.parts import maskable
from maskutils.study.provenance import begin_peak, peak_bytes

NETWORK, IMAGES, ROUNDS = ("resnet18", 10, 3, 32), (16, 32), 2
IMPORTS = {"ours": "import maskutils; maskutils.protect", "torch": "import torch"}


def memory() -> list[list[str]]:
    """Memory that training takes in all: scores of a mask, and weights under protection, against weights alone.

    Where the kernel tells the peak since a moment (Linux); no rows elsewhere.
    """
    if not begin_peak():
        return []
    model = build_model(*NETWORK)
    copies = (
        4 * sum(model.get_parameter(n).numel() for n in maskable(model)),
        4 * sum(p.numel() for p in model.parameters()),
    )
    dense, scores, held = (int(_python(str(Path(__file__)), kind, *map(str, IMAGES))) for kind in KINDS)
    what = f"memory of {{}}, {NETWORK[0]}"
    return [
        row(what.format("learning a gumbel_sigmoid mask"), scores, dense, "training the dense network", "MB"),
        row(
            what.format("learning a gumbel_sigmoid mask"),
            scores,
            dense + 3 * copies[0],
            "and three copies of the weights",
            "MB",
            1.0,
        ),
        row(what.format("training under protect"), held, dense, "training the dense network", "MB"),
        row(what.format("training under protect"), held, dense + copies[1], "and one copy of what is held", "MB", 1.0),
    ]


def imports() -> list[list[str]]:
    """Seconds until `protect` is there, against those until torch is; the best of several that alternate."""
    code = "import time; begun = time.process_time(); {}; print(time.process_time() - begun)"
    times = {name: [] for name in IMPORTS}
    for _ in range(ROUNDS):
        for name, statement in IMPORTS.items():
            times[name].append(float(_python("-c", code.format(statement))))
    return [row(IMPORTS["ours"], min(times["ours"]), min(times["torch"]), IMPORTS["torch"], "s", 1.15)]


def _python(*arguments: str) -> str:
    path = os.pathsep.join([str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
    command, environment = [sys.executable, *arguments], os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout


def _grown(kind: str, n: int, side: int) -> int:
    """Bytes that this process grows by at most during two steps."""
    model, images, labels = build_model(*NETWORK), torch.randn(n, 3, side, side), torch.arange(n) % 10
    begin_peak()
    before = peak_bytes()
    KINDS[kind](model, images, labels)
    return peak_bytes() - before


def _dense(model: torch.nn.Module, images: torch.Tensor, labels: torch.Tensor) -> None:
    own = copy.deepcopy(model)
    _twice(stepper(own, list(own.parameters()), images, labels))


def _masked(model: torch.nn.Module, images: torch.Tensor, labels: torch.Tensor) -> None:
    _twice(masked(model, "gumbel_sigmoid", images, labels))


def _protected(model: torch.nn.Module, images: torch.Tensor, labels: torch.Tensor) -> None:
    own = copy.deepcopy(model).eval()
    sizes = {n: own.get_parameter(n).detach().abs() for n in maskable(own)}
    mask = Mask(Mask.from_scores(sizes, 0.1).bits)  # without scores, which protection does not need
    del sizes
    with protect(own, mask):
        _twice(stepper(own, list(own.parameters()), images, labels))


def _twice(step: Callable[[], None]) -> None:
    step()
    step()


KINDS = {"dense": _dense, "masked": _masked, "protected": _protected}

if __name__ == "__main__":
    print(_grown(sys.argv[1], *map(int, sys.argv[2:])))
