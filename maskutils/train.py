"""The one training loop, and what reads a network out.

Owns how anything is trained and evaluated. `fit` mutates the model it is given and says so; `predict` and `evaluate` leave
it in evaluation mode; everything else leaves its input alone. It must not know protocols, records or files.
"""

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import SGD, Adam, AdamW, Optimizer
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

from maskutils.config import PRECISIONS, known
from maskutils.models import device_of, norm_layers
from maskutils.progress import bar
from maskutils.seeds import generator, seeded

Batches = Dataset | Iterable[tuple[Tensor, Tensor]]
Penalty = Callable[[Tensor, Tensor, float], Tensor]

OPTIMIZERS: dict[str, Callable[..., Optimizer]] = {
    "adam": lambda params, lr: Adam(params, lr, fused=True),
    "adamw": lambda params, lr: AdamW(params, lr, weight_decay=0.01, fused=True),
    "sgd": lambda params, lr: SGD(params, lr, momentum=0.9),
}


def fit(
    model: nn.Module,
    data: Batches,
    *,
    steps: int = 600,
    lr: float = 2e-3,
    batch_size: int = 32,
    seed: int = 0,
    optimizer: str = "adamw",
    params: Iterable[nn.Parameter] | None = None,
    penalty: Penalty | None = None,
    norm: str = "train",
    precision: str = "float32",
    watch: Callable[[], dict[str, float]] | None = None,
) -> list[dict[str, float]]:
    """Train `params` (all by default) of `model` on `data` by cross-entropy, with a cosine schedule to 0; mutates
    `model`.

    `data` gives images (N, C, H, W) and labels (N,): a dataset, a DataLoader or any iterable of batches that can be
    begun again. `penalty(images, logits, progress)` is added to the loss, progress in [0, 1). `norm="eval"` leaves the
    statistics of norm layers alone; `precision="bf16"` computes in automatic mixed precision. Returns the history:
    ten rows of step, mean loss since the row before, and what `watch()` returns.

    Raises `FloatingPointError` when the loss is not finite, `ValueError` for empty data.
    """
    known(precision, PRECISIONS, "precision")
    chosen = list(model.parameters() if params is None else params)
    optim = OPTIMIZERS[known(optimizer, OPTIMIZERS, "optimizer")](chosen, lr=lr)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optim, steps)
    training_mode(model, norm)
    history, total, last = [], torch.zeros((), device=device_of(model)), 0
    stream = batches(data, batch_size, seed)
    with seeded(seed, "fit"), _only(model, chosen):  # the seed is for dropout and the noise of mask layers
        for step in bar(range(1, steps + 1), "fit"):
            total += _step(model, next(stream), optim, penalty, (step - 1) / steps, precision)
            schedule.step()
            if step * 10 // steps > (step - 1) * 10 // steps:  # ten rows, whatever the number of steps
                history.append({"step": step, "loss": finite(total.item() / (step - last), step, lr)})
                if watch is not None:
                    history[-1] |= watch()
                    training_mode(model, norm)
                total, last = torch.zeros_like(total), step
    model.eval()
    return history


@contextlib.contextmanager
def _only(model: nn.Module, params: Iterable[nn.Parameter]) -> Iterator[None]:
    """Inside the block no gradient is computed for parameters of `model` that are not among `params`."""
    chosen = {id(p) for p in params}
    others = [p for p in model.parameters() if p.requires_grad and id(p) not in chosen]
    try:
        for p in others:
            p.requires_grad_(False)
        yield
    finally:
        for p in others:
            p.requires_grad_(True)


def _step(
    model: nn.Module,
    batch: tuple[Tensor, Tensor],
    optim: Optimizer,
    penalty: Penalty | None,
    progress: float,
    precision: str,
) -> Tensor:
    """One step of `optim`; returns the loss."""
    device = device_of(model)
    at_once = device.type == "cuda"  # MPS may read memory that is free again by then
    x, y = (t.to(device, non_blocking=at_once) for t in images_and_labels(batch))
    with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
        logits = model(x)
        loss = F.cross_entropy(logits, y)
        if penalty is not None:
            loss = loss + penalty(x, logits, progress)
    optim.zero_grad()
    loss.backward()
    optim.step()
    return loss.detach()


