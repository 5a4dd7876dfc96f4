"""The findings of the README: sentences made from records, the defeat first."""

import pandas as pd
import pytest
from rows import at, make, mask

from maskutils.results.findings import findings
from tools.fill_readme import brief

pytestmark = pytest.mark.slow

NOISE = (0.0, 0.01, -0.01)  # of three seeds, so that differences have a spread
PAIRS = ("mnist_to_digits", "mnist_to_inverted")


def study(*rows, seeds=NOISE, pairs=PAIRS):
    """`rows` on every pair and seed; a seed moves all its rows alike but for a tenth, so that differences are clear."""
    return make(
        *(
            row | {"pair": pair, "seed": seed, "target_acc": row["target_acc"] + shift * (1 + 0.1 * i)}
            for pair in pairs
            for seed, shift in enumerate(seeds)
            for i, row in enumerate(rows)
        )
    )


FREE = at(0.5, 0.9)
EWC = at(0.85, 0.85, "ewc", strength=1, stored_bits=9e9)  # as old records have it: its description says none
LEARNT = mask("edge_popup", 0.94, 0.6, 0.88, stored_bits=90e3)
UNLEARNT = [mask("magnitude", 0.8, 0.6, 0.86, stored_bits=90e3), mask("random", 0.2, 0.55, 0.86, stored_bits=90e3)]
ROWS = [FREE, EWC, LEARNT, *UNLEARNT]


def test_three_findings_the_defeat_first():
    unknown, known, learnt = findings(study(*ROWS)).split("\n")
    assert unknown.startswith("- **Task unknown: masks lose.** `ewc` leads every mask, learnt or not.")
    assert "The lead over the strongest mask, `edge_popup`, is 2" in unknown
    assert "The best learnt mask, `edge_popup`, leads `wise_ft` by " in unknown
    assert known.startswith(
        "- **Task known: a learnt mask leads the best rival that stores at most a quarter more.** `edge_popup` at density 0.1 "
    )
    assert "It leads that rival (`ewc`, 0 kbit) by 6.0 [" in known
    assert known.count("It leads") == 1  # the best that stores nothing is the same
    assert learnt.startswith(
        "- **Learnt against unlearnt masks, by their whole curves.** With the task known, `edge_popup` leads `magnitude` by "
    )
    assert "and leads a random mask by" in learnt
    assert "With the task unknown, " in learnt


def test_masks_that_win_are_not_said_to_lose():
    winning = mask("edge_popup", 0.94, 0.94, 0.89, stored_bits=90e3)
    unknown, *_ = findings(study(FREE, EWC, winning)).split("\n")
    told = "- **Task unknown: no opponent leads the masks.** The best learnt mask, `edge_popup`, leads `wise_ft` and `ewc`."
    assert unknown.startswith(told)
    assert "Opponents:" not in unknown


@pytest.mark.parametrize(
    ("full", "says"),
    [
        (0.94, "leads `wise_ft` and `ewc`"),
        (0.845, "leads `wise_ft` and cannot be told from `ewc`"),
        (0.5, "cannot be told from `wise_ft`"),
    ],
)
def test_no_defeat_is_no_win_either(full, says):
    """The mask lies ahead of both opponents, between them but for noise, and beside the lower one."""
    level = [at(0.84, 0.85 + shift, "ewc", strength=1, seed=s) for s, shift in enumerate((0.03, 0.0, -0.03))]
    rows = [FREE, mask("edge_popup", 0.94, full, 0.9)]
    records = pd.concat([study(*rows, pairs=PAIRS[:1]), make(*level)], ignore_index=True)
    if full == 0.5:
        records = study(FREE, mask("edge_popup", 0.94, full, 0.9), pairs=PAIRS[:1])
    said = findings(records).split("\n")[0]
    assert f"The best learnt mask, `edge_popup`, {says}. It " in said


def test_an_unlearnt_mask_that_no_opponent_leads_is_no_defeat_of_all():
    strong = mask("magnitude", 0.8, 0.94, 0.89, stored_bits=90e3)
    said = findings(study(FREE, EWC, LEARNT, strong))
    assert said.startswith("- **Task unknown: masks trail.** The best learnt mask, `edge_popup`, trails `ewc` by 2")
    assert " It leads `wise_ft` by " in said
    assert " Against `ewc` it is ahead on 0 of 2 pairs. By pair that is -2" in said


