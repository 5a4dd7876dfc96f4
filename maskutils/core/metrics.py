"""The formulas of the study on plain numbers, each with its source.

Accuracies are fractions in [0, 1]; index 0 is before, 1 after the transfer.
"""

import math
from collections.abc import Sequence

import numpy as np


def forgetting(before: float, after: float) -> float:
    """Source accuracy lost in all, F = a_S0 - a_S1, in [-1, 1]. Through the mask it is masking cost + drift.

    Source: Chaudhry et al. 2018 (arXiv 1801.10112), for two tasks. It is minus the backward transfer of Lopez-Paz & Ranzato 2017
    (arXiv 1706.08840), eq. 3.
    """
    return before - after


def retention(before: float, after: float, chance: float) -> float:
    """Chance-corrected share of the source accuracy that is kept: (a_S1 - c) / (a_S0 - c). 1 is all, 0 is chance.

    Ours, after Kemker et al. 2018 (arXiv 1708.02072), who divide plain accuracies. `nan` if `before` is not above chance.
    """
    return (after - chance) / (before - chance) if before > chance else math.nan


def adaptation(target: float, reference: float, finetuned: float) -> float:
    """Share of the way from a reference to fine-tuning: (a_T - a_ref) / (a_FT - a_ref). Ours.

    The reference is chance in the study; a linear probe's accuracy is another. Below 0 is worse than the reference, above 1
    better than fine-tuning; `nan` where fine-tuning does not beat the reference.
    """
    return (target - reference) / (finetuned - reference) if finetuned > reference else math.nan


def harmonic_mean(a: float, b: float) -> float:
    """2ab / (a + b) of two values in [0, 1]; values below 0 count as 0, `nan` stays `nan`."""
    if math.isnan(a) or math.isnan(b):
        return math.nan
    a, b = max(a, 0.0), max(b, 0.0)
    return 2 * a * b / (a + b) if a + b else 0.0


def decayed(rate: float, steps: int) -> float:
    """Share of a weight that decay alone takes in `steps` of a cosine schedule; `rate` is learning rate times decay. Ours."""
    return 1 - math.exp(-rate * steps / 2)


def expected_iou(p: float, q: float) -> float:
    """IoU of two independent random masks of density p and q: pq / (p + q - pq); 1 where both are empty."""
    return p * q / (p + q - p * q) if p + q else 1.0


def ece(confidences: Sequence[float], correct: Sequence[bool], n_bins: int = 15) -> float:
    """Expected calibration error, sum_b (n_b / n) |acc_b - conf_b| over equal bins of confidence: in [0, 1], 0 is calibrated.

    Source: Guo et al. 2017 (arXiv 1706.04599), eq. 3. Raises `ValueError` for no predictions.
    """
    if len(confidences) == 0:
        raise ValueError("ece of no predictions is not defined; give at least one")
    confident = np.asarray(confidences, dtype=float)
    bins = np.minimum((confident * n_bins).astype(int), n_bins - 1)
    gaps = np.bincount(bins, weights=np.asarray(correct, dtype=float) - confident, minlength=n_bins)
    return float(np.abs(gaps).sum() / len(confident))