def images_and_labels(batch: Sequence[Tensor]) -> Sequence[Tensor]:
    """`batch` itself if it is images, float (N, ...), and labels (N,); else `ValueError` that says what it is and what to do."""
    if not isinstance(batch, (tuple, list)) or len(batch) != 2 or not all(isinstance(t, Tensor) for t in batch):
        found = f"a dict of {', '.join(map(str, batch))}" if isinstance(batch, dict) else f"a {type(batch).__name__}"
        found += f" of {len(batch)}" if isinstance(batch, (tuple, list)) else ""
        raise ValueError(
            f"a batch must be a pair of tensors, images and labels; it is {found}: give the loader a collate_fn that makes pairs"
        )
    if not batch[0].is_floating_point():
        raise ValueError(f"images are {batch[0].dtype}; make them float, as torchvision's ToTensor does")
    return batch


def finite(loss: float, step: int, lr: float) -> float:
    """`loss` if it is finite; else `FloatingPointError` that says when and what to try."""
    if not abs(loss) < float("inf"):
        raise FloatingPointError(
            f"the loss is {loss} by step {step} at lr {lr}: the training diverged; lower the learning rate or check the images"
        )
    return loss


def training_mode(model: nn.Module, norm: str) -> None:
    """Put `model` into training mode, its norm layers too only if `norm` is "train" rather than "eval"."""
    model.train()
    if known(norm, ("train", "eval"), "norm") == "eval":
        for module in norm_layers(model):
            module.eval()


def batches(data: Batches, batch_size: int, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Batches without end: each epoch in a new order drawn from `seed`, the last, smaller batch of an epoch left out.

    A `TensorDataset` is indexed a batch at a time, which is what makes small networks quick; other datasets go through
    a DataLoader, and other iterables are begun again when they end.
    """
    order = generator(seed, "batches")
    if isinstance(data, TensorDataset):
        n = len(data)
        size = min(batch_size, n)
        while n:
            for picked in torch.randperm(n, generator=order, device="cpu")[: n - n % size].split(size):
                yield data[picked]
    else:
        if isinstance(data, IterableDataset):
            data = loader(data, batch_size)
        elif isinstance(data, Dataset) and len(data):
            data = loader(data, min(batch_size, len(data)), shuffle=True, drop_last=True, generator=order)
        got_any = not isinstance(data, Dataset)  # one that is empty, that is
        while got_any:
            got_any = False
            for batch in data:
                got_any = True
                yield batch
    raise ValueError(
        "there is nothing to train on: the data is empty, or an iterator that is used up (give a list or a DataLoader)"
    )


@torch.no_grad()
def predict(model: nn.Module, data: Batches, batch_size: int = 500) -> tuple[Tensor, Tensor]:
    """Logits (N, classes) and labels (N,) of the whole of `data`, on the CPU; leaves `model` in evaluation mode."""
    model.eval()
    device, results = device_of(model), []
    for x, y in map(images_and_labels, bar(_in_order(data, batch_size), "evaluate", "batch")):
        results.append((torch.cat([model(part.to(device)).cpu() for part in x.split(that_fit(x))]), y.cpu()))
    if not any(len(y) for _, y in results):
        raise ValueError("there is nothing to evaluate on: the data is empty")
    logits, labels = zip(*results, strict=True)
    return torch.cat(logits), torch.cat(labels)


def evaluate(model: nn.Module, data: Batches) -> float:
    """Accuracy of `model` on the whole of `data`, in [0, 1]."""
    return accuracy(*predict(model, data))


def accuracy(logits: Tensor, labels: Tensor) -> float:
    """Share of the rows of `logits` (N, classes) whose highest entry is at the label (N,), in [0, 1]."""
    return (logits.argmax(1) == labels).float().mean().item()


def that_fit(images: Tensor) -> int:
    """How many of `images` (N, ...) to put through a network at once where no batch size is given: 27 of 3x224x224, so that its
    activations are not larger than in training.
    """
    return max(1, 2**22 // images.shape[1:].numel())


def loader(data: Dataset, batch_size: int, **options: object) -> DataLoader:
    """A DataLoader of `data`, with as many worker processes as its attribute `workers` says (none if it has none)."""
    workers = getattr(data, "workers", 0)
    pinned = workers > 0 and torch.cuda.is_initialized()  # what comes from this process may be on the GPU already
    return DataLoader(
        data, batch_size, num_workers=workers, persistent_workers=workers > 0, pin_memory=pinned, **options
    )


def _in_order(data: Batches, batch_size: int) -> Iterable[tuple[Tensor, Tensor]]:
    if isinstance(data, TensorDataset):
        return zip(*(t.split(batch_size) for t in data.tensors), strict=True)
    return loader(data, batch_size) if isinstance(data, Dataset) else data
