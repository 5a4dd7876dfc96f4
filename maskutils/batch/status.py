"""What has become of the runs of a profile, why they would run again, and which of them are to run now."""

import fnmatch
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from maskutils.batch import plan
from maskutils.batch.notebooks import cell_name, code_cells, find_notebook, notebook_parameters
from maskutils.batch.plan import Run, as_stored, last_state
from maskutils.batch.profile import VARIES, Dumper, from_root, load_profile, read_yaml
from maskutils.core import paths
from maskutils.core.checks import BadSetting, content_key, known
from maskutils.core.files import file_digest, is_path, write_atomically
from maskutils.study.inputs import pairs_in


def statuses(profile: str, runs: Sequence[Run]) -> dict[str, dict[str, Any]]:
    """For each run: `status`, `why` it would run (empty if it is done), and what its last state says.

    The status is done, running, failed, partial (done without runs that failed), blocked (`by` runs that failed), changed (it was done, of
    something else), or missing.
    """
    found: dict[str, dict[str, Any]] = {}
    for run in runs:
        told, state = _judged(profile, run, found), last_state(profile, run)
        names = ("seconds", "error", "notebook") if told["status"] != "running" else ()  # which are of an earlier try
        kept: dict[str, Any] = {name: state[name] for name in names if name in state}
        if "notebook" in kept:
            kept["notebook"] = str(paths.results_dir(profile) / kept["notebook"])
        found[run.id] = kept | told | {"after": list(run.after)}
    return found


