"""Parts of any network: its head (or one per task), its maskable weights, its norm layers."""

import re
import warnings
from collections.abc import Collection, Iterable, Mapping
from typing import TYPE_CHECKING

from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _NormBase

from maskutils.core.checks import BadSetting, known, needs, some_of
from maskutils.core.seeds import seeded
from maskutils.models.copies import copied
from maskutils.models.made import PLAIN, dimensions, made, makes_in

if TYPE_CHECKING:
    import pandas as pd

UNMASKED = (nn.Embedding, nn.EmbeddingBag, nn.LayerNorm, nn.RMSNorm)  # whatever the dimensions of their weight


def head_name(model: nn.Module) -> str:
    """Name of the head; of the last one, where a network has several. See `heads`."""
    return heads(model)[-1]


def heads(model: nn.Module) -> list[str]:
    """Names of the heads: what the network says in an attribute `head_name`, or in timm's `get_classifier()`; else the module, last in
    definition order, that owns a weight of two or more dimensions, and linear layers of its size that are called heads too and stand
    where it does, as those of distilled networks.

    A `TaskHeads` counts as one. Raises `ValueError` for a network without any such weight, or without the module it names.
    """
    if isinstance(found := getattr(model, "head_name", ""), str) and found:
        known(found, [n for n, _ in model.named_modules() if n], "head_name")
        return [found]
    last = _last_with_weight(model)
    for prefix, module in model.named_modules():
        if last.startswith(prefix) and callable(getattr(module, "get_classifier", None)):
            told = module.get_classifier()
            told = told if isinstance(told, (tuple, list)) else (told,)
            if names := [n for n, m in model.named_modules() if any(m is t and [*t.parameters()] for t in told)]:
                return names
    head, path = model.get_submodule(last), last.split(".")

    def twin(name: str, module: nn.Module) -> bool:
        other = [pair for pair in zip(name.split("."), path, strict=False) if pair[0] != pair[1]]
        called = len(name.split(".")) == len(path) and len(other) == 1 and re.search("head|classifier", other[0][0])
        if not called or not isinstance(module, nn.Linear) or not isinstance(head, nn.Linear):
            return False
        return (module.in_features, module.out_features) == (head.in_features, head.out_features)

    return [name for name, module in model.named_modules() if twin(name, module)] + [last]


def _last_with_weight(model: nn.Module) -> str:
    found = ""
    for name, module in model.named_modules():
        inside_found = isinstance(model.get_submodule(found), TaskHeads) and found and name.startswith(found + ".")
        has_weight = ".parametrizations." not in f".{name}" and dimensions(module, "weight") > 1
        if not inside_found and (isinstance(module, TaskHeads) or has_weight):
            found = name
    if not found:
        raise ValueError(
            f"{type(model).__name__} has no submodule with a weight of two or more dimensions, hence no head and nothing to mask"
        )
    return found


def logits_of(output: object) -> Tensor:
    """The logits (N, classes) in what a network returned: a tensor, or something with `.logits`, as networks of transformers give."""
    logits = output.get("logits") if isinstance(output, Mapping) else getattr(output, "logits", output)
    if not isinstance(logits, Tensor) or logits.ndim != 2:
        what = f"logits {tuple(logits.shape)}" if isinstance(logits, Tensor) else f"a {type(output).__name__}"
        raise ValueError(f"the network returned {what}; it must be a tensor of logits (N, classes), or have .logits")
    return logits


def check_labels(labels: Tensor, logits: Tensor) -> None:
    """Raise `ValueError` if some of the `labels` (N,) are no class of the `logits` (N, classes)."""
    least, most, classes = int(labels.min()), int(labels.max()), logits.shape[1]
    if least < 0 or most >= classes:
        raise ValueError(
            f"labels go from {least} to {most}, but the network has the classes 0 to {classes - 1}; number them from 0"
        )


def classification(logits: Tensor, labels: Tensor, reduction: str = "mean") -> Tensor:
    """The cross-entropy of `logits` (N, classes). Raises `ValueError` for labels that are no class of them."""
    try:
        return F.cross_entropy(logits, labels, reduction=reduction)
    except IndexError:  # of torch, on a processor
        check_labels(labels, logits)
        raise


def check_head(model: nn.Module, name: str, output: object) -> None:
    """Raise `ValueError` if `name`, the head of `model`, is a layer that cannot have given the logits (N, classes) of `output`."""
    head, logits = model.get_submodule(name), logits_of(output)
    head = head[head.active] if isinstance(head, TaskHeads) else head
    gives = getattr(head, "out_features", getattr(head, "out_channels", logits.shape[1]))
    if gives != logits.shape[1]:
        raise ValueError(
            f"{name!r}, defined last in {type(model).__name__}, gives {gives} values and the network "
            f"{logits.shape[1]}, so it is not the head; say which is, before anything else: network.head_name = '...'"
        )


def head_parameters(model: nn.Module) -> list[nn.Parameter]:
    """The parameters of the head; of the active one where there is one per task."""
    head = model.get_submodule(head_name(model))
    return list((head[head.active] if isinstance(head, TaskHeads) else head).parameters())


