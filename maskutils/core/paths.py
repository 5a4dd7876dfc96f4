"""The only place that knows folders.

Owns where the project's notebooks, results, figures and caches lie. It must not know what is in them.
"""

import os
from pathlib import Path

from maskutils.core.checks import needs

PACKAGE = Path(__file__).resolve().parent.parent
PROFILES = PACKAGE / "batch" / "profiles"
MARKER = ".maskutils"  # the file by which a folder that `maskutils init` laid out is known
INIT = "lay out a project with `maskutils init DIR` and work in DIR, or set MASKUTILS_ROOT to one"


def project_root() -> Path:
    """The folder that holds `notebooks/`, `results/` and `figures/`; the first of these that there is:

    - `$MASKUTILS_ROOT`, which the batch and `maskutils lab` pass on to kernels, whatever their working directory;
    - the nearest folder that `maskutils init` laid out, or the checkout, from the working directory upwards;
    - the checkout that this package lies in;
    - the user's data folder, so that an installed package has a place for its caches.
    """
    if root := os.environ.get("MASKUTILS_ROOT"):
        return Path(root).resolve()
    here, home = Path.cwd(), checkout()
    projects = (folder for folder in (here, *here.parents) if (folder / MARKER).is_file() or folder == home)
    return next(projects, None) or home or _users("data")


def checkout() -> Path | None:
    """The checkout that this package lies in; None where it was installed without one."""
    return PACKAGE.parent if (PACKAGE.parent / "pyproject.toml").is_file() else None


def _users(kind: str) -> Path:
    with needs("study"):
        import platformdirs
    return getattr(platformdirs, f"user_{kind}_path")("maskutils")


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
    return Path(root).expanduser() if root else _users("cache") / "data"


def cache_dir(kind: str) -> Path:
    """Where cached artefacts of one kind ("source", "mask", "transfer") lie; named by content, shared by all profiles."""
    return project_root() / "results" / ".cache" / kind
