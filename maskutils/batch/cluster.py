"""Where the batch runs: worker processes on this machine, or those of a Dask scheduler; and their temporary folders."""

import contextlib
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import filelock

from maskutils.batch import kernels
from maskutils.batch.local import environment
from maskutils.core.checks import BadSetting
from maskutils.core.files import NEW, naming
from maskutils.study.provenance import cores

QUIET = {
    "distributed.worker.daemon": False,  # a daemon may not have the process that kernels are forked from
    "distributed.worker.preload": ["maskutils.batch.worker"],  # its `dask_setup`
    "distributed.worker.profile.enabled": False,  # sampling costs a tenth of a core, ticks and monitors another
    "distributed.admin.tick.interval": "1s",
    "distributed.admin.system-monitor.interval": "10s",
    "distributed.deploy.lost-worker-timeout": "120s",  # a worker that died is started again, which may take longer than the usual 15 s
}

PREFIX = "maskutils-"  # of temporary folders
JUST_MADE = 60.0  # seconds; its owner may be about to lock what is younger
LONGEST_FOLDER = 40  # characters of the folder that holds them: sockets lie in them, whose paths may have 107
GPUS = "MASKUTILS_GPUS"  # tells the workers of this machine which GPUs they share
DRIVERS = ("/dev/nvidiactl", "/dev/kfd")  # one is there where there is a GPU: torch takes seconds to import


def gpus() -> list[str]:
    """The GPUs of this machine, as `CUDA_VISIBLE_DEVICES` names them; of those only, if it is set."""
    if not any(Path(driver).exists() for driver in DRIVERS):
        return []
    import torch

    n, chosen = torch.cuda.device_count(), os.environ.get("CUDA_VISIBLE_DEVICES")
    return chosen.split(",")[:n] if chosen else [str(i) for i in range(n)]


def at_once() -> int:
    """How many notebooks to run at a time: one on each GPU, else one on each core."""
    if found := gpus():
        return len(found)
    if sys.platform != "darwin":
        return cores()
    import torch

    return 1 if torch.backends.mps.is_available() else cores()


@contextlib.contextmanager
def client(workers: int, scheduler: str | None, folder: Path | None = None, runs: int | None = None) -> Iterator[Any]:
    """A Dask client: of `scheduler`, whose workers must see `folder`; else of `workers` processes here, which share cores and GPUs.

    For fewer `runs` fewer processes are started. Each has the threads that it would have beside all others: on them the last bits of a
    training depend, and with them the names of what is cached.
    """
    import dask
    from distributed import Client, LocalCluster

    if scheduler is not None:
        with _remote(scheduler, folder) as remote:
            yield remote
        return
    threads = str(max(1, cores() // workers))
    kernel = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), threads) | {"TQDM_DISABLE": "1"} | kernels.chosen()
    kernel |= {GPUS: ",".join(gpus())}
    with (
        temporary_folder() as temporary,
        environment(kernel | {"TMPDIR": str(temporary)}),  # inherited by workers and their kernels
        dask.config.set(QUIET),
        LocalCluster(
            n_workers=min(workers, runs or workers), threads_per_worker=1, dashboard_address=":0", memory_limit=None, silence_logs=50,
            local_directory=str(temporary),
        ) as cluster,
        Client(cluster, set_as_default=False) as local,
    ):  # fmt: skip
        yield local


@contextlib.contextmanager
def _remote(scheduler: str, folder: Path | None) -> Iterator[Any]:
    """A client of the scheduler at that address. Raises `BadSetting` if there is none, or its workers cannot do the work."""
    from distributed import Client

    try:
        if not scheduler.strip():  # as of a variable that is not set
            raise ValueError("the address is empty")
        remote = Client(scheduler, timeout="10s", set_as_default=False)
    except (OSError, ValueError, TypeError) as error:
        raise BadSetting(f"no Dask scheduler at {scheduler!r} ({error}); start one, or leave --scheduler out") from None
    with remote:
        try:
            remote.wait_for_workers(1, timeout=30)
        except TimeoutError:
            raise BadSetting(
                f"the scheduler at {scheduler} has no workers; start some: dask worker {scheduler} --nthreads 1"
            ) from None
        check_workers(remote, folder)
        yield remote


def check_workers(remote: Any, folder: Path | None) -> None:
    """Raise `BadSetting` if a worker of `remote` lacks our package, has another version, or does not see a file written to `folder`.

    Asks with functions of the standard library: a worker without our package could not read one of ours.
    """
    ours, found = version("maskutils"), remote.run(version, "maskutils", on_error="return")
    for worker, theirs in found.items():
        if theirs != ours:
            has = "has no maskutils" if isinstance(theirs, Exception) else f"has maskutils {theirs}"
            raise BadSetting(f"the worker {worker} {has}; install maskutils {ours} there")
    if many := [f"{worker} has {n} threads" for worker, n in remote.nthreads().items() if n != 1]:
        raise BadSetting(f"the worker {many[0]}, which share its environment; start it with --nthreads 1")
    if folder:
        # A file that is new, for a folder of that name may be there on another disk.
        with tempfile.NamedTemporaryFile(dir=folder, prefix=NEW) as new:
            seen = remote.run(os.path.isfile, new.name)
        if blind := [worker for worker, there in seen.items() if not there]:
            raise BadSetting(
                f"the worker {blind[0]} does not see {folder}; set MASKUTILS_ROOT to a folder that all machines share"
            )


@contextlib.contextmanager
def temporary_folder() -> Iterator[Path]:
    """A folder with a short path, removed on leaving. One that a killed process left is removed before the next is made.

    A lock is held while the folder is in use. Who finds it free removes the folder, once that is older than `JUST_MADE`.
    """
    usual = tempfile.gettempdir()
    base = Path(usual if len(usual) <= LONGEST_FOLDER else "/tmp")
    for lock in base.glob(f"{PREFIX}*/.lock"):  # those of other users and those in use stay
        with contextlib.suppress(filelock.Timeout, OSError):
            if time.time() - lock.stat().st_mtime > JUST_MADE:
                with filelock.FileLock(lock, timeout=0):
                    shutil.rmtree(lock.parent, ignore_errors=True)
    with naming(base, "TMPDIR"):
        folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=base))
    try:
        with filelock.FileLock(folder / ".lock"):
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
