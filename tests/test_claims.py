"""Claims: each passes on records made to satisfy it, fails on records made to violate it, and is skipped where there are none."""

import re
import subprocess
import sys

import pandas as pd
import pytest
from rows import BLANK

from maskutils.core import paths
from maskutils.results import claims, equal_storage, rivals
from maskutils.results.claims import CLAIMS, Verdict, verify
from maskutils.results.records import ACCURACIES, with_approach
from maskutils.results.verdicts import closest, explain, failures, summary

pytestmark = pytest.mark.slow

SEEDS = range(3)


def make(*rows: dict) -> pd.DataFrame:
    """Records on `SEEDS` with a little noise; what a row leaves out has a default, and validation reads as test does."""
    out = []
    for row in rows:
        for seed in [row["seed"]] if "seed" in row else SEEDS:
            filled = BLANK | row | {"seed": seed}
            for name, wobble in (("source_acc_full", 1), ("source_acc_masked", -1), ("target_acc", 1)):
                filled[name] += wobble * (seed - 1) * filled["noise"] * row.get("sign", 1)
            out.append({f"val_{n}": filled[n] for n in ACCURACIES} | filled)
    return with_approach(pd.DataFrame(out).drop(columns=["noise", "sign"], errors="ignore"))


def at(source: float, target: float, protocol: str = "finetune", noise: float = 0.001, **rest) -> dict:
    return {"source_acc_full": source, "target_acc": target, "protocol": protocol, "noise": noise} | rest


def mask(method: str, full: float, target: float, masked: float = 0.9, density: float = 0.1, **rest) -> dict:
    return at(full, target, "protect", method=method, source_acc_masked=masked, density=density, **rest)


def dial(method: str, *curve: tuple[float, float]) -> list[dict]:
    return [mask(method, *point, density=d) for d, point in zip((0.1, 0.5, 0.9), curve, strict=True)]


def elastic(own: float, shuffled: float, magnitude: float, constant: float) -> list[dict]:
    rows = [at(0.8, own, "elastic_mask", method="gumbel_sigmoid", strength=1), at(0.8, constant, "l2_sp", strength=1)]
    for method, value in (("shuffled", shuffled), ("magnitude", magnitude)):
        rows.append(at(0.8, value, "elastic_mask", method=method, strength=1, sign=-1))
    return rows


BACK = at(0.5, 0.5, alpha=0.5, noise=0)  # fine-tuning, interpolated: what makes its family WiSE-FT
FREE, SAFE = at(0.5, 0.95, sign=-1), at(0.95, 0.3, "source_only", noise=0)
STRONG = at(0.7, 0.9, noise=0)
RISING = dial("gumbel_sigmoid", (0.6, 0.9), (0.7, 0.8), (0.8, 0.7))
CONTROLS = [mask("random", 0.5, 0.9, 0.2, sign=-1), mask("shuffled", 0.5, 0.9, 0.4, sign=-1)]
LARGEST = mask("magnitude", 0.5, 0.9, 0.8, sign=-1)
MENDED = [mask("shuffled", 0.8, 0.9, 0.9, sign=-1), CONTROLS[0]]
WORSE = [mask("gumbel_sigmoid", 0.5, 0.8), mask("edge_popup", 0.4, 0.8)]
UNSTABLE = [
    at(0.95 if s else 0.5, 0.9, noise=0, seed=s, val_source_acc_full=0.95, val_target_acc=0.9) for s in range(4)
]
LIAR = [at(0.5, 0.9, val_source_acc_full=0.95, val_target_acc=0.9)]


def far(*rows: dict, **change) -> list[dict]:
    """`rows` on two pairs of domains, with `change` on the second."""
    return [row | {"pair": "a"} for row in rows] + [
        row | {"pair": "b"} | (change if row.get("method") else {}) for row in rows
    ]


def four(*rows: dict) -> list[dict]:
    """`rows` on four seeds, of which one can be left out."""
    return [row | {"seed": seed} for row in rows for seed in range(4)]


