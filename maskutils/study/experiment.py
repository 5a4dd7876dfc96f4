"""The functions that a notebook calls. Each returns a table of records; each transfer is cached on its own."""

import os
from collections.abc import Collection, Iterable, Mapping
from typing import Any

import pandas as pd
import torch

from maskutils.core.approaches import Approach, described, every, the
from maskutils.core.checks import BadSetting, positive
from maskutils.core.progress import bar
from maskutils.results.records import with_approach
from maskutils.study.artefacts import (
    check_names,
    source_importance,
    source_mask,
    source_network,
    source_pair,
    source_subnetwork,
    target_mask,
)
from maskutils.study.setup import Setup, from_notebook
from maskutils.study.trials import Trial, records_of
from maskutils.study.tuning import layer_settings, tune, tune_rates
from maskutils.training.base import PROTOCOLS

__all__ = ["source_importance", "source_mask", "source_network", "source_pair", "source_subnetwork", "target_mask"]
__all__ += ["layer_settings", "tune", "tune_rates"]  # and all that is defined here


def configure(namespace: Mapping[str, Any]) -> Setup:
    """The checked `Setup` of a notebook, from its `globals()`: types, ranges, and that pair and model are known.

    Raises `BadSetting`, one line for each fault, before any work.
    """
    setup = check_names(from_notebook(namespace))
    wanted = setup.compute.deterministic
    if wanted:  # or cuBLAS refuses, where the variable is not set before its first use
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    if wanted != torch.are_deterministic_algorithms_enabled():  # to set it takes the import of torch's compiler
        torch.use_deterministic_algorithms(wanted)
    return setup


def maskless(known: str, chosen: Collection[str] = ()) -> list[Approach]:
    """The approaches that train any network without a mask and whose `Approach.known` is this; of those `chosen`, if any are."""
    fit = [a for a in every() if a.name in PROTOCOLS and a.trains and "mask" not in a.needs and not a.only_for]
    return [a for a in fit if a.known == known and not a.variant_of and (not chosen or a.name in chosen)]


def run_protocol(setup: Setup, protocol: str, **knobs: float) -> pd.DataFrame:
    """Records of a protocol that needs no mask: one for each seed, and for each of `setup.alphas`."""
    return run_trials(setup, [Trial(protocol, knobs=knobs)], protocol)


def run_method(setup: Setup, method: str, protocol: str = "protect", **options: Any) -> pd.DataFrame:
    """Records of `protocol` with the source mask of `method`, for each density of `setup`, seed and alpha."""
    setup = setup.changed(per_layer=setup.per_layer or described(protocol).per_layer)
    trials = [Trial(protocol, method, density, options=options) for density in setup.densities]
    return run_trials(setup, trials, f"{protocol} {method}")


def run_grid(setup: Setup, protocol: str, n: int, method: str | None = None) -> pd.DataFrame:
    """Records of a protocol at the `n` middle values of the grid of its knob, for each seed and alpha.

    `method` is the mask that it takes, where it takes one (`elastic_mask`). Raises `BadSetting` for a protocol that has no grid.
    """
    about = described(protocol)
    if not about.grid:
        raise BadSetting(f"{protocol!r} has no grid of values; run it with run_protocol or run_method")
    method = method or about.method or None
    trials = [Trial(protocol, method, knobs={about.knob: value}) for value in about.values(int(positive("grid", n)))]
    return run_trials(setup, trials, f"{protocol} {method or ''}")


def run_native(setup: Setup, method: str, **options: Any) -> pd.DataFrame:
    """Source accuracy before any transfer, two records a seed: through the native mask of `method`, and a random one of that density."""
    tables = []
    for seed in setup.seeds:
        own = Trial(the("untrained"), method, options=options, native_of=method)
        density = source_mask(setup, method, seed, **options).density
        chance = Trial(the("untrained"), the("chance"), density, native_of=method)
        tables.append(run_trials(setup.changed(seeds=(seed,), alphas=(1.0,)), [own, chance], f"{method}, native"))
    return pd.concat(tables, ignore_index=True)


def run_trials(setup: Setup, trials: Iterable[Trial], what: str) -> pd.DataFrame:
    """Records of all `trials` on all seeds; the bar is called `what`."""
    grid = [(trial, seed) for seed in setup.seeds for trial in trials]
    shown = bar(grid, what, unit="transfer", delay=2)
    return with_approach(pd.DataFrame([row for trial, seed in shown for row in records_of(setup, trial, seed)]))
