"""Draws the committed figures and tables of a profile again from its committed records, to which runs of new pairs may be added.

Usage: python -m tools.redraw PROFILE [RECORDS.csv ...]. No network is trained.
"""

import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import papermill

from maskutils.batch import plan
from maskutils.core import paths
from maskutils.core.files import read_json, write_json
from maskutils.results.manifest import NAME, checksums
from maskutils.results.records import collect
from maskutils.study.provenance import git_commit


def redraw(profile: str, added: Sequence[Path] = ()) -> None:
    """Write the figures, tables and manifest of `profile` anew, its records joined with those of the files `added`.

    Raises `ValueError` for added records that are there already with other settings.
    """
    folder, runs = paths.results_dir(profile), plan.make_plan(profile)
    manifest = read_json(folder / NAME)
    if added:
        collect([folder / "records.csv", *added], folder / "records.csv")
        manifest |= {"commit": git_commit(), "runs": rows_of(profile, runs, manifest["runs"])}
        manifest["kernel_seconds"] = round(sum(row["seconds"] for row in manifest["runs"]), 1)
    for run in runs:
        if {"profile", "write"} <= run.parameters.keys() and "model" not in run.parameters:  # it reads records alone
            with tempfile.TemporaryDirectory() as executed:
                papermill.execute_notebook(
                    run.notebook, Path(executed, "redrawn.ipynb"), dict(run.parameters), kernel_name="python3",
                    cwd=run.notebook.parent, progress_bar=False,
                )  # fmt: skip
    write_json(folder / NAME, manifest | {"checksums": checksums(folder)})


def rows_of(profile: str, runs: Sequence[plan.Run], before: Sequence[dict]) -> list[dict]:
    """The rows of a manifest: of `runs` that are done here their own, of others those of `before`."""
    known, rows = {row["id"]: row for row in before}, []
    for run in runs:
        state = plan.last_state(profile, run)
        if state.get("status") == "done" and not plan.why(profile, run):
            own = {"key": run.key, "seconds": state["seconds"], "parameters": run.parts["parameters"]}
            rows.append({"id": run.id} | own)
        elif run.id in known:
            rows.append(known[run.id])
    return rows


if __name__ == "__main__":
    redraw(sys.argv[1], [Path(file) for file in sys.argv[2:]])
