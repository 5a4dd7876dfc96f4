"""Weight masks for domain transfer: learn which weights carry a source task, re-train the others, measure what is kept
and what is gained.

An open study after *Differentiable Weight Masks for Domain Transfer* (Khanna, Vaidyanath, Velu 2023, arXiv 2308.13957).
"""

from maskutils.choice import recommend
from maskutils.data import load_pair
from maskutils.learn import learn_mask
from maskutils.mask import Mask
from maskutils.models import build_model
from maskutils.protection import protect
from maskutils.records import load_records
from maskutils.train import evaluate, fit
from maskutils.transfer import score, transfer

__version__ = "0.1.0"
__all__ = [
    "Mask",
    "build_model",
    "evaluate",
    "fit",
    "learn_mask",
    "load_pair",
    "load_records",
    "protect",
    "recommend",
    "score",
    "transfer",
]
