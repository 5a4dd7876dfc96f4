"""Weight masks for domain transfer: learn which weights carry a source task, re-train the others, measure what is kept
and what is gained.

An open study after *Differentiable Weight Masks for Domain Transfer* (Khanna, Vaidyanath, Velu 2023, arXiv 2308.13957).
The public names are loaded when they are first asked for: `from maskutils import protect` imports torch and little else.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # for type checkers and editors; `HOMES` says the same to Python
    from maskutils.data.load import load_pair
    from maskutils.data.pair import Domain, Pair
    from maskutils.masks.mask import Mask
    from maskutils.masks.protection import protect
    from maskutils.models.networks import build_model
    from maskutils.results.choice import recommend
    from maskutils.results.records import load_records
    from maskutils.training.evaluation import evaluate
    from maskutils.training.learn import learn_mask
    from maskutils.training.loop import fit
    from maskutils.training.transfer import score, transfer

__all__ = ["Domain", "Mask", "Pair", "build_model", "evaluate", "fit", "learn_mask", "load_pair", "load_records"]
__all__ += ["protect", "recommend", "score", "transfer"]
__version__ = "0.1.0"

HOMES = {
    "Domain": "data.pair",
    "Mask": "masks.mask",
    "Pair": "data.pair",
    "build_model": "models.networks",
    "evaluate": "training.evaluation",
    "fit": "training.loop",
    "learn_mask": "training.learn",
    "load_pair": "data.load",
    "load_records": "results.records",
    "protect": "masks.protection",
    "recommend": "results.choice",
    "score": "training.transfer",
    "transfer": "training.transfer",
}


def __getattr__(name: str) -> Any:
    """Load a public name from the module that it lives in."""
    if name not in HOMES:
        raise AttributeError(f"module 'maskutils' has no attribute {name!r}; public names: {', '.join(__all__)}")
    from maskutils.core.checks import needs

    with needs("study"):
        value = globals()[name] = getattr(import_module(f"maskutils.{HOMES[name]}"), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
