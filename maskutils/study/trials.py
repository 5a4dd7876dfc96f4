"""One transfer, from what is tried to its records, which are cached."""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import lru_cache
from importlib.metadata import version
from typing import Any

import torch
from torch import nn

from maskutils.core import paths
from maskutils.core.approaches import described, the
from maskutils.core.caches import cached
from maskutils.core.checks import content_key, known, needs, positive, warn
from maskutils.core.files import read_json, write_json
from maskutils.core.metrics import harmonic_mean
from maskutils.data.pair import Domain
from maskutils.masks.mask import Mask
from maskutils.models.heads import for_task
from maskutils.results import rates
from maskutils.study import artefacts
from maskutils.study.provenance import STAGES, begin_peak, git_commit, own_code, peak_bytes, versions
from maskutils.study.setup import OF_TRANSFERS, Setup
from maskutils.training.base import PROTOCOLS, History
from maskutils.training.evaluation import evaluate
from maskutils.training.transfer import interpolate, kept, score, transfer

END = {"alpha": 1.0, "rewound": False}  # a transfer as it ended


@dataclass(frozen=True)
class Trial:
    """One way to transfer: a protocol, and what it is given. `native_of` names the method whose native density this is."""

    protocol: str
    method: str | None = None
    density: float | None = None
    native_of: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)  # of the method
    knobs: Mapping[str, float] = field(default_factory=dict)  # of the protocol

    def __post_init__(self) -> None:
        positive("strength", self.knobs.get("strength", 1.0))

    @property
    def approach(self) -> str:
        """The approach whose learning rate and steps it has: its mask where it only protects that, else its protocol."""
        about = described(self.protocol)
        named_by_mask = about.named_by_mask or bool(about.variant_of)
        return self.method if named_by_mask and self.method is not None else self.protocol

    @property
    def value(self) -> float | None:
        """The value of its protocol's own knob; None if that has no grid."""
        return self.knobs.get(described(self.protocol).knob)

    @property
    def takes_mask_steps(self) -> bool:
        """Whether a mask is learnt for it, or retrained; else `mask_steps` plays no part, and its records do not say any."""
        of = [described(name) for name in (self.protocol, self.method) if name]
        return any(about.learns_mask or about.retrains for about in of)


def records_of(setup: Setup, trial: Trial, seed: int, splits: Sequence[str] = ("test", "val")) -> list[dict[str, Any]]:
    """The records of one transfer, one for each alpha and one rewound, cached as JSON."""
    known(trial.protocol, PROTOCOLS, "protocol")
    trial = replace(trial, options=artefacts.unusual(trial.method, trial.options))
    about = described(trial.protocol)
    if setup.tuned and about.trains:
        lr, steps = rates.chosen(setup.pair, setup.model, trial.approach, setup.target_steps, trial.value)
        setup = setup.changed(target_lr=lr, target_steps=steps)
    upstream = artefacts.source_key(setup, seed)
    if trial.method is not None:
        upstream = artefacts.mask_key(setup, trial.method, seed, trial.options)
    made_of = [artefacts.mask_key(setup, about.method, seed, {})] if about.importance == "probability" else []
    depends = ["per_layer", "target_steps", "target_lr", "batch_size", "alphas"]
    depends += ["mask_steps"] * trial.takes_mask_steps
    stage = {name: getattr(setup, name) for name in depends} | {"splits": splits}
    own = [STAGES["transfer"], STAGES["score"], own_code(PROTOCOLS[trial.protocol]), *made_of]
    if about.library:
        with needs("study"):
            own.append(version(about.library))
    key = content_key(upstream, asdict(trial), stage, *own)
    path = paths.cache_dir("transfer") / f"{key}.json"
    rows: list[dict[str, Any]] = cached(
        path, lambda: _measure(setup, trial, seed, splits), lambda rows, p: write_json(p, rows), read_json
    )
    for row in rows:
        ended = all(row[name] == value for name, value in END.items())
        if trial.protocol == the("free") and ended and not setup.tuned and "test" in splits:
            _warn_if_guessing(setup, row["val_target_acc"], row["target_classes"])
    return rows


def _measure(setup: Setup, trial: Trial, seed: int, splits: Sequence[str]) -> list[dict[str, Any]]:
    """Do one transfer and score it on `splits`: at every alpha, and where interpolation is asked for also rewound."""
    pair = artefacts.source_pair(setup, seed)
    given: dict[str, Any] = dict(trial.knobs)
    begun = time.perf_counter()
    before = artefacts.source_network(setup, seed)
    dense = _dense(_of_source(setup), seed, tuple(splits))
    about, mask = described(trial.protocol), None
    if "importance" in about.needs:
        given["importance"] = artefacts.source_importance(setup, trial.protocol, trial.method, seed, **trial.options)
    elif trial.method is not None:
        before, mask = artefacts.source_subnetwork(setup, trial.method, seed, trial.density, **trial.options)
    if "mask" in about.needs:  # otherwise the source is only looked at through it
        given["mask"] = mask
    prepared = time.perf_counter()
    begin_peak()
    watched = "test" in splits  # what is only tuned needs no history, which costs as much as half of the steps
    history: list[dict[str, float]] = []
    path: list[nn.Module] | None = [] if watched and len(setup.alphas) > 1 and about.known != "intact" else None
    given |= {"steps": setup.target_steps, "lr": setup.target_lr, "batch_size": setup.batch_size, "seed": seed}
    given |= {"mask_steps": setup.mask_steps, "precision": setup.compute.precision}
    after = transfer(before, pair, trial.protocol, history=history if watched else None, path=path, **given)
    seconds = {"seconds": time.perf_counter() - prepared, "mask_seconds": prepared - begun}
    row = _identity(setup, trial, seed, mask) | seconds
    row |= {"source_classes": len(pair.source.classes), "target_classes": len(pair.target.classes)}
    row |= _about(setup) | {"stored_bits": about.bits(kept(before, after, mask, **{**about.knobs, **trial.knobs}))}
    row["mask_steps"] = setup.mask_steps if trial.takes_mask_steps else None
    row["target_steps"] = setup.target_steps if about.trains else None
    rows = []
    for at, model in _ends(setup, before, after, history, path):
        readings: dict[str, Any] = {}
        for split in splits:
            found = score(before, model, pair, mask if at["alpha"] == 1 else None, split, dense[split])
            readings |= {f"{'val_' * (split == 'val')}{name}": value for name, value in found.items()}
        if pair.others and "test" in splits:
            readings |= {
                "other_acc_before": _on_others(_of_source(setup), seed),
                "other_acc": _accuracy(model, pair.others),
            }
        rows.append(row | at | readings | _training(history if at == END else []))
    return rows


