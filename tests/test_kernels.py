"""Forked kernels: a process, a namespace, an environment and a folder of their own, and figures as anywhere."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from jupyter_client.manager import KernelManager
from nbclient import NotebookClient
from nbformat import v4

from maskutils.batch import kernels

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not kernels.chosen(), reason="kernels are forked on Linux only"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # of the libraries that run kernels
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]


def run(folder, *cells, **options):
    """The outputs of the cells: texts, or lists of MIME types."""
    notebook = v4.new_notebook(cells=[v4.new_code_cell(source) for source in cells])
    options = {"config": kernels.through_files(str(folder)), "resources": {"metadata": {"path": str(folder)}}} | options
    client = NotebookClient(notebook, kernel_name="python3", **options)
    client.execute()
    return [[o.get("text") or sorted(o["data"]) for o in cell.outputs] for cell in notebook.cells]


def test_the_provisioner_is_found_by_its_entry_point(tmp_path):
    (found,) = run(tmp_path, "import os, sys\nprint(os.getpid(), 'torch._dynamo' in sys.modules, os.getcwd())")
    pid, preloaded, folder = found[0].split()
    assert int(pid) != os.getpid()
    assert preloaded == "True"
    assert os.path.realpath(folder) == os.path.realpath(tmp_path)


def test_a_second_kernel_knows_nothing_of_the_first(tmp_path):
    assert run(tmp_path, "here = 1", "print('here' in globals(), __name__)")[1] == ["True __main__\n"]
    assert run(tmp_path, "print('here' in globals(), [k for k in globals() if not k.startswith('_')])") == [
        ["False ['In', 'Out', 'get_ipython', 'exit', 'quit', 'open']\n"]
    ]


def test_a_kernel_can_use_a_gpu(tmp_path):
    asked = "import torch\nprint(torch.cuda._is_in_bad_fork())"  # true if what it was forked from has asked for one
    assert run(tmp_path, asked) == [["False\n"]]


def test_a_kernel_talks_through_files_where_it_is_told_to(tmp_path):
    asked = "from ipykernel.connect import get_connection_info\nprint(get_connection_info(unpack=True)['ip'])"
    assert run(tmp_path, asked) == [[f"{tmp_path}/k\n"]]


def test_a_kernel_that_has_ended_gets_no_signal():
    manager = KernelManager(kernel_name="python3")
    manager.start_kernel()
    process = manager.provisioner.process
    manager.shutdown_kernel(now=True)
    process.send_signal(signal.SIGTERM)  # its number may be another's by now


def test_figures_are_shown_inline(tmp_path):
    assert run(tmp_path, "import matplotlib.pyplot as plt\n_ = plt.plot([1, 2])") == [[["image/png", "text/plain"]]]


def test_our_own_environment_and_main_module_are_left_as_they_were(tmp_path, monkeypatch):
    monkeypatch.setenv("GIVEN", "on")
    before, main = dict(os.environ), vars(sys.modules["__main__"]).copy()
    assert run(tmp_path, "import os\nprint(os.environ['GIVEN'])") == [["on\n"]]
    assert dict(os.environ) == before
    assert vars(sys.modules["__main__"]) == main


def test_a_kernel_can_be_interrupted_and_restarted():
    manager = KernelManager(kernel_name="python3")
    manager.start_kernel()
    try:
        first = manager.provisioner.pid
        client = manager.blocking_client()
        client.start_channels()
        client.wait_for_ready(timeout=60)
        asked = client.execute("import time\nprint('on', flush=True)\ntime.sleep(60)")
        while client.get_iopub_msg(timeout=60)["msg_type"] != "stream":
            pass
        manager.interrupt_kernel()
        while (reply := client.get_shell_msg(timeout=30))["parent_header"]["msg_id"] != asked:
            pass  # a busy kernel may have been asked more than once whether it is ready
        assert reply["content"]["ename"] == "KeyboardInterrupt"
        client.stop_channels()
        manager.restart_kernel(now=True)
        assert manager.is_alive()
        assert manager.provisioner.pid != first
    finally:
        manager.shutdown_kernel(now=True)
    assert not manager.is_alive()


def test_a_kernel_in_compiled_code_ends_with_the_process_that_asked_for_it(tmp_path):
    call = "ctypes.PyDLL(None).sleep(600)"  # holds the lock of the interpreter, so that no thread runs
    cell = f"import ctypes, os, pathlib\npathlib.Path('pid').write_text(str(os.getpid()))\n{call}"
    code = "from nbclient import NotebookClient\nfrom nbformat import v4\n"
    code += (
        "from maskutils.batch import kernels\nkernels.PRELOADED[1:] = []\n"  # ipykernel alone: the cell needs no more
    )
    code += f"notebook = v4.new_notebook(cells=[v4.new_code_cell({cell!r})])\n"
    code += "if __name__ == '__main__': NotebookClient(notebook, kernel_name='python3', config=kernels.through_files('.')).execute()\n"
    (tmp_path / "script.py").write_text(code)
    owner = subprocess.Popen([sys.executable, "script.py"], cwd=tmp_path, env=os.environ | kernels.chosen())
    deadline = time.monotonic() + 60
    while not ((tmp_path / "pid").exists() and (tmp_path / "pid").read_text()) and time.monotonic() < deadline:
        time.sleep(0.1)
    time.sleep(0.5)
    owner.kill(), owner.wait()
    stat, deadline = Path("/proc", (tmp_path / "pid").read_text(), "stat"), time.monotonic() + 10
    while stat.exists() and ") Z" not in stat.read_text() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not stat.exists() or ") Z" in stat.read_text()
