"""Where a command finds its data and puts its results, beside those that are committed or in their place."""

import contextlib
import os
from collections.abc import Iterator, Mapping

from maskutils.core import paths


@contextlib.contextmanager
def environment(variables: Mapping[str, str]) -> Iterator[None]:
    """`variables` in the environment of this process inside the block; on leaving it is what it was, whatever changed it.

    Dask changes it too: a kernel that some later code starts would inherit its thread counts.
    """
    before = dict(os.environ)
    os.environ.update(variables)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


@contextlib.contextmanager
def data_at(folder: str | None) -> Iterator[None]:
    """Inside the block data sets are those in `folder`, for kernels too; None leaves it as it is."""
    with environment({} if folder is None else {paths.DATA: str(paths.folder_at(folder, "--data-root").resolve())}):
        yield


@contextlib.contextmanager
def placed(committed: bool) -> Iterator[None]:
    """Inside the block the results of a checkout lie in results/local and figures/local, unless the `committed` ones are meant.

    A project of `maskutils init`, or another folder in MASKUTILS_ROOT, holds no committed results: there this changes nothing.
    """
    with environment({paths.LOCAL: "" if committed or paths.project_root() != paths.checkout() else "1"}):
        yield


@contextlib.contextmanager
def shown(profile: str, committed: bool) -> Iterator[None]:
    """As `placed`; where there are no local results of `profile`, the committed ones are meant."""
    with placed(committed):
        there = any(paths.results_dir(profile).glob("[!.]*.*"))
    with placed(committed or not there):
        yield
