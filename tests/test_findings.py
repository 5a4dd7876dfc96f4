"""The findings of the README: sentences made from records, the defeat first."""

import re

import pandas as pd
import pytest
from rows import at, make, mask

from maskutils.results import findings as of_records
from tools import tables

pytestmark = pytest.mark.slow

NOISE = (0.0, 0.01, -0.01)  # of three seeds, so that differences have a spread
PAIRS = ("mnist_to_digits", "mnist_to_inverted")


def findings(records):
    """All findings of `records`, without the brief ones."""
    return of_records.findings(records)[0].replace("\n  - ", " ")


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
EWC = at(0.85, 0.85, "ewc", strength=1)
LEARNT = mask("edge_popup", 0.94, 0.6, 0.88, stored_bits=90e3)
UNLEARNT = [mask("magnitude", 0.8, 0.6, 0.86, stored_bits=90e3), mask("random", 0.2, 0.55, 0.86, stored_bits=90e3)]
ROWS = [FREE, EWC, LEARNT, *UNLEARNT]


def test_three_findings_the_defeat_first():
    unknown, known, learnt = findings(study(*ROWS)).split("\n")
    assert unknown.startswith(
        "- **Task unknown: masks lose.** Over whole curves, `ewc` leads every mask, learnt or not. "
    )
    assert "The strongest, `edge_popup`, trails by 2" in unknown
    assert "Over whole curves the best learnt mask, `edge_popup`, leads `wise_ft` by " in unknown
    assert known.startswith(
        "- **Task known: a learnt mask leads its best rival.** `edge_popup` at density 0.1 reaches 91.0 % with 90 kbit, its best rival, "
        "`ewc`, 85.0 % with 0 kbit. The mask leads it by 6.0 ["
    )
    assert known.count("The mask leads") == 1  # the best that stores nothing is the same
    assert learnt.startswith(
        "- **Learnt against unlearnt masks, by their whole curves.** With the task known, `edge_popup` leads `magnitude` by "
    )
    assert "and leads a random mask by" in learnt
    assert "With the task unknown, " in learnt


def test_masks_that_nobody_learns_are_told_of_on_the_first_page_if_they_do_as_well():
    level = mask("magnitude", 0.94, 0.6, 0.88, stored_bits=90e3)
    packed = at(0.6, 0.88, "packnet", density=0.1, source_acc_masked=0.94, stored_bits=90e3)
    brief = of_records.findings(study(FREE, LEARNT, level, packed))[1]
    assert brief.endswith(" Over whole curves, `magnitude` and `packnet` cannot be told apart from `edge_popup`.")
    assert of_records.findings(study(FREE, LEARNT, level))[1].endswith(
        " Over whole curves, `magnitude` cannot be told apart from `edge_popup`."
    )
    assert "Over whole curves" not in of_records.findings(study(*ROWS))[1].split("\n")[1]
    assert "leads `packnet` by" in findings(study(*ROWS, packed | {"source_acc_masked": 0.8}))


def test_a_mask_of_too_few_seeds_is_not_said_to_do_as_well():
    level = mask("magnitude", 0.94, 0.6, 0.88, stored_bits=90e3)
    records = study(FREE, LEARNT, level)
    fewer = records[~((records["method"] == "magnitude") & (records["seed"] == 2))]
    assert "`magnitude` cannot be told apart from `edge_popup`" in of_records.findings(records)[1]
    assert "Over whole curves" not in of_records.findings(fewer)[1].split("\n")[1]


def test_what_leads_learnt_masks_over_whole_curves_is_told_of_with_the_task_known():
    level = mask("magnitude", 0.94, 0.6, 0.88, stored_bits=90e3)
    adapter = at(0.2, 0.94, "oft", knob=32, stored_bits=240e3)
    whole, brief = of_records.findings(study(FREE, LEARNT, level, adapter))
    [told] = re.findall(r"Over whole curves, `oft` leads the best learnt mask, `edge_popup`, by .*", brief)
    assert re.fullmatch(
        r".* by \d+\.\d \[\d+\.\d, \d+\.\d\] points\. `magnitude` cannot be told apart from `edge_popup`\.", told
    )
    assert f"  - {told}" in whole.split("- **Task known")[1].split("\n- **")[0].splitlines()


