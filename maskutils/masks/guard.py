"""What a block of protection holds fixed and puts back, and what it warns of."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import LBFGS, Optimizer

from maskutils.core.checks import some_of, warn
from maskutils.masks.held import Held
from maskutils.masks.mask import Mask
from maskutils.models.made import PLAIN, makes_in
from maskutils.models.parts import chosen, owner_of


class Guard:
    """The tensors that one `protect` block holds fixed, and what to warn of when it ends."""

    def __init__(
        self, model: nn.Module, mask: Mask, train: Iterable[str], watched: Sequence[Optimizer] | None = None
    ) -> None:
        self.model, self.watched = model, watched or ()
        self.shards: list[Any] = [m for m in model.modules() if hasattr(m, "reshard")]  # FSDP2 swaps whole weights in
        self._reshard()
        tensors = dict(model.named_parameters()) | dict(model.named_buffers())
        named = [*model.named_parameters(remove_duplicate=False), *model.named_buffers(remove_duplicate=False)]
        names = chosen(train, [n for n, _ in named])
        free = {id(t) for n, t in named if n in names}  # under any of the names of a tied one
        views = _views(model)  # what they show is held as the parameter is
        kept = {n: t for n, t in tensors.items() if n in mask.bits or (id(t) not in free and n not in views)}
        _check_state(mask, kept)
        owners = {n: owner_of(model, n) for n in tensors}
        self.held = {n: Held(*owners[n], mask.bits.get(n)) for n in kept}
        self.leaves = [(owner._parameters, leaf) for owner, leaf in owners.values()]
        self.norms = [owners[n][0] for n in kept if n.endswith("running_mean")]
        self.steps, self.others, self.restored, self.begun, self.loaded = 0, 0, False, False, False
        self.missing: set[str] = set()
        _tell_of_made(model, tensors, {n for n in kept if n not in mask.bits})
        freed = tensors.keys() - kept.keys() - views
        all_kept = not freed and all(b.all() for b in mask.bits.values())
        self.quiet = bool(freed) or all_kept  # about weights that do not move
        if all_kept:
            warn(
                "nothing will train: the mask keeps every weight and train= frees none; use a lower density, or name a head in train="
            )

    def before_step(
        self, stepped: Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        """Make the closure of a step leave no gradient on what is held, for a step may evaluate it several times."""
        self._reshard()
        ours = self._trained_by(stepped)
        if not torch.compiler.is_compiling():
            self._tell_of_loaded(stepped, ours)
        by_name = kwargs.get("closure") is not None
        given = kwargs["closure"] if by_name else (args[1] if len(args) > 1 else None)
        if not callable(given) or not ours:
            return None
        if isinstance(stepped, LBFGS) and not self.steps and any("old_dirs" in s for s in stepped.state.values()):
            raise ValueError(
                "this LBFGS remembers directions from before protect, which move held weights; make a new LBFGS"
            )

        def closure(*passed: Any, **options: Any) -> Any:
            loss = given(*passed, **options)
            for held in self.held.values():
                if (now := held.now()) is not None and id(now) in ours:
                    held.silence(now)
            return loss

        return (args, {**kwargs, "closure": closure}) if by_name else ((args[0], closure, *args[2:]), kwargs)

    def after_step(self, stepped: Optimizer, *_: object) -> None:
        """Put back what `stepped` trains, and buffers; the rest may be part of a graph that another optimiser still needs."""
        self._reshard()
        ours = self._trained_by(stepped)
        if not ours and not any(stepped is o for o in self.watched):
            self.others += 1
            return
        self.restore(ours or None)
        self.steps += 1
        if callable(getattr(stepped, "eval", None)):
            self._hold_averages(stepped)

    def restore(self, ours: set[int] | None = None) -> None:
        """Put back the buffers that are held, and the parameters whose ids are in `ours` (all, if None)."""
        self._reshard()
        first, self.restored, gone = not self.restored, True, False
        for held in self.held.values():
            now = held.now()
            if now is None or not held.fits(now):
                gone = True
            elif ours is None or id(now) in ours or not isinstance(now, nn.Parameter):
                held.put(now)
                held.note(now)
        if first or gone:  # last, for a warning may be made an error
            self._look()
        if first and any(norm.training for norm in self.norms):
            warn(
                "norm layers train with the statistics of each batch, but those they evaluate with are held at the source's: put them in "
                "evaluation mode, or name them in train= (and give the mask its own with with_state)"
            )

    def _hold_averages(self, stepped: Optimizer) -> None:
        """Hold the other sequences of a schedule-free optimiser, which `eval` and `train` mix into the weights."""
        for held in self.held.values():
            now = held.now()
            state = {} if now is None else stepped.state.get(now, {})
            if state and "z" not in state:
                raise ValueError(
                    f"{type(stepped).__name__} may swap weights in eval(), but keeps no sequence 'z' that protect could hold; use an "
                    "optimiser of the package schedulefree, or one without eval()"
                )
            for sequence in {"x", "y", "z"} & state.keys():  # most keep z alone
                held.put(state[sequence])

    def _trained_by(self, optimizer: Optimizer) -> set[int]:
        """The ids of our parameters that `optimizer` trains."""
        theirs = {id(p) for group in optimizer.param_groups for p in group["params"]}
        ours = theirs & {id(parameters.get(leaf)) for parameters, leaf in self.leaves}
        return ours or theirs & {id(p) for p in self.model.parameters()}  # some may have been added since

    def _reshard(self) -> None:
        for module in self.shards:
            module.reshard()

    def _look(self) -> None:
        """Warn of held tensors that are not where they were; once of each."""
        gone = {
            n for n, held in self.held.items() if not held.fits(held.now()) or not _is_at(self.model, n, held.owner)
        }
        if new := sorted(gone - self.missing):
            self.missing |= gone
            warn(
                f"{some_of(new)} were replaced, wrapped or parametrised inside protect, which holds the tensors that it found on entry; "
                "prune, swap or wrap modules before the block, and learn the mask on the network that results"
            )

    def _here(self) -> dict[str, tuple[Held, Tensor]]:
        """The held parameters that are where they were, and what they are now."""
        self._reshard()
        self._look()
        found = {n: (h, h.now()) for n, h in self.held.items() if n not in self.missing}
        return {n: (h, now) for n, (h, now) in found.items() if isinstance(now, nn.Parameter)}

    def _written(self, ours: set[int]) -> dict[str, tuple[Held, Tensor]]:
        """The held parameters among `ours` that were written since the last step."""
        now = ((n, h, t) for n, h in self.held.items() if (t := h.now()) is not None and id(t) in ours)
        return {n: (h, t) for n, h, t in now if not h.noted(t) and h.fits(t)}

    def _tell_of_loaded(self, stepped: Optimizer, ours: set[int]) -> None:
        """Warn, once, of weights that something else has written since entry or the last step; some optimisers do so by themselves."""
        first, self.begun = not self.begun, True
        if self.loaded or callable(getattr(stepped, "eval", None)):
            return
        here = self._here() if first else self._written(ours)
        if moved := [n for n, (h, now) in here.items() if not h.intact(now)]:
            self.loaded = True
            warn(
                f"held weights were changed inside protect {'before its first step' if first else 'between its steps'} "
                f"({some_of(moved)}), as by a checkpoint that was loaded. They go back to what they were on entry: load weights before "
                "the block"
            )

    def tell(self) -> None:
        """Warn, at the end of the block, if its loop was not one that is protected."""
        here = self._here()
        if rounded := [n for n, (h, now) in here.items() if h.rounded(now)]:
            warn(
                f"{some_of(rounded)} became {here[rounded[0]][1].dtype} inside protect, so what is held is rounded to it; train in mixed "
                "precision (bf16-mixed, autocast) or convert the network before the block"
            )
        if moved := [n for n, (h, now) in here.items() if not h.intact(now)]:
            warn(
                f"held weights were changed by something else than a step of an optimiser that trains them ({some_of(moved)}; a copy of "
                "master weights, another optimiser than `optimizer`, weights that were loaded or merged): they are as on entry now, but "
                "the rest was trained beside the changed ones. To restore them at any time: with protect(...) as restore"
            )
        elif self.others and not self.restored:
            warn(
                f"{self.others} optimiser steps were taken inside protect, but none trains the network it was given: a copy of it "
                "(deepcopy, torch.load) is another network, and has to be protected itself"
            )
        elif self.steps and not self.quiet and all(h.untrained(now) for h, now in here.values()):
            warn(
                f"{self.steps} optimiser steps moved no weight: all are held (by masks that together keep every weight), frozen, or "
                "trained at a learning rate of 0"
            )


def _is_at(model: nn.Module, name: str, owner: nn.Module) -> bool:
    """Whether `owner` is still the module that `name` is a tensor of, compiled or not."""
    try:
        found, _ = owner_of(model, name)
    except AttributeError:
        return False
    return owner in (found, found._modules.get("_orig_mod"))


def _views(model: nn.Module) -> set[str]:
    """Names of the buffers whose memory lies within that of a parameter, as that of `weight.detach()` does."""
    parameters = [found for p in model.parameters() if (found := _memory(p))]
    buffers = {n: found for n, b in model.named_buffers() if (found := _memory(b))}
    return {n for n, (begin, end) in buffers.items() if any(low <= begin and end <= high for low, high in parameters)}


def _memory(tensor: Tensor) -> tuple[int, int] | None:
    """Where the entries of `tensor` begin and end in memory; None if it has none that can be said."""
    if type(tensor.data) is not Tensor or tensor.layout != torch.strided or not tensor.numel():
        return None
    last = sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True))
    return tensor.data_ptr(), tensor.data_ptr() + (last + 1) * tensor.element_size()


def _check_state(mask: Mask, kept: Mapping[str, Tensor]) -> None:
    """Raise `ValueError` if a held tensor has another shape than in the mask's task, as a fresh head; warn if it has other values."""
    shapes: dict[str, Sequence[int]] = {n: t.shape for n, t in mask.state.items()} | dict(mask.rest)
    for name, shape in shapes.items():
        if name in kept and tuple(kept[name].shape) != tuple(shape):
            raise ValueError(
                f"{name} is {tuple(kept[name].shape)} here and was {tuple(shape)} in the network that the mask is of, and would be held "
                f"untrained; name it in train=, as train=[{name!r}]"
            )
    both = {n: (kept[n], before) for n, before in mask.state.items() if n in kept}
    whole = {n: pair for n, pair in both.items() if not hasattr(pair[0], "device_mesh")}
    if changed := [n for n, (now, before) in whole.items() if not torch.equal(now, before.to(now))]:
        warn(
            f"{some_of(changed)} will be held as they are now, not as they were in the task that the mask carries; name in train= what is "
            "to be trained, as a fresh head"
        )


def _tell_of_made(model: nn.Module, names: Iterable[str], whole: Collection[str]) -> None:
    """Warn of layers whose weights no mask covers, for they are made from tensors of `model` that are all held as a `whole`."""
    layers = {n: layer for n in names if (layer := makes_in(model, n)) is not None}
    if held := sorted(set(layers.values()) - {layer for n, layer in layers.items() if n not in whole}):
        warn(
            f"held whole: {some_of(held)}. The mask does not cover weights that are made from other parameters. To train them whole, "
            f"name the layer, as train=[{held[0]!r}]; to mask them, make them plain before the mask is learnt: {PLAIN}"
        )
