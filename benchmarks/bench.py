"""What our own code costs, each measurement against its own reference within one run; `make bench` runs this.

Times are processor time of one thread. Beside a ratio stands its target, where there is one, and whether it was met.
"""

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

from benchmarks import interactive, layers, photographs, processes
from benchmarks.timing import COLUMNS, best_of, row
from maskutils.masks.information import fisher_information
from maskutils.masks.mask import Mask
from maskutils.masks.selection import highest
from maskutils.models.networks import build_model
from maskutils.models.parts import maskable


def measure() -> pd.DataFrame:
    """A row for each comparison: what, ours, the reference, and their ratio (below 1 is cheaper than the reference)."""
    torch.manual_seed(0)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        model, images = build_model("cnn"), torch.randn(32, 1, 28, 28)
        rows = [*processes.imports(), *processes.memory(), *layers.passes(), *layers.steps()]
        rows += [_selection(), _fisher(model, images), _file(model), *interactive.rows(), *photographs.transfers()]
    finally:
        torch.set_num_threads(threads)
    return pd.DataFrame(rows, columns=COLUMNS)


def _selection() -> list[str]:
    scores = torch.randn(512, 256)

    def sorted_whole() -> Tensor:  # the paper's code: sort all scores, then write zeros and ones
        mask, order = torch.empty_like(scores).flatten(), scores.flatten().sort().indices
        k = int(0.9 * scores.numel())
        mask[order[:k]], mask[order[k:]] = 0, 1
        return mask

    times = best_of(lambda: highest(scores, round(0.1 * scores.numel())), sorted_whole)
    return row("top tenth of 131,072 scores", *times, "a full sort, as in the edge-popup paper's code")


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

    times = best_of(lambda: fisher_information(model, data, len(images)), at_once, steps=1)
    return row(
        "exact Fisher of 32 images", *times, "the Jacobian of all images and classes at once, with 320 times its memory"
    )


def _file(model: nn.Module) -> list[str]:
    mask = Mask.from_scores({n: model.get_parameter(n).detach().abs() for n in maskable(model)}, 0.1)
    with TemporaryDirectory() as folder:
        ours, reference = Path(folder) / "mask.safetensors", Path(folder) / "weights.safetensors"
        mask.save(ours)
        save_file({n: model.get_parameter(n) for n in mask.bits}, reference)
        return row("a saved mask", ours.stat().st_size, reference.stat().st_size, "the weights it is of", "kB")


def main() -> None:
    """Print the table."""
    frame = measure()
    table = Table(
        *frame.columns, title="each line within one run, the best of several, one thread", title_justify="left"
    )
    for line in frame.itertuples(index=False):
        table.add_row(*map(str, line))
    console = Console(highlight=False)
    console.print(table)
    for reason in reasons(frame):
        console.print(reason)


def reasons(frame: pd.DataFrame) -> list[str]:
    """Why targets are missed that cannot be met: what random numbers take alone, and what masks take in a step, at each size."""
    missed = frame.loc[frame["met"].eq("no"), "what"].tolist()
    return [*_noise(frame, missed), *_in_a_step(frame.set_index("what"), missed)]


def _noise(frame: pd.DataFrame, missed: list[str]) -> list[str]:
    """Layers with noise, against a pass that draws none."""
    alone = frame[frame["what"].str.startswith("noise alone")]
    found = []
    for what, ratio in zip(alone["what"], alone["ratio"], strict=True):
        size = what.rpartition(", ")[2]
        if names := [n for n in missed if n.endswith(f"{size} weights") and n.startswith(layers.NOISY)]:
            found.append(
                f"Not met by {', '.join(names)}: they need a random number for each weight, and {what} takes {ratio} passes already."
            )
    return found


def _in_a_step(table: pd.DataFrame, missed: list[str]) -> list[str]:
    """Steps with masks on a deep network: a mask costs the same for one image as for many."""
    size = next(iter([n for n, (network, *_) in layers.NETWORKS.items() if network[0] == layers.DEEP[0]]), "")
    found = []
    for name in layers.COSTLIEST:
        step, masks = f"a step of {name}, {layers.DEEP[0]}", f"{name}, {size} weights"
        if step in missed and masks in table.index:
            alone, dense = table.loc[masks, "ours"], table.loc[step, "reference"]
            found.append(
                f"Not met by {step}: masks of {size} weights take {alone} alone, for one image as for many; {layers.BATCH} images take "
                f"{dense} without."
            )
    return found


if __name__ == "__main__":
    main()