def stored(bits: float, row: dict) -> dict:
    return row | {"stored_bits": bits}


OFF, OFF_KNOWN = (
    "masks_against_strong_baselines_without_their_best_pair",
    "masks_with_the_task_known_without_their_best_pair",
)
MASK = stored(100, mask("gumbel_sigmoid", 0.5, 0.9, 0.95, noise=0.0001))
NEAR, TWO = (stored(bits, at(0.5, 0.95, name, sign=-1)) for bits, name in ((50, "bias_only"), (3200, "two_networks")))
NONE = stored(0, SAFE)
PACKED = at(0.5, 0.9, "packnet", method="magnitude", density=0.1, source_acc_masked=0.8, sign=-1)
EWC = at(0.8, 0.9, "ewc", strength=1, sign=-1)
CASES = [
    ("masks_win_at_similar_bits", [MASK, NONE], True),
    ("masks_win_at_similar_bits", [MASK, NONE, NEAR | {"target_acc": 0.89}], True),
    ("masks_win_at_similar_bits", [MASK, NONE, NEAR], False),
    ("masks_win_at_similar_bits", [MASK | {"source_acc_masked": 0.99}, NONE, NEAR], False),  # to gain on the source is no way out
    ("masks_win_at_similar_bits", [MASK, NONE, NEAR | {"stored_bits": 125}], False),  # about as many
    ("masks_win_at_similar_bits", [MASK, NONE, NEAR | {"stored_bits": 126}], True),  # the rival stores more
    ("masks_win_at_similar_bits", [MASK, NONE, stored(0, at(0.9, 0.95, "ewc", strength=1))], True),  # the rival loses more
    ("masks_win_at_similar_bits", [MASK | {"target_acc": 0.3001}, NONE], False),  # ahead, but not in every seed
    ("masks_reach_two_networks", [MASK, TWO | {"target_acc": 0.905}], True),
    ("masks_reach_two_networks", [MASK, TWO], False),
    ("masks_beat_unlearnt_masks", [mask("gumbel_sigmoid", 0.5, 0.9), LARGEST], True),
    ("masks_beat_unlearnt_masks", [mask("gumbel_sigmoid", 0.9, 0.9, 0.7), LARGEST], False),
    ("masks_beat_unlearnt_masks", [mask("gumbel_sigmoid", 0.5, 0.9), LARGEST, mask("fisher", 0.5, 0.9, 0.95, sign=-1)], False),
    ("masks_beat_retrained_masks", [mask("gumbel_sigmoid", 0.5, 0.9), PACKED], True),
    ("masks_beat_retrained_masks", [mask("gumbel_sigmoid", 0.9, 0.9, 0.7), PACKED], False),
    ("masks_beat_every_rival", [mask("gumbel_sigmoid", 0.9, 0.9), EWC, BACK], True),
    ("masks_beat_every_rival", [mask("gumbel_sigmoid", 0.7, 0.9), EWC, BACK], False),
    ("elastic_mask_beats_the_strongest", [*elastic(0.95, 0.5, 0.5, 0.5), EWC], True),
    ("elastic_mask_beats_the_strongest", [*elastic(0.85, 0.5, 0.5, 0.5), EWC], False),
    ("elastic_mask_beats_the_strongest", [*elastic(0.9, 0.5, 0.5, 0.5), EWC], False),  # the same but for noise
    (OFF, far(BACK, STRONG, mask("bernoulli", 0.69, 0.9), source_acc_full=0.9), True),
    (OFF, far(BACK, STRONG, mask("bernoulli", 0.6, 0.9), source_acc_full=0.9), False),
    (OFF_KNOWN, far(BACK, STRONG, mask("bernoulli", 0.5, 0.9, 0.69), source_acc_masked=0.9), True),
    (OFF_KNOWN, far(BACK, STRONG, mask("bernoulli", 0.5, 0.9, 0.6), source_acc_masked=0.9), False),
    ("density_is_the_dial", RISING, True),
    ("density_is_the_dial", [*RISING, *dial("bernoulli", (0.8, 0.9), (0.7, 0.8), (0.6, 0.7))], False),
    ("density_is_the_dial", dial("gumbel_sigmoid", (0.6, 0.7), (0.7, 0.8), (0.8, 0.9)), False),
    ("density_is_the_dial", [*RISING, *dial("bernoulli", (0.6, 0.8), (0.7, 0.8), (0.8, 0.8))], False),  # no rank where all is equal
    ("some_masks_prevent_forgetting_and_pay", [FREE, mask("bernoulli", 0.94, 0.9, val_source_acc_full=0.9)], False),  # luck on test
    ("some_masks_prevent_forgetting_and_pay", [FREE, mask("bernoulli", 0.9, 0.9, val_source_acc_full=0.94)], False),
    ("some_masks_prevent_forgetting_and_pay", [FREE, mask("bernoulli", 0.94, 0.9)], True),
    ("some_masks_prevent_forgetting_and_pay", [FREE, mask("bernoulli", 0.94, 0.94)], False),
    ("some_masks_prevent_forgetting_and_pay", [FREE, mask("bernoulli", 0.9, 0.9)], False),
    ("learnt_masks_beat_their_controls_through_the_mask", [mask("gumbel_sigmoid", 0.5, 0.9), *CONTROLS], True),
    ("learnt_masks_beat_their_controls_through_the_mask", [mask("gumbel_sigmoid", 0.8, 0.9, 0.3), *CONTROLS], False),
    ("learnt_masks_beat_their_controls_through_the_mask", [mask("gumbel_sigmoid", 0.8, 0.9, 0.401, noise=0.002), *CONTROLS], False),
    ("learnt_masks_beat_random_with_the_full_network", [mask("gumbel_sigmoid", 0.8, 0.9), *CONTROLS], True),
    ("learnt_masks_beat_random_with_the_full_network", [mask("gumbel_sigmoid", 0.4, 0.9), *CONTROLS], False),
    ("learnt_masks_beat_magnitude_through_the_mask", [mask("gumbel_sigmoid", 0.5, 0.9, noise=0), LARGEST | {"noise": 0}], True),
    ("learnt_masks_beat_random_with_the_full_network", [mask("gumbel_sigmoid", 0.801, 0.9), *MENDED], False),
    ("learnt_masks_beat_magnitude_through_the_mask", [mask("gumbel_sigmoid", 0.5, 0.9), LARGEST], True),
    ("learnt_masks_beat_magnitude_through_the_mask", [mask("gumbel_sigmoid", 0.8, 0.9, 0.3), LARGEST], False),
    ("masks_against_strong_baselines", [BACK, at(0.5, 0.9), mask("gumbel_sigmoid", 0.7, 0.9), WORSE[1]], True),
    ("masks_against_strong_baselines", [BACK, STRONG, mask("winning_subnetwork", 0.69, 0.9)], True),  # 1 point of hypervolume less
    ("masks_against_strong_baselines", [BACK, STRONG, mask("gumbel_sigmoid", 0.67, 0.9)], False),  # 3 points less
    ("masks_against_strong_baselines", [BACK, STRONG, mask("gumbel_sigmoid", 0.69, 0.9, noise=0.03)], False),  # noise is no excuse
    ("masks_against_strong_baselines", [BACK, STRONG, *WORSE], False),
    ("masks_against_strong_baselines_through_the_mask", [BACK, STRONG, mask("bernoulli", 0.5, 0.9, 0.7)], True),
    ("masks_against_strong_baselines_through_the_mask", [BACK, STRONG, mask("bernoulli", 0.5, 0.9, 0.67)], False),
    ("elastic_mask_against_strong_baselines", [BACK, at(0.8, 0.9), *elastic(0.89, 0.5, 0.5, 0.5)], True),
    ("elastic_mask_against_strong_baselines", [BACK, at(0.8, 0.9, sign=-1), *elastic(0.87, 0.5, 0.5, 0.5)], False),
    ("elastic_mask_owes_it_to_the_mask", elastic(0.9, 0.8, 0.8, 0.8), True),
    ("elastic_mask_owes_it_to_the_mask", elastic(0.9, 0.95, 0.8, 0.8), False),
    ("elastic_mask_owes_it_to_the_mask", elastic(0.9, 0.8, 0.95, 0.8), False),
    ("elastic_mask_owes_it_to_the_mask", elastic(0.9, 0.8, 0.8, 0.95), False),
    ("elastic_mask_owes_it_to_the_mask", elastic(0.8005, 0.8, 0.8, 0.8), False),  # ahead, but not in every seed
    ("the_choice_holds_on_seeds_left_out", four(SAFE, at(0.9, 0.9)), True),
    ("the_choice_holds_on_seeds_left_out", four(SAFE, *LIAR), False),
    ("the_choice_holds_on_seeds_left_out", [*four(SAFE), *UNSTABLE], False),
]  # fmt: skip