def test_wise_ft_that_leads_is_told_of_once():
    strong = mask("magnitude", 0.8, 0.95, 0.95, stored_bits=90e3)
    unknown = findings(study(at(0.8, 0.9), LEARNT, strong)).split("\n")[0]
    assert unknown.count("`wise_ft` by ") == 1
    assert "trails `wise_ft` by " in unknown
    assert unknown.count("Against `wise_ft` it is ahead on 0 of 2 pairs.") == 1


def test_a_lead_says_on_which_pairs():
    records = study(*ROWS)
    free = records["protocol"].eq("finetune") & records["pair"].eq(PAIRS[0])
    records.loc[free, ["source_acc_full", "val_source_acc_full"]] = 0.95  # where fine-tuning forgets nothing
    unknown = findings(records).split("\n")[0]
    assert " points, and is ahead on 1 of 2 pairs. By pair that is -" in unknown
    assert f"on `{PAIRS[0]}` to +" in unknown
    assert f"on `{PAIRS[1]}`. At one setting, by the mean of both tasks, `ewc` and `wise_ft` lead" in unknown


def test_a_rival_that_stores_more_is_no_rival_but_told_of():
    two = at(0.5, 0.9, "two_networks", stored_bits=4.4e6)
    light, heavy = (at(0.94, 0.9, "packnet", source_acc_masked=0.96, stored_bits=bits) for bits in (80e3, 115e3))
    known = findings(study(*ROWS, two, heavy)).split("\n")[1]
    assert "(`ewc`, 0 kbit)" in known
    assert known.endswith("With more bits, `packnet` (115 kbit) reaches 93.0 % and `two_networks` (4,400 kbit) 92.5 %.")
    known = findings(study(*ROWS, light)).split("\n")[1]
    assert known.startswith("- **Task known: a learnt mask trails the best rival that stores at most a quarter more.**")
    assert "It trails that rival (`packnet`, 80 kbit) by 2" in known
    assert "It leads the best rival that stores nothing (`ewc`, 0 kbit) by " in known


def test_what_learning_a_mask_adds_to_the_source_is_told_and_not_counted():
    """The mask reads 98 % where the network had 95: 93.0 as the mean of both tasks, 91.5 without the gain, and lora 92.0."""
    gained = mask("edge_popup", 0.98, 0.6, 0.88, stored_bits=90e3)
    lora = at(0.5, 0.89, "lora", knob=1, stored_bits=80e3)
    told = findings(study(FREE, EWC, gained, lora))
    known = told.split("\n")[1]
    assert "Learning it trains more on the source" in brief(told)  # in the README too
    assert known.startswith(
        "- **Task known: a learnt mask trails the best rival that stores at most a quarter more.** `edge_popup`"
    )
    assert "It leads that rival (`lora`, 80 kbit) by 1.0 [" in known
    assert (
        "Learning it trains more on the source (+3.0 points there, +3.0 to +3.0 by pair); without that it reaches 91.5 % and trails `lora`"
        in known
    )
    assert "trails `lora` by 0.5 [" in known
    assert "Learning it" not in findings(study(*ROWS))


def test_a_rival_of_a_quarter_more_bits_is_a_rival():
    near = at(0.94, 0.9, "packnet", source_acc_masked=0.96, stored_bits=110e3)
    weak = at(0.94, 0.8, "packnet", source_acc_masked=0.9, stored_bits=80e3, knob=1)
    known = findings(study(*ROWS, near, weak)).split("\n")[1]
    assert "It trails that rival (`packnet`, 110 kbit) by 2" in known
    assert "It leads the best rival that stores no more (`ewc`, 0 kbit) by 6" in known
    assert "With more bits" not in known


def test_a_lead_that_the_corrected_interval_does_not_show_is_told_and_no_plain_lead():
    """Three seeds, ahead by 1.0, 1.4 and 1.8 points: 1.4 [0.4, 2.4], and corrected [-0.1, 2.9]."""
    rows = [FREE, mask("edge_popup", 0.94, 0.6, 0.9, stored_bits=90e3)]
    rivals = [at(0.94, 0.9 - 2 * d, "ewc", strength=1, seed=s) for s, d in enumerate((0.01, 0.014, 0.018))]
    records = pd.concat([study(*rows, seeds=(0.0,) * 3, pairs=PAIRS[:1]), make(*rivals)], ignore_index=True)
    known = findings(records).split("\n")[1]
    assert known.startswith(
        "- **Task known: a learnt mask leads the best rival that stores at most a quarter more, not by the corrected interval.**"
    )
    assert "(`ewc`, 0 kbit) by 1.4 [0.4, 2.4] (corrected [-0.1, 2.9]) points." in known


