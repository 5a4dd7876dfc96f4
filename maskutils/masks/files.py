"""The file of a mask: the bits of its weights, entropy-coded, in a safetensors file with a checksum."""

import hashlib
import json
import math
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from maskutils.core.files import DamagedFile, write_atomically

FORMAT = "maskutils.mask/2"
PARTS = ("bits", "scores", "state")


def digest(tensors: Mapping[str, Tensor], *texts: str) -> str:
    """16 hex digits that name these tensors (names, types, shapes, contents) and texts."""
    found = hashlib.sha256(json.dumps(texts).encode())
    for name in sorted(tensors):
        t = tensors[name].detach().cpu().contiguous()
        found.update(f"{name} {t.dtype} {tuple(t.shape)} ".encode())
        found.update(t.flatten().view(torch.uint8).numpy().data)
    return found.hexdigest()[:16]


def packed(bits: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """`bits` as bytes, eight of them in each."""
    return {f"bits/{n}": torch.from_numpy(np.packbits(b.cpu().numpy())) for n, b in bits.items()}


def coded(bits: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """`bits` as they are stored: packed, then coded by zlib, in whichever of two ways is shorter.

    Huffman codes of whole bytes come within 5 % of the entropy bound for 10,000 weights of densities from 0.05 to 0.95, and zlib's
    usual matching is shorter below that.
    """
    return {name: _coded(t.numpy().tobytes()) for name, t in packed(bits).items()}


def _coded(packed_bytes: bytes) -> Tensor:
    found = []
    for strategy in (zlib.Z_HUFFMAN_ONLY, zlib.Z_DEFAULT_STRATEGY):
        coder = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS, 9, strategy)
        found.append(coder.compress(packed_bytes) + coder.flush())
    return torch.frombuffer(bytearray(min(found, key=len)), dtype=torch.uint8)


def write_mask(
    path: str | Path, bits: Mapping[str, Tensor], scores: Mapping[str, Tensor], state: Mapping[str, Tensor], history: Iterable[Any],
    fingerprint: str, rest: Mapping[str, Iterable[int]],
) -> None:  # fmt: skip
    """Write the parts of a mask, atomically."""
    tensors = coded(bits) | {f"state/{n}": t.detach().cpu().contiguous() for n, t in state.items()}
    tensors |= {f"scores/{n}": s.detach().cpu().float().contiguous().clone() for n, s in scores.items()}
    meta = {"shapes": json.dumps({n: list(b.shape) for n, b in bits.items()}), "history": json.dumps(tuple(history))}
    meta |= {"fingerprint": fingerprint} if fingerprint else {}
    meta |= {"rest": json.dumps({n: list(shape) for n, shape in rest.items()})} if rest else {}
    checksum = digest(tensors, *_texts(meta))
    write_atomically(path, save(tensors, meta | {"format": FORMAT, "checksum": checksum}))


def _texts(meta: Mapping[str, str]) -> list[str]:
    """What a checksum covers beside the tensors; masks of earlier versions have no `rest`."""
    return [
        meta["shapes"],
        meta["history"],
        meta.get("fingerprint", ""),
        *[meta[key] for key in ["rest"] if key in meta],
    ]


def read_mask(path: str | Path) -> dict[str, Any]:
    """The parts of the mask at `path`, by name. Raises `FileNotFoundError`, or `DamagedFile` for anything that is not one."""
    if not Path(path).is_file():
        raise FileNotFoundError(f"no mask at {path}" + "; it is a folder: name the file in it" * Path(path).is_dir())
    try:
        with safe_open(path, "pt") as file:
            meta = file.metadata()
            if meta["format"] != FORMAT:
                raise ValueError(f"its format is {meta['format']!r}, not {FORMAT!r}")
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        if meta["checksum"] != digest(tensors, *_texts(meta)):
            raise ValueError("its checksum is not that of its content")
        parts = {p: {k.removeprefix(f"{p}/"): t for k, t in tensors.items() if k.startswith(f"{p}/")} for p in PARTS}
        bits = {n: _decoded(parts["bits"][n], shape) for n, shape in json.loads(meta["shapes"]).items()}
        history = tuple(json.loads(meta["history"]))
        rest = {n: tuple(shape) for n, shape in json.loads(meta.get("rest", "{}")).items()}
    except (SafetensorError, AttributeError, KeyError, TypeError, ValueError, zlib.error) as error:
        raise DamagedFile(f"{path} is not a mask file or is damaged ({error}); delete it and make it again") from None
    return {
        "bits": bits,
        "scores": {n: parts["scores"][n] for n in bits if n in parts["scores"]} or None,  # in the order of the layers
        "history": history,
        "state": parts["state"],
        "fingerprint": meta.get("fingerprint", ""),
        "rest": rest,
    }


def _decoded(coded_bytes: Tensor, shape: Iterable[int]) -> Tensor:
    shape = tuple(shape)
    n = math.prod(shape)
    packed_bytes = np.frombuffer(zlib.decompress(coded_bytes.numpy().tobytes(), -zlib.MAX_WBITS), dtype=np.uint8)
    if packed_bytes.size != -(-n // 8):
        raise ValueError(f"{packed_bytes.size} bytes for the {n} bits of shape {shape}")
    return torch.from_numpy(np.unpackbits(packed_bytes, count=n).astype(bool)).view(shape)