@pytest.mark.parametrize(("claim", "rows", "holds"), CASES)
def test_a_claim_passes_exactly_where_the_records_say_so(claim, rows, holds):
    verdict = CLAIMS[claim](make(*rows))
    assert verdict.passed is holds, verdict.effect
    assert any(letter.isdigit() for letter in verdict.effect)
    assert verdict.meaning
    assert len(verdict.evidence)


def test_every_claim_has_records_that_satisfy_and_that_violate_it():
    assert {(c, holds) for c, _, holds in CASES} == {(c, holds) for c in CLAIMS for holds in (True, False)}


NOTHING = list(CLAIMS)


@pytest.mark.parametrize("claim", NOTHING)
def test_a_claim_of_which_the_records_hold_nothing_is_skipped(claim):
    verdict = CLAIMS[claim](make(at(0.9, 0.5, "lp_ft")))
    assert verdict.passed is None
    assert verdict.word == "SKIP"
    assert "fewer" not in verdict.effect


@pytest.mark.parametrize(
    ("claim", "rows"), [(c, rows) for c, rows, _ in CASES], ids=lambda x: x if isinstance(x, str) else ""
)
def test_fewer_than_three_seeds_give_no_verdict(claim, rows):
    made = make(*rows)
    for seeds in (1, 2):
        verdict = CLAIMS[claim](made[made["seed"] < seeds])
        assert (verdict.passed, verdict.effect) == (None, f"fewer than three seeds: {seeds}")
        assert not verdict.meaning


