"""What notebooks on masks say at their end, by hand."""

import pandas as pd
import pytest
from rows import make, mask

from maskutils.results import lessons

CURVES = pd.DataFrame(
    {"m": [0.2, 0.895, 0.9], "n": [0.1, 0.5, 0.9], "random": [0.1, 0.2, 0.3], "size": [0.1, 0.8, 0.895]},
    pd.Index([0.05, 0.1, 0.4], name="density"),
)


def test_the_sparsest_mask_that_carries_the_source_is_told_beside_the_best_control():
    assert lessons.sparsest(CURVES[["m", "random", "size"]], 0.9, ["m"]) == (
        "Less than a point of the source is lost through **m** down to density 0.1; through the best control, `size`, down to density "
        "0.4. So learning finds a sparser mask that carries the source."
    )


def test_of_several_masks_those_that_are_sparser_are_named():
    said = lessons.sparsest(CURVES, 0.9, ["m", "n"])
    assert "through **m** down to density 0.1 and **n** down to density 0.4;" in said
    assert said.endswith("So only **m** finds a sparser mask that carries the source.")


def test_a_mask_that_is_no_sparser_or_carries_nothing_is_told_so():
    assert lessons.sparsest(CURVES[["n", "size"]], 0.9, ["n"]).endswith(
        "So learning finds no sparser mask that carries the source. "
        "At density 0.05, where none carries it, **n** keeps 10.0 % and `size` 10.0 %."
    )
    said = lessons.sparsest(CURVES[["n", "random"]], 0.95, ["n"])
    assert (
        "through **n** at none of these densities; through the best control, `random`, at none of these densities."
        in said
    )


def test_a_mask_that_fails_at_one_density_does_not_carry_the_source_below_it():
    curves = pd.DataFrame({"m": [0.9, 0.5, 0.9], "size": [0.9, 0.9, 0.9]}, [0.1, 0.2, 0.4])
    assert (
        "through **m** down to density 0.4; through the best control, `size`, down to density 0.1."
        in lessons.sparsest(curves, 0.9, ["m"])
    )


def test_the_dial_is_told_from_the_lowest_to_the_highest_density():
    rows = [mask("snip", 0.8, 0.6, 0.7), mask("snip", 0.8, 0.65, 0.65, 0.2), mask("snip", 0.9, 0.7, 0.6, 0.4)]
    said = lessons.dial(make(*rows), ["snip"])
    assert (
        "With 40% of the weights held instead of 10%, the full network's accuracy changes by +10.0 points on the source"
        in said
    )
    assert "by -10.0 on the target." in said
    both = make(*rows, mask("fisher", 0.8, 0.6, 0.7), mask("fisher", 0.8, 0.9, 0.2, 0.4))
    assert "by +10.0 to +30.0 points on the source, and by -50.0 to -10.0 on the target." in lessons.dial(
        both, ["snip", "fisher"]
    )
    assert lessons.dial(make(rows[0]), ["snip"]) == ""


def test_what_a_mask_keeps_is_split_into_how_many_and_which():
    curves = pd.DataFrame({"m": [0.9, 0.95], "mixed": [0.6, 0.9], "random": [0.1, 0.7]}, [0.1, 0.4])
    said = lessons.which_or_how_many(curves, "m", "mixed", "random")
    assert (
        "At density 0.1 **m** keeps 90.0 % of the source and a random mask 10.0 %: +50.0 points come from how many"
        in said
    )
    assert said.endswith("+20.0 points come from how many weights each layer keeps, +5.0 from which.")
    assert lessons.which_or_how_many(curves, "m", "shuffled", "random") == ""


@pytest.mark.parametrize(("other", "verb"), [(0.6, "leads"), (0.9, "trails")])
def test_two_masks_are_told_apart_over_seeds(other, verb):
    rows = [mask(m, a + s / 1e3, 0.5, 0.7, seed=s) for m, a in (("snip", 0.8), ("fisher", other)) for s in range(3)]
    said = lessons.beside(make(*rows), "snip", "fisher", 0.1)
    assert said.startswith(f"At density 0.1, on the source through the mask, **snip** {verb} `fisher` by ")
    assert "On the target it cannot be told apart from `fisher` (+0.0" in said


def test_what_the_study_found_stands_beside_a_run_at_one_rate_alone():
    said = lessons.in_the_study("mnist_to_inverted", "cnn", ["gumbel_sigmoid", "finetune"], [0.1])
    assert said.startswith("**Here all approaches train at one rate.")
    assert said.count("\n- ") == 2
    assert "- **gumbel_sigmoid** at density 0.1: source 93.7 % through the mask" in said
    assert lessons.in_the_study("mnist_to_inverted", "cnn", ["gumbel_sigmoid"], [0.1], tuned=True) == ""
    assert lessons.in_the_study("pacs:photo:sketch", "cnn", ["gumbel_sigmoid"], [0.1]) == ""
    assert lessons.in_the_study("mnist_to_inverted", "cnn", ["bernoulli"], [0.1]) == ""


def test_what_is_carried_is_told_for_each_column():
    assert lessons.carried(CURVES[["m", "random"]], 0.9, lost=0.02) == {"m": 0.1, "random": float("inf")}
