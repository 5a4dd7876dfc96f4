"""What no profile refers to any more: runs, results of profiles that are gone, and cached artefacts that no run uses.

Only files that are surely ours are found: runs by their state file, results by their digest in the manifest, artefacts by their name in the
cache. A file that was being written is known by the beginning of its name.
"""

import contextlib
import re
import time
from collections.abc import Iterable
from pathlib import Path

from maskutils.batch import plan
from maskutils.batch.profile import HOLDER, gone, owner
from maskutils.batch.status import is_held
from maskutils.core import paths
from maskutils.core.caches import checksum_of
from maskutils.core.checks import BadSetting
from maskutils.core.files import NEW, DamagedFile
from maskutils.results.manifest import MANIFEST, checksums, vouched
from maskutils.study.provenance import is_committed

ARTEFACT = re.compile(r"[0-9a-f]{16}\.(safetensors|json)")
OF_A_RUN = ("{}.json", "{}.csv", "{}.uses", "{}.writes", "{}.ipynb", "{}.failed.ipynb", "{}.partial.ipynb", ".{}.lock")
YOUNG = 3600.0  # seconds; a notebook that is open may be at work with what is younger


def leftovers() -> tuple[dict[str, list[Path]], list[str]]:
    """Files that can go, by what they are, and the reasons why other files stay. Nothing is removed.

    A profile refers to the runs of its plan, and these to the cached artefacts that they used when they last ran. What git follows
    stays. Raises `BadSetting` while a batch is at work.
    """
    found: dict[str, list[Path]] = {}
    used: set[str] = set()
    stays = []
    results = paths.project_root() / "results"
    for folder in sorted(runs.parent for pattern in ("*/runs", "local/*/runs") for runs in results.glob(pattern)):
        if is_held(folder / ".lock"):
            raise BadSetting(f"a batch works on {folder}; wait for it, then clean")
        wanted = set()
        try:
            if profile := gone(folder):
                found[f"{_shown(folder)}, whose profile {profile} is gone"] = _results(folder) + _figures(folder)
            else:
                wanted = {run.id for run in plan.make_plan(str(owner(folder) or folder.name))}
        except BadSetting as error:
            wanted = set(_runs(folder))
            stays.append(f"{_shown(folder)}: {error}")
        for run in _runs(folder):
            if run not in wanted:
                found[f"{_shown(folder)}: {run}"] = _files(folder, run)
            elif (uses := folder / "runs" / f"{run}.uses").is_file():
                used |= set(uses.read_text(encoding="utf-8", errors="replace").split())
            else:
                stays.append(
                    f"the cache: {_shown(folder)}: {run} left no list of what it uses; run it again, with --force"
                )
    if not any(reason.startswith("the cache") for reason in stays):
        found |= _unused(used)
    found["cut short as they were written"] = _cut_short()
    return {name: files for name, files in found.items() if files}, stays


def _runs(folder: Path) -> list[str]:
    """The ids of the runs that left a state in `folder`, or were stopped before their end."""
    states = (file for file in (folder / "runs").glob("*.json") if "parts" in plan.read_state(file))
    return sorted({file.stem for file in (*states, *(folder / "runs").glob("*.uses"))})


def _files(folder: Path, run: str) -> list[Path]:
    files = [folder / "runs" / pattern.format(run) for pattern in OF_A_RUN]
    return [file for file in [*files, folder / "report" / "notebooks" / f"{run}.html"] if file.is_file()]


def _results(folder: Path) -> list[Path]:
    """What the batch wrote and is as the manifest in `folder` says, and what marks the folder; nothing of what git follows."""
    if is_committed(folder):
        return []
    found, ours = checksums(folder), []
    with contextlib.suppress(OSError, DamagedFile, KeyError, TypeError):
        same = [name for name, digest in vouched(folder).items() if found.get(name) == digest]
        tables = {f"{Path(name).stem}{kind}" for name in same for kind in (".md", ".tex") if name.endswith(".tex")}
        ours = [folder / name for name in same if name in {"records.csv", "masks.json"} | tables]
    marks = [MANIFEST, "report/index.html", ".lock", "runs/.profile", f"runs/{HOLDER}"]
    marks.append(f"{folder.name}.yaml")  # of a variation
    return [file for file in [*ours, *(folder / name for name in marks)] if file.is_file()]


def _figures(results: Path) -> list[Path]:
    """The figures beside the folder `results` that say of themselves that they are of its profile; nothing of what git follows."""
    root = paths.project_root()
    folder, said = root / "figures" / results.relative_to(root / "results"), f"profile {results.name}".encode()
    return (
        []
        if is_committed(folder)
        else [file for file in sorted(folder.glob("*.p[nd][gf]")) if said in file.read_bytes()]
    )


def _unused(used: set[str]) -> dict[str, list[Path]]:
    """Cached artefacts that are not among the `used`, by kind, with their checksums."""
    found: dict[str, list[Path]] = {}
    for file in sorted(paths.cache_dir("").glob("*/*")):
        kind = file.parent.name
        if ARTEFACT.fullmatch(file.name) and _is_old(file) and f"{kind}/{file.name}" not in used:
            found.setdefault(f"cache: {kind}", []).extend([file, checksum_of(file)])
    return {name: [file for file in files if file.is_file()] for name, files in found.items()}


def _cut_short() -> list[Path]:
    """What a kill left of files that were being written, of results and of the cache."""
    return sorted(filter(_is_old, (paths.project_root() / "results").rglob(f"{NEW}*")))


def _is_old(file: Path) -> bool:
    with contextlib.suppress(FileNotFoundError):  # it was written to its end meanwhile
        return time.time() - file.stat().st_mtime > YOUNG
    return False


def total_bytes(files: list[Path]) -> int:
    """Bytes of `files` together."""
    return sum(file.stat().st_size for file in files)


def remove(files: Iterable[Path]) -> None:
    """Remove `files`, and the folders of results and figures that are empty then."""
    folders = set()
    for file in files:
        file.unlink(missing_ok=True)
        folders |= {file.parent, file.parent.parent}
    for folder in sorted(folders, reverse=True):  # a folder comes after what it holds
        if paths.project_root() in folder.parent.parents:
            with contextlib.suppress(OSError):  # it is not empty
                folder.rmdir()


def _shown(folder: Path) -> str:
    return str(folder.relative_to(paths.project_root()))
