"""The Fisher information of every parameter: image by image in small networks, a batch at a time in large ones."""

import math
from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from maskutils.core.checks import positive
from maskutils.core.progress import bar
from maskutils.data.batches import some, that_fit
from maskutils.models.copies import copied, with_gradients
from maskutils.models.heads import logits_of
from maskutils.models.inputs import device_of, taken_by
from maskutils.models.sizes import fitting_threads, is_large

NOISE = 1e-6  # of the largest sum of a parameter: less is 0 in theory, as for the bias of an attention's keys
LABELS = 50  # of which the expectation is taken at most
BATCH = 25  # images
TRIED_IMAGES = 2  # images on which both ways are compared
TOLERANCE = 0.05  # of the sum of a parameter's values, by which the two ways may differ: bf16 rounds so much


@torch.inference_mode(False)
def fisher_information(model: nn.Module, data: Any, n: int = 500, seed: int = 0) -> dict[str, Tensor]:
    """The diagonal of the Fisher information of every parameter, over `n` images drawn from `data` by `seed`.

    F_i = mean over x of sum_y p(y|x) (d log p(y|x) / d theta_i)^2: the expectation over the network's own labels is taken
    in full, not sampled and not replaced by the true label; of more than 50 classes, over the 50 likeliest for each image. Source:
    Kirkpatrick et al. 2017 (arXiv 1612.00796).

    It takes a backward pass for each image and label. In a large network (see `models.sizes`) it takes one for each batch and label, which
    is quicker and equal up to rounding. All parameters must belong to convolutions, linear and norm layers that are called once, and both
    ways agree on two images.
    """
    x, _ = some(data, int(positive("n", n, whole=True)), seed)
    model, x = copied(model).eval(), taken_by(model, x)
    with fitting_threads(model):
        found = _by_batch(model, x) if is_large(model) and _agree(model, x[:TRIED_IMAGES]) else None
        return _by_image(model, x) if found is None else found