def _identity(setup: Setup, trial: Trial, seed: int, mask: Mask | None) -> dict[str, Any]:
    """What a record says of its transfer."""
    row: dict[str, Any] = {"pair": setup.pair, "model": setup.model, "protocol": trial.protocol, "method": trial.method}
    row |= {"density": None if mask is None else mask.density, "native_of": trial.native_of, "seed": seed}
    row |= {"per_layer": setup.per_layer, "strength": None, "fraction": None, "knob": None}
    own, options = described(trial.protocol).knob, dict(trial.options)
    for name, value in trial.knobs.items():
        if name in row:
            row[name] = value
        elif name == own:
            row["knob"] = value
        else:
            options[name] = value
    return row | {"options": " ".join(f"{n} {v}" for n, v in options.items()) or None}


def _ends(
    setup: Setup, before: nn.Module, after: nn.Module, history: History, path: Sequence[nn.Module] | None
) -> Iterator[tuple[dict[str, Any], nn.Module]]:
    """The networks that one transfer is scored as: interpolated to each alpha, and rewound if a `path` is given.

    Rewound is the point on the path of training with the highest harmonic mean of both validation accuracies (PEFT-Arena, arXiv
    2605.28819, rewinds so; the rule is ours).
    """
    for alpha in setup.alphas:
        yield {"alpha": alpha, "rewound": False}, after if alpha == 1 else interpolate(before, after, alpha)
    if path:
        worth = [harmonic_mean(row["source_val"], row["target_val"]) for row in history]
        yield {"alpha": 1.0, "rewound": True}, path[worth.index(max(worth))]


def _warn_if_guessing(setup: Setup, accuracy: float, classes: int) -> None:
    """Warn if fine-tuning, by which all adaptation is measured, has learnt next to nothing."""
    if accuracy < 1.5 / classes:
        warn(
            f"fine-tuning of {setup.model} on {setup.pair} reaches {100 * accuracy:.0f} % on the target, where guessing reaches "
            f"{100 / classes:.0f} %, and nothing can be told beside it: try a lower target_lr than {setup.target_lr} (pretrained networks "
            f"want about 1e-4) or more target_steps than {setup.target_steps}"
        )


def _of_source(setup: Setup) -> Setup:
    """`setup` with the defaults of all that the source network does not depend on: its readings are made once for all transfers from it."""
    return setup.changed(**{name: Setup.model_fields[name].default for name in OF_TRANSFERS})


@lru_cache(maxsize=64)
def _dense(setup: Setup, seed: int, splits: tuple[str, ...]) -> dict[str, float]:
    """Source accuracy of the source network itself on each of `splits`."""
    network, source = artefacts.source_network(setup, seed), artefacts.source_pair(setup, seed).source
    return {split: evaluate(network, getattr(source, split)) for split in splits}


@lru_cache(maxsize=64)
def _on_others(setup: Setup, seed: int) -> float:
    """Accuracy of the source network on the domains that take no part."""
    return _accuracy(artefacts.source_network(setup, seed), artefacts.source_pair(setup, seed).others)


def _accuracy(model: nn.Module, domains: Sequence[Domain]) -> float:
    """The mean accuracy of `model`, as it answers for the source, on the test splits of `domains`."""
    answers = for_task(model, "source")
    return sum(evaluate(answers, domain.test) for domain in domains) / len(domains)


def _training(history: list[dict[str, float]]) -> dict[str, Any]:
    """How the target was learnt: the history, and what its last three tenths gained on validation."""
    early = [row["target_val"] for row in history if 10 * row["step"] <= 7 * history[-1]["step"]]
    return {"late_gain": history[-1]["target_val"] - early[-1] if early else None, "history": history}


def _about(setup: Setup) -> dict[str, Any]:
    """Settings, provenance and peak memory (MB of this process, or of its GPU: on Linux since the transfer began, elsewhere so far)."""
    elsewhere = {"pair", "model", "per_layer", "seeds", "densities", "alphas", "tuned"}
    about = setup.model_dump(mode="json", exclude=elsewhere)
    about |= {"images": str(setup.images), "compute": str(setup.compute)}
    about |= {"peak_mb": round(peak_bytes() / 2**20), "threads": torch.get_num_threads(), "commit": git_commit()}
    return about | versions()
