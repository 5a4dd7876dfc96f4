"""The explorer in JupyterLab, in a browser and with a kernel: run it, move the slider, see another accuracy."""

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

pytestmark = pytest.mark.slow
SMALL = {"profile": '"default"', "source_steps": "60", "mask_steps": "20", "methods": '["magnitude", "random"]'}
CELLS = ("parameters", "experiment.configure", "explorer.Masked(", "explorer.show(")


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A project with the cells of the notebook that the explorer needs, so that all are in view, and small parameters."""
    root = tmp_path_factory.mktemp("project")
    notebook = nbformat.read(paths.notebooks_dir() / "16_explore.ipynb", as_version=4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    notebook.cells = [c for c in code if any(part in c.source or part in c.metadata.get("tags", []) for part in CELLS)]
    for cell in notebook.cells:
        cell.outputs = []
        for name, value in SMALL.items():
            cell.source = re.sub(rf"^({name}: \S+) = [^#]+", rf"\1 = {value}  ", cell.source, flags=re.MULTILINE)
    for name in ("notebooks", "results/default"):
        (root / name).mkdir(parents=True)
    nbformat.write(notebook, root / "notebooks" / "16_explore.ipynb")
    shutil.copy(paths.results_dir("default") / "records.csv", root / "results" / "default")
    return root


@pytest.fixture(scope="module")
def lab(root):
    """The address of a JupyterLab on the project, which lasts as long as the tests of this module."""
    environment = {k: v for k, v in os.environ.items() if k not in ("TQDM_DISABLE", "JUPYTER_DEFAULT_PROVISIONER_NAME")}
    environment |= {
        "MASKUTILS_ROOT": str(root),
        "PYTHONPATH": str(paths.PACKAGE.parent),
        "JUPYTER_CONFIG_DIR": str(root),
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


def test_the_slider_masks_the_network_of_the_kernel(browser, lab):  # noqa: F811
    page, faults = browser.new_page(viewport={"width": 1400, "height": 1800}), []
    page.set_default_timeout(240_000)
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.goto(f"{lab}lab/tree/notebooks/16_explore.ipynb")
    page.wait_for_selector('.jp-Notebook-ExecutionIndicator[data-status="idle"]')
    waiting = page.locator(".jp-InputPrompt", has_text="*")
    for _ in range(5):  # the menu does nothing until JupyterLab has settled
        page.locator(".jp-Notebook-cell").first.click()
        page.locator(".lm-MenuBar-item", has_text=re.compile("^Run$")).click()
        page.locator(".lm-Menu-item", has_text=re.compile("^Run All Cells")).first.click()
        page.wait_for_timeout(1_000)
        if waiting.count():
            break
    page.wait_for_selector(".mu .point")
    told, density = page.locator(".mu .accuracy"), page.get_by_label("Density", exact=True)
    told.filter(has_text="Computed in").wait_for()
    before = told.inner_text()
    source, target = re.search(r"network: ([\d.]+) % and ([\d.]+) %", before).groups()
    assert f"source {source} %" not in before
    density.press("End")  # all weights
    told.filter(has_text=re.compile(rf"source {source} % .* target {target} %")).wait_for()
    page.get_by_label("I can lose at most", exact=True).press("Home")
    assert page.locator(".mu .point.chosen").count() == 1
    assert not faults
    page.close()
