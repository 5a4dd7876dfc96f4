"""What a notebook costs in the batch, beside a loop over papermill's command and one over its function; a profile beside its bare steps.

`python -m benchmarks.batch` takes about five minutes of an idle machine: wall time counts here. The last sentence needs the results of
`make reproduce` on this machine. `python -m benchmarks.batch 1000` runs so many notebooks instead, for minutes: does a long batch grow?
"""

import contextlib
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
import psutil
import torch
import yaml

from benchmarks.layers import stepper
from benchmarks.timing import best_of
from maskutils.batch import kernels, plan
from maskutils.batch.local import environment
from maskutils.core import paths
from maskutils.core.approaches import names
from maskutils.core.files import file_digest, read_json, write_atomically, write_json
from maskutils.models.networks import build_model
from maskutils.results.records import load_records

FEW, MANY, WORKERS = 10, 40, 2  # notebooks, and how many run at once
LOOP = "import glob, papermill\nfor n in sorted(glob.glob('notebooks/*.ipynb'))[:{}]: papermill.execute_notebook(n, '/dev/null')"
REPRODUCE = ("-m", "maskutils", "reproduce", "--workers", str(WORKERS), "--profile")
KERNELS = """from jupyter_client.manager import start_new_kernel
for _ in range({}):
    manager, client = start_new_kernel(kernel_name="python3")
    client.stop_channels(), manager.shutdown_kernel(now=True)
"""
DONE = """from maskutils.batch import plan
from maskutils.study.provenance import told_by_linux
assert not any(plan.why({0!r}, run) for run in plan.make_plan({0!r}))
print(told_by_linux("/proc/self/status", "VmHWM").split()[0])
"""


def overhead() -> list[str]:
    """Lines of a table in Markdown: the seconds before the first notebook, and those of each further one, for each way to run them."""
    rows = ["| way | seconds before the first | seconds each |", "|---|---|---|"]
    with TemporaryDirectory() as folder:
        notebooks = project(Path(folder), MANY)
        ways = {
            f"maskutils reproduce, {WORKERS} workers": _batch,
            "papermill.execute_notebook in a loop": _loop,
            "papermill, the command, in a loop": _commands,
            "a bare kernel of the batch (a fork), started and ended in a loop": _kernels,
        }
        for what, way in ways.items():
            few, many = (way(folder, notebooks[:n]) for n in (FEW, MANY))
            each = (many - few) / (MANY - FEW)
            rows.append(f"| {what} | {few - FEW * each:.1f} | {each:.2f} |")
    return rows


def project(root: Path, n: int, code: str = "n + 1") -> list[str]:
    """Write `n` notebooks that run this `code`, by default next to nothing, into the project `root`; their names."""
    (root / "notebooks").mkdir()
    cells = [
        nbformat.v4.new_code_cell("n: int = 0", metadata={"tags": ["parameters"]}),
        nbformat.v4.new_code_cell(code),
    ]
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    made = [f"n{i:04}" for i in range(n)]
    for name in made:
        nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=kernel), root / "notebooks" / f"{name}.ipynb")
    return made


def profile_of(folder: str, notebooks: Sequence[str]) -> str:
    """Write a profile that runs the `notebooks` into `folder`; its file."""
    file = Path(folder, f"of_{len(notebooks)}.yaml")
    file.write_text(yaml.safe_dump({"description": "d", "runs": [{"notebook": list(notebooks)}]}), encoding="utf-8")
    return str(file)


def _batch(folder: str, notebooks: Sequence[str]) -> float:
    return seconds(folder, *REPRODUCE, profile_of(folder, notebooks))


def _loop(folder: str, notebooks: Sequence[str]) -> float:
    return seconds(folder, "-c", LOOP.format(len(notebooks)))


def _commands(folder: str, notebooks: Sequence[str]) -> float:
    return sum(seconds(folder, "-m", "papermill", f"notebooks/{name}.ipynb", os.devnull) for name in notebooks)


def _kernels(folder: str, notebooks: Sequence[str]) -> float:
    return seconds(folder, "-c", KERNELS.format(len(notebooks)), **kernels.chosen())


def seconds(folder: str, *arguments: str, **variables: str) -> float:
    """Wall time of a Python command in `folder`, with further environment `variables`."""
    begun = time.perf_counter()
    subprocess.run(
        [sys.executable, *arguments], cwd=folder, env=_at(folder) | variables, capture_output=True, check=True
    )
    return time.perf_counter() - begun


def _at(folder: str) -> dict[str, str]:
    return os.environ | {"MASKUTILS_ROOT": folder, "OMP_NUM_THREADS": "1"}


def planned(n: int) -> str:
    """A sentence: the time and the memory of a plan of `n` runs that are all done."""
    with TemporaryDirectory() as folder, environment(_at(folder)):
        profile = profile_of(folder, project(Path(folder), n))
        for run in plan.make_plan(profile):
            executed = paths.runs_dir(profile) / f"{run.id}.ipynb"
            write_atomically(executed, run.notebook.read_bytes())
            outputs = {f"runs/{executed.name}": file_digest(executed)}
            about = {"status": "done", "seconds": 1.0, "parts": run.parts, "outputs": outputs}
            write_json(plan.state_file(profile, run.id), about)
        begun = time.perf_counter()
        peak = subprocess.run([sys.executable, "-c", DONE.format(profile)], capture_output=True, text=True, check=True)
        took = time.perf_counter() - begun
    return f"A plan of {n:,} runs that are done takes {took:.1f} s and at most {int(peak.stdout) / 1024:.0f} MiB."


def many(n: int) -> list[str]:
    """Lines of a table: what a batch of `n` notebooks holds after its first runs, before its last, and at most."""
    seen = []
    with TemporaryDirectory() as folder:
        profile = profile_of(folder, project(Path(folder), n))
        batch = psutil.Popen([sys.executable, *REPRODUCE, profile], env=_at(folder), stdout=subprocess.DEVNULL)
        while batch.poll() is None:
            done = len(list(Path(folder, "results").glob("*/runs/*.json")))
            if WORKERS < done < n:
                seen.append((done, *_held(batch)))
            time.sleep(1)
    rows = ["| runs done | MiB | open files | processes |", "|---|---|---|---|"]
    rows += [f"| {done} | {memory} | {files} | {processes} |" for done, memory, files, processes in (seen[0], seen[-1])]
    return [*rows, "| at most | {} | {} | {} |".format(*(max(column) for column in list(zip(*seen, strict=True))[1:]))]


def _held(batch: psutil.Process) -> tuple[int, int, int]:
    """MiB of memory (what is shared counts once), open files and number of the processes of a batch."""
    found = []
    for process in (batch, *batch.children(recursive=True)):
        with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):  # it has ended
            found.append((process.memory_full_info().pss, process.num_fds()))
    return sum(pss for pss, _ in found) >> 20, sum(files for _, files in found), len(found)


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
    if len(sys.argv) > 1:
        print(*many(int(sys.argv[1])), sep="\n")
        sys.exit()
    print(*overhead(), planned(1000), sep="\n")
    os.environ["MASKUTILS_LOCAL"] = "1"
    if (paths.results_dir("default") / "manifest.json").exists():
        print(bare())