def test_masks_that_win_are_not_said_to_lose():
    winning = mask("edge_popup", 0.94, 0.94, 0.89, stored_bits=90e3)
    unknown, *_ = findings(study(FREE, EWC, winning)).split("\n")
    assert unknown.startswith(
        "- **Task unknown: no rival leads the masks.** Over whole curves, the best learnt mask is `edge_popup`. "
    )
    assert " It leads `wise_ft` and `ewc`. " in unknown
    assert unknown.endswith(" Rivals: `wise_ft` and `ewc`.")


@pytest.mark.parametrize(
    ("full", "says"),
    [
        (0.94, "leads `wise_ft` and `ewc`"),
        (0.845, "leads `wise_ft` and cannot be told apart from `ewc`"),
        (0.5, "cannot be told apart from `wise_ft`"),
    ],
)
def test_no_defeat_is_no_win_either(full, says):
    """The mask lies ahead of both rivals, between them but for noise, and beside the lower one."""
    level = [at(0.84, 0.85 + shift, "ewc", strength=1, seed=s) for s, shift in enumerate((0.03, 0.0, -0.03))]
    rows = [FREE, mask("edge_popup", 0.94, full, 0.9)]
    records = pd.concat([study(*rows, pairs=PAIRS[:1]), make(*level)], ignore_index=True)
    if full == 0.5:
        records = study(FREE, mask("edge_popup", 0.94, full, 0.9), pairs=PAIRS[:1])
    said = findings(records).split("\n")[0]
    assert f"Over whole curves, the best learnt mask is `edge_popup`. It {says}." in said


def test_a_lead_over_what_is_tuned_for_the_other_reading_says_so():
    lora = at(0.5, 0.7, "lora", knob=1, stored_bits=80e3)
    said = findings(study(FREE, mask("edge_popup", 0.94, 0.5, 0.9), lora, pairs=PAIRS[:1])).split("\n")[0]
    assert "leads `lora`, whose rates are tuned for the task known, and cannot be told apart from `wise_ft`." in said


def test_an_unlearnt_mask_that_no_rival_leads_is_no_defeat_of_all():
    strong = mask("magnitude", 0.8, 0.94, 0.89, stored_bits=90e3)
    said = findings(study(FREE, EWC, LEARNT, strong))
    assert said.startswith(
        "- **Task unknown: masks trail.** Over whole curves, the best learnt mask, `edge_popup`, trails `ewc` by 2"
    )
    assert "the best learnt mask, `edge_popup`, leads `wise_ft` by " in said
    assert " It trails `ewc` by 2" in said
    assert " points, and is ahead on 0 of 2 pairs. By pair the difference is -2" in said


def test_wise_ft_that_leads_is_told_of_by_pair_once():
    strong = mask("magnitude", 0.8, 0.95, 0.95, stored_bits=90e3)
    unknown = findings(study(at(0.8, 0.9), LEARNT, strong)).split("\n")[0]
    assert unknown.count("By pair") == 1
    assert "trails `wise_ft` by " in unknown
    assert unknown.count("and is ahead on 0 of 2 pairs.") == 1


def test_a_lead_says_on_which_pairs():
    records = study(*ROWS)
    free = records["protocol"].eq("finetune") & records["pair"].eq(PAIRS[0])
    records.loc[free, ["source_acc_full", "val_source_acc_full"]] = 0.95  # where fine-tuning forgets nothing
    unknown = findings(records).split("\n")[0]
    assert " points, and is ahead on 1 of 2 pairs. By pair the difference is -" in unknown
    assert f"on `{PAIRS[0]}` to +" in unknown
    assert "At one setting, `ewc` and `wise_ft` lead the best learnt mask there, `edge_popup`, by 11" in unknown


