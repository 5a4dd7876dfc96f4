"""What a worker process does: it executes one notebook in a kernel of its own, says where it is, and why it failed."""

import functools
import logging
import os
import re
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import filelock

from maskutils import __version__
from maskutils.batch import kernels
from maskutils.batch.cluster import GPUS, temporary_folder
from maskutils.batch.local import environment
from maskutils.batch.notebooks import cell_name, clipped
from maskutils.batch.plan import Run, lock_name
from maskutils.core.caches import USES
from maskutils.core.files import naming
from maskutils.results.written import WRITES, written
from maskutils.study.provenance import machine, told_by_linux

ANSI = re.compile(r"\x1b\[[0-9;]*m")  # of colours
CHAINED = re.compile("The above exception was the direct cause|During handling of the above exception")
LONGEST_ERROR, LONGEST_OUTPUT = 2_000, 1_000_000  # characters of an error and of an output that are kept
Tell = Callable[[dict[str, Any]], None]


def execute(
    run: Run, folder: Path, timeout: int, variables: Mapping[str, str], topic: str, commit: str
) -> dict[str, Any]:
    """Execute one notebook in a kernel of its own; returns its state. Runs in a worker process, wherever that is.

    `variables` is our `paths.variables`, `timeout` the seconds that a cell may take, `commit` that of the batch: a worker may
    have begun days ago. The executed notebook is left in `folder` as `<id>.ipynb`, or as `<id>.failed.ipynb` with the error in it. Dask's
    `topic` hears where it is. Only one worker at a time has a run: another one, of a batch that was killed, is waited for.
    """
    from distributed import get_worker

    # Dask sets 64 KiB for its workers; a kernel that inherits it gives back its memory and faults it in again at every step.
    os.environ.pop("MALLOC_TRIM_THRESHOLD_", None)
    os.environ.update(variables)
    output = Path(run.parameters["output"]) if "output" in run.parameters else None
    partial, failed, final = (folder / f"{run.id}{kind}.ipynb" for kind in (".partial", ".failed", ""))
    tell = functools.partial(get_worker().log_event, topic)
    with naming(folder), filelock.FileLock(folder / lock_name(run.id), poll_interval=0.5):  # which makes the folder
        tell({"event": "started", "run": run.id})
        begun = time.time()
        uses = folder / f"{run.id}.uses"
        uses.write_text("")  # this file, the next one and the output are of an earlier time
        uses.with_suffix(WRITES).unlink(missing_ok=True)
        if output:
            output.unlink(missing_ok=True)
        with environment({USES: str(uses)} | own_gpu()):  # the kernel inherits it
            error = _run(run, partial, timeout, tell)
        if not error and output and not output.is_file():
            error = f"it did not write {output}; end the notebook with records.save_records(table, output)"
        executed, stale = (failed, final) if error else (final, failed)
        os.replace(partial, executed)
        stale.unlink(missing_ok=True)
    state = {"status": "failed", "error": error} if error else {"status": "done"}
    about = {"seconds": round(time.time() - begun, 1), "commit": commit, "maskutils": __version__, "machine": machine()}
    return {**state, "notebook": str(executed), "written": written(uses), **about}