@pytest.mark.parametrize(("claim", "rows"), [
    ("masks_against_strong_baselines", [BACK, STRONG, mask("gumbel_sigmoid", 0.7, 0.9)]),
    ("learnt_masks_beat_random_with_the_full_network", [mask("gumbel_sigmoid", 0.8, 0.9), *CONTROLS]),
    ("density_is_the_dial", RISING),
])  # fmt: skip
def test_a_seed_without_a_value_counts_for_no_verdict(claim, rows):
    made = make(*rows)
    made.loc[
        (made["seed"] == 2) & made["approach"].eq("gumbel_sigmoid"),
        ["source_acc_full", "target_acc", "source_acc_masked"],
    ] = float("nan")
    assert CLAIMS[claim](made).effect == "fewer than three seeds: 2"


def test_without_masks_their_claim_is_skipped():
    assert claims.some_masks_prevent_forgetting_and_pay(make(FREE)).passed is None


def test_without_gumbel_sigmoid_its_shuffled_control_is_not_compared():
    verdict = claims.learnt_masks_beat_their_controls_through_the_mask(make(mask("bernoulli", 0.8, 0.9), *CONTROLS))
    assert verdict.passed is True


def test_one_density_tells_nothing_of_the_dial():
    assert claims.density_is_the_dial(make(mask("bernoulli", 0.8, 0.9))).passed is None


