"""What reads a network out: its logits and its accuracy."""

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from maskutils.core.progress import bar
from maskutils.data.batches import Batches, as_given, images_and_labels, indexed, some, that_fit
from maskutils.models.copies import check_values
from maskutils.models.heads import check_head, check_labels, head_name, logits_of, told_heads
from maskutils.models.inputs import device_of, taken_by
from maskutils.models.sizes import fitting_threads


@contextlib.contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Inside the block `model` is in evaluation mode; afterwards every submodule is in the mode that it came in."""
    modes = [(module, module.training) for module in model.modules()]
    try:
        model.eval()
        yield
    finally:
        for module, mode in modes:  # parents first, by `train`, which some modules override to do more
            if module.training != mode:
                module.train(mode)
        for module, mode in modes:  # one with two parents has followed the second
            module.training = mode


@torch.no_grad()
def check_answer(model: nn.Module, data: Batches) -> None:
    """Raise `ValueError` if the head of `model` cannot have given its logits for an image of `data`, a dataset whose images it takes.

    What ranks weights without images may be given any data; no stream is read.
    """
    if not indexed(data) or told_heads(model):
        return
    try:
        with evaluating(model):
            logits = logits_of(model(taken_by(model, some(data, 1, 0)[0]).to(device_of(model))))
    except Exception:  # of the data or the network, which are of others
        return
    check_head(model, head_name(model), logits)


@torch.no_grad()
def predict(model: nn.Module, data: Batches, batch_size: int = 500) -> tuple[Tensor, Tensor]:
    """Logits (N, classes) and labels (N,) of the whole of `data` in evaluation mode, on the CPU; `model` is left as it was."""
    check_values(model)
    device, results = device_of(model), []
    with evaluating(model), fitting_threads(model), torch.random.fork_rng([]):  # a loader draws a seed
        for x, y in map(images_and_labels, bar(as_given(data, batch_size), "evaluate", "batch")):
            if not len(y):
                continue
            parts = taken_by(model, x).split(that_fit(x, device))
            # as copies, for a network may write into what it is given
            results.append((torch.cat([logits_of(model(p.to(device, copy=True))).cpu() for p in parts]), y.cpu()))
    if not results:
        raise ValueError("there is nothing to evaluate on: the data is empty")
    logits, labels = zip(*results, strict=True)
    return torch.cat(logits), torch.cat(labels)


def evaluate(model: nn.Module, data: Batches) -> float:
    """Accuracy of `model` on the whole of `data`, in [0, 1]; `model` is left as it was.

    >>> evaluate(nn.Identity(), torch.utils.data.TensorDataset(torch.eye(4), torch.tensor([0, 1, 2, 2])))
    0.75
    """
    return accuracy(*predict(model, data))


def accuracy(logits: Tensor, labels: Tensor) -> float:
    """Share of the rows of `logits` (N, classes) whose highest entry is at the label (N,), in [0, 1].

    Raises `ValueError` for labels of another shape, as class probabilities, or that are no class of the network, and for logits that
    are nan.
    """
    if labels.ndim != 1:
        raise ValueError(
            f"labels are {tuple(labels.shape)}; accuracy needs one class for each image, as labels.argmax(1) gives"
        )
    if not len(labels):
        raise ValueError("there are no labels, and hence no accuracy")
    if logits.isnan().any():
        raise ValueError("logits are nan: the images or the weights hold nan, or values too large for the network")
    check_labels(labels, logits)
    return (logits.argmax(1) == labels).float().mean().item()
