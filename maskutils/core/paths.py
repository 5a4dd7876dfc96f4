"""The only place that knows folders.

Owns where the project's notebooks, results, figures and caches lie. It must not know what is in them.
"""

import os
from pathlib import Path

import platformdirs

PACKAGE = Path(__file__).resolve().parent.parent
PROFILES = PACKAGE / "batch" / "profiles"


def project_root() -> Path:
    """The folder that holds `notebooks/`, `results/` and `figures/`.

    `$MASKUTILS_ROOT` if it is set, else the checkout this package lies in, else (installed without a checkout) the
    user's data folder. The current working directory plays no part: papermill, nbval and JupyterLab each start kernels
    somewhere else.
    """
    if root := os.environ.get("MASKUTILS_ROOT"):
        return Path(root).resolve()
    checkout = PACKAGE.parent
    return checkout if (checkout / "notebooks").is_dir() else Path(platformdirs.user_data_dir("maskutils"))


def environment() -> dict[str, str]:
    """The environment variables with which a process anywhere on this file system finds the same folders."""
    return {"MASKUTILS_ROOT": str(project_root()), "MASKUTILS_DATA_ROOT": str(data_root())}


def notebooks_dir() -> Path:
    """Where the source notebooks lie."""
    return project_root() / "notebooks"


def results_dir(profile: str) -> Path:
    """Where the tables and the manifest of a profile lie; for a profile file of the user's own, under its name without
    folder.
    """
    return project_root() / "results" / Path(profile).stem


def runs_dir(profile: str) -> Path:
    """Where the executed notebooks and the state of every run of a profile lie; not committed."""
    return results_dir(profile) / "runs"


def figures_dir(profile: str = "default") -> Path:
    """Where the figures of a profile lie; those of `default` are the project's, at the top."""
    figures = project_root() / "figures"
    return figures if profile == "default" else figures / Path(profile).stem


def data_root() -> Path:
    """Where data sets are read from and downloaded to: `$MASKUTILS_DATA_ROOT`, else the user's cache folder."""
    root = os.environ.get("MASKUTILS_DATA_ROOT")
    return Path(root).expanduser() if root else platformdirs.user_cache_path("maskutils") / "data"


def cache_dir(kind: str) -> Path:
    """Where cached artefacts of one kind ("source", "mask", "transfer") lie; named by content, shared by all profiles."""
    return project_root() / "results" / ".cache" / kind