def test_where_nothing_can_be_chosen_verify_still_gives_its_verdicts():
    skipped = claims.the_choice_holds_on_seeds_left_out(make(*four(at(0.5, 0.9))))  # nothing loses as little
    assert (skipped.passed, skipped.effect.split("=")[0]) == (None, "no approach meets max_source_drop")


def test_two_seeds_cannot_tell_whether_the_choice_holds():
    rows = [at(0.9, 0.9, seed=0), at(0.9, 0.9, seed=1)]
    assert claims.the_choice_holds_on_seeds_left_out(make(*rows)).passed is None


def test_three_seeds_cannot_tell_whether_the_choice_holds():
    """Two are left, of which no interval tells settings apart."""
    said = claims.the_choice_holds_on_seeds_left_out(make(SAFE, at(0.9, 0.9)))
    assert (said.passed, said.effect.split(",")[0]) == (None, "a seed left out leaves 2")


@pytest.mark.slow
def test_verify_gives_one_verdict_for_every_claim_in_order():
    largest = mask("magnitude", 0.5, 0.9, 0.95, sign=-1)
    rivals_too = [NONE, TWO, PACKED, EWC, MASK | {"method": "bernoulli"}]
    records = make(*far(FREE, BACK, *RISING, *CONTROLS, largest, *elastic(0.9, 0.8, 0.8, 0.8), *rivals_too))
    found = verify(records)
    assert claims.density_is_the_dial(records) in found
    assert len({v.claim for v in found}) == len(found) == len(CLAIMS)
    assert {v.word for v in found} == {"PASS", "FAIL", "SKIP"}
    assert {v.claim for v in found if v.word == "SKIP"} == {claims.the_choice_holds_on_seeds_left_out(records).claim}


def row_of(verdict: Verdict, compared: str) -> dict[str, str]:
    """What the evidence says of a comparison, without its name."""
    return verdict.evidence.set_index("compared").loc[compared].to_dict()


def test_differences_in_evidence_are_those_of_the_records():
    rows = [mask("gumbel_sigmoid", 0.8, 0.9, 0.75, noise=0), mask("random", 0.5, 0.9, 0.5, noise=0)]
    verdict = claims.learnt_masks_beat_their_controls_through_the_mask(make(*rows))
    assert verdict.effect == "gumbel_sigmoid - random: +25.0 [+25.0, +25.0] points of accuracy"
    assert row_of(verdict, "gumbel_sigmoid - random") == {"points of accuracy": "+25.0 [+25.0, +25.0]", "seeds": 3}


def test_what_is_said_of_baselines_is_worked_by_hand():
    """Chance 0.1, so the box is 0.9 wide; retention is over 0.85, adaptation over 0.8; the masks' two readings differ."""
    still = {"noise": 0}
    rows = [at(0.0, 0.0, alpha=0.5, **still), at(0.5, 0.9, **still), at(0.9, 0.8, "ewc", strength=1, **still)]
    records = make(*rows, mask("bernoulli", 0.7, 0.8, 0.8, **still))
    full = rivals.masks_against_strong_baselines(records)
    # 0.6 * 0.7 / 0.81 = 51.9 against 0.4 * 0.8 / 0.81 = 39.5 and 0.8 * 0.7 / 0.81 = 69.1; harmonic means of
    # 0.6 / 0.85 and 0.7 / 0.8 (78.1), of 0.4 / 0.85 and 1 (64.0), of 0.8 / 0.85 and 0.7 / 0.8 (90.7)
    assert full.effect == "bernoulli - wise_ft: +12.3 [+12.3, +12.3] points of hypervolume"
    assert full.evidence["compared"].tolist() == ["bernoulli - wise_ft", "bernoulli - ewc"]
    assert full.evidence["points of hypervolume"].tolist() == ["+12.3 [+12.3, +12.3]", "-17.3 [-17.3, -17.3]"]
    mean = "points of the harmonic mean of retention and adaptation"
    assert full.evidence[mean].tolist() == ["+14.1 [+14.1, +14.1]", "-12.5 [-12.5, -12.5]"]
    # through the mask: 0.7 * 0.7 / 0.81 = 60.5; harmonic mean of 0.7 / 0.85 and 0.7 / 0.8 (84.8)
    known = row_of(rivals.masks_against_strong_baselines_through_the_mask(records), "bernoulli - wise_ft")
    assert known["points of hypervolume"].startswith("+21.0 [")
    assert known[mean].startswith("+20.8 [")


