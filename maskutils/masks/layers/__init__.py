"""The mask layers: how a real-valued score becomes a binary mask, and how a gradient finds its way back.

Owns one file per method, each with the equations of its paper, and the two verbs `attach` and `detach`. It must not know training
loops or data.
"""

import inspect

from torch import nn
from torch.nn.utils import parametrize

from maskutils.core.checks import BadParameter, known
from maskutils.masks.layers.base import LAYERS, MaskLayer, StraightThrough, layer, logistic_noise, top_fraction
from maskutils.masks.layers.bernoulli import Bernoulli
from maskutils.masks.layers.continuous_sparsification import ContinuousSparsification
from maskutils.masks.layers.edge_popup import EdgePopup
from maskutils.masks.layers.gumbel_sigmoid import GumbelSigmoid
from maskutils.masks.layers.hard_concrete import HardConcrete
from maskutils.masks.layers.piggyback import Piggyback
from maskutils.masks.layers.winning_subnetwork import WinningSubnetwork
from maskutils.models.parts import maskable

__all__ = ["LAYERS", "MaskLayer", "StraightThrough", "attach", "detach", "layer", "logistic_noise", "top_fraction"]
__all__ += ["Bernoulli", "ContinuousSparsification", "EdgePopup", "GumbelSigmoid", "HardConcrete", "Piggyback"]
__all__ += ["WinningSubnetwork"]


def attach(model: nn.Module, method: str, **options: float | str) -> dict[str, MaskLayer]:
    """Put a mask layer of `method` on every maskable weight of `model`; returns them by parameter name. Mutates
    `model`.

    `options` go to the layer (`tau`, `density`, ...). While attached, the keys of `state_dict` differ: detach before
    saving. Raises `BadParameter` for an unknown method, option or value.
    """
    cls = LAYERS[known(method, LAYERS, "method")]
    accepted = {name: p.default for name, p in inspect.signature(cls).parameters.items() if name != "weight"}
    for option, value in options.items():
        kind = str if isinstance(accepted[known(option, accepted, f"option of {method}")], str) else (int, float)
        if not isinstance(value, kind) or isinstance(value, bool):
            raise BadParameter(
                f"option {option} of {method} = {value!r} is not {'a name' if kind is str else 'a number'}"
            )
    layers = {name: cls(model.get_parameter(name), **options) for name in maskable(model)}
    shared = {id(model.get_parameter(name)): layer for name, layer in layers.items()}
    for name, parameter in list(model.named_parameters(remove_duplicate=False)):  # a tied weight, wherever it is used
        if id(parameter) in shared:
            module, _, leaf = name.rpartition(".")
            parametrize.register_parametrization(model.get_submodule(module), leaf, shared[id(parameter)], unsafe=True)
    return layers


def detach(model: nn.Module) -> None:
    """Take every mask layer off `model`; the very same Parameters are left behind, unchanged. Mutates `model`."""
    for module in list(model.modules()):
        if parametrize.is_parametrized(module):
            for leaf in list(module.parametrizations):
                if isinstance(module.parametrizations[leaf][0], MaskLayer):
                    parametrize.remove_parametrizations(module, leaf, leave_parametrized=False)
