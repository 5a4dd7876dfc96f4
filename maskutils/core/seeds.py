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
    """Draw from the stream `name` of `seed` inside the block; leave torch's global generators as they were.

    Those of a GPU that nobody has used yet are not touched: it would be initialised, or seeded as soon as it is.
    """
    used, value = torch.cuda.is_initialized(), stream(seed, name)
    with torch.random.fork_rng(range(torch.cuda.device_count()) if used else []):
        mps = torch.mps.get_rng_state() if torch.backends.mps.is_available() else None
        try:
            torch.default_generator.manual_seed(value)
            if used:
                torch.cuda.manual_seed_all(value)
            if mps is not None:
                torch.mps.manual_seed(value)
            yield
        finally:
            if mps is not None:
                torch.mps.set_rng_state(mps)
