"""The head of any network, or one per task, and the logits that it gives."""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from torch import Tensor, nn
from torch.nn import functional as F

from maskutils.core.checks import known
from maskutils.core.seeds import seeded
from maskutils.models.copies import copied
from maskutils.models.made import dimensions

_NOT_HEAD = ", so it is not the head; say which is, before anything else: network.head_name = '...'"
UNMASKED = (nn.Embedding, nn.EmbeddingBag, nn.LayerNorm, nn.RMSNorm)  # no head, whatever the dimensions of their weight


def head_name(model: nn.Module) -> str:
    """Name of the head; of the last one, where a network has several. See `heads`."""
    return heads(model)[-1]


def heads(model: nn.Module) -> list[str]:
    """Names of the heads. A network may say them, by an attribute `head_name` or timm's `get_classifier()`.

    Else the head is the last module, in the order of definition, with a weight of two or more dimensions; embeddings and norm layers are
    none. Linear layers of its size beside it that are called heads too count as well, as in distilled networks. A `TaskHeads`
    counts as one. Raises `ValueError` for a network without any such weight, or without the module it names.
    """
    if told := told_heads(model):
        return told
    last = _last_with_weight(model)
    head, path = model.get_submodule(last), last.split(".")

    def twin(name: str, module: nn.Module) -> bool:
        other = [pair for pair in zip(name.split("."), path, strict=False) if pair[0] != pair[1]]
        called = len(name.split(".")) == len(path) and len(other) == 1 and re.search("head|classifier", other[0][0])
        if not called or not isinstance(module, nn.Linear) or not isinstance(head, nn.Linear):
            return False
        return (module.in_features, module.out_features) == (head.in_features, head.out_features)

    return [name for name, module in model.named_modules() if twin(name, module)] + [last]


def told_heads(model: nn.Module) -> list[str]:
    """Names of the heads that the network itself tells of; empty if it does not. See `heads`."""
    if isinstance(found := getattr(model, "head_name", ""), str) and found:
        known(found, [n for n, _ in model.named_modules() if n], "head_name")
        return [found]
    last = _last_with_weight(model)
    for prefix, module in model.named_modules():
        if f"{last}.".startswith(f"{prefix}." * bool(prefix)) and callable(getattr(module, "get_classifier", None)):
            told = module.get_classifier()
            told = told if isinstance(told, (tuple, list)) else (told,)
            if names := [n for n, m in model.named_modules() if any(m is t and [*t.parameters()] for t in told)]:
                return names
    return []


def _last_with_weight(model: nn.Module) -> str:
    found = ""
    for name, module in model.named_modules():
        inside_found = isinstance(model.get_submodule(found), TaskHeads) and found and name.startswith(found + ".")
        plain = ".parametrizations." not in f".{name}" and not isinstance(module, UNMASKED)
        has_weight = plain and dimensions(module, "weight") > 1
        if not inside_found and (isinstance(module, TaskHeads) or has_weight):
            found = name
    if not found:
        raise ValueError(
            f"{type(model).__name__} has no submodule with a weight of two or more dimensions, hence no head and nothing to mask"
        )
    return found


class TaskHeads(nn.ModuleDict):
    """One head per task behind one name; `active` says which one answers. For pairs whose classes differ."""

    active = "source"

    def forward(self, x: Tensor) -> Tensor:
        """Logits of the active task."""
        logits: Tensor = self[self.active](x)
        return logits


def with_target_head(model: nn.Module, n_classes: int, seed: int = 0) -> nn.Module:
    """A copy of `model` with two heads (`TaskHeads`): the old one for "source", and a fresh one of `n_classes`, active, for "target"."""
    model = copied(model)
    *more, name = heads(model)
    old = model.get_submodule(name)
    if more or not isinstance(old, nn.Linear):
        what = f"of {len(more) + 1}" if more else f"a {type(old).__name__}"
        raise ValueError(f"the head {name!r} is {what}; a head per task needs a Linear one, and no other")
    with seeded(seed, "target head"):
        new = nn.Linear(old.in_features, n_classes).to(old.weight)
    both = TaskHeads({"source": old, "target": new})
    both.active = "target"
    _replace(model, old, both)
    return model


def own_head(model: nn.Module) -> list[str]:
    """The prefix of the parameters of the target's own head, in a list; empty where one head serves both tasks."""
    name = head_name(model)
    return [f"{name}.target."] if isinstance(model.get_submodule(name), TaskHeads) else []


