"""What our own code costs, each measurement against its own reference within one run.

Owns the comparisons that the README states: masked against dense, protected against free, ours against the textbook formula.
"""

import copy
import gc
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import pandas as pd
import torch
from rich.console import Console
from rich.table import Table
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.func import functional_call, jacrev, vmap
from torch.nn import functional as F

from maskutils.masks.layers import LAYERS, attach
from maskutils.masks.layers.base import StraightThrough, top_fraction
from maskutils.masks.mask import Mask
from maskutils.masks.protection import protect
from maskutils.masks.rankings import fisher_information
from maskutils.models.networks import build_model
from maskutils.models.parts import maskable
from maskutils.study.provenance import begin_peak, peak_bytes

REPEATS, STEPS = 7, 30


def measure() -> pd.DataFrame:
    """A row for each comparison: what, ours, the reference, and their ratio (below 1 is cheaper than the reference)."""
    torch.manual_seed(0)
    model, images, labels = build_model("cnn"), torch.randn(32, 1, 28, 28), torch.randint(10, (32,))
    rows = [
        *_layers(model, images, labels),
        _protection(model, images, labels),
        _selection(),
        _fisher(model, images),
        _file(model),
        *_memory(),
    ]
    return pd.DataFrame(rows, columns=["what", "ours", "reference", "is", "ratio"])


def _row(what: str, ours: float, reference: float, kind: str, unit: str = "ms") -> list[str]:
    factor = {"ms": 1e3, "kB": 1e-3, "MB": 1e-6}[unit]
    return [what, f"{factor * ours:.3g} {unit}", f"{factor * reference:.3g} {unit}", kind, f"{ours / reference:.2f}"]


def _interleaved(
    ours: Callable[[], object], reference: Callable[[], object], steps: int = STEPS
) -> tuple[float, float]:
    """Seconds of one call of each: the best of several rounds that alternate, so that the machine's moods meet both."""
    best = [float("inf")] * 2
    for _ in range(REPEATS):
        for i, call in enumerate((ours, reference)):
            begun = time.perf_counter()
            for _ in range(steps):
                call()
            best[i] = min(best[i], (time.perf_counter() - begun) / steps)
    return best[0], best[1]


def _stepper(model: nn.Module, params: list[nn.Parameter], images: Tensor, labels: Tensor) -> Callable[[], None]:
    optim = torch.optim.Adam(params, 1e-3, fused=True)

    def step() -> None:
        optim.zero_grad()
        F.cross_entropy(model(images), labels).backward()
        optim.step()

    return step


def _layers(model: nn.Module, images: Tensor, labels: Tensor) -> list[list[str]]:
    """One training step of the scores of each layer, against one of the dense network."""
    rows = []
    for name in LAYERS:
        masked, dense = copy.deepcopy(model).requires_grad_(False), copy.deepcopy(model)
        scores = [layer.scores for layer in attach(masked, name).values()]
        steppers = _stepper(masked, scores, images, labels), _stepper(dense, list(dense.parameters()), images, labels)
        rows.append(_row(f"a step of {name}", *_interleaved(*steppers), "a step of the dense network"))
    return rows


def _protection(model: nn.Module, images: Tensor, labels: Tensor) -> list[str]:
    held, free = copy.deepcopy(model), copy.deepcopy(model)
    mask = Mask.from_scores({n: held.get_parameter(n).detach().abs() for n in maskable(held)}, 0.1)
    steps = [_stepper(m, list(m.parameters()), images, labels) for m in (held, free)]

    def protected() -> None:
        for _ in range(STEPS):
            steps[0]()

    def unprotected() -> None:
        for _ in range(STEPS):
            steps[1]()

    def in_block() -> None:
        with protect(held, mask):
            protected()

    ours, reference = _interleaved(in_block, unprotected, 1)
    return _row("a step under protect", ours / STEPS, reference / STEPS, "a free step")


