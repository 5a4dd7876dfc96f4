"""The plan: which notebook runs, with which parameters, after which, and why it must run (again)."""

import contextlib
import itertools
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from maskutils.batch.notebooks import check_parameters, check_setup, code_cells, find_notebook, notebook_parameters
from maskutils.batch.profile import RunSpec, load_profile
from maskutils.core import paths
from maskutils.core.checks import BadSetting, content_key, known
from maskutils.core.files import DamagedFile, file_digest, read_json
from maskutils.results.written import lost
from maskutils.study.inputs import pairs_in, stamps
from maskutils.study.provenance import STAGES, cell_key, code_keys, imports_in, modules_beside, python_of, versions
from maskutils.study.setup import known_setting

FORCED = "--force, and it has not run since"
LONGEST_ID = 200  # bytes of the name of a run: it names files, and file systems take 255


@dataclass(frozen=True)
class Run:
    """One notebook with all its parameters. `parts` is what its `key` is made of, by name: parameters, versions and hashes."""

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


def make_plan(name: str) -> list[Run]:
    """The runs of profile `name`, each after those it needs, with every parameter checked.

    Raises `BadSetting` for anything wrong with profile, notebooks or parameters: nothing has started then.
    """
    profile = load_profile(name)
    runs: dict[str, Run] = {}
    specs = [(notebook, spec) for spec in profile.runs for notebook in spec.notebooks]
    declared = {notebook: notebook_parameters(find_notebook(notebook)) for notebook, _ in specs}
    for parameter, value in profile.parameters.items():
        known_setting(parameter, set().union(*declared.values()), value, f"parameter of profile {name}")
    for notebook, spec in specs:
        for wanted in spec.after:
            known(wanted, declared, f"notebook under after of {notebook}, profile {name},")
        before = [run for run in runs.values() if run.notebook.stem in spec.after]
        for varied in _variations(name, notebook, spec):
            own = {k: v for k, v in profile.parameters.items() if k in declared[notebook]} | spec.parameters | varied
            run = _run(name, notebook, spec, varied, own, declared[notebook], before)
            if run.id in runs:
                raise BadSetting(f"profile {name} runs {run.id} twice; join the two, or vary a parameter under `each`")
            if last_state(name, run).get("parts") != as_stored(run.parts):  # else its names were checked when it ran
                check_setup(run.id, run.parameters)
            runs[run.id] = run
    if len(collecting := [run.id for run in runs.values() if run.collect]) > 1:
        raise BadSetting(
            f"profile {name}: {', '.join(collecting)} would each write records.csv; let one of them collect"
        )
    reads = next(
        (notebook for notebook, given in declared.items() if "profile" in given and "output" not in given), None
    )
    if reads and not collecting and not (paths.results_dir(name) / "records.csv").exists():
        raise BadSetting(
            f"profile {name}: {reads} reads the records of this profile, and no run collects them; write `collect: true` there, and "
            "`after:` with the notebooks whose records it joins"
        )
    return list(runs.values())


def _variations(profile: str, notebook: str, spec: RunSpec) -> Iterator[dict[str, Any]]:
    """The values under `each`, in every combination. Raises `BadSetting` for an entry that says nothing."""
    if empty := [name for name, values in spec.each.items() if not values]:
        raise BadSetting(f"profile {profile}, {notebook}: each: {empty[0]} has no values, so nothing would run")
    if twice := spec.each.keys() & spec.parameters.keys():
        raise BadSetting(
            f"profile {profile}, {notebook}: {', '.join(sorted(twice))} under both parameters and each; leave one out"
        )
    if spec.collect and not spec.after:
        raise BadSetting(
            f"profile {profile}, {notebook}: collect joins the records of what it comes after; list that under after"
        )
    for values in itertools.product(*spec.each.values()):
        yield dict(zip(spec.each, values, strict=True))


def _run(
    profile: str, notebook: str, spec: RunSpec, varied: Mapping[str, Any], own: dict[str, Any],
    declared: Mapping[str, tuple[str, Any]], before: Sequence[Run],
) -> Run:  # fmt: skip
    names = [re.sub(r"[^\w.+-]+", "_", str(value)).strip("_") for value in varied.values()]  # of files
    run_id = "-".join([notebook, *names])
    if len(run_id.encode()) > LONGEST_ID:
        raise BadSetting(
            f"{run_id[:60]}... is too long to name a file ({len(run_id.encode())} of {LONGEST_ID} bytes); shorten `each`"
        )
    if given := own.keys() & declared.keys() & {"output", "profile"}:
        raise BadSetting(f"{run_id}: the batch itself gives {', '.join(sorted(given))}; leave it out")
    if "profile" in declared:
        own |= {"profile": Path(profile).stem}
    parameters = check_parameters(run_id, own, declared)
    path = find_notebook(notebook)
    after = [r for r in before if all(r.parameters.get(k, parameters[k]) == parameters[k] for k in varied)]
    missing = set(spec.after) - {r.notebook.stem for r in after}
    if missing:
        there = missing <= {r.notebook.stem for r in before}
        how = f" with {', '.join(f'{k} = {parameters[k]}' for k in varied)}" if there else ""
        raise BadSetting(
            f"{run_id} comes after {', '.join(sorted(missing))}, which profile {profile} does not run before it{how}"
        )
    parts = {"parameters": parameters, "upstream": {r.id: r.key for r in after}, **found_parts(path, parameters)}
    if "output" in declared:
        parameters = parameters | {"output": str(records_file(profile, run_id))}
    return Run(run_id, path, parameters, tuple(r.id for r in after), spec.collect, parts)


