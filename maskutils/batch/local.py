"""Where the results of a command are: beside those that are committed, or in their place; and how the two compare."""

import contextlib
import os
from collections.abc import Iterator

from maskutils.core import paths


@contextlib.contextmanager
def placed(committed: bool) -> Iterator[None]:
    """Inside the block the results of a checkout lie in results/local and figures/local, unless the `committed` ones are meant.

    A project of `maskutils init`, or another folder in MASKUTILS_ROOT, holds no committed results: there this changes nothing.
    """
    before = os.environ.get(paths.LOCAL, "")
    os.environ[paths.LOCAL] = "" if committed or paths.project_root() != paths.checkout() else "1"
    try:
        yield
    finally:
        os.environ[paths.LOCAL] = before


@contextlib.contextmanager
def shown(profile: str, committed: bool) -> Iterator[None]:
    """As `placed`; where there are no local results of `profile`, the committed ones are meant."""
    with placed(committed):
        there = any(paths.results_dir(profile).glob("[!.]*.*"))
    with placed(committed or not there):
        yield


def comparison(profile: str) -> str:
    """A sentence on the results of `profile` beside the committed records; empty where they are these records."""
    from maskutils.results.records import load_records
    from maskutils.results.reproduced import compared

    file = paths.committed_results(profile) / "records.csv"
    if paths.results_dir(profile) == file.parent:
        return ""
    if not file.is_file():
        return f"there are no committed records of {profile} to compare with"
    return f"compared with {file}: {compared(load_records(profile), load_records(file))}"
