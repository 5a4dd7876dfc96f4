"""Draws the committed figures and tables of a profile again from its committed records, to which runs of new pairs may be added.

Usage: python -m tools.redraw PROFILE [STATE.json ...], with the states of the runs to add. No network is trained.
"""

import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import papermill

from maskutils.batch import plan
from maskutils.batch.kernels import through_files
from maskutils.batch.run import check_clean, row_of
from maskutils.core import paths
from maskutils.core.files import read_json, write_json
from maskutils.results.manifest import MANIFEST, check_intact, sealed, with_runs
from maskutils.results.records import collect
from maskutils.study.provenance import git_commit


def redraw(profile: str, added: Sequence[Path] = ()) -> None:
    """Write the figures, tables and manifest of `profile` anew, with the records of the runs whose states are in the files `added`.

    Raises `ValueError` for a run that is not done or is in the manifest already, for added records that are there with other settings,
    and for files that are not as the manifest says.
    """
    folder, runs = paths.results_dir(profile), plan.make_plan(profile)
    manifest = read_json(folder / MANIFEST)
    check_intact(folder)
    if again := {row["id"] for row in manifest["runs"]} & {file.stem for file in added}:
        raise ValueError(f"{min(again)} is in the manifest already; renew the whole profile instead")
    if strange := {file.stem for file in added} - {run.id for run in runs}:
        raise ValueError(f"{min(strange)} is no run of {profile}; write it into the profile first")
    if added:
        check_clean(profile)
        rows = {row["id"]: row for row in [*manifest["runs"], *map(row_of, added)]}
        tables = [file for state in added if (file := state.with_suffix(".csv")).exists()]
        collect([folder / "records.csv", *tables], folder / "records.csv")
        manifest = with_runs(manifest | {"commit": git_commit()}, [rows[run.id] for run in runs if run.id in rows])
    for run in runs:
        if {"profile", "write"} <= run.parameters.keys() and "model" not in run.parameters:  # it reads records alone
            with tempfile.TemporaryDirectory() as executed:
                papermill.execute_notebook(
                    run.notebook, Path(executed, "redrawn.ipynb"), dict(run.parameters), kernel_name="python3",
                    cwd=run.notebook.parent, progress_bar=False, config=through_files(executed),
                )  # fmt: skip
    write_json(folder / MANIFEST, sealed(folder, manifest))


if __name__ == "__main__":
    redraw(sys.argv[1], [Path(file) for file in sys.argv[2:]])