def _judged(profile: str, run: Run, found: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Status and reason of `run`, with `by` or `lacks`; `found` is what was found of those that it comes after."""
    reason, state = plan.why(profile, run), last_state(profile, run)
    if not reason:
        return {"status": "done", "why": ""}
    if is_held(paths.runs_dir(profile) / plan.lock_name(run.id)):
        return {"status": "running", "why": "a worker has it now"}
    changed = "; ".join(changed_parts(profile, run)) if reason.startswith("changed") else ""
    since = f"; changed since: {changed}" * bool(changed)
    if state.get("status") == "failed":
        return {"status": "failed", "why": f"failed before{since}"}
    if lacks := first_causes(plan.lacked(run, state), found, "lacks"):
        once = f"once {'those are' if len(lacks) > 1 else 'that is'} done, or with --keep-going"
        return {"status": "partial", "why": f"made without {few(lacks)}; runs again {once}{since}", "lacks": lacks}
    if by := first_causes([b for b in run.after if found[b]["status"] in ("failed", "blocked")], found, "by"):
        return {"status": "blocked", "why": blocked(by), "by": by}
    return {"status": "changed" if changed or reason == plan.FORCED else "missing", "why": changed or reason}


def first_causes(runs: Sequence[str], states: Mapping[str, Mapping[str, Any]], key: str) -> list[str]:
    """`runs`, but for one whose state names others under `key` these others: "by" which it is blocked, or what it "lacks"."""
    return list(dict.fromkeys(first for run in runs for first in states.get(run, {}).get(key, [run])))


def few(names: Sequence[str], most: int | None = 3) -> str:
    """`names` in a row; of many the first ones, and how many more.

    >>> few("abcde")
    'a, b, c and 2 more'
    """
    shown = names[:most]
    return ", ".join(shown) + f" and {len(names) - len(shown)} more" * (len(names) > len(shown))


def blocked(by: Sequence[str]) -> str:
    """Why a run that needs the runs `by` cannot start."""
    return f"{few(by)} {'are' if len(by) > 1 else 'is'} not done"


def lacking(profile: str) -> list[str]:
    """The runs without whose records those of `profile` were joined, by the last state of the run that joined them."""
    name = "records.csv"
    digest = file_digest(paths.results_dir(profile) / name)
    states = (plan.read_state(file) for file in sorted(paths.runs_dir(profile).glob("*.json")))
    return next((state.get("lacks", []) for state in states if state.get("outputs", {}).get(name) == digest), [])


def changed_parts(profile: str, run: Run, most: int | None = 3) -> list[str]:
    """What changed since `run` last ran: a parameter, cell, module, library or run before it. Of many of a kind `most` are named."""
    state, told = last_state(profile, run), []
    was, lacks = state.get("parts", {}), plan.lacked(run, state)
    for part, now in as_stored(run.parts).items():
        before = was.get(part)
        if part == "upstream":
            now = {name: key for name, key in now.items() if name not in lacks}
        if before == now:
            continue
        if isinstance(now, list) and isinstance(before, list):
            new = [name for name, key in zip(_named(part, run), now, strict=False) if key not in before]
            told.append(f"{part}: {few(new, most) or 'fewer, or in another order'}")
        elif isinstance(now, dict) and isinstance(before, dict):
            names = [name for name in {**before, **now} if before.get(name) != now.get(name)]
            said = part in ("parameters", "versions")  # the rest are hashes
            names = [f"{n} {before.get(n)} -> {now.get(n)}" if said or n.startswith("stage ") else n for n in names]
            told.append(f"{part}: {few(names, most)}")
        else:
            told.append(part)
    return told


def _named(part: str, run: Run) -> list[str]:
    """What each of the hashes in a `part` of `run` stands for."""
    if part == "notebook code":
        return [cell_name(n, source) for n, source in enumerate(code_cells(run.notebook), 1)]
    if part == "files":
        own = run.parts["parameters"].get("weights", "")
        return [f"{pair} or {own}" if is_path(own) else pair for pair in pairs_in(run.parts["parameters"])]
    return [file.name for file in plan.rates_of(run.parts["parameters"])]


def run_details(profile: str, run: Run, found: Mapping[str, Any]) -> dict[str, Any]:
    """What made the result of `run`: notebook, parameters, commit, versions (ours and others'), machine; and why it would run again.

    `found` is what `statuses` says of it.
    """
    state = last_state(profile, run)
    told = ("seconds", "commit", "maskutils", "machine", "error", "outputs")
    return {
        "run": run.id,
        "status": found["status"],
        "why": found["why"],
        "notebook": str(run.notebook),
        "executed": found.get("notebook", ""),
        "parameters": parameters_of(profile, run),
        **{name: state[name] for name in told if name in state},
        "versions": state.get("parts", {}).get("versions", {}),
        "comes after": list(run.after),
        "changes": changed_parts(profile, run, most=None) if state else [],
    }


def parameters_of(profile: str, run: Run) -> dict[str, Any]:
    """The parameters that the result of `run` was made with, or would be made with; not the file for its records, see its outputs."""
    made: dict[str, Any] = last_state(profile, run).get("parts", {}).get("parameters", run.parts["parameters"])
    return {name: value for name, value in made.items() if name != "output"}


def is_held(lock: Path) -> bool:
    """Whether somebody holds the `lock` now, as a worker holds the lock of its run; the file need not be there."""
    if not lock.exists():
        return False
    import filelock

    try:
        with filelock.FileLock(lock, timeout=0, is_singleton=False):
            return False
    except filelock.Timeout:
        return True


def chosen_runs(
    profile: str, runs: Sequence[Run], reasons: Mapping[str, str], only: Sequence[str] = (), only_failed: bool = False, force: bool = False,
) -> list[Run]:  # fmt: skip
    """The runs to do, and the runs they need that are not done.

    A run is to do if it is not done (or `force`), matches a pattern in `only` (* and ?, or the name of its notebook), and, with
    `only_failed`, failed before or comes after a run that did.
    Raises `BadSetting` for a pattern that no run matches.
    """
    matched = {pattern: [run.id for run in runs if matches(run, pattern)] for pattern in only}
    if unmatched := [pattern for pattern, names in matched.items() if not names]:
        raise BadSetting(f"no run matches {unmatched[0]!r}; there are: {', '.join(run.id for run in runs)}")
    wanted = {name for names in matched.values() for name in names} if only else {run.id for run in runs}
    if only_failed:
        states = {run.id: last_state(profile, run) for run in runs}
        failed = {
            run.id for run in runs if states[run.id].get("status") == "failed" or plan.lacked(run, states[run.id])
        }
        for run in runs:  # each stands after those it needs
            if reasons[run.id] and failed & set(run.after):
                failed.add(run.id)
        wanted &= failed
    chosen = {run_id for run_id in wanted if force or reasons[run_id]}
    for run in reversed(runs):
        if run.id in chosen:
            chosen |= {before for before in run.after if reasons[before]}
    return [run for run in runs if run.id in chosen]


def matches(run: Run, pattern: str) -> bool:
    """Whether `run` is meant by `pattern`: by its own name or that of its notebook."""
    return any(fnmatch.fnmatch(name, pattern) for name in (run.id, run.notebook.stem))


def variation(profile: str, changes: Sequence[str], folder: Path | None = None) -> str:
    """A profile like `profile` with `changes`, each a parameter as "name=value", everywhere; returns its file.

    It has a name, and so results, of its own. The file lies in `folder`, by default with those results. Raises `BadSetting` for a
    change of another form or of a parameter that the profile's notebooks do not have.
    """
    if not changes:
        return profile
    base = load_profile(profile)
    content = base.model_dump(exclude_defaults=True)
    notebooks = {notebook for spec in base.runs for notebook in spec.notebooks}
    names = {name for notebook in notebooks for name in notebook_parameters(find_notebook(notebook))}
    for change in changes:
        name, equals, text = change.partition("=")
        if not equals:
            raise BadSetting(f"--param {change!r} is not of the form name=value")
        if name in ("profile", "output"):
            raise BadSetting(f"--param {change!r}: the batch itself gives {name}; leave it out")
        known(name, names - {"profile", "output"}, f"parameter of profile {profile}")
        try:
            value = read_yaml(text)
        except ValueError as error:
            raise BadSetting(f"--param {change!r} cannot be read: {error}") from None
        content.setdefault("parameters", {})[name] = value
        for spec in content["runs"]:
            spec.get("parameters", {}).pop(name, None)
            if name in spec.get("each", {}):
                spec["each"][name] = [value]
    said = "+".join([Path(profile).stem, *changes])
    slug = re.sub(r"[^\w=+-]+", "_", said)
    if (
        slug != re.sub(r"(?<=\d)\.(?=\d)", "_", said)
        or re.search(r"\d_\d", said)
        or len(slug.encode()) > plan.LONGEST_ID
    ):
        name = slug.encode()[: plan.LONGEST_ID - 20].decode(errors="ignore")
        slug = f"{name}-{content_key(said)[:6]}"  # two values may differ in what the name of a folder cannot hold
    file = (folder or paths.results_dir(slug)) / f"{slug}.yaml"
    content["description"] += f" ({', '.join(changes)})"
    text = f"{VARIES}{from_root(profile)}\n{yaml.dump(content, Dumper=Dumper, sort_keys=False)}"
    write_atomically(file, text.encode())
    return str(file)