def maskable(model: nn.Module) -> list[str]:
    """Names of the parameters that a mask covers: weights of two or more dimensions, outside head and embeddings; tied
    ones once.

    Weights that are made from other parameters, by `torch.nn.utils.parametrize` (as in `parametrizations.weight_norm`) or the old
    `weight_norm`, are left out with a warning that names them. Raises `ValueError` for a network that has no others.
    """
    for name, module in model.named_modules():
        if hasattr(module, "get_base_layer"):  # of peft
            raise ValueError(
                f"{name} has adapters of peft, whose weights are no network's own; call model.merge_and_unload() first"
            )
    names, left_out = _covered(model), _left_out(model)
    told = f"made from other parameters; to mask them, make them plain first: {PLAIN}"
    if not names:
        what = f"{some_of(left_out)} are {told}" if left_out else "no weight of two or more dimensions beside its head"
        raise ValueError(f"{type(model).__name__} has nothing to mask: {what}")
    weights = {name: model.get_parameter(name) for name in names}
    if odd := [n for n, w in weights.items() if not w.is_floating_point() or type(w.data) is not Tensor]:
        what = f"{type(weights[odd[0]].data).__name__} of {weights[odd[0]].dtype}"
        raise ValueError(
            f"{some_of(odd)}: {what}; a mask needs real, floating-point weights: load the network without quantisation"
        )
    if left_out:
        share = f"{len(left_out)} of {len(left_out) + len(names)} weights"
        warnings.warn(f"no mask covers {some_of(left_out)} ({share}), {told}", stacklevel=3)
    return names


def _left_out(model: nn.Module) -> list[str]:
    """Names of what a mask would cover if it were a parameter, not made from others."""
    head = _head_prefixes(model)
    found = [(name, module, leaf) for name, module in model.named_modules() for leaf in made(module)]
    names = [f"{name}.{leaf}".lstrip(".") for name, module, leaf in found if _is_weight(module, leaf)]
    return [name for name in names if not name.startswith(head)]


def _is_weight(owner: nn.Module, leaf: str) -> bool:
    return "weight" in leaf and not isinstance(owner, UNMASKED) and dimensions(owner, leaf) > 1


def _head_prefixes(model: nn.Module) -> tuple[str, ...]:
    return tuple(f"{name}." for name in heads(model))


def _covered(model: nn.Module) -> list[str]:
    head = _head_prefixes(model)

    def covered(name: str) -> bool:
        plain = _is_weight(*owner_of(model, name)) and makes_in(model, name) is None
        return plain and not name.startswith(head)

    return [name for name, p in model.named_parameters() if p.numel() and covered(name)]


def summary(model: nn.Module) -> "pd.DataFrame":
    """One row per parameter: name, shape, weights, and whether a mask covers it or why not."""
    with needs("study"):
        import pandas as pd  # here, for masks do without

    head, names = _head_prefixes(model), set(_covered(model))

    def role(name: str) -> str:
        if name in names or name.startswith(head):
            return "masked" if name in names else "head"
        part = makes_in(model, name) is not None
        return f"not masked: parametrised, see {PLAIN}" if part else "not masked: bias, norm or embedding"

    rows = [
        {"parameter": n, "shape": "x".join(map(str, p.shape)), "weights": p.numel(), "role": role(n)}
        for n, p in model.named_parameters()
    ]
    return pd.DataFrame(rows)


def norm_layers(model: nn.Module) -> list[nn.Module]:
    """Layers with running statistics (batch and instance norm of any dimension)."""
    return [module for module in model.modules() if isinstance(module, _NormBase)]


def check_prefixes(train: str | Iterable[str], names: Collection[str]) -> tuple[str, ...]:
    """The prefixes in `train`, which may be one. Raises `ValueError` for one with which none of `names` begins."""
    prefixes = (train,) if isinstance(train, str) else tuple(train) if isinstance(train, Iterable) else (train,)
    if not all(isinstance(prefix, str) for prefix in prefixes):
        raise BadSetting(
            f"train = {train!r} must be a list of names or their beginnings, as ['fc.']; [] trains none of them"
        )
    for prefix in prefixes:
        if not any(name.startswith(prefix) for name in names):
            raise ValueError(f"train={prefix!r} matches no parameter or buffer; there are {', '.join(names)}")
    return prefixes


class TaskHeads(nn.ModuleDict):
    """One head per task behind one name; `active` says which one answers. For pairs whose classes differ."""

    active = "source"

    def forward(self, x: Tensor) -> Tensor:
        """Logits of the active task."""
        logits: Tensor = self[self.active](x)
        return logits


def with_target_head(model: nn.Module, n_classes: int, seed: int = 0) -> nn.Module:
    """A copy of `model` whose head became `TaskHeads`: the old one as "source", a fresh one of `n_classes` as "target",
    active.
    """
    model = copied(model)
    name = head_name(model)
    old = model.get_submodule(name)
    if not isinstance(old, nn.Linear):
        raise ValueError(f"the head {name!r} is a {type(old).__name__}; a head per task needs a Linear one")
    with seeded(seed, "target head"):
        new = nn.Linear(old.in_features, n_classes).to(old.weight)
    heads = TaskHeads({"source": old, "target": new})
    heads.active = "target"
    model.set_submodule(name, heads)
    return model


def own_head(model: nn.Module) -> list[str]:
    """The prefix of the parameters of the target's own head, in a list; empty where one head serves both tasks."""
    name = head_name(model)
    return [f"{name}.target."] if isinstance(model.get_submodule(name), TaskHeads) else []


def for_task(model: nn.Module, task: str) -> nn.Module:
    """A plain copy of `model` that answers for `task` ("source" or "target"); just a copy where one head serves both."""
    model = copied(model)
    name = head_name(model)
    heads = model.get_submodule(name)
    if isinstance(heads, TaskHeads):
        model.set_submodule(name, heads[known(task, heads, "task")])
    return model


def owner_of(model: nn.Module, name: str) -> tuple[nn.Module, str]:
    """The submodule that has the parameter or buffer `name`, and the name that it has there."""
    owner, _, leaf = name.rpartition(".")
    return model.get_submodule(owner), leaf