def test_rules_name_the_thresholds_that_are_used():
    for name, judge in CLAIMS.items():
        rule = judge(make(at(0.9, 0.5, "lp_ft"))).rule
        assert rule
        if "not worse" in (claim := judge(make(FREE)).claim):
            assert f"above -{100 * rivals.MARGIN:g} points of hypervolume" in rule, name
            assert f"by {100 * rivals.MARGIN:g} points or more" in claim, name
    for judge, threshold in (
        (equal_storage.masks_win_at_similar_bits, equal_storage.LOSS),
        (equal_storage.masks_reach_two_networks, equal_storage.BEHIND_TWO),
    ):
        assert f" {100 * threshold:g} point" in judge(make(FREE)).rule.replace("-", " ")
    assert "at most a quarter more bits" in equal_storage.masks_win_at_similar_bits(make(FREE)).rule
    assert equal_storage.ABOUT == 1.25


def test_what_a_mean_over_pairs_hides_is_told_pair_by_pair():
    rows = [at(0.5, t, noise=0, pair=p, alpha=a) for p in "ab" for a, t in ((0.5, 0.5), (1.0, 0.9))]
    rows += [mask("bernoulli", full, 0.9, noise=0, pair=p) for p, full in [("a", 0.5), ("b", 0.7)]]
    told = row_of(rivals.masks_against_strong_baselines(make(*rows)), "bernoulli - wise_ft")
    assert told["points of hypervolume"] == "+9.9 [+9.9, +9.9]"
    assert (told["a"], told["b"], told["seeds"]) == ("+0.0", "+19.8", 3)


def test_the_comparison_that_decides_is_the_one_that_lies_lowest():
    rows = [mask("gumbel_sigmoid", 0.9, 0.9, noise=0), EWC | {"noise": 0}, BACK, STRONG]
    found = rivals.masks_beat_every_rival(make(*rows))
    # 0.8 * 0.8 / 0.81 = 79.0 against 0.7 * 0.8 / 0.81 = 69.1 and 0.6 * 0.8 / 0.81 = 59.3
    assert found.effect == "gumbel_sigmoid - ewc: +9.9 [+9.9, +9.9] points of hypervolume; ahead in 2 of 2 comparisons"


def test_a_lost_comparison_decides_before_one_that_tells_nothing():
    rows = [("unclear", -0.02, -0.10, 0.06), ("lost", -0.02, -0.03, -0.01), ("won", 0.02, 0.01, 0.03)]
    table = pd.DataFrame(rows, columns=["against", "difference", "low", "high"]).assign(family="mask")
    table = table.assign(low_corrected=table["low"], high_corrected=table["high"])
    assert closest(table, "points").startswith("mask - lost: -2.0 ")
    assert closest(table[table["against"] != "lost"], "points").startswith("mask - unclear: -2.0 ")


