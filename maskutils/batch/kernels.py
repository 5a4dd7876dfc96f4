"""Kernels that start with their imports done.

The imports of a notebook (torch and its compiler, pandas, seaborn) take seconds. A server in each worker imports them once, and
every kernel is a fork of it: a process of its own with an empty namespace. On two cores that saves a tenth of the profile `default`
(11 min 17 s instead of 12 min 28 s) and a third of `smoke`, which the tests run. This is a kernel provisioner of Jupyter's, found by an
entry point and chosen by an environment variable; JupyterLab keeps its own.
"""

import ctypes
import multiprocessing
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from importlib.metadata import entry_points
from multiprocessing.context import ForkServerProcess
from multiprocessing.process import BaseProcess
from typing import Any

from jupyter_client.connect import KernelConnectionInfo
from jupyter_client.manager import AsyncKernelManager
from jupyter_client.provisioning.local_provisioner import LocalProvisioner
from traitlets.config import Config

NAME, GROUP = "maskutils-fork", "jupyter_client.kernel_provisioners"  # as in pyproject.toml
PR_SET_PDEATHSIG = 1  # of Linux's prctl
PRELOADED = ["ipykernel.kernelapp", "maskutils.study.experiment", "maskutils.results.plots", "maskutils.results.report"]
PRELOADED += ["sklearn.model_selection", "torch._dynamo"]  # needed when images are split, when an optimiser is made


def chosen() -> dict[str, str]:
    """The environment variable that makes Jupyter start kernels so; none where a fork is not safe (not on Linux)."""
    there = sys.platform == "linux" and NAME in entry_points(group=GROUP).names
    return {"JUPYTER_DEFAULT_PROVISIONER_NAME": NAME} if there else {}


class ForkProvisioner(LocalProvisioner):
    """Starts a kernel as a fork of a server that has imported `PRELOADED`; all else is as Jupyter's own does it."""

    async def launch_kernel(self, cmd: list[str], **kwargs: Any) -> KernelConnectionInfo:
        """Fork instead of running `cmd`; what follows its `-f` is given to the kernel."""
        multiprocessing.get_context("forkserver").set_forkserver_preload(PRELOADED)
        arguments = (cmd[cmd.index("-f") :], kwargs["env"], kwargs.get("cwd") or os.getcwd())
        process: Any = Forked(target=_kernel, args=arguments, daemon=False)  # in the place of a Popen
        process.start()
        self.process, self.pid, self.pgid = process, process.pid, process.pid
        return self.connection_info


class Forked(ForkServerProcess):
    """A fork of the server, with what Jupyter calls of `subprocess.Popen` beside what a process has in any case."""

    stdin = stdout = stderr = None

    def poll(self) -> int | None:
        """The exit code; None while it runs."""
        return self.exitcode

    def wait(self) -> int | None:
        """The exit code, once it has ended."""
        self.join()
        return self.exitcode

    def send_signal(self, number: int) -> None:
        """Send it a signal; nothing once it has ended."""
        if self.pid and self.exitcode is None:
            os.kill(self.pid, number)


def _kernel(arguments: Sequence[str], environment: Mapping[str, str], folder: str) -> None:
    """Be a kernel, as `python -m ipykernel_launcher` is, in a process group and with the environment that Jupyter expects."""
    import matplotlib
    from ipykernel.kernelapp import IPKernelApp

    multiprocessing.set_start_method(None, force=True)  # that of any Python, not the one by which this process began
    os.setsid()
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    # The server had imported matplotlib before it could know that figures go to a notebook.
    matplotlib.rcParams["backend"] = environment.get("MPLBACKEND", "module://matplotlib_inline.backend_inline")
    if parent := multiprocessing.parent_process():
        _end_with(parent)
    sys.argv = [sys.argv[0], *arguments]
    IPKernelApp.launch_instance(argv=list(arguments), parent_handle=os.getppid())


def _end_with(parent: BaseProcess) -> None:
    """Let this process end when `parent`, which asked for it, has ended: its own parent is the server, which may live on.

    Another process waits for that. A thread would wait for compiled code first that does not let other threads run.
    """
    kernel = os.getpid()
    if os.fork():
        return
    os.setsid()  # a signal for the kernel's group is not for this process
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)  # it ends with the kernel
    if os.getppid() == kernel:
        parent.join()
        os.kill(kernel, signal.SIGKILL)
    os._exit(0)


def through_files(sockets: str) -> Config:
    """The configuration of a kernel manager that talks through sockets in the folder `sockets`, so that no two kernels race for a port."""
    return Config(KernelManager={"transport": "ipc", "ip": f"{sockets}/k", "connection_file": f"{sockets}/k.json"})


def manager_noting(ended: list[int]) -> type:
    """A kernel manager that appends to `ended` the exit code of a kernel that ended by itself (below 0: the signal)."""

    class Noting(AsyncKernelManager):
        """Looks before everything of the kernel is cleaned up."""

        async def cleanup_resources(self, restart: bool = False) -> None:  # type: ignore[override]  # ours too is awaited
            """As the base class does."""
            code = await self.provisioner.poll() if self.provisioner and self.provisioner.has_process else None
            if code is not None:
                ended.append(code)
            await super().cleanup_resources(restart)

    return Noting
