"""The one training loop."""

import contextlib
from collections.abc import Callable, Iterable, Iterator

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.optim import SGD, Adam, AdamW, Optimizer

from maskutils.core.checks import known, number, positive
from maskutils.core.progress import bar
from maskutils.core.seeds import seeded
from maskutils.data.batches import Batches, batches, images_and_labels
from maskutils.models.copies import check_values
from maskutils.models.heads import classification, logits_of
from maskutils.models.inputs import device_of, taken_by
from maskutils.models.parts import norm_layers
from maskutils.models.sizes import fitting_threads, usual_lr

Penalty = Callable[[Tensor, Tensor, float], Tensor]

PRECISIONS, NORMS = ("float32", "bf16"), ("train", "eval")
OPTIMIZERS: dict[str, Callable[..., Optimizer]] = {
    "adam": lambda params, lr: Adam(params, lr, fused=True),
    "adamw": lambda params, lr: AdamW(params, lr, weight_decay=0.01, fused=True),
    "sgd": lambda params, lr: SGD(params, lr, momentum=0.9),
}


@torch.inference_mode(False)  # gradients too, whatever the caller has switched off
def fit(
    model: nn.Module,
    data: Batches,
    *,
    steps: int = 600,
    lr: float | None = None,
    batch_size: int = 32,
    seed: int = 0,
    optimizer: str | Callable[..., Optimizer] = "adamw",
    params: Iterable[nn.Parameter] | None = None,
    penalty: Penalty | None = None,
    norm: str = "train",
    precision: str = "float32",
    begin_step: Callable[[float], None] | None = None,
    watch: Callable[[], dict[str, float]] | None = None,
) -> list[dict[str, float]]:
    """Train `params` (default: all) of `model` by cross-entropy, with a cosine schedule to 0. Leaves `model` in evaluation mode, without
    gradients. What is frozen (`requires_grad` False) stays so.

    `data` gives images (N, C, H, W) and labels (N,): a dataset, a DataLoader or any iterable of batches that can be begun again (these
    have batches of their own, so `batch_size` is not for them). `optimizer` is a name of `OPTIMIZERS`, or a function of parameters and
    `lr`. Without `lr` it is `usual_lr(model)`. `penalty(images, logits, progress)` is added to the loss, progress in [0, 1);
    `begin_step(progress)` is called before each step. `norm="eval"` leaves the statistics of norm layers alone; `precision="bf16"`
    computes in automatic mixed precision. Returns the history: at most ten rows of step, mean loss since the row before, and what
    `watch()` returns.

    Raises `BadSetting` for a setting out of range (`lr` may be 0), `FloatingPointError` when the loss is not finite, `ValueError` for
    empty data.

    >>> model, data = nn.Linear(4, 2), torch.utils.data.TensorDataset(torch.eye(4), torch.tensor([0, 0, 1, 1]))
    >>> history = fit(model, data, steps=20, lr=0.1)
    >>> history[-1]["step"], history[-1]["loss"] < history[0]["loss"]
    (20, True)
    """
    check_training(steps, lr or None, batch_size, seed, precision)  # at 0 an optimiser gathers its state alone
    check_values(model)
    chosen = list(model.parameters() if params is None else params)
    lr = usual_lr(model) if lr is None else lr
    optim = (optimizer if callable(optimizer) else OPTIMIZERS[known(optimizer, OPTIMIZERS, "optimizer")])(chosen, lr=lr)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optim, steps)
    training_mode(model, norm)
    history, total, last = [], torch.zeros((), device=device_of(model)), 0
    stream = batches(data, batch_size, seed)
    with seeded(seed, "fit"), _trained(model, chosen), fitting_threads(model):  # the seed is for dropout and noise
        for step in bar(range(1, steps + 1), "fit"):
            progress = (step - 1) / steps
            if begin_step is not None:
                begin_step(progress)
            total += _step(model, next(stream), optim, penalty, progress, precision)
            schedule.step()
            if step * 10 // steps > (step - 1) * 10 // steps:  # ten rows, or one a step
                history.append({"step": step, "loss": finite(total.item() / (step - last), step, lr)})
                if watch is not None:
                    history[-1] |= watch()
                total, last = torch.zeros_like(total), step
    return history


def check_training(steps: int, lr: float | None, batch_size: int, seed: int, precision: str) -> None:
    """Raise `BadSetting` for a setting of the wrong type or out of range, before any work; `lr` may be None."""
    for name, value in {"steps": steps, "batch_size": batch_size}.items():
        positive(name, value, whole=True)
    number("seed", seed, whole=True)
    if lr is not None:
        positive("lr", lr)
    known(precision, PRECISIONS, "precision")


@contextlib.contextmanager
def _trained(model: nn.Module, params: Iterable[nn.Parameter]) -> Iterator[None]:
    """Inside the block no gradient is computed for parameters of `model` that are not among `params`.

    In the end `model` goes into evaluation mode, and no gradient is left that another loop would add its own to.
    """
    if not any(p.requires_grad for p in params):
        raise ValueError("nothing would train: all parameters are frozen; say model.requires_grad_(True) before")
    chosen = {id(p) for p in params}
    others = [p for p in model.parameters() if p.requires_grad and id(p) not in chosen]
    try:
        for p in others:
            p.requires_grad_(False)
        yield
    finally:
        for p in others:
            p.requires_grad_(True)
        for p in params:
            p.grad = None
        model.eval()


def _step(
    model: nn.Module, batch: tuple[Tensor, Tensor], optim: Optimizer, penalty: Penalty | None, progress: float, precision: str
) -> Tensor:  # fmt: skip
    """One step of `optim`; returns the loss."""
    device = device_of(model)
    at_once = device.type == "cuda"  # MPS may read memory that is free again by then
    x, y = (t.to(device, non_blocking=at_once) for t in images_and_labels(batch))
    if not len(y):
        raise ValueError("a batch holds no images, so it has no loss; leave empty batches out")
    x = taken_by(model, x)
    with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
        with parametrize.cached():  # a layer that is used twice has one mask
            logits = logits_of(model(x))
        loss = classification(logits, y)
        if penalty is not None:
            loss = loss + penalty(x, logits, progress)
    if not loss.requires_grad:
        raise ValueError("the loss depends on nothing that is trained; does the forward pass use these weights?")
    optim.zero_grad()
    loss.backward()
    optim.step()
    return loss.detach()


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
    if known(norm, NORMS, "norm") == "eval":
        for module in norm_layers(model):
            module.eval()