@pytest.mark.parametrize(
    ("low", "corrected", "least", "doubt"),
    [(0.01, -0.01, 0.0, True), (0.01, 0.005, 0.0, False), (-0.01, -0.03, -0.02, True), (-0.01, -0.015, -0.02, False)],
)
def test_a_comparison_that_the_corrected_interval_would_decide_otherwise_says_so(low, corrected, least, doubt):
    row = {"family": "mask", "against": "ewc", "difference": 0.02, "low": low, "high": 0.05}
    told = closest(pd.DataFrame([row | {"low_corrected": corrected, "high_corrected": 0.06}]), "points", least=least)
    assert told.endswith(f"points{f' (corrected [{100 * corrected:+.1f}, +6.0], not for certain)' * doubt}")


def test_a_rank_correlation_at_the_limit_counts_whatever_its_last_bit():
    """Two neighbours of five swapped: the rank correlation is 1 - 6 * 2 / 120 = 0.9."""
    values = [0.1, 0.2, 0.3, 0.5, 0.4]
    curve = zip((0.1, 0.3, 0.5, 0.7, 0.9), values, values[::-1], strict=True)
    rows = [mask("bernoulli", full, target, density=density, noise=0) for density, full, target in curve]
    verdict = claims.density_is_the_dial(make(*rows))
    assert (verdict.passed, verdict.effect) == (
        True,
        "weakest for bernoulli: rank correlation +0.90 with retention, -0.90 with adaptation",
    )


def test_families_minus_wise_ft_are_those_that_the_records_hold():
    rows = [at(0.5, 0.9, noise=0), mask("bernoulli", 0.5, 0.9, 0.7, noise=0), at(0.7, 0.9, "ewc", strength=1, noise=0)]
    rows += [mask("random", 0.5, 0.9, 0.3, noise=0)]
    full, known = (rivals.minus_wise_ft(make(*rows), reading) for reading in ("full", "known"))
    assert full["family"].tolist() == known["family"].tolist() == ["bernoulli", "random", "ewc"]
    assert full["difference"].tolist() == pytest.approx([0, 0, 0.2 * 0.8 / 0.81])
    assert known["difference"].tolist() == pytest.approx([0.2 * 0.8 / 0.81, -0.2 * 0.8 / 0.81, 0.2 * 0.8 / 0.81])


def test_differences_to_a_control_that_is_not_there_are_none():
    assert claims.minus_control(make(mask("bernoulli", 0.8, 0.9)), "source_acc_masked").empty


@pytest.mark.parametrize(("passed", "word"), [(True, "PASS"), (False, "FAIL"), (None, "SKIP")])
def test_a_verdict_says_its_word(passed, word):
    assert Verdict("c", passed, "e").word == word


def test_claims_that_fail_are_listed_by_name_and_counted_among_those_that_were_judged():
    found = [Verdict("C.", True, "e"), Verdict("D.", False, "a - b: -1 point")]
    assert failures(found) == "- **1 of 2 [claims](#claims) fail:**\n  - *D.* a - b: -1 point."
    assert failures(found[:1]) == "- **0 of 1 [claims](#claims) fail.**"


def test_verdicts_are_a_table_and_each_is_explained():
    shown = pd.DataFrame({"compared": ["a - b"], "points": ["1.0"]})
    found = [Verdict("C.", True, "a - b: 1 point", "Take a.", "All above 0.", shown), Verdict("D.", None, "no records")]
    table = summary(found)
    assert table.to_dict("records") == [
        {"claim": "C.", "verdict": "PASS", "effect": "a - b: 1 point", "what it means": "Take a."},
        {"claim": "D.", "verdict": "SKIP", "effect": "no records", "what it means": ""},
    ]
    first, rule, numbers, skipped = explain(*found).split("\n\n")
    assert first == "**PASS. C.** a - b: 1 point. Take a."
    assert rule == "*The rule.* All above 0."
    assert "| a - b" in numbers
    assert skipped == "**SKIP. D.** no records."


def test_a_mask_is_compared_with_its_best_rival_in_numbers():
    effect = equal_storage.masks_win_at_similar_bits(make(MASK, NONE, NEAR | {"noise": 0})).effect
    assert effect.startswith("gumbel_sigmoid (density 0.1; 0 kbit, source lost 0.0, target 90.0) - bias_only (0 kbit, ")
    assert "target 95.0): -5.0 [-5.0, -5.0] points of accuracy; " in effect
    assert effect.endswith("; 0 of 1 settings of masks lead on validation, 0 on test by their interval")


