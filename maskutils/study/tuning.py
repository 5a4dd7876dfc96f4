"""Settings tried on validation alone: of the mask layers, and the learning rate and steps of every approach."""

import inspect
import itertools
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import pandas as pd

from maskutils.core.approaches import described, every
from maskutils.core.checks import BadSetting, warn
from maskutils.core.progress import bar
from maskutils.masks.layers import LAYERS
from maskutils.models.parts import norm_layers
from maskutils.results import rates
from maskutils.study.artefacts import source_network, source_pair, source_subnetwork
from maskutils.study.setup import Setup
from maskutils.study.trials import Trial, records_of
from maskutils.training.base import PROTOCOLS
from maskutils.training.evaluation import evaluate


def tune(setup: Setup, method: str, options: Mapping[str, Any]) -> pd.DataFrame:
    """What the masks of `method` with `options` are worth, to choose options by: source accuracy through them on *validation*.

    A row for each seed and each density of `setup`, and one for the native mask (`native`): pair, model, method, setting (the
    options as text), seed, density, native, val_acc, val_acc_before (of the whole network). No test image is read.
    """
    rows, setting = [], " ".join(f"{n} {v}" for n, v in options.items())
    for seed in bar(setup.seeds, f"{method} {options}", unit="seed"):
        network, data = source_network(setup, seed), source_pair(setup, seed).source.val
        about = {"pair": setup.pair, "model": setup.model, "method": method, "seed": seed, "setting": setting}
        about |= {"val_acc_before": evaluate(network, data)}
        for density in (None, *setup.densities):
            owner, mask = source_subnetwork(setup, method, seed, density, **options)
            found = {"density": mask.density, "native": density is None, "val_acc": evaluate(mask.apply(owner), data)}
            rows.append(about | found)
    return pd.DataFrame(rows)


def layer_settings() -> pd.DataFrame:
    """`rates.settings_tried` with two columns: which settings are those that `learn_mask` takes (`default`), and which layers also train
    weights (`trains_weights`).
    """
    return rates.settings_tried().assign(
        default=lambda t: list(map(_is_default, t["method"], t["setting"])),
        trains_weights=lambda t: [LAYERS[name].trains_weights for name in t["method"]],
    )


def _is_default(method: str, setting: str) -> bool:
    """Whether the layer `method` has the options that the text `setting` of `tune` tells."""
    layer, words = LAYERS[method], setting.split()
    own = {"lr": f"{layer.lr:g}", "strength": f"{layer.strength:g}"}
    own |= {"init": str(inspect.signature(layer).parameters["init"].default)}
    return dict(zip(words[::2], words[1::2], strict=True)).items() <= own.items()


def tune_rates(
    setup: Setup, lrs: Sequence[float], steps: Sequence[int], approaches: Collection[str] = ()
) -> pd.DataFrame:
    """Records on *validation* of every approach that trains, or of those in `approaches`, for each learning rate, number of
    steps and seed; of the column `approach` without brackets. No test image is read.

    Each has the middle value of its grid, masks the first density of `setup`. A rate at which the training diverges on a seed gives a
    warning and no record. Raises `BadSetting` if there is no record at all.
    """
    grid = list(itertools.product(_trained(setup, approaches), lrs, steps, setup.seeds))
    rows: list[dict[str, Any]] = []
    diverged = set()
    for trial, lr, n, seed in bar(grid, f"tuning on {setup.pair}", unit="transfer", delay=2):
        own = setup.changed(target_lr=lr, target_steps=n, per_layer=described(trial.protocol).per_layer, tuned=False)
        try:
            rows += [row | {"approach": trial.approach} for row in records_of(own, trial, seed, ("val",))]
        except FloatingPointError as error:
            warn(f"{trial.approach} at a rate of {lr:g} on {setup.pair}: {error}")
            diverged.add((trial.approach, lr, n))
    # a rate is none for any seed if it is none for one
    rows = [row for row in rows if (row["approach"], row["target_lr"], row["target_steps"]) not in diverged]
    if not rows:
        of = ", ".join(approaches) or "all that train"
        raise BadSetting(
            f"nothing was tuned: no approach ({of}) trained to its end at lrs = {list(lrs)}; try lower ones, or others"
        )
    return pd.DataFrame(rows)


def _trained(setup: Setup, approaches: Collection[str]) -> Iterator[Trial]:
    """One trial of each approach whose rate matters, at the middle value of its knob."""
    norms = bool(list(norm_layers(source_network(setup, setup.seeds[0]))))
    wanted = [described(name) for name in approaches] or every()
    for about in (a for a in every() if a in wanted and (norms or not a.only_for)):
        if about.kind in ("mask", "control"):
            yield Trial("protect", about.name, setup.densities[0])
        elif about.name in PROTOCOLS and about.trains and not (about.named_by_mask or about.variant_of):
            density = setup.densities[0] if "mask" in about.needs else None
            knobs = {about.knob: about.values(1)[0]} if about.grid else {}
            yield Trial(about.name, about.method or None, density, knobs=knobs)