def head_parameters(model: nn.Module) -> list[nn.Parameter]:
    """The parameters of all heads; of the active one where there is one per task."""
    return [p for name in heads(model) for p in _answering(model, name).parameters()]


def _answering(model: nn.Module, name: str) -> nn.Module:
    """The head `name`, or the active one where there is one per task."""
    head = model.get_submodule(name)
    return head[head.active] if isinstance(head, TaskHeads) else head


def for_task(model: nn.Module, task: str) -> nn.Module:
    """A plain copy of `model` that answers for `task` ("source" or "target"); just a copy where one head serves both."""
    return with_head_of(copied(model), task)


def with_head_of(model: nn.Module, task: str) -> nn.Module:
    """`model` itself, with the head of `task` in the place of a `TaskHeads`. Mutates `model`. Raises `BadSetting` for an unknown task."""
    heads = [module for module in model.modules() if isinstance(module, TaskHeads)]
    known(task, {name for head in heads for name in head} or ("source", "target"), "task")
    for head in heads:
        _replace(model, head, head[task])
    return model


def _replace(model: nn.Module, old: nn.Module, new: nn.Module) -> None:
    """Put `new` in the place of `old`, under all its names."""
    for parent in [m for m in model.modules() if m is not new]:
        parent._modules.update({leaf: new for leaf, child in parent._modules.items() if child is old})


@contextmanager
def head_checked(model: nn.Module) -> Iterator[None]:
    """Inside the block the first answer of `model`, or of a copy of it, is checked: the head must have been called, and `check_head`.

    A head that the network itself names is believed: it may give some of its values alone.
    """
    name = head_name(model)  # now, for later a look at a masked weight may draw random numbers
    if told_heads(model):
        yield
        return
    called: list[str] = []

    def check(answering: nn.Module, _: object, output: object) -> None:
        handle.remove()
        if not called:
            raise ValueError(f"{name!r}, defined last in {type(answering).__name__}, is not called{_NOT_HEAD}")
        check_head(answering, name, output)

    head = model.get_submodule(name)
    with head.register_forward_hook(lambda *_: called.append(name)), model.register_forward_hook(check) as handle:
        yield


def check_head(model: nn.Module, name: str, output: object) -> None:
    """Raise `ValueError` if `name`, the head of `model`, is a layer that cannot have given the logits (N, classes) of `output`."""
    head, logits = _answering(model, name), logits_of(output)
    gives = getattr(head, "out_features", getattr(head, "out_channels", logits.shape[1]))
    if gives != logits.shape[1]:
        raise ValueError(
            f"{name!r}, defined last in {type(model).__name__}, gives {gives} values and the network {logits.shape[1]}{_NOT_HEAD}"
        )


def logits_of(output: object) -> Tensor:
    """The logits (N, classes) in what a network returned: a tensor, or something with `.logits`, as networks of transformers give."""
    logits = output.get("logits") if isinstance(output, Mapping) else getattr(output, "logits", output)
    if not isinstance(logits, Tensor) or logits.ndim != 2:
        what = f"logits {tuple(logits.shape)}" if isinstance(logits, Tensor) else f"a {type(output).__name__}"
        raise ValueError(f"the network returned {what}; it must be a tensor of logits (N, classes), or have .logits")
    return logits


def classification(logits: Tensor, labels: Tensor, reduction: str = "mean") -> Tensor:
    """The cross-entropy of `logits` (N, classes). Raises `ValueError` for labels that are no class of them, and for one class."""
    if logits.shape[1] == 1:
        check_labels(labels, logits)
    try:
        return F.cross_entropy(logits, labels, reduction=reduction)
    except IndexError:  # of torch, on a processor
        check_labels(labels, logits)
        raise


def check_labels(labels: Tensor, logits: Tensor) -> None:
    """Raise `ValueError` if some of the `labels` (N,) are no class of the `logits` (N, classes)."""
    least, most, classes = int(labels.min()), int(labels.max()), logits.shape[1]
    if classes == 1:
        raise ValueError("the network gives one value for each image; cross-entropy needs two classes or more")
    if least < 0 or most >= classes:
        raise ValueError(
            f"labels go from {least} to {most}, but the network has the classes 0 to {classes - 1}; number them from 0"
        )
