"""A transfer from its source network to its readings: by any protocol, scored, and interpolated back towards the source."""

import functools
from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import nn

from maskutils.core import metrics
from maskutils.core.approaches import APPROACHES, Approach, describe, described
from maskutils.core.checks import BadSetting, known, number, some_of
from maskutils.core.storage import Kept
from maskutils.core.tensors import Tensors
from maskutils.data.pair import Pair
from maskutils.masks.mask import Mask
from maskutils.masks.protection import mask_checked
from maskutils.models.copies import copied, unwrapped
from maskutils.models.heads import TaskHeads, for_task, head_checked, head_name, with_target_head
from maskutils.models.sizes import usual_lr
from maskutils.training import adapters, baselines, changes, penalties, protocols
from maskutils.training.base import PROTOCOLS, Training, Transfer, answering
from maskutils.training.evaluation import accuracy, evaluate, predict

__all__ = ["adapters", "baselines", "changes", "interpolate", "kept", "penalties", "protocols", "score", "transfer"]


@torch.inference_mode(False)
def transfer(
    model: nn.Module,
    pair: Pair,
    protocol: str = "protect",
    *,
    mask: Mask | None = None,
    importance: Tensors | None = None,
    steps: int = 300,
    lr: float | None = None,
    batch_size: int = 32,
    mask_steps: int = 300,
    seed: int = 0,
    norm: str = "eval",
    precision: str = "float32",
    history: list[dict[str, float]] | None = None,
    path: list[nn.Module] | None = None,
    **knobs: float,
) -> nn.Module:
    """A copy of the source network `model`, re-trained on the target of `pair` by `protocol`; `model` is not changed.

    Where the classes differ the result has a `TaskHeads` for a head, set to the target. `mask` and `importance` (name -> strength of each
    weight) go to protocols that take them, `knobs` are the protocol's own, such as `fraction`. Without `lr` it is `usual_lr(model)`. `norm`
    "eval" keeps the source's statistics of norm layers, "train" lets them follow the target where the protocol does not hold them.
    `history`, if given, is filled with the accuracy on both validation sets through training. `path` is filled with a copy of the network
    at each row of the history (of `lora` with its adapters beside it).

    Raises `BadSetting` for an unknown protocol or knob, `ValueError` for a mask or an importance that is missing or of
    another network, and where another layer would be taken for the head.

    >>> from maskutils import build_model, load_pair
    >>> model, pair = build_model("mlp"), load_pair("mnist_to_digits")
    >>> evaluate(transfer(model, pair, "finetune", steps=50), pair.target.val) > evaluate(model, pair.target.val)
    True
    """
    model = unwrapped(model)
    about = _about(protocol)
    given = {"mask": mask, "importance": importance}
    for name, value in given.items():
        if (name in about.needs) != (value is not None):
            needs = f"needs {name}=" if value is None else f"takes no {name}"
            raise ValueError(f"protocol {protocol!r} {needs}")
    training = Training(steps, usual_lr(model) if lr is None else lr, batch_size, seed, norm, precision, mask_steps)
    if not isinstance(pair, Pair):
        raise BadSetting(f"pair is a {type(pair).__name__}; it must be a Pair, as load_pair gives")
    _check_fit(model, mask, importance)
    for knob in knobs:
        known(knob, about.knobs, f"knob of {protocol}")
    model = copied(model) if pair.shared_head else with_target_head(model, len(pair.target.classes), seed)
    watch = functools.partial(_watch, model, pair, path) if history is not None or path is not None else None
    needed = {name: given[name] for name in about.needs}
    with head_checked(model):
        rows = PROTOCOLS[protocol](Transfer(model, pair, training, watch), **needed, **{**about.knobs, **knobs})
    if history is not None:
        history.extend(rows)
    return model


def score(
    before: nn.Module,
    after: nn.Module,
    pair: Pair,
    mask: Mask | None = None,
    split: str = "test",
    source_acc_before: float | None = None,
) -> dict[str, float | None]:
    """The readings of one transfer on `split` ("test", read once, "val" or "train"): accuracies in [0, 1], and what they lost.

    `source_acc_before` and `source_acc_full` are the source network and the re-trained one, whole. With a mask,
    `source_acc_masked_before` and `source_acc_masked` are the same two through it, `masking_cost` and `drift` their
    losses; None without. Raises `BadSetting` for another split or what is no mask, `ValueError` for a mask of another network.
    `source_acc_before` need only be given where it is another network's than that of `before`
    (`winning_subnetwork` changes the source network before the transfer), or known already.

    >>> from maskutils import build_model, learn_mask, load_pair
    >>> model, pair = build_model("mlp"), load_pair("mnist_to_digits")
    >>> mask = learn_mask(model, pair.source.train, "magnitude", density=0.1)
    >>> score(model, transfer(model, pair, mask=mask, steps=5), pair, mask)["drift"]
    0.0
    """
    before, after = unwrapped(before), unwrapped(after)
    known(split, ("train", "val", "test"), "split")
    if mask is not None:  # without its fingerprint, for the re-trained network is meant to have other weights
        mask = replace(mask_checked(mask, before), fingerprint="")
    source, target = getattr(pair.source, split), getattr(pair.target, split)
    dense_before = evaluate(before, source) if source_acc_before is None else source_acc_before
    with answering(after, "source"):
        logits, labels = predict(after, source)
    full = accuracy(logits, labels)
    row: dict[str, float | None] = {"source_acc_before": dense_before, "source_acc_full": full}
    row |= dict.fromkeys(("source_acc_masked_before", "source_acc_masked", "masking_cost", "drift"))
    if mask is not None:
        masked_before = evaluate(mask.apply(before), source)
        masked = evaluate(mask.apply(after), source)
        row |= {"source_acc_masked_before": masked_before, "source_acc_masked": masked}
        row["masking_cost"] = dense_before - masked_before  # lost by the mask alone
        row["drift"] = masked_before - masked  # lost by the transfer: 0 under `protect`
    row["forgetting"] = metrics.forgetting(dense_before, full)
    with answering(after, "target"):
        row["target_acc"] = evaluate(after, target)
    confidence, predicted = logits.softmax(1).max(1)
    return row | {"source_ece": metrics.ece(confidence.tolist(), (predicted == labels).tolist())}


