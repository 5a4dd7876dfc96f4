"""Networks, their heads and their maskable weights.

Owns which networks exist by name, what their head is and which of their parameters a mask may cover. Any `nn.Module`
works everywhere; nothing has to be built here. It must not know data, masks or training.
"""

from maskutils.models.networks import (
    MODELS,
    build_model,
    check_head_fits,
    check_model,
    is_file,
    load_weights,
    pretrained_transform,
    torchvision_names,
    weights_file,
    with_head,
)
from maskutils.models.parts import (
    TaskHeads,
    check_head,
    check_prefixes,
    device_of,
    for_task,
    head_name,
    head_parameters,
    maskable,
    norm_layers,
    own_head,
    summary,
    unwrapped,
    with_target_head,
)

__all__ = [
    "MODELS",
    "TaskHeads",
    "build_model",
    "check_head",
    "check_head_fits",
    "check_model",
    "check_prefixes",
    "device_of",
    "for_task",
    "head_name",
    "head_parameters",
    "is_file",
]
__all__ += [
    "load_weights",
    "maskable",
    "norm_layers",
    "own_head",
    "pretrained_transform",
    "summary",
    "torchvision_names",
    "with_head",
]
__all__ += ["unwrapped", "weights_file", "with_target_head"]