def found_parts(notebook: Path, parameters: Mapping[str, Any]) -> dict[str, Any]:
    """What a run depends on beside its parameters and what it comes after, as it is now: code, versions, images and tuned rates."""
    cells = code_cells(notebook)
    beside = modules_beside(notebook.parent, *cells)
    ours = {m for source in (*map(python_of, cells), *beside.values()) for m in imports_in(source)}
    keys = code_keys(*sorted(ours))
    if "maskutils.study.artefacts" in keys:
        keys |= {f"stage {name}": str(version) for name, version in STAGES.items()}
    parts: dict[str, Any] = {
        "notebook code": [cell_key(cell) for cell in cells],
        "package code": keys,
        "modules beside the notebook": {name: cell_key(source) for name, source in beside.items()},
        "versions": {name: v for name, v in versions().items() if name != "maskutils"},
        "files": [stamps(pair, parameters.get("weights", "")) for pair in pairs_in(parameters)],
    }
    if parameters.get("tuned"):
        parts["tuned rates"] = [file_digest(file) for file in rates_of(parameters)]
    return parts


def rates_of(parameters: Mapping[str, Any]) -> list[Path]:
    """The tables of tuned rates that a run with `parameters` may read: those of its model and pairs; all where it does not name them."""
    model, pairs = parameters.get("model", ""), pairs_in(parameters)
    names = {paths.rates_name(model, pair) for pair in pairs if model}
    return [file for file in paths.tuned_rates() if not names or file.name in names]


def records_file(profile: str, run_id: str) -> Path:
    """Where a run leaves its records."""
    return paths.runs_dir(profile) / f"{run_id}.csv"


def lock_name(run_id: str) -> str:
    """The name of the file beside a run's state that the worker which has the run locks, as long as it has it."""
    return f".{run_id}.lock"


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
        changed = [part for part, value in as_stored(run.parts).items() if state["parts"].get(part) != value]
        outputs, written, _ = dict(state["outputs"]), list(state.get("written", ())), float(state["seconds"])
    except (DamagedFile, KeyError, TypeError, ValueError, AttributeError):
        return "its state file is damaged"
    if changed:
        return "changed: " + ", ".join(changed)
    if state.get("status") != "done":
        return "failed before"
    if state.get("forced"):
        return FORCED
    if not outputs:  # its executed notebook is one
        return "its state file is damaged"
    folder = paths.results_dir(profile)  # the names of outputs are relative to it, so that it can be moved and copied
    damaged = [name for name, digest in outputs.items() if not digest or file_digest(folder / name) != digest]
    damaged += lost(written)
    return "missing or damaged: " + ", ".join(Path(name).name for name in damaged) if damaged else ""


def last_state(profile: str, run: Run) -> dict[str, Any]:
    """The last state of `run`; empty if there is none that can be read."""
    return read_state(state_file(profile, run.id))


def lacked(run: Run, state: Mapping[str, Any]) -> list[str]:
    """Those runs before `run` without which the result that `state` tells of was made."""
    return [before for before in state.get("lacks", ()) if before in run.after]


def goes_on(profile: str) -> str:
    """What somebody is told whose batch was stopped: how it goes on."""
    forced = any(read_state(file).get("forced") for file in paths.runs_dir(profile).glob("*.json"))
    return f"what is done stays, and the same command{', without --force,' * forced} goes on from there"


def read_state(file: Path) -> dict[str, Any]:
    """The state in `file`; empty if there is none that can be read."""
    with contextlib.suppress(OSError, DamagedFile):
        state = read_json(file)
        return state if isinstance(state, dict) and isinstance(state.get("parts", {}), dict) else {}
    return {}


def as_stored(parts: Mapping[str, Any]) -> dict[str, Any]:
    """`parts` as they come back from a file."""
    stored: dict[str, Any] = json.loads(json.dumps(parts))
    return stored
