"""Independent random streams from one seed.

Owns how a seed becomes many. A stream is named, so that adding one never changes the others.
"""

import contextlib
import hashlib
from collections.abc import Iterator

import torch


def stream(seed: int, name: str) -> int:
    """The seed of the stream `name` of `seed`, an integer in [0, 2^63)."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{name}".encode()).digest()[:8], "big") >> 1


def generator(seed: int, name: str) -> torch.Generator:
    """A CPU generator for the stream `name` of `seed`."""
    return torch.Generator().manual_seed(stream(seed, name))


@contextlib.contextmanager
def seeded(seed: int, name: str) -> Iterator[None]:
    """Draw from the stream `name` of `seed` inside the block; leave torch's global generators as they were."""
    used = torch.cuda.is_initialized()  # to touch an idle GPU would initialise it
    with torch.random.fork_rng([torch.cuda.current_device()] if used else []):
        mps = torch.mps.get_rng_state() if torch.backends.mps.is_available() else None
        try:
            torch.manual_seed(stream(seed, name))
            yield
        finally:
            if mps is not None:
                torch.mps.set_rng_state(mps)
