"""Profiles: files that say which notebooks run, with which parameters; and whose results a folder holds."""

import os
import re
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import BaseModel, ConfigDict, Field

from maskutils.core import paths
from maskutils.core.checks import BadSetting, known
from maskutils.core.files import write_atomically
from maskutils.study.setup import checked

HOLDER = ".batch"  # the file beside the runs that says which process works on them
VARIES = "# a variation of "  # begins the file of one, which names its profile


class Loader(yaml.SafeLoader):
    """Refuses a key that stands twice, of which YAML's own keeps the last; and knows 1e-4 as a number, which PyYAML takes for text."""

    def compose_mapping_node(self, anchor: dict[Any, Any]) -> yaml.MappingNode:
        """As the base class does; mappings are not merged yet."""
        node: yaml.MappingNode = super().compose_mapping_node(anchor)
        keys = [key.value for key, _ in node.value if key.tag != "tag:yaml.org,2002:merge"]
        for key in keys:
            if keys.count(key) > 1:
                raise yaml.YAMLError(f"{key!r} stands twice, line {node.start_mark.line + 1}")
        return node


class Dumper(yaml.SafeDumper):
    """Writes what `Loader` reads as it was: text that looks like 1e-4 in quotes."""


for taught in (Loader, Dumper):
    taught.add_implicit_resolver(
        "tag:yaml.org,2002:float", re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"), list("-+.0123456789")
    )


def read_yaml(text: str) -> Any:
    """The value of YAML `text`. Raises `ValueError` for text that is none, or holds a date or number that there is not."""
    try:
        return Loader(text).get_single_data()
    except yaml.MarkedYAMLError as error:
        line = f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise ValueError(f"{error.problem}{line}") from None
    except (yaml.YAMLError, ValueError, RecursionError, LookupError, AttributeError) as error:
        raise ValueError(str(error) or type(error).__name__) from None


class RunSpec(BaseModel):
    """One entry of a profile: notebooks, the parameters they vary over, and what must be done before."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    notebook: str | Annotated[list[str], Field(min_length=1)]
    each: dict[str, list[Any]] = {}
    after: list[str] = []
    parameters: dict[str, Any] = {}
    collect: bool = False  # join the records of what it comes after, before it runs

    @property
    def notebooks(self) -> list[str]:
        """The notebooks of the entry, which may be one."""
        return [self.notebook] if isinstance(self.notebook, str) else self.notebook


class Profile(BaseModel):
    """A profile file: everything that says how large a study is."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    description: str
    parameters: dict[str, Any] = {}
    runs: Annotated[list[RunSpec], Field(min_length=1)]
    cell_timeout: Annotated[int, Field(gt=0)] = 3600  # seconds


def profiles() -> dict[str, Path]:
    """The files of the profiles that there are, by name: those in `profiles/` of the project, and those that ship."""
    folders = (paths.PROFILES, paths.project_root() / "profiles")
    found = {file.stem: file for folder in folders for file in folder.glob("*.yaml")}
    return dict(sorted(found.items()))


def load_profile(name: str) -> Profile:
    """The profile `name`, or the one in a file of the user's own ("my.yaml"). A project's `profiles/` comes before what ships.

    Raises `BadSetting` for an unknown name, a missing file or one with faults.
    """
    own, there = Path(name).suffix in (".yaml", ".yml"), profiles()
    if own and Path(name).resolve() != there.get(Path(name).stem, Path(name)).resolve():
        ships = "one that ships" if there[Path(name).stem].parent == paths.PROFILES else there[Path(name).stem]
        raise BadSetting(f"profile {name} has the name of {ships}, and would write over its results; rename the file")
    if not own and name not in there and (near := Path(f"{name}.yaml")).is_file():
        raise BadSetting(f"unknown profile {name!r}; for the file here say --profile {near}")
    file = Path(name) if own else there[known(name, there, "profile")]
    if "." in file.stem:
        raise BadSetting(
            f"profile {name} has a dot in its name, and results would go to a folder without what follows it; rename it"
        )
    _check_owner(name, file)
    try:
        content = read_yaml(file.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise BadSetting(f"profile {file} cannot be read: {getattr(error, 'strerror', error)}") from None
    if not isinstance(content, dict):
        raise BadSetting(f"profile {file} is not a mapping of {', '.join(Profile.model_fields)}")
    try:
        for number, entry in enumerate(entries if isinstance(entries := content.get("runs"), list) else (), 1):
            for key in entry if isinstance(entry, dict) else ():
                known(key, RunSpec.model_fields, f"key of entry {number} under runs")
        return checked(Profile, content)
    except BadSetting as error:
        raise BadSetting(f"profile {file}: {error}") from None


def mark_owner(profile: str) -> None:
    """Write down which file of the user's own the results of `profile` are of: another one of that name is refused."""
    if Path(profile).suffix:
        write_atomically(_marker(paths.results_dir(profile)), from_root(profile).encode())


def from_root(profile: str) -> str:
    """The name of `profile`, or the path of a file of the user's own from the project's root, so that both can be moved."""
    return os.path.relpath(Path(profile).resolve(), paths.project_root()) if Path(profile).suffix else profile


def owner(results: Path) -> Path | None:
    """The user's own file whose results the folder `results` holds; None if there is no mark. Raises `BadSetting` for a damaged one."""
    try:
        file = _marker(results).read_text(encoding="utf-8").strip()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError):
        file = ""
    if not file:
        raise BadSetting(
            f"{_marker(results)}, which names the profile of these results, is damaged; delete it, and run the profile again"
        )
    return Path(os.path.normpath(paths.project_root() / file))


def gone(results: Path) -> str:
    """The profile whose results, or those of a variation, the folder `results` holds, where it is gone; empty if it is there.

    Raises `BadSetting` for one that lay outside of the project and is not found: the project may have moved.
    """
    file = owner(results)
    if file is None:
        return ""
    if not file.is_file():
        return _surely_gone(file)
    first = file.read_text(encoding="utf-8", errors="replace").partition("\n")[0]
    base = first.removeprefix(VARIES)
    if base == first or file.parent != results:  # a copy of a variation's file is a profile of its own
        return ""
    if not Path(base).suffix:
        return "" if base in profiles() else base
    of = Path(os.path.normpath(paths.project_root() / base))
    return "" if of.is_file() else _surely_gone(of)


def _surely_gone(file: Path) -> str:
    if not file.is_relative_to(paths.project_root()):
        raise BadSetting(
            f"its profile is not found at {file}; run it once with --profile and the path that it has now, or remove these results yourself"
        )
    return str(file)


def _marker(results: Path) -> Path:
    return results / "runs" / ".profile"


def _check_owner(name: str, file: Path) -> None:
    """Raises `BadSetting` if the results of `name` are those of another file that is still there."""
    other = owner(paths.results_dir(name))
    if other is None or other.parent == paths.results_dir(name):
        return  # of --param, which writes it anew each time
    if other.exists() and file.exists() and not other.samefile(file):
        raise BadSetting(f"{paths.results_dir(name)} holds the results of profile {other}; rename {file}")