def dask_setup(worker: Any) -> None:
    """Called as a worker of this machine begins: Ctrl-C in a terminal reaches all processes, and the first one answers it for all."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def own_gpu() -> dict[str, str]:
    """The variable that shows a kernel one GPU: the workers of this machine take turns by their numbers. None without GPUs."""
    from distributed import get_worker

    if not (names := os.environ.get(GPUS)):
        return {}
    gpus = names.split(",")
    return {"CUDA_VISIBLE_DEVICES": gpus[get_worker().name % len(gpus)]}


def _run(run: Run, partial: Path, timeout: int, tell: Tell) -> str:
    """Execute the notebook into `partial`; returns what went wrong, or nothing."""
    import papermill
    from nbclient.exceptions import CellTimeoutError, DeadKernelError

    logging.getLogger("papermill").setLevel(logging.CRITICAL)  # it says of a dead kernel less than we do
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)  # nbclient leaves a task behind where a cell takes too long
    ended: list[int] = []
    names: dict[int, str] = {}  # of the code cells that began, by their place in the executed notebook
    before = out_of_memory()
    with temporary_folder() as sockets:
        try:
            papermill.execute_notebook(
                run.notebook,
                partial,
                dict(run.parameters),
                kernel_name="python3",
                language="python",
                cwd=run.notebook.parent,
                progress_bar=False,
                execution_timeout=timeout,
                config=kernels.through_files(str(sockets)),
                kernel_manager_class=kernels.manager_noting(ended),
                on_cell_start=_teller(run, tell, names),
                on_cell_executed=shorten,
                shutdown_kernel="immediate",  # by then all that it wrote is whole on disk
            )
            return ""
        except papermill.PapermillExecutionError as e:
            where = names.get(e.cell_index, "its parameters") + failing_line(e.source, e.traceback)
            return shortened(f"{where}: {e.ename}: {e.evalue}", LONGEST_ERROR)
        except DeadKernelError:
            error = meaning(ended[0] if ended else None, out_of_memory() - before)
        except CellTimeoutError:
            error = f"it took longer than {timeout} s (cell_timeout of the profile, or --timeout)"
    last = max(names, default=0)
    _mark(partial, last, error)
    return f"{names.get(last, 'before its first cell')}: {error}"


def _teller(run: Run, tell: Tell, names: dict[int, str]) -> Callable[..., None]:
    """Called as a cell begins: writes the name of a code cell into `names`, and tells its number. The cell that papermill adds has none."""

    def started(cell: Mapping[str, Any], cell_index: int) -> None:
        if cell["cell_type"] == "code" and "injected-parameters" not in cell["metadata"].get("tags", ()):
            names[cell_index] = cell_name(len(names) + 1, cell["source"])
            tell({"event": "cell", "run": run.id, "cell": len(names)})

    return started


def failing_line(source: str, traceback: Sequence[str]) -> str:
    """The line of a cell's `source` at which a `traceback` of IPython's begins, if that is not its first one; else nothing.

    Of exceptions that follow one another the last one counts, which is the one that is told.
    """
    last = CHAINED.split(ANSI.sub("", "\n".join(traceback)))[-1]
    found = re.search(r"Cell In\[\d+\], line (\d+)", last)
    lines, number = source.splitlines(), int(found[1]) if found else 1
    return f", line {number} ({clipped(lines[number - 1].strip())})" if 1 < number <= len(lines) else ""


def meaning(code: int | None, killed: int = 0) -> str:
    """What the exit code of a kernel says (below 0 a signal), where the system `killed` so many processes for memory meanwhile."""
    if code is None:
        return "the kernel died; how is not known"
    if code >= 0:
        return f"the kernel died: the cell ended it with exit code {code}"
    name = signal.Signals(-code).name if -code in set(signal.Signals) else "unknown"
    meanings: dict[int, str] = {
        signal.SIGSEGV: "a fault of compiled code, or a stack that was too deep",
        signal.SIGKILL: "the system had no memory left: run fewer workers"
        if killed
        else "somebody, or a limit of the system, ended it",
        signal.SIGTERM: "somebody asked it to end",
        signal.SIGABRT: "compiled code gave up",
    }
    return f"the kernel died of signal {-code} ({name}): {meanings.get(-code) or signal.strsignal(-code)}"


def out_of_memory() -> int:
    """How many processes this machine has ended for want of memory; 0 where it does not say."""
    return int(told_by_linux("/proc/vmstat", "oom_kill") or 0)


def _mark(path: Path, index: int, error: str) -> None:
    """Show in the notebook at `path` that its cell `index` failed; papermill says of every cell that it was completed."""
    import nbformat

    notebook = nbformat.read(path, as_version=4)
    for cell in notebook.cells[index:]:
        cell.metadata.setdefault("papermill", {})["status"] = "pending"
    cell = notebook.cells[index]
    cell.metadata.papermill |= {"status": "failed", "exception": True}
    if cell.cell_type == "code":
        shorten(cell)
        cell.outputs.append(nbformat.v4.new_output("error", ename="Stopped", evalue=error, traceback=[error]))
    nbformat.write(notebook, path)


def shorten(cell: Mapping[str, Any], **_: object) -> None:
    """Cut the text in the outputs of a `cell` that is too long to keep; mutates it. What else nbclient tells is ignored."""
    for output in cell.get("outputs", ()):
        for holder in (output, output.get("data", {})):
            for kind in ("text", "text/plain", "text/html", "evalue"):
                if kind in holder:
                    holder[kind] = shortened("".join(holder[kind]), LONGEST_OUTPUT)
        if "traceback" in output:  # a list of texts
            output["traceback"] = [shortened("\n".join(output["traceback"]), LONGEST_OUTPUT)]


def shortened(text: str, longest: int) -> str:
    """`text`, without its middle if it has more than `longest` characters."""
    if len(text) <= longest:
        return text
    return f"{text[: longest // 2]}\n... {len(text) - longest:,} characters left out ...\n{text[-longest // 2 :]}"