def test_a_defeat_that_the_corrected_interval_does_not_show_is_told_too():
    rows = [FREE, mask("edge_popup", 0.94, 0.6, 0.9, stored_bits=90e3)]
    rivals = [at(0.94, 0.9 + 2 * d, "ewc", strength=1, seed=s) for s, d in enumerate((0.01, 0.014, 0.018))]
    records = pd.concat([study(*rows, seeds=(0.0,) * 3, pairs=PAIRS[:1]), make(*rivals)], ignore_index=True)
    known = findings(records).split("\n")[1]
    assert "mask trails the best rival that stores at most a quarter more, not by the corrected interval.**" in known


def test_what_limits_a_finding_stands_on_the_first_page_too():
    gained = mask("edge_popup", 0.98, 0.6, 0.88, stored_bits=90e3)
    two = at(0.5, 0.9, "two_networks", stored_bits=4.4e6)
    unknown, known = brief(findings(study(FREE, EWC, gained, two))).split("\n")
    assert "At one setting, by" in unknown
    assert all(
        limit in known for limit in (", and is ahead on 2 of 2 pairs.", "Learning it trains more", "With more bits, ")
    )


def test_opponents_may_lead_at_one_setting_though_not_by_whole_curves():
    """EWC has one setting, better than each of the mask's three, which cover more together."""
    masks = [
        mask("edge_popup", 0.95, s, t, density=d) for d, s, t in ((0.5, 0.95, 0.7), (0.3, 0.82, 0.82), (0.1, 0.7, 0.95))
    ]
    ewc = at(0.85, 0.83, "ewc", strength=1)
    unknown = findings(study(FREE, ewc, *masks)).split("\n")[0]
    assert unknown.startswith(
        "- **Task unknown: by whole curves no opponent leads the masks, at one setting `ewc` does.**"
    )
    assert (
        "At one setting, by the mean of both tasks, `ewc` leads the learnt mask that is best there, `edge_popup`, by 1"
        in unknown
    )


def test_a_mask_that_nobody_learns_is_a_rival_at_equal_storage():
    ranked = mask("fisher", 0.93, 0.6, 0.87, stored_bits=80e3)
    known = findings(study(*ROWS, ranked)).split("\n")[1]
    assert "It leads that rival (`fisher`, 80 kbit) by 1." in known
    assert "points, and is ahead on 2 of 2 pairs. By pair that is +1." in known
    assert "It leads the best rival without a mask that stores at most a quarter more (`ewc`, 0 kbit) by 6." in known


def test_the_strongest_rival_comes_first_though_it_stores_nothing():
    ranked = mask("fisher", 0.93, 0.6, 0.9, stored_bits=0)
    known = findings(study(*ROWS, ranked)).split("\n")[1]
    assert known.index("that rival (`fisher`, 0 kbit)") < known.index("`ewc`")


def test_the_strongest_mask_is_the_strongest_on_validation():
    lucky = mask("magnitude", 0.8, 0.8, 0.88, stored_bits=90e3)
    records = study(FREE, EWC, LEARNT, lucky)
    records.loc[records["method"] == "magnitude", ["val_source_acc_full", "val_target_acc"]] = 0.2
    assert "The lead over the strongest mask, `edge_popup`, is " in findings(records)


def test_what_the_seeds_do_not_show_cannot_be_told():
    twin = mask("magnitude", 0.94, 0.6, 0.88, stored_bits=90e3)
    records = study(FREE, EWC, LEARNT, twin, seeds=(0.0, 0.1, -0.1))
    assert "With the task known, `edge_popup` cannot be told from `magnitude` at +0." in findings(records)


@pytest.mark.parametrize(
    ("records", "said"),
    [
        (study(*ROWS, seeds=NOISE[:2]), "A finding takes 3 seeds; these records hold 2."),
        (study(FREE, EWC), "**Task unknown.** The records hold no learnt masks beside opponents"),
        (study(FREE, EWC), "**Task known.** The records hold no learnt masks beside rivals"),
        (study(FREE, EWC), "**Learnt against unlearnt masks, by their whole curves.** The records do not hold both."),
        (
            study(FREE, LEARNT),
            "**Learnt against unlearnt masks, by their whole curves.** The records do not hold both.",
        ),
        (study(*ROWS).drop(columns="stored_bits"), "**Task known.** The records hold no learnt masks beside rivals"),
    ],
)
def test_what_the_records_lack_is_said(records, said):
    assert said in findings(records)