def test_a_rival_that_stores_more_is_no_rival_but_told_of():
    two = at(0.5, 0.9, "two_networks", stored_bits=4.4e6)
    light, heavy = (at(0.94, 0.9, "packnet", source_acc_masked=0.96, stored_bits=bits) for bits in (80e3, 115e3))
    known = findings(study(*ROWS, two, heavy)).split("\n")[1]
    assert "its best rival, `ewc`, 85.0 % with 0 kbit." in known
    assert "With more bits, `packnet` (115 kbit) reaches 93.0 % and `two_networks` (4,400 kbit) 92.5 %." in known
    known = findings(study(*ROWS, light)).split("\n")[1]
    assert known.startswith("- **Task known: a learnt mask trails its best rival.**")
    assert "its best rival, `packnet`, 93.0 % with 80 kbit. The mask trails it by 2" in known
    assert "The mask leads the best rival that stores nothing (`ewc`, 0 kbit) by " in known
    assert "With more bits" not in findings(study(*ROWS, two | {"target_acc": 0.8}))  # no better than the mask


def test_what_learning_a_mask_adds_to_the_source_is_told_and_not_counted():
    """The mask reads 98 % where the network had 95: 93.0 as the mean of both tasks, 91.5 without the gain, and lora 92.0."""
    gained = mask("edge_popup", 0.98, 0.6, 0.88, stored_bits=90e3)
    lora = at(0.5, 0.89, "lora", knob=1, stored_bits=80e3)
    known = findings(study(FREE, EWC, gained, lora)).split("\n")[1]
    assert known.startswith(
        "- **Task known: a learnt mask trails its best rival, without its gain on the source too.** `edge_popup`"
    )
    assert "The mask leads it by 1.0 [" in known
    assert (
        "Through the mask the source is 3.0 points better than before (+3.0 to +3.0 by pair); without that gain"
        in known
    )
    assert " it reaches 91.5 % and trails `lora` by 0.5 [" in known
    assert "better than before" not in findings(study(*ROWS))


def test_the_gain_is_taken_off_where_a_seed_loses_too():
    """Two pairs: 3 points gained on one, 1 lost on the other. Without both the mask is as good as lora, not better and not worse."""
    rows = [FREE, at(0.5, 0.88, "lora", knob=1, stored_bits=80e3)]
    records = [
        study(*rows, mask("edge_popup", source, 0.6, 0.88, stored_bits=90e3), pairs=[pair])
        for pair, source in zip(PAIRS, (0.98, 0.94), strict=True)
    ]
    known = findings(pd.concat(records, ignore_index=True)).split("\n")[1]
    assert "1.0 points better than before (-1.0 to +3.0 by pair); without that gain it reaches 91.5 %" in known
    assert known.startswith(
        "- **Task known: a learnt mask cannot be told apart from its best rival, without its gain on the source too.**"
    )


def test_a_rival_may_have_a_setting_of_its_own_on_each_pair():
    """LoRA of rank 1 is good on one pair and breaks on the other, rank 2 the reverse; the mask is between."""
    adapters = [at(0.94, 0.3 + 0.6 * good, "lora", knob=k, stored_bits=80e3) for k in (1, 2) for good in (0, 1)]
    there = [
        study(*ROWS[:3], pairs=PAIRS),
        study(adapters[1], adapters[2], pairs=PAIRS[:1]),
        study(adapters[0], adapters[3], pairs=PAIRS[1:]),
    ]
    known = findings(pd.concat(there, ignore_index=True)).split("\n")[1]
    assert known.startswith("- **Task known: a learnt mask leads its best rival.**")
    assert "Beside the best rival of each pair, it leads on none of 2 and trails on 2." in known
    assert "Beside the best rival" not in findings(study(*ROWS, pairs=PAIRS[:1]))


def test_a_rival_of_a_quarter_more_bits_is_a_rival():
    near = at(0.94, 0.9, "packnet", source_acc_masked=0.96, stored_bits=110e3)
    weak = at(0.94, 0.8, "packnet", source_acc_masked=0.9, stored_bits=80e3, knob=1)
    known = findings(study(*ROWS, near, weak)).split("\n")[1]
    assert "its best rival, `packnet`, 93.0 % with 110 kbit. The mask trails it by 2" in known
    assert "The mask leads the best rival that stores no more (`ewc`, 0 kbit) by 6" in known
    assert "With more bits" not in known


