"""Formulas against tables worked by hand."""

import math
import random

import pytest

from maskutils.core import metrics
from maskutils.results import fronts

NAN = math.nan
FRONT = [(0.9, 0.2), (0.6, 0.5), (0.3, 0.8)]


@pytest.mark.parametrize(("before", "after", "lost"), [(0.95, 0.40, 0.55), (0.50, 0.70, -0.20)])
def test_forgetting_is_what_the_source_loses(before, after, lost):
    assert metrics.forgetting(before, after) == pytest.approx(lost)


@pytest.mark.parametrize(
    ("before", "after", "chance", "expected"),
    [(0.9, 0.9, 0.1, 1.0), (0.9, 0.1, 0.1, 0.0), (0.9, 0.5, 0.1, 0.5), (0.6, 0.8, 0.2, 1.5), (0.9, 0.02, 0.1, -0.1)],
)
def test_retention_is_the_share_above_chance_that_is_kept(before, after, chance, expected):
    assert metrics.retention(before, after, chance) == pytest.approx(expected)


@pytest.mark.parametrize("before", [0.1, 0.05, 0.0])
def test_retention_is_nan_where_the_source_was_never_above_chance(before):
    assert math.isnan(metrics.retention(before, 0.5, 0.1))


@pytest.mark.parametrize(
    ("target", "probe", "finetuned", "expected"),
    [(0.8, 0.4, 0.8, 1.0), (0.4, 0.4, 0.8, 0.0), (0.5, 0.4, 0.8, 0.25), (0.3, 0.4, 0.8, -0.25), (0.9, 0.4, 0.8, 1.25)],
)
def test_adaptation_is_the_share_of_the_way_from_probe_to_finetuning(target, probe, finetuned, expected):
    assert metrics.adaptation(target, probe, finetuned) == pytest.approx(expected)


@pytest.mark.parametrize("finetuned", [0.4, 0.3])
def test_adaptation_is_nan_where_finetuning_does_not_beat_the_probe(finetuned):
    assert math.isnan(metrics.adaptation(0.5, 0.4, finetuned))


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        (0.5, 0.5, 0.5),
        (1.0, 0.5, 2 / 3),
        (0.2, 0.6, 0.3),
        (0.0, 0.0, 0.0),
        (0.0, 1.0, 0.0),
        (-0.3, 0.8, 0.0),
        (-1, -1, 0.0),
    ],
)
def test_harmonic_mean_as_worked_by_hand(a, b, expected):
    assert metrics.harmonic_mean(a, b) == pytest.approx(expected)
    assert metrics.harmonic_mean(b, a) == pytest.approx(expected)


@pytest.mark.parametrize(("a", "b"), [(NAN, 0.5), (0.5, NAN), (NAN, NAN), (NAN, -1.0)])
def test_harmonic_mean_of_nan_is_nan(a, b):
    assert math.isnan(metrics.harmonic_mean(a, b))


@pytest.mark.parametrize(
    ("points", "front"),
    [
        ([], []),
        ([(0.5, 0.5)], [(0.5, 0.5)]),
        ([(0.5, 0.5), (0.5, 0.5)], [(0.5, 0.5)]),
        ([(0.3, 0.8), (0.6, 0.5), (0.5, 0.4), (0.9, 0.2)], FRONT),
        ([(0.5, 0.2), (0.5, 0.7), (0.4, 0.7)], [(0.5, 0.7)]),
    ],
)
def test_pareto_front_as_worked_by_hand(points, front):
    assert fronts.pareto_front(points) == front


@pytest.mark.parametrize("seed", range(5))
def test_each_point_is_on_the_front_unless_another_is_at_least_as_good_in_both(seed):
    draw = random.Random(seed)
    points = list({(draw.randrange(8) / 8, draw.randrange(8) / 8) for _ in range(20)})
    undominated = [p for p in points if not any(q != p and q[0] >= p[0] and q[1] >= p[1] for q in points)]
    assert fronts.pareto_front(points) == sorted(undominated, reverse=True)


@pytest.mark.parametrize(
    ("points", "reference", "expected"),
    [
        (FRONT, (0.0, 0.0), 0.9 * 0.2 + 0.6 * 0.3 + 0.3 * 0.3),
        (FRONT, (0.1, 0.1), (0.8 * 0.1 + 0.5 * 0.3 + 0.2 * 0.3) / 0.81),
        ([*FRONT[::-1], (0.5, 0.4), (0.1, 0.1)], (0.0, 0.0), 0.45),  # order and beaten points change nothing
        ([(1.0, 1.0)], (0.2, 0.3), 1.0),
        ([(2.0, 0.5)], (0.0, 0.0), 0.5),  # cut to the box
        ([(0.05, 0.9), (0.9, 0.05)], (0.1, 0.1), 0.0),  # below the reference in one coordinate
        ([], (0.0, 0.0), 0.0),
    ],
)
def test_hypervolume_as_worked_by_hand(points, reference, expected):
    assert fronts.hypervolume(points, reference) == pytest.approx(expected)


def test_hypervolume_is_the_share_of_the_box_that_is_dominated():
    draw = random.Random(0)
    probes = [(draw.uniform(0.1, 1), draw.uniform(0.2, 1)) for _ in range(20_000)]
    dominated = sum(any(s >= x and t >= y for s, t in FRONT) for x, y in probes) / len(probes)
    assert fronts.hypervolume(FRONT, (0.1, 0.2)) == pytest.approx(dominated, abs=0.015)


@pytest.mark.parametrize("reference", [(1.0, 0.5), (0.5, 1.0), (1.1, 1.1)])
def test_hypervolume_needs_a_reference_below_one(reference):
    with pytest.raises(ValueError, match="must lie below 1"):
        fronts.hypervolume(FRONT, reference)


@pytest.mark.parametrize(("p", "q"), [(0.1, 0.1), (0.5, 0.2), (0.9, 0.3), (1.0, 0.4)])
def test_expected_iou_is_that_of_simulated_independent_masks(p, q):
    draw = random.Random(0)
    pairs = [(draw.random() < p, draw.random() < q) for _ in range(50_000)]
    simulated = sum(a and b for a, b in pairs) / sum(a or b for a, b in pairs)
    assert metrics.expected_iou(p, q) == pytest.approx(simulated, abs=0.01)


def test_expected_iou_of_two_empty_masks_is_a_number():
    assert metrics.expected_iou(0.0, 0.0) == 1.0  # as `Mask.iou` has it


@pytest.mark.parametrize(
    ("confidences", "correct", "expected"),
    [
        ([1.0, 1.0], [True, True], 0.0),
        ([0.9, 0.9, 0.9, 0.9], [True, True, True, False], 0.15),
        ([0.2, 0.9], [True, False], (0.8 + 0.9) / 2),  # two bins, whose gaps do not cancel
        ([0.81, 0.85], [True, False], (0.19 - 0.85) / -2),  # one bin, whose gaps do
    ],
)
def test_calibration_error_as_worked_by_hand(confidences, correct, expected):
    assert metrics.ece(confidences, correct, n_bins=5) == pytest.approx(expected)


def test_calibration_of_no_predictions_is_an_error():
    with pytest.raises(ValueError, match="no predictions"):
        metrics.ece([], [])


def test_decay_takes_what_a_cosine_schedule_leaves_of_its_rate():
    assert metrics.decayed(2e-5, 100_000) == pytest.approx(1 - math.exp(-1))
    assert metrics.decayed(1e-6, 0) == 0
