"""What a network takes: on which device, and of which type."""

import re

import torch
from torch import Tensor, nn

ADDED = re.compile(r"(^|\.)parametrizations\..*\.(?!original)\w+$")  # by a parametrisation, as the scores of a mask


def device_of(model: nn.Module) -> torch.device:
    """The device of the model's parameters; the CPU for a model without any."""
    return next((p.device for p in model.parameters()), torch.device("cpu"))


def taken_by(model: nn.Module, images: Tensor) -> Tensor:
    """`images` in the floating type of the model's parameters, if these have one: numpy gives float64. Token ids stay whole numbers.

    Raises `ValueError` for whole numbers where `model` has no embedding to look them up in.
    """
    if not images.is_floating_point():
        if any(isinstance(m, (nn.Embedding, nn.EmbeddingBag)) for m in model.modules()):
            return images
        raise ValueError(f"images are {images.dtype}; make them float, as torchvision's ToTensor does")
    types = {p.dtype for n, p in model.named_parameters() if p.is_floating_point() and not ADDED.search(n)}
    return images.to(types.pop()) if len(types) == 1 else images
