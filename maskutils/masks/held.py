"""One tensor of a network that is held: what it was, and how it is put back."""

from typing import Any

import torch
from torch import Tensor, nn

CHUNK = 2**20  # entries at a time, so that what is made on the way is small
SMALL = 2**17  # bytes that may go beyond one copy, where that is quicker


class Held:
    """The entries at `bits` (all, if None) of the parameter or buffer `leaf` of `owner`, as they are now.

    It keeps the places and values of what is held, or a copy of the tensor where that is smaller: at most one copy, and the bits.
    """

    def __init__(self, owner: nn.Module, leaf: str, bits: Tensor | None = None) -> None:
        self.owner, self.leaf = owner, leaf
        whole: Any = self.now()  # a DTensor where the network is sharded
        self.sharded = hasattr(whole, "device_mesh")
        tensor = self._here(whole)
        if tensor.element_size() > 8 and leaf in owner._parameters:
            raise ValueError(
                f"{leaf} of a {type(owner).__name__} is {tensor.dtype}, which cannot be held; use complex64"
            )
        self.shape, self.dtype, self.order = tensor.shape, tensor.dtype, _order(tensor)
        self.seen = (0, -1)  # see `note`
        self.kind: Any = None  # layout, type and device that `working` is for
        self.bits: Any = None
        if bits is None:
            self.values = tensor.clone()
            return
        if self.sharded:
            from torch.distributed.tensor import distribute_tensor  # here, for it takes long to import

            bits = distribute_tensor(bits, whole.device_mesh, whole.placements, src_data_rank=None).to_local()
        self.bits, flat = bits.to(tensor.device, copy=True), _flat(tensor, self.order)  # a mask may be edited meanwhile
        self.few = int(self.bits.sum()) * (8 + flat.element_size()) <= max(flat.nbytes, SMALL)
        self.place, self.values = self._chosen(flat, self.order)
        self.begun = _sum(flat)

    def now(self) -> Tensor | None:
        """The tensor, looked up anew, for it may have been moved or converted; None if it is there no more."""
        found = self.owner._parameters.get(self.leaf)
        return found if found is not None else self.owner._buffers.get(self.leaf)

    def fits(self, tensor: Tensor | None) -> bool:
        """Whether `tensor` can be the one that is held: it is there, and of the same shape."""
        return tensor is not None and self._here(tensor).shape == self.shape

    def put(self, tensor: Tensor) -> None:
        """Give `tensor`, of the same shape, the held entries, bit for bit."""
        tensor = self._here(tensor)
        if self.bits is None:
            tensor.copy_(self.values)
            return
        flat, place, values = self._on(tensor)
        if self.few:
            flat.scatter_(0, place, values)
        else:
            for part, fixed, value in zip(flat.split(CHUNK), place.split(CHUNK), values.split(CHUNK), strict=True):
                part.mul_(~fixed).bitwise_or_(value)  # several times as quick as `torch.where`
        if flat.data_ptr() != tensor.data_ptr():  # its memory has gaps, so that `flat` is a copy
            ordered = _as_integers(tensor).permute(self.now_order)
            ordered.copy_(flat.view_as(ordered))

    def note(self, tensor: Tensor) -> None:
        """Note how often `tensor` has been written, so that `noted` tells a later write, except one through `.data`."""
        if not torch.compiler.is_compiling():
            self.seen = _writes(tensor)

    def noted(self, tensor: Tensor) -> bool:
        """Whether nothing has written to `tensor` since `note`; cheaper than `intact`."""
        return self.seen == _writes(tensor)

    def intact(self, tensor: Tensor) -> bool:
        """Whether `tensor` has the held entries, bit for bit."""
        tensor = self._here(tensor)
        if self.bits is None:
            return torch.equal(_as_integers(tensor), _as_integers(self.values.to(tensor)))
        flat, place, values = self._on(tensor)
        return torch.equal(flat.gather(0, place) if self.few else flat.masked_fill(~place, 0), values)

    def untrained(self, tensor: Tensor) -> bool:
        """Whether no entry of `tensor` has moved, held or not (as far as a sum over its memory tells)."""
        flat = _flat(self._here(tensor), self.order)
        return self.bits is None or bool(_sum(flat).to(self.begun) == self.begun)

    def rounded(self, tensor: Tensor) -> bool:
        """Whether the type of `tensor` cannot say what is held, as bfloat16 cannot say most of float32."""
        same = self.values.to(tensor.dtype).to(self.dtype) == self.values
        return not (same | self.values.isnan()).all()

    def silence(self, parameter: Tensor) -> None:
        """Set the gradient of the held entries of `parameter` to 0."""
        if parameter.grad is not None and not parameter.grad.is_sparse:  # a sparse one moves what `put` takes back
            gradient = self._here(parameter.grad)
            gradient.zero_() if self.bits is None else gradient.masked_fill_(self.bits.to(gradient.device), 0)

    def _chosen(self, flat: Tensor, order: tuple[int, ...]) -> tuple[Tensor, Tensor]:
        """The places of what is held in `flat`, a tensor in `order`, and the values there; 0, which has no bit set, beside them."""
        place = _flat(self.bits, order)
        if self.few:
            place = place.nonzero().flatten()
            return place, flat[place]
        return place, flat.masked_fill(~place, 0)

    def _here(self, tensor: Tensor) -> Tensor:
        """The part of `tensor` in this process, without autograd: a write to it breaks no graph that was built before."""
        whole: Any = tensor
        local: Tensor = whole.to_local() if self.sharded and hasattr(tensor, "device_mesh") else tensor
        return local.data

    def _on(self, tensor: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """`tensor` as integers in the order of its memory, and the places and values to be held there."""
        kind = (tensor.stride(), tensor.dtype, tensor.device)
        if kind != self.kind:
            self.kind, self.now_order = kind, _order(tensor)
            same = self.now_order == self.order
            place, values = (self.place, self.values) if same else self._reordered()
            self.working = place.to(tensor.device), _as_integers(values.to(tensor))
        tensor = _as_integers(tensor)
        return (tensor.view(-1) if tensor.is_contiguous() else _flat(tensor, self.now_order)), *self.working

    def _reordered(self) -> tuple[Tensor, Tensor]:
        """Places and values for a tensor of another layout, as when the network becomes channels_last."""
        whole = _as_integers(self.values)  # a copy of bfloat16 by another stride may change a nan
        if self.few:
            whole = whole.new_zeros(self.shape.numel()).scatter_(0, self.place, whole)
        back = sorted(range(len(self.shape)), key=self.order.__getitem__)
        flat = _flat(whole.view([self.shape[d] for d in self.order]).permute(back), self.now_order)
        place, values = self._chosen(flat, self.now_order)
        return place, values.view(self.dtype)


def _writes(tensor: Tensor) -> tuple[int, int]:
    """Which tensor it is, and how often it was written; torch does not count in inference mode."""
    return id(tensor), -1 if tensor.is_inference() else tensor._version


def _as_integers(tensor: Tensor) -> Tensor:
    """The memory of `tensor` as integers of the same width: exact whatever is there."""
    return tensor.view({1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}[tensor.element_size()])


def _sum(tensor: Tensor) -> Tensor:
    """The sum of the memory of `tensor`, which may wrap around; a wider type would take a copy of all of it."""
    integers = _as_integers(tensor)
    return integers.sum(dtype=torch.promote_types(integers.dtype, torch.int32))


def _order(tensor: Tensor) -> tuple[int, ...]:
    """The dimensions of `tensor` from that of the largest stride to that of the smallest."""
    return tuple(sorted(range(tensor.ndim), key=tensor.stride, reverse=True))


def _flat(tensor: Tensor, order: tuple[int, ...]) -> Tensor:
    return tensor.permute(order).reshape(-1)
