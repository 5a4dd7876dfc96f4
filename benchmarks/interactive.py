"""What somebody at JupyterLab waits for: another mask in the explorer, and a step of a small network."""

import os
import time

import torch

from benchmarks.layers import stepper
from benchmarks.timing import best_of, row
from maskutils.models.networks import build_model
from maskutils.study.explorer import Masked
from maskutils.study.setup import Setup
from maskutils.training.evaluation import evaluate

SMALL = Setup(source_steps=20, target_steps=20)


def rows() -> list[list[str]]:
    """The explorer's answer to its density slider, beside the reading of both test sets alone; and torch's usual threads beside one."""
    masked = Masked(SMALL, ["magnitude"])

    def read() -> None:
        for domain in (masked.pair.source, masked.pair.target):
            evaluate(masked.network, domain.test)

    answers = best_of(lambda: masked.state("magnitude", 0.3), read, steps=1)
    return [row("another density in the explorer", *answers, "reading both test sets alone"), _threads()]


def _threads() -> list[str]:
    """Wall time, for threads wait for each other: fewer cores are free where something else runs, and the ratio is then larger."""
    model, images, labels = build_model("cnn"), torch.randn(32, 1, 28, 28), torch.arange(32) % 10
    one, cores = stepper(model, list(model.parameters()), images, labels), os.cpu_count() or 1

    def many() -> None:
        torch.set_num_threads(cores)
        one()
        torch.set_num_threads(1)

    times = best_of(many, one, clock=time.perf_counter)
    return row(
        f"a step of cnn with {cores} threads, wall time", *times, "one thread, as `fit` takes for a small network"
    )
