"""How far a weight moves that was to be held: the ways in which people freeze a part of a network, each in a few lines.

A recipe trains a network on a target and says which entries it holds. `audit` runs every recipe and compares entries before and after.
"""

import copy
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, cast

import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize, prune
from torch.optim import SGD, Adam, AdamW, Optimizer

from maskutils.data.batches import batches
from maskutils.data.pair import Examples, Pair
from maskutils.masks.mask import Mask
from maskutils.masks.protection import protect
from maskutils.masks.selection import highest
from maskutils.models.parts import owner_of
from maskutils.training.evaluation import evaluate
from maskutils.training.loop import fit

Bits = dict[str, Tensor]  # name of parameter -> True where it is held
Make = Callable[..., Optimizer]  # from parameters and `lr`


class Remembered:
    """`make`, and as `made` the optimiser that it made last."""

    def __init__(self, make: Make) -> None:
        self.make, self.made = make, cast(Any, None)

    def __call__(self, params: list[nn.Parameter], lr: float) -> Any:
        self.made = self.make(params, lr=lr)
        return self.made


@dataclass(frozen=True)
class Job:
    """What a recipe is given: the mask of what to hold, images of both domains, steps, rate, seed, and a clock."""

    mask: Mask
    source: Examples
    target: Examples
    steps: int
    lr: float
    seed: int
    seconds: list[float] = field(default_factory=list)  # processor time of each training

    def held(self, model: nn.Module) -> Bits:
        """What the mask keeps, and all that it does not cover (biases, the head)."""
        whole = {n: torch.ones_like(p, dtype=torch.bool) for n, p in model.named_parameters()}
        return {n: self.mask.bits.get(n, ones).to(ones.device) for n, ones in whole.items()}

    def train(self, model: nn.Module, make: Make, params: list[nn.Parameter] | None = None) -> None:
        """Train `params` (all by default) on the target."""
        begun = time.process_time()
        fit(
            model, self.target, steps=self.steps, lr=self.lr, seed=self.seed, optimizer=make, params=params, norm="eval"
        )
        self.seconds.append(time.process_time() - begun)

    def used(self, model: nn.Module, make: Make) -> Make:
        """`make` with the moments of 30 steps on the source, at rate 0: no weight has moved yet."""
        before = Remembered(make)
        fit(copy.deepcopy(model), self.source, steps=30, lr=0.0, seed=self.seed, optimizer=before, norm="eval")

        def again(params: list[nn.Parameter], lr: float) -> Optimizer:
            optim = make(params, lr=lr)
            moments = copy.deepcopy(before.made.state_dict()["state"])
            optim.load_state_dict({"state": moments, "param_groups": optim.state_dict()["param_groups"]})
            return optim

        return again


def sgd(params: list[nn.Parameter], lr: float, **options: Any) -> Optimizer:
    """SGD at ten times the rate of Adam, so that both learn the target."""
    return SGD(params, lr=10 * lr, **options)


MOMENTUM, ADAM = partial(sgd, momentum=0.9), partial(Adam, fused=True)
ADAMW = partial(AdamW, weight_decay=0.01, fused=True)


def free(job: Job, model: nn.Module, make: Make) -> Bits:
    """Nothing is held: what the mask keeps moves as all else does."""
    job.train(model, make)
    return {n: b if n in job.mask.bits else torch.zeros_like(b) for n, b in job.held(model).items()}


@contextmanager
def zeroed(model: nn.Module, held: Bits) -> Iterator[None]:
    """Inside the block a hook sets the gradient of every held entry to zero."""
    with ExitStack() as hooks:
        for n, p in model.named_parameters():
            if p.requires_grad:
                hooks.enter_context(p.register_hook(partial(torch.mul, ~held[n])))
        yield


def hooked(job: Job, model: nn.Module, make: Make, reuse: bool = False, ours: bool = False) -> Bits:
    """Hooks zero the gradients of what is held; or (`ours`) `protect` restores it after each step."""
    held, make = job.held(model), job.used(model, make) if reuse else make
    with protect(model, job.mask) if ours else zeroed(model, held):
        job.train(model, make)
    return held


