"""Tensors that are made once and stored in a safetensors file."""

from collections.abc import Callable
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from maskutils.core.caches import cached
from maskutils.core.files import DamagedFile, write_atomically

Tensors = dict[str, Tensor]


def cached_tensors(path: Path, make: Callable[[], Tensors], like: Tensors | None = None) -> Tensors:
    """The tensors at `path`, on the CPU, or else what `make` makes, stored there; see `caches.cached`.

    A file whose tensors have other names or shapes than those of `like` counts as damaged.
    """
    return cached(path, make, _write, lambda p: _read(p, like))


def _write(tensors: Tensors, path: Path) -> None:
    write_atomically(path, save({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}))


def _read(path: Path, like: Tensors | None) -> Tensors:
    try:
        tensors = load(path.read_bytes())
    except SafetensorError as error:
        raise DamagedFile(f"{path} is damaged ({error})") from None
    if like is not None and {n: t.shape for n, t in tensors.items()} != {n: t.shape for n, t in like.items()}:
        raise DamagedFile(f"{path} does not hold the weights of this network")
    return tensors
