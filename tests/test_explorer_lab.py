"""The notebooks 00 and 16 in JupyterLab, in a browser, each with a kernel: all cells run, and the sliders of the explorer change it."""

import os
import re
import shutil
import subprocess
import sys
import time

import nbformat
import pytest
from browsers import browser  # noqa: F401

from maskutils.core import paths
from maskutils.core.files import write_json

pytestmark = pytest.mark.slow
SMALL = {"source_steps": "60", "mask_steps": "20", "target_steps": "20"}
SMALL |= {"profile": '"default"', "methods": '["magnitude", "random"]'}
LIVE = {"densities": "[0.1, 1.0]"} | SMALL
NOTEBOOKS = {"00_quickstart": SMALL, "16_explore": LIVE}
# Every cell is drawn, in view or not, so that the page can be asked for any. And no question which kernel, where the answer comes late.
SETTINGS = {"windowingMode": "none", "autoStartDefaultKernel": True}
# The debugger complains on the console where a slow kernel lets it wait.
DISABLED = {"@jupyterlab/debugger-extension": True}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A project with the two notebooks, without outputs and with small parameters, and the records that they read."""
    root = tmp_path_factory.mktemp("project")
    for name in ("notebooks", "results/default", "results/study"):
        (root / name).mkdir(parents=True)
        if name.startswith("results"):
            shutil.copy(paths.project_root() / name / "records.csv", root / name)
    for name, parameters in NOTEBOOKS.items():
        notebook = nbformat.read(paths.notebooks_dir() / f"{name}.ipynb", as_version=4)
        for cell in notebook.cells:
            if cell.cell_type == "code":
                cell.outputs, cell.execution_count = [], None
            if "parameters" in cell.metadata.get("tags", []):
                for given, value in parameters.items():
                    cell.source = re.sub(
                        rf"^({given}: \S+) = [^#]+", rf"\1 = {value}  ", cell.source, flags=re.MULTILINE
                    )
        nbformat.write(notebook, root / "notebooks" / f"{name}.ipynb")
    write_json(root / "settings" / "@jupyterlab" / "notebook-extension" / "tracker.jupyterlab-settings", SETTINGS)
    write_json(root / "labconfig" / "page_config.json", {"disabledExtensions": DISABLED})
    return root


@pytest.fixture(scope="module")
def lab(root):
    """The address of a JupyterLab on the project, which lasts as long as the tests of this module."""
    environment = {k: v for k, v in os.environ.items() if k not in ("TQDM_DISABLE", "JUPYTER_DEFAULT_PROVISIONER_NAME")}
    environment |= {
        "MASKUTILS_ROOT": str(root),
        "PYTHONPATH": str(paths.PACKAGE.parent),
        "JUPYTER_CONFIG_DIR": str(root),
        "JUPYTERLAB_SETTINGS_DIR": str(root / "settings"),
    }
    options = [
        "--no-browser",
        "--allow-root",
        "--ServerApp.port=0",
        f"--ServerApp.root_dir={root}",
        "--IdentityProvider.token=",
    ]
    log = root / "lab.log"
    with open(log, "w", encoding="utf-8") as file:
        server = subprocess.Popen([sys.executable, "-m", "jupyterlab", *options], env=environment, stderr=file)
    for _ in range(600):
        if (found := re.search(r"http://(localhost|127\.0\.0\.1):\d+/", log.read_text("utf-8"))) or server.poll():
            break
        time.sleep(0.2)
    assert found, log.read_text("utf-8")
    yield found[0]
    server.terminate()  # which ends its kernels too
    server.wait(60)


@pytest.fixture
def run_all(browser, lab):  # noqa: F811
    """A function that opens a notebook on a fresh kernel, runs all its cells and returns the page. No fault may have been seen then."""
    page, faults = browser.new_page(viewport={"width": 1400, "height": 1800}), []
    page.set_default_timeout(240_000)
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("console", lambda message: faults.append(message.text) if message.type == "error" else None)

    def opened(name):
        page.goto(f"{lab}lab/tree/notebooks/{name}.ipynb?reset")
        page.wait_for_selector('.jp-Notebook-ExecutionIndicator[data-status="idle"]')
        left = page.locator(".jp-InputPrompt", has_text="[ ]")  # cells that neither ran nor wait for the kernel
        for _ in range(10):  # until JupyterLab has settled the menu does nothing, or changes under the pointer
            page.locator(".jp-Notebook-cell").first.click()
            page.locator(".lm-MenuBar-item", has_text=re.compile("^Run$")).click()
            page.locator(".lm-Menu-item", has_text=re.compile("^Run All Cells")).first.click()
            page.wait_for_timeout(1_000)
            if not left.count():
                break
        assert not left.count()
        page.wait_for_function("!document.querySelector('.jp-Notebook').innerText.includes('[*]:')")
        assert not page.locator('[data-mime-type="application/vnd.jupyter.error"]').all_inner_texts()
        return page

    yield opened
    page.close()
    assert not faults


def test_the_quickstart_runs_to_its_punchline(run_all):
    page = run_all("00_quickstart")
    # on a busy machine the last outputs are drawn after the last cell has ended
    page.locator(".jp-OutputArea-output", has_text="After fine-tuning it is at").wait_for(state="attached")
    assert page.locator(".jp-RenderedImage img").count() >= 4


def test_the_sliders_change_the_network_and_the_plot(run_all):
    page = run_all("16_explore")
    page.wait_for_selector(".mu .point")
    told, density = page.locator(".mu .accuracy"), page.get_by_label("Density", exact=True)
    told.filter(has_text="Computed in").wait_for()
    before = told.inner_text()
    source, target = re.search(r"network: ([\d.]+) % and ([\d.]+) %", before).groups()
    assert f"source {source} %" not in before
    density.press("End")  # all weights
    told.filter(has_text=re.compile(rf"source {source} % .* target {target} %")).wait_for()
    chosen, limit = page.locator(".mu .point.chosen"), page.get_by_label("I can lose at most", exact=True)
    places = []
    for end in ("Home", "End"):  # nothing may be lost, and much
        limit.press(end)
        assert chosen.count() == 1
        places.append(chosen.bounding_box())
    assert places[0] != places[1]