def last_tensors(job: Job, model: nn.Module) -> Bits:
    """`requires_grad` is off for all tensors but the last four, a weight and a bias of two layers."""
    names = [n for n, _ in model.named_parameters()]
    job.train(model, ADAMW, [model.get_parameter(n) for n in names[-4:]])
    return {n: torch.full_like(model.get_parameter(n), n not in names[-4:], dtype=torch.bool) for n in names}


def pruned(job: Job, model: nn.Module) -> Bits:
    """`torch.nn.utils.prune` with what is free as its mask: the rest does not move, but it is zero."""
    held, places = job.held(model), {n: owner_of(model, n) for n in job.mask.bits}
    for name, place in places.items():
        prune.custom_from_mask(*place, ~held[name])
    job.train(model, ADAMW, [model.get_parameter(f"{name}_orig") for name in places])
    for place in places.values():
        prune.remove(*place)
    return held


class Where(nn.Module):
    """A parametrization that takes held entries from a copy."""

    def __init__(self, before: Tensor, held: Tensor) -> None:
        super().__init__()
        self.before, self.held = before.detach().clone(), held

    def forward(self, weight: Tensor) -> Tensor:
        """`weight` where it is free."""
        return torch.where(self.held, self.before, weight)


def parametrized(job: Job, model: nn.Module) -> Bits:
    """`torch.nn.utils.parametrize` with `torch.where`."""
    held, places = job.held(model), {n: owner_of(model, n) for n in job.mask.bits}
    for name, place in places.items():
        parametrize.register_parametrization(*place, Where(model.get_parameter(name), held[name]))
    job.train(
        model, ADAMW, [owner.get_parameter(f"parametrizations.{leaf}.original") for owner, leaf in places.values()]
    )
    for place in places.values():
        parametrize.remove_parametrizations(*place)
    return held


