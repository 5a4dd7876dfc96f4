"""The checksums by which a manifest vouches for the results beside it: records, tables, rates."""

import csv
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from maskutils.core.files import DamagedFile, read_json

MANIFEST, RESULT_KINDS = "manifest.json", (".csv", ".json", ".md", ".tex")


def checksums(folder: Path) -> dict[str, str]:
    """File name -> SHA-256, as `sha256sum` prints it, of the records and tables in `folder`; a README is neither."""
    files = sorted(f for f in folder.glob("*") if f.suffix in RESULT_KINDS and f.name not in (MANIFEST, "README.md"))
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def sealed(folder: Path, manifest: Mapping[str, Any]) -> dict[str, Any]:
    """`manifest` with the `checksums` of `folder`, and the commits of the code that made its records."""
    made: set[str] = set()
    if (records := folder / "records.csv").exists():
        with records.open(encoding="utf-8", newline="") as rows:
            made = {row.get("commit") or "" for row in csv.DictReader(rows)} - {""}
    return {**manifest, "record_commits": sorted(made), "checksums": checksums(folder)}


def with_runs(manifest: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """`manifest` with the `rows` of runs (id, key, seconds, parameters), and the seconds of all their notebooks."""
    return {**manifest, "kernel_seconds": round(sum(row["seconds"] for row in rows), 1), "runs": rows}


def damaged(folder: Path) -> list[str]:
    """A sentence for each file that is not as the manifest in `folder` says.

    Raises `FileNotFoundError` without a manifest, `DamagedFile` for one that cannot be read.
    """
    found, told = checksums(folder), []
    for name, digest in vouched(folder).items():
        if name not in found:
            told.append(f"{folder / name} is missing")
        elif (now := found[name]) != digest:
            told.append(f"{folder / name} is not what was written: its SHA-256 is {now}, the manifest's {digest}")
    return told


def check_intact(folder: Path) -> None:
    """Raise `ValueError` for a file that is not as the manifest in `folder` says."""
    if wrong := damaged(folder):
        raise ValueError(f"{wrong[0]}; restore it with git")


def vouched(folder: Path) -> dict[str, str]:
    """File name -> checksum by the manifest in `folder`. Errors are those of `damaged`."""
    manifest = read_json(folder / MANIFEST)
    if not isinstance(manifest, dict):
        raise DamagedFile(f"{folder / MANIFEST} is no manifest; delete it and run again")
    checked: dict[str, str] = manifest.get("checksums", {})
    return checked
