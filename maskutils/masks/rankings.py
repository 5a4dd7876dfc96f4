"""Rankings: scores that need no mask layer and no training of one. The controls, and (with a gradient) saliency.

Each function returns name -> scores of the shape of the weight; weights with higher scores are kept first.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from maskutils.core.approaches import filed
from maskutils.core.seeds import generator
from maskutils.data.batches import some, that_fit
from maskutils.masks.information import fisher_information, sums
from maskutils.models.copies import copied, with_gradients
from maskutils.models.heads import classification, logits_of
from maskutils.models.inputs import device_of, taken_by
from maskutils.models.parts import maskable

Scores = dict[str, Tensor]
Ranking = Callable[[nn.Module, Any, int], Scores]
RANKINGS: dict[str, Ranking] = {}


def ranking(**about: Any) -> Callable[[Ranking], Ranking]:
    """A decorator that files a ranking under its function's name; `about` are fields of `Approach`."""
    return filed(RANKINGS, "control", **about)


@ranking(place=10, colour="#8c564b", marker="P", rival=True)
def magnitude(model: nn.Module, data: Any, seed: int) -> Scores:
    """|w|, compared over all layers as it is. The oldest ranking of pruning; it sees no data. What `torch.nn.utils.prune` cut has 0."""
    buffers = dict(model.named_buffers())
    sizes = {name: model.get_parameter(name).detach().abs() for name in maskable(model)}
    return {
        n: s * buffers[cut] if (cut := f"{n.removesuffix('_orig')}_mask") in buffers else s for n, s in sizes.items()
    }


@ranking(place=14, colour="#444444", marker="v", role="chance", phrase="a random mask", rival=True)
def random(model: nn.Module, data: Any, seed: int) -> Scores:
    """Uniform noise: what a mask is worth that knows nothing."""
    noise = generator(seed, "random ranking")
    shapes = {name: model.get_parameter(name).shape for name in maskable(model)}
    return {n: torch.rand(s, generator=noise, dtype=torch.float32, device="cpu") for n, s in shapes.items()}


@ranking(place=11, colour="#5b7f95", marker="<")
def snip(model: nn.Module, data: Any, seed: int) -> Scores:
    """|g w|, the change of the source loss to first order if the weight were removed.

    Source: Lee et al. 2019 (arXiv 1810.02340), eq. 6, without the normalisation, which changes no order. They score an
    untrained network on one batch; ours is trained, and 500 images are used.
    """
    found = gradient(model, data, partial(classification, reduction="sum"), seed)
    return {n: (g * model.get_parameter(n)).abs().detach() for n, g in found.items()}


@torch.inference_mode(False)  # gradients too, whatever the caller has switched off
def gradient(model: nn.Module, data: Any, loss: Callable[[Tensor, Tensor], Tensor], seed: int = 0) -> Scores:
    """The gradient of the mean loss, for every maskable weight, over 500 images drawn from `data` by `seed`.

    `loss(logits, labels)` is the sum over a batch.
    """
    x, y = some(data, 500, seed)
    names, model = maskable(model), with_gradients(copied(model).eval())
    weights = {name: model.get_parameter(name) for name in names}
    total = sums(weights)
    device = device_of(model)
    size = min(100, that_fit(x, device))
    for images, labels in zip(taken_by(model, x).to(device).split(size), y.to(device).split(size), strict=True):
        mean = loss(logits_of(model(images.clone())), labels) / len(x)  # which a network may write into
        found = torch.autograd.grad(mean, list(weights.values()), materialize_grads=True)
        for t, g in zip(total.values(), found, strict=True):
            t += g
    return total


@torch.inference_mode(False)  # gradients too, whatever the caller has switched off
def sensitivity(model: nn.Module, data: Any, seed: int = 0) -> Scores:
    """The mean of (d z_y / d w)^2 for every maskable weight, over 500 images drawn from `data` by `seed`.

    z are the logits, and y is a label drawn from the network's own answer. Source: TaLoS, Iurada et al. 2025 (arXiv 2504.02620).
    """
    x, _ = some(data, 500, seed)
    names, model = maskable(model), with_gradients(copied(model).eval())
    weights, draw = {name: model.get_parameter(name) for name in names}, generator(seed, "sensitivity")
    total = sums(weights)
    for image in taken_by(model, x).to(device_of(model)).split(1):
        logits = logits_of(model(image.clone()))[0]
        y = int(torch.multinomial(logits.detach().softmax(0).cpu(), 1, generator=draw))
        found = torch.autograd.grad(logits[y], list(weights.values()), materialize_grads=True)
        for t, g in zip(total.values(), found, strict=True):
            t.addcmul_(g, g, value=1 / len(x))
    return total


@ranking(place=12, colour="#7a5195", marker=">")
def fisher(model: nn.Module, data: Any, seed: int) -> Scores:
    """F w^2 / 2, the change of the source loss to second order if the weight were removed, with F the exact Fisher diagonal.

    Source: Theis et al. 2018 (arXiv 1801.05787), eq. 5; they estimate F from gradients at the true labels.
    """
    names, information = maskable(model), fisher_information(model, data, seed=seed)
    return {n: information[n] * model.get_parameter(n).detach().square() / 2 for n in names}