@pytest.mark.parametrize(("sign", "says"), [(-1, "leads"), (1, "trails")])
def test_what_the_corrected_interval_does_not_show_is_not_for_certain(sign, says):
    """Three seeds, apart by 1.0, 1.4 and 1.8 points: 1.4 [0.4, 2.4], and corrected [-0.1, 2.9]."""
    rows = [FREE, mask("edge_popup", 0.94, 0.6, 0.9, stored_bits=90e3)]
    rivals = [at(0.94, 0.9 + sign * 2 * d, "ewc", strength=1, seed=s) for s, d in enumerate((0.01, 0.014, 0.018))]
    records = pd.concat([study(*rows, seeds=(0.0,) * 3, pairs=PAIRS[:1]), make(*rivals)], ignore_index=True)
    known = findings(records).split("\n")[1]
    assert known.startswith(f"- **Task known: a learnt mask {says} its best rival, but not for certain.**")
    assert f"The mask {says} it by 1.4 [0.4, 2.4] (corrected [-0.1, 2.9]) points, but not for certain." in known


def test_the_first_page_has_two_findings_and_what_limits_them():
    gained = mask("edge_popup", 0.98, 0.6, 0.88, stored_bits=90e3)
    two = at(0.5, 1.0, "two_networks", stored_bits=4.4e6)
    records = study(FREE, EWC, gained, two)
    unknown, known = of_records.findings(records)[1].split("\n")
    assert unknown.startswith("- **Task unknown.** Over whole curves, `ewc` leads every mask")
    assert not any(rest in unknown for rest in ("At one setting", "Rivals:"))
    assert known.count(". ") == 2  # the two settings, the difference, and what leads over whole curves
    assert [unknown.partition("** ")[0], known.partition("** ")[0]] == ["- **Task unknown.", "- **Task known."]
    said = [sentence for told in (unknown, known) for sentence in told.partition("** ")[2].split(". ")]
    assert all(sentence in findings(records) for sentence in said)


def test_rivals_may_lead_at_one_setting_though_not_over_whole_curves():
    """EWC has one setting, better than each of the mask's three, which cover more together."""
    settings = ((0.5, 0.95, 0.7), (0.3, 0.82, 0.82), (0.1, 0.7, 0.95))
    masks = [mask("edge_popup", 0.95, s, t, density=d) for d, s, t in settings]
    unknown = findings(study(FREE, at(0.85, 0.83, "ewc", strength=1), *masks)).split("\n")[0]
    assert unknown.startswith("- **Task unknown: at one setting `ewc` leads the masks.**")
    assert "At one setting, `ewc` leads the best learnt mask there, `edge_popup`, by 1" in unknown
    assert " At one setting, `edge_popup` leads `wise_ft`. " in unknown
    weak = at(0.3, 0.5, "lora", knob=4)
    unknown = findings(study(FREE, at(0.85, 0.83, "ewc", strength=1), *masks, weak)).split("\n")[0]
    assert " leads `wise_ft`, and `lora`, whose rates are tuned for the task known. " in unknown


def test_a_lead_at_one_setting_that_is_not_certain_is_not_in_the_title():
    """EWC leads by 1.0, 1.4 and 1.8 points on three seeds, replay by 5 on each."""
    shared = [FREE, mask("edge_popup", 0.95, 0.82, 0.82), at(0.87, 0.87, "replay", fraction=0.01)]
    ewc = [at(0.82, 0.82 + 2 * d, "ewc", strength=1, seed=s) for s, d in enumerate((0.01, 0.014, 0.018))]
    for rows, title in (
        (shared, "`replay` leads the masks"),
        (shared[:2], "`ewc` leads the masks, but not for certain"),
    ):
        wide = [mask("edge_popup", 0.95, s, t, density=d) for d, s, t in ((0.5, 0.93, 0.7), (0.3, 0.7, 0.93))]
        records = pd.concat([study(*rows, *wide, seeds=(0.0,) * 3, pairs=PAIRS[:1]), make(*ewc)], ignore_index=True)
        unknown = findings(records).split("\n")[0]
        assert unknown.startswith(f"- **Task unknown: at one setting {title}.** At one setting,")
        assert "(corrected [" in unknown


