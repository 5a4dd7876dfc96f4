"""Selection: exactly k, the highest, and of equal ones the first; as a stable sort has it."""

import pytest
import torch

from maskutils.masks.selection import highest


def by_sort(values: torch.Tensor, k: int) -> torch.Tensor:
    kept = torch.zeros(values.numel(), dtype=torch.bool)
    kept[torch.sort(values.flatten(), descending=True, stable=True).indices[:k]] = True
    return kept.view_as(values)


@pytest.mark.parametrize("k", [0, 1, 7, 50, 99, 100])
@pytest.mark.parametrize("levels", [2, 5, 10_000])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_selection_is_that_of_a_stable_sort(k, levels, dtype):
    values = torch.randint(levels, (4, 25), generator=torch.Generator().manual_seed(k)).to(dtype)
    assert torch.equal(highest(values, k), by_sort(values, k))


def test_infinities_are_values_like_others():
    values = torch.tensor([-torch.inf, 0.0, torch.inf, -torch.inf])
    assert highest(values, 1).tolist() == [False, False, True, False]
    assert highest(values, 3).tolist() == [True, True, True, False]


def test_what_needs_a_gradient_is_selected_without_one():
    assert not highest(torch.randn(5, requires_grad=True), 2).requires_grad


@pytest.mark.parametrize("k", [1, 2, 1023, 1024, 5000, 9999, 10_000])
@pytest.mark.parametrize("levels", [1, 2, 9])
def test_of_many_equal_values_the_first_are_kept(k, levels):
    values = torch.randint(levels, (10_000,), generator=torch.Generator().manual_seed(k)).float()
    assert torch.equal(highest(values, k), by_sort(values, k))