def _selection() -> list[str]:
    scores = torch.randn(512, 256)

    def sorted_whole() -> Tensor:  # the paper's code: sort all scores, then write zeros and ones
        mask, order = torch.empty_like(scores).flatten(), scores.flatten().sort().indices
        k = int(0.9 * scores.numel())
        mask[order[:k]], mask[order[k:]] = 0, 1
        return mask

    times = _interleaved(lambda: StraightThrough.apply(scores, top_fraction(scores, 0.1)), sorted_whole)
    return _row("top tenth of 131,072 scores", *times, "a full sort, as in the edge-popup paper's code")


def _fisher(model: nn.Module, images: Tensor) -> list[str]:
    data = torch.utils.data.TensorDataset(images, torch.zeros(len(images), dtype=torch.long))
    theta = {name: p.detach() for name, p in model.named_parameters()}

    def log_probabilities(theta: dict[str, Tensor], image: Tensor) -> Tensor:
        return F.log_softmax(functional_call(model, theta, (image[None],))[0], dim=0)

    jacobian = vmap(jacrev(log_probabilities), in_dims=(None, 0))

    def at_once() -> dict[str, Tensor]:
        with torch.no_grad():
            p = model(images).softmax(1) / len(images)
        return {n: torch.einsum("nc,ncw->w", p, j.flatten(2).square()) for n, j in jacobian(theta, images).items()}

    times = _interleaved(lambda: fisher_information(model, data, len(images)), at_once, 1)
    return _row(
        "exact Fisher of 32 images", *times, "the Jacobian of all images and classes at once, with 320 times its memory"
    )


def _file(model: nn.Module) -> list[str]:
    mask = Mask.from_scores({n: model.get_parameter(n).detach().abs() for n in maskable(model)}, 0.1)
    with TemporaryDirectory() as folder:
        ours, reference = Path(folder) / "mask.safetensors", Path(folder) / "weights.safetensors"
        mask.save(ours)
        save_file({n: model.get_parameter(n) for n in mask.bits}, reference)
        return _row("a saved mask", ours.stat().st_size, reference.stat().st_size, "the weights it is of", "kB")


def _memory() -> list[list[str]]:
    """Memory that training takes in all, of a ResNet-18: scores of a mask, and weights under protection, against weights alone.

    Where the kernel tells the peak since a moment (Linux); no rows elsewhere.
    """
    if not begin_peak():
        return []
    model, images, labels = build_model("resnet18", 10, 3, 32), torch.randn(16, 3, 32, 32), torch.arange(16) % 10

    def dense() -> None:
        own = copy.deepcopy(model)
        _twice(_stepper(own, list(own.parameters()), images, labels))

    def masked() -> None:
        own = copy.deepcopy(model).requires_grad_(False)
        _twice(_stepper(own, [layer.scores for layer in attach(own, "gumbel_sigmoid").values()], images, labels))

    def protected() -> None:
        own = copy.deepcopy(model)
        step = _stepper(own, list(own.parameters()), images, labels)
        with protect(
            own.eval(), Mask.from_scores({n: own.get_parameter(n).detach().abs() for n in maskable(own)}, 0.1)
        ):
            _twice(step)

    reference = _grown(dense)
    named = {"learning a gumbel_sigmoid mask": masked, "training under protect": protected}
    what = "memory of {}, ResNet-18"
    return [
        _row(what.format(n), _grown(call), reference, "training the dense network", "MB") for n, call in named.items()
    ]


def _twice(step: Callable[[], None]) -> None:
    step()
    step()


def _grown(call: Callable[[], None]) -> float:
    """Bytes that this process grows by at most during `call`."""
    gc.collect()
    begin_peak()
    before = peak_bytes()
    call()
    return float(peak_bytes() - before)


def main() -> None:
    """Print the table."""
    frame = measure()
    table = Table(*frame.columns, title="each line within one run, the best of several", title_justify="left")
    for row in frame.itertuples(index=False):
        table.add_row(*map(str, row))
    Console(highlight=False).print(table)


if __name__ == "__main__":
    main()
