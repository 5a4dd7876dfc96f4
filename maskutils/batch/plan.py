"""The plan: which notebook runs, with which parameters, after which, and why it must run (again).

Owns profiles and the state of runs. It executes nothing.
"""

import hashlib
import itertools
import json
import platform
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import BaseModel, ConfigDict, Field

from maskutils.batch.notebooks import check_parameters, code_cells, find_notebook, notebook_parameters
from maskutils.core import paths
from maskutils.core.checks import BadSetting, content_key, known
from maskutils.core.files import DamagedFile, file_digest, read_json
from maskutils.study.inputs import pairs_in, stamps
from maskutils.study.provenance import code_key, imports_in_cell
from maskutils.study.setup import checked, known_setting


class _Loader(yaml.SafeLoader):
    """Of YAML's numbers it also knows 1e-4, which PyYAML takes for text."""


_Loader.add_implicit_resolver("tag:yaml.org,2002:float", re.compile(r"[-+]?\d+[eE][-+]?\d+$"), list("-+0123456789"))


class RunSpec(BaseModel):
    """One entry of a profile: notebooks, the parameters they vary over, and what must be done before."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    notebook: str | list[str]
    each: dict[str, list[Any]] = {}
    after: list[str] = []
    parameters: dict[str, Any] = {}
    collect: bool = False  # join the records of what it comes after, before it runs


class Profile(BaseModel):
    """A profile file: everything that says how large a study is."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    description: str
    parameters: dict[str, Any] = {}
    runs: Annotated[list[RunSpec], Field(min_length=1)]
    cell_timeout: int = 3600  # seconds


@dataclass(frozen=True)
class Run:
    """One notebook with all its parameters. `parts` are the hashes its `key` is made of, by what they stand for."""

    id: str
    notebook: Path
    parameters: Mapping[str, Any]
    after: tuple[str, ...]
    collect: bool
    parts: Mapping[str, Any]

    @property
    def key(self) -> str:
        """Names the content of this run: same key, same result."""
        return content_key(dict(self.parts))


def profiles() -> list[str]:
    """Names of the profiles that there are."""
    return sorted(p.stem for p in paths.PROFILES.glob("*.yaml"))


def load_profile(name: str) -> Profile:
    """The profile `name`, or the one in a file of the user's own ("my.yaml").

    Raises `BadSetting` for an unknown name, a missing file or one with faults.
    """
    own = Path(name).suffix in (".yaml", ".yml")
    if own and Path(name).stem in profiles() and not Path(name).resolve().is_relative_to(paths.PROFILES):
        raise BadSetting(
            f"profile {name} has the name of one that ships, and would write over its results; rename the file"
        )
    file = Path(name) if own else paths.PROFILES / f"{known(name, profiles(), 'profile')}.yaml"
    try:
        content = _Loader(file.read_text(encoding="utf-8")).get_single_data()
    except (yaml.YAMLError, UnicodeDecodeError, OSError) as error:
        raise BadSetting(f"profile {file} cannot be read: {error}") from None
    if not isinstance(content, dict):
        raise BadSetting(f"profile {file} is not a mapping of {', '.join(Profile.model_fields)}")
    return checked(Profile, content)


def make_plan(name: str) -> list[Run]:
    """The runs of profile `name`, each after those it needs, with every parameter checked.

    Raises `BadSetting` for anything wrong with profile, notebooks or parameters: nothing has started then.
    """
    profile, runs = load_profile(name), []
    specs = [
        (notebook, spec)
        for spec in profile.runs
        for notebook in ([spec.notebook] if isinstance(spec.notebook, str) else spec.notebook)
    ]
    declared = {notebook: notebook_parameters(find_notebook(notebook)) for notebook, _ in specs}
    for parameter, value in profile.parameters.items():
        known_setting(parameter, set().union(*declared.values()), value, f"parameter of profile {name}")
    for notebook, spec in specs:
        for values in itertools.product(*spec.each.values()):
            varied = dict(zip(spec.each, values, strict=True))
            own = {k: v for k, v in profile.parameters.items() if k in declared[notebook]} | spec.parameters | varied
            runs.append(_run(name, notebook, spec, varied, own, declared[notebook], runs))
            if runs[-1].id in {run.id for run in runs[:-1]}:
                raise BadSetting(
                    f"profile {name} runs {runs[-1].id} twice; join the two, or vary a parameter under `each`"
                )
    return runs


def _run(
    profile: str, notebook: str, spec: RunSpec, varied: Mapping[str, Any], own: dict[str, Any],
    declared: Mapping[str, tuple[str, Any]], before: Sequence[Run],
) -> Run:  # fmt: skip
    names = [re.sub(r"[^\w.+-]+", "_", str(value)).strip("_") for value in varied.values()]  # of files
    run_id = "-".join([notebook, *names])
    if "profile" in declared:
        own |= {"profile": Path(profile).stem}
    parameters = check_parameters(run_id, own, declared)
    path = find_notebook(notebook)
    after = [
        r
        for r in before
        if r.notebook.stem in spec.after and all(r.parameters.get(k, parameters[k]) == parameters[k] for k in varied)
    ]
    missing = set(spec.after) - {r.notebook.stem for r in after}
    if missing:
        raise BadSetting(
            f"{run_id} comes after {', '.join(sorted(missing))}, which profile {profile} does not run before it"
        )
    code = code_cells(path)
    parts = {
        "notebook code": hashlib.sha256("\0".join(code).encode()).hexdigest()[:16],
        "parameters": parameters,
        "package code": code_key(*itertools.chain.from_iterable(map(imports_in_cell, code))),
        "upstream": {r.id: r.key for r in after},
        "files": [stamps(pair, parameters.get("weights", "")) for pair in pairs_in(parameters)],
        "versions": {"python": platform.python_version_tuple()[:2], "torch": version("torch")},
    }
    if "output" in declared:
        parameters = parameters | {"output": str(records_file(profile, run_id))}
    return Run(run_id, path, parameters, tuple(r.id for r in after), spec.collect, parts)


def records_file(profile: str, run_id: str) -> Path:
    """Where a run leaves its records."""
    return paths.runs_dir(profile) / f"{run_id}.csv"


def state_file(profile: str, run_id: str) -> Path:
    """Where the state of a run is written, last of all."""
    return paths.runs_dir(profile) / f"{run_id}.json"


def why(profile: str, run: Run) -> str:
    """The reason why `run` must run; empty if it is done."""
    file = state_file(profile, run.id)
    if not file.exists():
        return "not run yet"
    try:
        state = read_json(file)
        changed = [part for part, value in _as_stored(run.parts).items() if state["parts"].get(part) != value]
        outputs = dict(state["outputs"])
    except (DamagedFile, KeyError, TypeError, ValueError, AttributeError):
        return "its state file is damaged"
    if changed:
        return "changed: " + ", ".join(changed)
    if state.get("status") != "done":
        return "failed before"
    folder = paths.results_dir(profile)  # the names of outputs are relative to it, so that it can be moved and copied
    damaged = [
        Path(name).name for name, digest in outputs.items() if not digest or file_digest(folder / name) != digest
    ]
    return "missing or damaged: " + ", ".join(damaged) if damaged else ""


def _as_stored(parts: Mapping[str, Any]) -> dict[str, Any]:
    """`parts` as they come back from a file."""
    return json.loads(json.dumps(parts))
