"""The mask layers: how a real-valued score becomes a binary mask, and how a gradient finds its way back.

One file for each method, with the equations of its paper; every file of this folder is loaded, so a new one is known at once. `attach`
puts the layers of a method on a network, `detach` takes them off.
"""

import inspect
import pkgutil
from collections.abc import Collection
from importlib import import_module
from typing import Any

from torch import nn
from torch.nn.utils import parametrize

from maskutils.core.checks import BadSetting, known
from maskutils.masks.layers.base import LAYERS, MaskLayer
from maskutils.models.parts import maskable, owner_of

__all__ = ["LAYERS", "MaskLayer", "attach", "detach"]

for _file in pkgutil.iter_modules(__path__):
    import_module(f"{__name__}.{_file.name}")


def attach(
    model: nn.Module, method: str, names: Collection[str] | None = None, **options: float | str
) -> dict[str, MaskLayer]:
    """Put a mask layer of `method` on every maskable weight of `model`, or on those in `names`; returns them by parameter
    name. Mutates `model`.

    `options` go to the layer (`tau`, `density`, ...). A weight that several modules share has one layer, which draws for each of them.
    While attached, the keys of `state_dict` differ: detach before saving. Raises `BadSetting` for an unknown method, option or value.
    """
    cls = LAYERS[known(method, LAYERS, "method")]
    accepted = {name: p.default for name, p in inspect.signature(cls).parameters.items() if name != "weight"}
    for option, value in options.items():
        if option in accepted and value == accepted[option]:  # which may be None
            continue
        kind = str if isinstance(accepted[known(option, accepted, f"option of {method}")], str) else (int, float)
        if not isinstance(value, kind) or isinstance(value, bool):
            raise BadSetting(
                f"option {option} of {method} = {value!r} is not {'a name' if kind is str else 'a number'}"
            )
    layers = {name: cls(model.get_parameter(name), **options) for name in (maskable(model) if names is None else names)}
    shared = {id(model.get_parameter(name)): layer for name, layer in layers.items()}
    for name, parameter in list(model.named_parameters(remove_duplicate=False)):  # a tied weight, wherever it is used
        owner, leaf = owner_of(model, name)
        if id(parameter) in shared and not parametrize.is_parametrized(owner, leaf):  # a module may have two names
            parametrize.register_parametrization(owner, leaf, shared[id(parameter)], unsafe=True)
    return layers


def detach(model: nn.Module) -> None:
    """Take every mask layer off `model`; the very same Parameters are left behind, unchanged. Mutates `model`."""
    for module in list(model.modules()):
        if "_orig_mod" not in module._modules and parametrize.is_parametrized(module):  # a compiled one only passes on
            layers: Any = module.parametrizations
            for leaf in list(layers):
                if isinstance(layers[leaf][0], MaskLayer):
                    parametrize.remove_parametrizations(module, leaf, leave_parametrized=False)