def kept(before: nn.Module, after: nn.Module, mask: Mask | None = None, **knobs: float) -> Kept:
    """What the functions of `core.storage` want to know of a transfer from `before` to `after` with `mask`."""
    old, new = dict(unwrapped(before).named_parameters()), dict(unwrapped(after).named_parameters())
    changed = {name: int((new[name] != p.to(new[name].device)).sum()) for name, p in old.items() if name in new}
    moved = tuple(name for name, n in changed.items() if n)
    shapes, coded = {name: tuple(old[name].shape) for name in changed}, mask.stored_bits if mask is not None else 0
    return Kept(shapes, sum(changed.values()), coded, knobs, moved)


describe(
    Approach(
        "wise_ft", "baseline", place=20, colour="#d62728", marker="d", role="yardstick", rival=True, headline=1,
        knobs={"alpha": 1.0}, grid=tuple(i / 20 for i in range(1, 21)),
    )
)  # fmt: skip


def interpolate(before: nn.Module, after: nn.Module, alpha: float) -> nn.Module:
    """A copy of `after` at theta_0 + alpha (theta - theta_0): 0 is the source network, 1 the re-trained one.

    What `before` does not have (a head of the target's own) is taken from `after`. Applied to fine-tuning this is
    WiSE-FT; it costs no training. Source: Wortsman et al. 2022 (arXiv 2109.01903), eq. 1. Raises `ValueError` for networks that
    have no parameter in common, or one of another shape.
    """
    if not 0 <= number("alpha", alpha) <= 1:
        raise BadSetting(f"alpha = {alpha!r} is outside [0, 1], from the source network to the re-trained one")
    before, after = unwrapped(before), unwrapped(after)
    model, source, head = copied(after), for_task(before, "source"), head_name(after)
    theta_0 = source.state_dict()
    if isinstance(after.get_submodule(head), TaskHeads):  # there the source's head lies one name deeper
        theta_0 |= {f"{head}.source.{name}": t for name, t in source.get_submodule(head).state_dict().items()}
    if not theta_0.keys() & dict(model.named_parameters()).keys():
        raise ValueError(
            f"{type(before).__name__} and {type(after).__name__} have no parameter in common to interpolate"
        )
    shapes = {name: t.shape for name, t in model.state_dict().items()}
    if odd := sorted(name for name, t in theta_0.items() if t.shape != shapes.get(name, t.shape)):
        raise ValueError(f"{some_of(odd)}: the two networks have other shapes there, so nothing lies between them")
    with torch.no_grad():
        for name, theta in (dict(model.named_parameters()) | dict(model.named_buffers())).items():  # tied ones once
            if name in theta_0 and (theta.is_floating_point() or theta.is_complex()):
                old = theta_0[name].to(theta)  # what is equal stays: it may be infinite
                theta.copy_(theta.where(theta == old, theta.lerp(old, 1 - alpha)))
    return model


def _about(protocol: str) -> Approach:
    if (about := APPROACHES.get(protocol)) and protocol not in PROTOCOLS:
        mask = f"learn_mask(model, pair.source.train, {protocol!r}, density=0.1)"
        way = "interpolate(model, transfer(model, pair, 'finetune'), alpha)"
        way = way if about.role == "yardstick" else f"transfer(model, pair, 'protect', mask={mask})"
        raise BadSetting(f"{protocol!r} is no protocol; take {way}")
    return described(known(protocol, PROTOCOLS, "protocol"))


def _check_fit(model: nn.Module, mask: Mask | None, importance: Tensors | None) -> None:
    """Raise `ValueError` if a mask or an importance that is given is of another network, `BadSetting` if it is of another kind."""
    if mask is not None:
        mask_checked(mask, model)
    if importance is None:
        return
    if not isinstance(importance, Mapping):
        raise BadSetting(f"importance is a {type(importance).__name__}; it must map names of parameters to tensors")
    shapes = {name: p.shape for name, p in model.named_parameters()}
    wrong = [name for name, values in importance.items() if shapes.get(name) != values.shape]
    if wrong or not importance:
        raise ValueError(
            f"importance does not fit {type(model).__name__}: it has {len(importance)} tensors, of another name or shape than a parameter: "
            f"{', '.join(wrong[:5]) or 'none'}"
        )


def _watch(model: nn.Module, pair: Pair, path: list[nn.Module] | None, again: bool = False) -> dict[str, float]:
    """Accuracy of `model` on both validation sets; a copy of it goes to `path`, `again` in the place of the last one."""
    accuracies = {}
    for task, domain in (("source", pair.source), ("target", pair.target)):
        with answering(model, task):
            accuracies[f"{task}_val"] = evaluate(model, domain.val)
    if path is not None:
        if again:
            path.pop()
        path.append(adapters.plain(copied(model)))
    return accuracies