def selective_update(job: Job, model: nn.Module, rate: float | None = None) -> Bits:
    """SPU: a tenth of the first layer of an MLP, of highest gradient of the squared logits, summed over a quarter of the batches.

    The other gradients are zeroed, under AdamW with weight decay 0.2. Source: Zhang et al. 2024 (CVPR), *Overcoming Generic Knowledge Loss
    with Selective Parameter Update*, and its code, with rate 7.5e-6. Ours takes the first linear layer of any network.
    """
    name = next(f"{n}.weight" for n, m in model.named_modules() if isinstance(m, nn.Linear))
    weight, stream = model.get_parameter(name), batches(job.target, 32, job.seed)
    total = torch.zeros_like(weight)
    for _ in range(max(1, len(job.target) // (4 * 32))):
        total += torch.autograd.grad(model(next(stream)[0]).square().sum(1).mean(), weight)[0]
    held = {n: torch.ones_like(p, dtype=torch.bool) for n, p in model.named_parameters()}
    held[name] = ~highest(total.abs(), int(0.1 * weight.numel()))
    with zeroed(model, held):
        job.train(model, lambda params, lr: AdamW(params, lr=rate or lr, weight_decay=0.2, fused=True), [weight])
    return held


class MoFO(AdamW):
    """AdamW that steps only where the momentum is among the highest of its tensor, and decays every entry.

    Source: Chen et al. 2024 (arXiv 2407.20999), and its code: 3 % of each weight, all of each bias, weight decay 0.1.
    """

    fraction = 0.03

    def __init__(self, params: list[nn.Parameter], lr: float) -> None:
        super().__init__(params, lr=lr, weight_decay=0.1, fused=True)
        self.chosen = {p: torch.zeros_like(p, dtype=torch.bool) for p in self.param_groups[0]["params"]}  # in any step

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """A step of AdamW, taken back (but for the decay) where the momentum is low."""
        shrink = 1 - self.param_groups[0]["lr"] * self.param_groups[0]["weight_decay"]
        decayed = {p: p * shrink for p in self.chosen}
        super().step(closure)
        for p, otherwise in decayed.items():
            now = highest(self.state[p]["exp_avg"].abs(), int((self.fraction if p.ndim > 1 else 1.0) * p.numel()))
            p.copy_(torch.where(now, p, otherwise))
            self.chosen[p] |= now


def mofo(job: Job, model: nn.Module) -> Bits:
    """MoFO; held is what no step has chosen."""
    make = Remembered(MoFO)
    job.train(model, make)
    return {n: ~make.made.chosen[p] for n, p in model.named_parameters()}


RECIPES: dict[str, Callable[[Job, nn.Module], Bits]] = {
    "nothing held, AdamW": partial(free, make=ADAMW),
    "zeroed gradients, SGD": partial(hooked, make=sgd),
    "zeroed gradients, SGD and decay": partial(hooked, make=partial(sgd, weight_decay=5e-4)),
    "zeroed gradients, momentum": partial(hooked, make=MOMENTUM),
    "zeroed gradients, re-used momentum": partial(hooked, make=MOMENTUM, reuse=True),
    "zeroed gradients, Adam": partial(hooked, make=ADAM),
    "zeroed gradients, re-used Adam": partial(hooked, make=ADAM, reuse=True),
    "zeroed gradients, AdamW": partial(hooked, make=ADAMW),
    "requires_grad, whole tensors": last_tensors,
    "prune": pruned,
    "parametrize, torch.where": parametrized,
    "SPU": selective_update,
    "SPU at its own rate": partial(selective_update, rate=7.5e-6),
    "MoFO": mofo,
    "protect, AdamW": partial(hooked, make=ADAMW, ours=True),
    "protect, re-used momentum": partial(hooked, make=partial(MOMENTUM, weight_decay=5e-4), reuse=True, ours=True),
    "protect, re-used Adam": partial(hooked, make=ADAM, reuse=True, ours=True),
}


def audit(source: nn.Module, pair: Pair, mask: Mask, steps: int = 150, lr: float = 2e-3, seed: int = 0) -> pd.DataFrame:
    """A row for each recipe, on a copy of `source` each: what it holds, how far that moves, and what the source loses by it.

    `held` is a share of all parameters in [0, 1]; `change` the largest of a held entry, in units of the weight. `leak_cost` is the source
    accuracy that the leak alone costs: held entries as they are then, all others as in `source`. `source_acc` and `target_acc` are those of
    the whole network on test images, in [0, 1]; `ms` is processor time a step.
    """
    rows, accuracy = [], evaluate(source, pair.source.test)
    fit(copy.deepcopy(source), pair.target.train, steps=10)  # the first steps of a process are slow
    for name, recipe in RECIPES.items():
        job = Job(mask, pair.source.train, pair.target.train, steps, lr, seed)
        model = copy.deepcopy(source)
        held = recipe(job, model)
        share = sum(int(b.sum()) for b in held.values()) / sum(b.numel() for b in held.values())
        row = {"recipe": name, "held": share, "change": _largest(source, model, held)}
        row["leak_cost"] = accuracy - evaluate(_leaked(source, model, held), pair.source.test)
        row |= {"source_acc": evaluate(model, pair.source.test), "target_acc": evaluate(model, pair.target.test)}
        rows.append(row | {"ms": 1000 * job.seconds[0] / steps})
    return pd.DataFrame(rows)


def _largest(source: nn.Module, model: nn.Module, held: Bits) -> float:
    changes = [(model.get_parameter(n) - p)[held[n]].abs() for n, p in source.named_parameters()]
    return max((c.max().item() for c in changes if c.numel()), default=0.0)


@torch.no_grad()
def _leaked(source: nn.Module, model: nn.Module, held: Bits) -> nn.Module:
    """`source` with the held entries of `model`."""
    leaked = copy.deepcopy(source)
    for name, p in leaked.named_parameters():
        p.copy_(torch.where(held[name], model.get_parameter(name), p))
    return leaked


def leak_verdicts(table: pd.DataFrame) -> pd.Series:
    """A word for each row: "exact", "leaks, too little to matter here" (less than 0.005 of source accuracy), or "leaks"."""
    words = table["leak_cost"].abs().lt(0.005).map({True: "leaks, too little to matter here", False: "leaks"})
    return words.where(table["change"] > 0, "exact").rename("verdict")
