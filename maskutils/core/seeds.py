"""Independent random streams from one seed. Each stream has a name, so that a new one changes no other."""

import contextlib
import hashlib
from collections.abc import Iterator

import torch


def stream(seed: int, name: str) -> int:
    """The seed of the stream `name` of `seed`, an integer in [0, 2^63).

    >>> stream(0, "split") == stream(0, "split"), stream(0, "split") == stream(0, "batches")
    (True, False)
    """
    return int.from_bytes(hashlib.sha256(f"{seed}/{name}".encode()).digest()[:8], "big") >> 1


def generator(seed: int, name: str) -> torch.Generator:
    """A CPU generator for the stream `name` of `seed`."""
    return torch.Generator().manual_seed(stream(seed, name))


@contextlib.contextmanager
def seeded(seed: int, name: str) -> Iterator[None]:
    """Draw from the stream `name` of `seed` inside the block, and restore torch's global generators afterwards.

    A GPU that the process has not used yet is not touched: seeding it would initialise it.
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
