"""What a notebook costs in the batch, beside a loop over papermill's command and one over its function; a profile beside its bare steps.

`python -m benchmarks.batch` takes about five minutes of an idle machine: wall time counts here. The second table needs the results of
`make reproduce` on this machine.
"""

import multiprocessing
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory

import nbformat
import torch
import yaml

from benchmarks.layers import stepper
from benchmarks.timing import best_of
from maskutils.core import paths
from maskutils.core.approaches import names
from maskutils.core.files import read_json
from maskutils.models.networks import build_model
from maskutils.results.records import load_records

FEW, MANY, WORKERS = 10, 40, 2  # notebooks, and how many run at once
LOOP = "import glob, papermill\nfor n in sorted(glob.glob('notebooks/*.ipynb'))[:{}]: papermill.execute_notebook(n, '/dev/null')"


def overhead() -> list[str]:
    """Lines of a table in Markdown: the seconds before the first notebook, and those of each further one, for each way to run them."""
    rows = ["| way | seconds before the first | seconds each |", "|---|---|---|"]
    with TemporaryDirectory() as folder:
        notebooks = _project(Path(folder), MANY)
        ways = {
            f"maskutils reproduce, {WORKERS} workers": _batch,
            "papermill.execute_notebook in a loop": _loop,
            "papermill, the command, in a loop": _commands,
        }
        for what, way in ways.items():
            few, many = (way(folder, notebooks[:n]) for n in (FEW, MANY))
            each = (many - few) / (MANY - FEW)
            rows.append(f"| {what} | {few - FEW * each:.1f} | {each:.2f} |")
    return rows


def _project(root: Path, n: int) -> list[str]:
    """Write `n` notebooks that compute nothing into the project `root`; their names."""
    (root / "notebooks").mkdir()
    cells = [
        nbformat.v4.new_code_cell("n: int = 0", metadata={"tags": ["parameters"]}),
        nbformat.v4.new_code_cell("n + 1"),
    ]
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    made = [f"n{i:03}" for i in range(n)]
    for name in made:
        nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=kernel), root / "notebooks" / f"{name}.ipynb")
    return made


def _batch(folder: str, notebooks: Sequence[str]) -> float:
    profile = Path(folder, f"of_{len(notebooks)}.yaml")
    profile.write_text(
        yaml.safe_dump({"description": "trivial", "runs": [{"notebook": list(notebooks)}]}), encoding="utf-8"
    )
    return seconds(folder, "-m", "maskutils", "reproduce", "--profile", str(profile), "--workers", str(WORKERS))


def _loop(folder: str, notebooks: Sequence[str]) -> float:
    return seconds(folder, "-c", LOOP.format(len(notebooks)))


def _commands(folder: str, notebooks: Sequence[str]) -> float:
    return sum(seconds(folder, "-m", "papermill", f"notebooks/{name}.ipynb", os.devnull) for name in notebooks)


def seconds(folder: str, *arguments: str) -> float:
    """Wall time of a Python command in `folder`."""
    begun, environment = time.perf_counter(), os.environ | {"MASKUTILS_ROOT": folder, "OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, *arguments], cwd=folder, env=environment, capture_output=True, check=True)
    return time.perf_counter() - begun


def bare(profile: str = "default") -> str:
    """A sentence: how long the kernels of `profile` took in all, and as many bare training steps of the small network.

    A step is one of 32 images. Masks are learnt from 64, which counts as two.
    """
    manifest = read_json(paths.results_dir(profile) / "manifest.json")
    records = load_records(profile)
    trained = records[(records["alpha"] == 1) & ~records["rewound"].astype(bool)]
    masks = trained[trained["method"].isin(names("mask"))].drop_duplicates(["pair", "seed", "method"])
    sources = trained.drop_duplicates(["pair", "seed"])
    steps = trained["target_steps"].sum() + 2 * masks["mask_steps"].sum() + sources["source_steps"].sum()
    one, took = bare_step(), manifest["kernel_seconds"]
    return (
        f"`{profile}`: its kernels took {took / 60:.1f} minutes in all, for at least {steps:,.0f} training steps; as many bare steps of "
        f"{1e3 * one:.1f} ms, {WORKERS} at once, take {steps * one / 60:.1f} ({took / (steps * one):.1f} times)."
    )


def bare_step() -> float:
    """Seconds of a training step of the small network, in as many processes at once as the batch has workers."""
    with ProcessPoolExecutor(WORKERS, multiprocessing.get_context("spawn")) as pool:
        return sum(pool.map(_steps, [2000] * WORKERS)) / WORKERS


def _steps(n: int) -> float:
    torch.set_num_threads(1)
    model, images, labels = build_model("cnn"), torch.randn(32, 1, 28, 28), torch.arange(32) % 10
    return best_of(stepper(model, list(model.parameters()), images, labels), repeats=1, steps=n)[0]


if __name__ == "__main__":
    torch.set_num_threads(1)
    print(*overhead(), sep="\n")
    os.environ["MASKUTILS_LOCAL"] = "1"
    if (paths.results_dir("default") / "manifest.json").exists():
        print(bare())
