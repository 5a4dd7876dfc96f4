"""Parts of any network beside its head: its maskable weights, its norm layers."""

from collections.abc import Collection, Iterable
from difflib import get_close_matches
from typing import TYPE_CHECKING

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from maskutils.core.checks import BadSetting, needs, some_of, warn
from maskutils.models.heads import UNMASKED, heads
from maskutils.models.made import PLAIN, dimensions, made, makes_in

if TYPE_CHECKING:
    import pandas as pd


def maskable(model: nn.Module) -> list[str]:
    """Names of the parameters that a mask covers: weights of two or more dimensions outside head and embeddings, tied ones once.

    A parameter is a weight if its own name says so, as `weight` or `in_proj_weight`: class tokens and positions have two dimensions too.
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
        what = (
            f"{some_of(left_out)} are {told}"
            if left_out
            else "beside its head no parameter has two or more dimensions and a name with 'weight'"
        )
        raise ValueError(f"{type(model).__name__} has nothing to mask: {what}")
    weights = {name: model.get_parameter(name) for name in names}
    if odd := [n for n, w in weights.items() if not w.is_floating_point() or type(w.data) is not Tensor]:
        what = f"{type(weights[odd[0]].data).__name__} of {weights[odd[0]].dtype}"
        raise ValueError(
            f"{some_of(odd)}: {what}; a mask needs real, floating-point weights: load the network without quantisation"
        )
    if left_out:
        share = f"{len(left_out)} of {len(left_out) + len(names)} weights"
        warn(f"no mask covers {some_of(left_out)} ({share}), {told}")
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
    names = [name for name, p in model.named_parameters() if p.numel() and not name.startswith(head)]
    return [name for name in names if _is_weight(*owner_of(model, name)) and makes_in(model, name) is None]


def summary(model: nn.Module) -> "pd.DataFrame":
    """One row per parameter: name, shape, weights, and whether a mask covers it or why not."""
    with needs("study"):
        import pandas as pd  # here, for masks do without

    head, names = _head_prefixes(model), set(_covered(model))

    def role(name: str) -> str:
        if name in names or name.startswith(head):
            return "masked" if name in names else "head"
        if makes_in(model, name) is not None:
            return f"not masked: parametrised, see {PLAIN}"
        owner, leaf = owner_of(model, name)
        unnamed = dimensions(owner, leaf) > 1 and "weight" not in leaf
        return "not masked: its name has no 'weight'" if unnamed else "not masked: bias, norm or embedding"

    rows = [
        {"parameter": n, "shape": "x".join(map(str, p.shape)), "weights": p.numel(), "role": role(n)}
        for n, p in model.named_parameters()
    ]
    return pd.DataFrame(rows)


def norm_layers(model: nn.Module) -> list[nn.Module]:
    """Layers with running statistics (batch and instance norm of any dimension)."""
    return [module for module in model.modules() if isinstance(module, _NormBase)]


def chosen(train: str | Iterable[str], names: Collection[str]) -> set[str]:
    """Those of `names` that `train` names: parameters, buffers, or modules with all that is inside them, as "fc" has "fc.weight".

    `train` may be one name. Raises `ValueError` for a name that is none of these.
    """
    given = (train,) if isinstance(train, str) else tuple(train) if isinstance(train, Iterable) else (train,)
    if not all(isinstance(name, str) and name for name in given):
        raise BadSetting(
            f"train = {train!r} must be a list of names of parameters or modules, as ['fc']; [] trains none of them"
        )
    found: set[str] = set()
    for part in given:
        bare = part.replace("_orig_mod.", "")  # as wrappers of torch name what is in them
        for name in (part, bare, bare.removeprefix("module.")):
            if inside := {n for n in names if n == name or n.startswith(f"{name.rstrip('.')}.")}:
                break
        if not inside:
            near = get_close_matches(part.rstrip("."), {n.rpartition(".")[0] for n in names} | {*names}, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise ValueError(
                f"train={part!r} matches no parameter or buffer{hint}; there are {some_of(list(names), 20)}"
            )
        found |= inside
    return found


def owner_of(model: nn.Module, name: str) -> tuple[nn.Module, str]:
    """The submodule that has the parameter or buffer `name`, and the name that it has there."""
    owner, _, leaf = name.rpartition(".")
    return model.get_submodule(owner), leaf