def test_a_mask_that_nobody_learns_is_a_rival():
    ranked = mask("fisher", 0.93, 0.6, 0.87, stored_bits=80e3)
    known = findings(study(*ROWS, ranked)).split("\n")[1]
    assert "its best rival, `fisher`, 90.0 % with 80 kbit. The mask leads it by 1." in known
    assert "By pair the difference is +1." in known
    assert "The mask leads the best rival without a mask (`ewc`, 0 kbit) by 6." in known


def test_the_strongest_rival_comes_first_though_it_stores_nothing():
    ranked = mask("fisher", 0.93, 0.6, 0.9, stored_bits=0)
    known = findings(study(*ROWS, ranked)).split("\n")[1]
    assert known.index("`fisher`, 91.5 % with 0 kbit") < known.index("`ewc`")


def test_the_strongest_mask_is_the_strongest_on_validation():
    lucky = mask("magnitude", 0.8, 0.8, 0.88, stored_bits=90e3)
    records = study(FREE, EWC, LEARNT, lucky)
    records.loc[records["method"] == "magnitude", ["val_source_acc_full", "val_target_acc"]] = 0.2
    assert "The strongest, `edge_popup`, trails by " in findings(records)


def test_what_the_seeds_do_not_show_cannot_be_told():
    twin = mask("magnitude", 0.94, 0.6, 0.88, stored_bits=90e3)
    records = study(FREE, EWC, LEARNT, twin, seeds=(0.0, 0.1, -0.1))
    assert "With the task known, `edge_popup` cannot be told apart from `magnitude` (+0." in findings(records)


@pytest.mark.parametrize(
    ("records", "said"),
    [
        (study(*ROWS, seeds=NOISE[:2]), "A finding takes 3 seeds; these records hold 2."),
        (study(FREE, EWC), "**Task unknown.** The records hold no learnt masks beside rivals without"),
        (study(FREE, EWC), "**Task known.** The records hold no learnt masks beside rivals"),
        (study(FREE, EWC), "**Learnt against unlearnt masks, by their whole curves.** The records do not hold both."),
        (
            study(FREE, LEARNT),
            "**Learnt against unlearnt masks, by their whole curves.** The records do not hold both.",
        ),
        (
            study(*ROWS).assign(stored_bits=float("nan")),
            "**Task known.** The records hold no learnt masks beside rivals",
        ),
    ],
)
def test_what_the_records_lack_is_said(records, said):
    assert said in findings(records)


def test_the_best_setting_of_each_case_is_chosen_on_validation():
    replay = at(0.9, 0.88, "replay", fraction=0.1, stored_bits=0)
    adapter = at(0.3, 0.86, "lora", knob=4, stored_bits=240e3)
    lucky = mask("edge_popup", 0.95, 0.6, 0.97, density=0.5, stored_bits=160e3, val_target_acc=0.5)
    answers = tables.answers(study(*ROWS, replay, adapter, lucky))
    assert answers.to_dict() == {
        "known, a learnt mask": "`edge_popup`, density 0.1: source -1.0, target 88.0 %, 90 kbit",
        "known, no learnt mask, about its size": "`replay`, fraction 0.1: source -5.0, target 88.0 %",
        "known, no learnt mask, any size": "`lora`, rank 4: source kept, target 86.0 %, 240 kbit",
        "unknown": "`replay`, fraction 0.1: source -5.0, target 88.0 %",
        "unknown, a learnt mask": "`edge_popup`, density 0.1: source -35.0, target 88.0 %",
        "unknown, no source images kept": "`ewc`, strength 1: source -10.0, target 85.0 %",
        "unknown, no source images at all": "`finetune`: source -45.0, target 90.0 %",
    }