def test_an_interpolated_mask_is_no_mask_that_is_read():
    effect = equal_storage.masks_win_at_similar_bits(
        make(MASK, NONE, MASK | {"alpha": 0.5, "source_acc_masked": float("nan")})
    ).effect
    assert effect.endswith("; 1 of 1 settings of masks lead on validation, 1 on test by their interval")


def test_rivals_that_are_tuned_for_the_other_reading_are_named():
    rows = make(FREE, BACK, mask("bernoulli", 0.8, 0.9), at(0.5, 0.9, "lora", knob=4))
    for judge in (rivals.masks_against_strong_baselines, rivals.masks_beat_every_rival):
        assert judge(rows).evidence["rate tuned for"].tolist() == ["both", "task known"]
    known = rivals.masks_against_strong_baselines_through_the_mask(rows)
    assert "rate tuned for" not in known.evidence


def test_leads_are_counted_on_test_too():
    lucky = MASK | {"method": "bernoulli", "target_acc": 0.2, "val_target_acc": 0.9}
    effect = equal_storage.masks_win_at_similar_bits(make(MASK, lucky, NONE)).effect
    assert effect.endswith("; 2 of 2 settings of masks lead on validation, 1 on test by their interval")


def test_records_that_do_not_say_what_is_stored_tell_nothing_of_equal_bits():
    assert equal_storage.masks_win_at_similar_bits(make(mask("gumbel_sigmoid", 0.5, 0.9, 0.95), SAFE)).passed is None


def test_the_most_favourable_pair_is_named():
    rows = far(BACK, STRONG, mask("bernoulli", 0.69, 0.9), source_acc_full=0.9)
    said = rivals.masks_against_strong_baselines_without_their_best_pair(make(*rows)).effect
    assert said.startswith("without b (+19.8): bernoulli - wise_ft: -1.0 [")


def test_without_a_second_pair_none_can_be_left_out():
    verdict = rivals.masks_against_strong_baselines_without_their_best_pair(
        make(BACK, STRONG, mask("bernoulli", 0.69, 0.9))
    )
    assert (verdict.passed, verdict.effect) == (None, "the records hold a single pair of domains")


@pytest.mark.slow  # starts Python anew
def test_whoever_imports_the_claims_has_all_of_them():
    code = "from maskutils.results.claims import CLAIMS; print(len(CLAIMS))"
    assert int(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout) == len(
        CLAIMS
    )


def test_the_guide_computes_by_hand_what_the_verdict_says(capsys):
    guide = (paths.PACKAGE.parent / "docs" / "guides" / "claims.md").read_text(encoding="utf-8")
    exec(re.search(r"```python\n(.+?)```", guide, re.DOTALL)[1], {})
    results = (paths.PACKAGE.parent / "docs" / "results.md").read_text(encoding="utf-8")
    assert re.search(rf"\| gumbel_sigmoid - random +\| {re.escape(capsys.readouterr().out.strip())} +\|", results)


def test_too_few_seeds_of_the_elastic_mask_are_said():
    rows = elastic(0.9, 0.8, 0.8, 0.8)
    few = make(rows[0] | {"seed": 0}, rows[0] | {"seed": 1}, *rows[1:])
    assert rivals.elastic_mask_owes_it_to_the_mask(few).passed is None


def test_the_sections_of_the_notebook_hold_claims_and_none_twice():
    filed = [name for section in claims.SECTIONS.values() for name in section]
    alone = {"density_is_the_dial", "some_masks_prevent_forgetting_and_pay", "the_choice_holds_on_seeds_left_out"}
    assert sorted(filed) == sorted(set(CLAIMS) - alone)