def sums(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A sum for each of `tensors`, 0 so far, of float32 at least: bf16 loses most of many small ones."""
    return {name: torch.zeros_like(t, dtype=torch.promote_types(t.dtype, torch.float32)) for name, t in tensors.items()}


def _agree(model: nn.Module, x: Tensor) -> bool:
    """Whether both ways agree on `x`: they do not where a layer sees parts of images as images, or a weight is used past its layer."""
    quick = _by_batch(model, x)
    if quick is None:
        return False
    exact = _by_image(model, x)
    least = NOISE * max(float(e.sum()) for e in exact.values())
    return all(bool((quick[n] - e).abs().sum() <= TOLERANCE * max(float(e.sum()), least)) for n, e in exact.items())


def _by_image(model: nn.Module, x: Tensor) -> dict[str, Tensor]:
    parameters = {n: p for n, p in with_gradients(model).named_parameters() if p.requires_grad}
    total = sums(parameters)
    for image in bar(x.to(device_of(model)).split(1), "Fisher information", "image"):
        logs = F.log_softmax(logits_of(model(image.clone())), dim=1)[0]  # a network may write into what it is given
        for y in logs.topk(min(LABELS, len(logs))).indices.sort().values.tolist():
            log, p = logs[y], logs[y].exp().item()
            gradients = torch.autograd.grad(log, list(parameters.values()), retain_graph=True, materialize_grads=True)
            for t, g in zip(total.values(), gradients, strict=True):
                t.addcmul_(g, g, value=p)
    return {name: t / len(x) for name, t in total.items()}


def _by_batch(model: nn.Module, x: Tensor) -> dict[str, Tensor] | None:
    """As `_by_image`, from the inputs of all layers and the gradients of their outputs; None if a parameter is in no such layer.

    The root of p(y|x) multiplies log p(y|x), so that p(y|x) multiplies the square of its gradient.
    """
    layers = {name: m for name, m in model.named_modules() if [*m.parameters(recurse=False)]}
    total = sums(dict(model.requires_grad_(False).named_parameters()))
    own = {f"{name}.{leaf}".lstrip(".") for name, m in layers.items() for leaf, _ in m.named_parameters(recurse=False)}
    if own != total.keys() or not all(_known(m) for m in layers.values()):  # tied weights have two owners
        return None
    seen: dict[str, int] = {}

    def note(name: str, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        seen[name] = seen.get(name, 0) + 1
        if not inputs or not output.requires_grad:  # called by keyword, or its input does not depend on the images
            seen[name] = -1
            return
        taken = _inputs(layers[name], inputs[0].detach())  # once for all labels
        output.register_hook(lambda g: _add(total, name, layers[name], taken, g))

    with ExitStack() as hooks:
        for name, m in layers.items():
            hooks.enter_context(m.register_forward_hook(lambda m, i, o, name=name: note(name, i, o)))
        device = device_of(model)
        for images in bar(x.to(device).split(min(BATCH, that_fit(x, device))), "Fisher information", "batch"):
            seen.clear()
            logs = F.log_softmax(logits_of(model(images.requires_grad_().clone())), dim=1)
            if any(seen.get(name) != 1 for name in layers):
                return None
            values = logs.topk(min(LABELS, logs.shape[1])).values
            terms = (values.detach() / 2).exp() * values
            for term in terms.sum(0):
                torch.autograd.grad(term, images, retain_graph=True)
    return {name: t / len(x) for name, t in total.items()}


def _add(total: Mapping[str, Tensor], name: str, layer: nn.Module, x: Tensor, g: Tensor) -> None:
    """Add the squared gradients of each image to `total`, for the parameters of `layer`; `x` is of `_inputs`, `g` of its outputs."""
    g, x = _by_place(layer, g).float(), x.float()  # squares and sums of half precision lose much
    for leaf, p in layer.named_parameters(recurse=False):
        if leaf == "bias":
            found = g.sum(-1)
        elif isinstance(layer, nn.Conv2d | nn.Linear):
            found = g @ x.mT
        else:
            found = (g * x).sum(-1)
        total[f"{name}.{leaf}".lstrip(".")] += found.square_().sum(0).view_as(p)


def _by_place(layer: nn.Module, values: Tensor) -> Tensor:
    """`values` of each input or output as (N, groups, channels, places); channels are last in linear layers and layer norm."""
    if isinstance(layer, nn.Linear | nn.LayerNorm):
        channels = math.prod(layer.normalized_shape) if isinstance(layer, nn.LayerNorm) else values.shape[-1]
        return values.reshape(len(values), 1, -1, channels).mT
    groups = layer.groups if isinstance(layer, nn.Conv2d) else 1
    return values.reshape(len(values), groups, values.shape[1] // groups, -1)


def _known(layer: nn.Module) -> bool:
    leaves = {name for name, _ in layer.named_parameters(recurse=False)}
    plain = not isinstance(layer, nn.Conv2d) or (layer.padding_mode == "zeros" and not isinstance(layer.padding, str))
    own = type(layer).forward in {kind.forward for kind in BY_PLACE}  # a subclass may compute something else
    return leaves <= {"weight", "bias"} and plain and own and getattr(layer, "running_mean", 0) is not None


def _inputs(layer: nn.Module, x: Tensor) -> Tensor:
    """What multiplies the gradient of the outputs, as `_by_place` has it: inputs, the patches of a convolution, or normalised values."""
    if isinstance(layer, nn.Conv2d):
        padding = cast(tuple[int, ...], layer.padding)
        x = F.unfold(x, layer.kernel_size, layer.dilation, padding, layer.stride)
        return x.view(len(x), layer.groups, -1, x.shape[-1])
    if isinstance(layer, _BatchNorm):
        x = F.batch_norm(x, layer.running_mean, layer.running_var, eps=layer.eps)
    elif isinstance(layer, nn.GroupNorm):
        x = F.group_norm(x, layer.num_groups, eps=layer.eps)
    elif isinstance(layer, nn.LayerNorm):
        x = F.layer_norm(x, layer.normalized_shape, eps=layer.eps)
    return _by_place(layer, x)


BY_PLACE = (nn.Conv2d, nn.Linear, _BatchNorm, nn.GroupNorm, nn.LayerNorm)
