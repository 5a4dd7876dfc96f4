"""Where the notebooks, results, figures, data and caches of a project are."""

import os
import re
from pathlib import Path
from typing import Literal

from maskutils.core.checks import BadSetting, needs

PACKAGE = Path(__file__).resolve().parent.parent
PROFILES = PACKAGE / "batch" / "profiles"
DATA = "MASKUTILS_DATA_ROOT"  # the environment variable that names the folder of data sets
LOCAL = "MASKUTILS_LOCAL"  # set where the committed results of a checkout are to stay as they are
SHIPPED = PACKAGE / "project"  # where a wheel holds notebooks and results, see pyproject.toml
MARKER = ".maskutils"  # this file marks a folder that `maskutils init` laid out
INIT = "lay out a project with `maskutils init DIR` and work in DIR, or set MASKUTILS_ROOT to one"


def project_root() -> Path:
    """The folder that holds `notebooks/`, `results/` and `figures/`. It is the first of these that exists:

    - `$MASKUTILS_ROOT`, which the batch and `maskutils lab` pass on to kernels, whatever their working directory is;
    - the nearest folder that `maskutils init` laid out, or the checkout, from the working directory upwards;
    - the checkout that this package is in;
    - the user's data folder, so that an installed package has a place for its caches.

    Raises `BadSetting` if `$MASKUTILS_ROOT` is a URL.
    """
    if root := os.environ.get("MASKUTILS_ROOT"):
        return folder_at(root, "MASKUTILS_ROOT").resolve()
    here, home = Path.cwd(), checkout()
    projects = (folder for folder in (here, *here.parents) if (folder / MARKER).is_file() or folder == home)
    return next(projects, None) or home or _users("data")


def folder_at(name: str, setting: str) -> Path:
    """The folder `name`, "~" resolved. Raises `BadSetting`, which names the `setting`, for a URL: it would become a folder called "s3:"."""
    if re.match(r"[a-zA-Z][\w+.-]+:/", name):
        raise BadSetting(
            f"{setting} {name} is a URL, not a folder; mount it, as with `rclone mount` or `s3fs`, and give the folder"
        )
    return Path(name).expanduser()


def checkout() -> Path | None:
    """The checkout that this package is in; None if it was installed without one."""
    return PACKAGE.parent if (PACKAGE.parent / "pyproject.toml").is_file() else None


def _users(kind: Literal["data", "cache"]) -> Path:
    with needs("study"):
        from platformdirs import user_cache_path, user_data_path
    return user_data_path("maskutils") if kind == "data" else user_cache_path("maskutils")


def variables() -> dict[str, str]:
    """Environment variables with which any process on this file system finds the same folders."""
    return {"MASKUTILS_ROOT": str(project_root()), DATA: str(data_root()), LOCAL: os.environ.get(LOCAL, "")}


def notebooks_dir() -> Path:
    """The folder of the source notebooks."""
    return project_root() / "notebooks"


def results_dir(profile: str) -> Path:
    """The folder of a profile's tables and manifest. A profile file "a/b.yaml" of the user's has its own, `results/b`.

    With `$MASKUTILS_LOCAL` it is `results/local/b`, which git ignores.
    """
    return _ours("results") / Path(profile).stem


def _ours(folder: str) -> Path:
    return project_root() / folder / ("local" if os.environ.get(LOCAL) else "")


def committed_results(profile: str) -> Path:
    """The folder of the results of `profile` that are committed, or came with the installed package; it need not be there."""
    return (checkout() or SHIPPED) / "results" / Path(profile).stem


def rates_name(model: str, pair: str) -> str:
    """The name of the file that holds the learning rates of `model` on `pair`.

    >>> rates_name("cnn", "pacs:photo:sketch")
    'rates-cnn-pacs_photo_sketch.csv'
    """
    return "-".join(["rates", *(re.sub(r"[^\w.+-]+", "_", name).strip("_") for name in (model, pair))]) + ".csv"


def tuned_rates() -> list[Path]:
    """The tables of learning rates that the profile `tuning` wrote, and your own for other networks and pairs, by path."""
    folders = (results_dir("tuning"), project_root() / "results" / "tuning")  # of equal names the committed one
    return sorted({file.name: file for folder in folders for file in folder.glob("rates-*.csv")}.values())


def runs_dir(profile: str) -> Path:
    """The folder of a profile's executed notebooks and the state of their runs; it is not committed."""
    return results_dir(profile) / "runs"


def figures_dir(profile: str = "default") -> Path:
    """The folder of a profile's figures. Those of `default` are at the top, for they are the project's; with `$MASKUTILS_LOCAL` none."""
    figures = _ours("figures")
    return figures if profile == "default" and not os.environ.get(LOCAL) else figures / Path(profile).stem


def data_root() -> Path:
    """The folder that data sets are read from and downloaded to: `$MASKUTILS_DATA_ROOT`, else the user's cache folder.

    Raises `BadSetting` if the variable is a URL.
    """
    root = os.environ.get(DATA)
    return folder_at(root, DATA) if root else _users("cache") / "data"


def cache_dir(kind: str) -> Path:
    """The folder of cached artefacts of one kind, as "source", "mask" or "transfer". All profiles share it."""
    return project_root() / "results" / ".cache" / kind
