"""The report: every number in a sentence or table is that of the records, by hand."""

import math

import pandas as pd
import pytest
from rows import at, make, mask

from maskutils.results import choice, choice_tables, comparisons, report
from maskutils.results.records import summarise, usual_density
from tools import tables


@pytest.mark.parametrize(
    ("fraction", "text"), [(0.951, "95.1 %"), (0.0, "0.0 %"), (1.0, "100.0 %"), (0.1234, "12.3 %")]
)
def test_points(fraction, text):
    assert report.points(fraction) == text


def test_percent_shows_means_intervals_and_what_is_missing():
    summary = pd.DataFrame(
        {"a": [0.5, 0.25, math.nan], "a_ci": [0.012, math.nan, math.nan], "n": [3, 1, 3], "b_ci": 0.0}
    )
    table = report.percent(summary, ["a"])
    assert table["a"].tolist() == ["50.0 ± 1.2", "25.0", "–"]
    assert list(table.columns) == ["n", "a"]


def test_the_headline_has_one_row_an_approach_at_the_density_asked_for():
    left = [at(0.1, 0.1, alpha=0.5), at(0.1, 0.1, "l2_sp", strength=1), at(0.1, 0.1, "replay", fraction=0.1)]
    left += [mask("snip", 0.1, 0.1, 0.1, 0.5), mask("snip", 0.1, 0.1, 0.1, native_of="snip", seed=1)]
    table = report.headline(make(at(0.5, 0.9), mask("snip", 0.8, 0.6, 0.7), at(0.6, 0.8, seed=0, pair="b"), *left))
    names = ["approach", "seeds", "source through mask (%)", "source full network (%)", "target (%)"]
    assert table[names].to_numpy().tolist() == [
        ["finetune", 1, "–", "55.0", "85.0"],
        ["snip", 1, "80.0", "60.0", "70.0"],
    ]
    other = report.headline(make(mask("snip", 0.8, 0.6, 0.7, 0.5)), density=0.5)
    assert other["source through mask (%)"].tolist() == ["80.0"]


def test_the_headline_is_sorted_by_the_number():
    table = report.headline(make(at(0.5, 1.0), mask("snip", 0.8, 0.6, 0.95), at(0.9, 0.09, "source_only")))
    assert table["target (%)"].tolist() == ["100.0", "95.0", "9.0"]


def test_two_networks_have_no_reading_with_the_full_network():
    table = report.headline(make(at(0.5, 0.9, "two_networks"), at(0.5, 0.8))).set_index("approach")
    assert table["source full network (%)"].to_dict() == {"two_networks": "–", "finetune": "50.0"}


def test_native_findings_compare_with_chance_of_the_same_density():
    rows = [
        mask(m, 0, 0, 0, d, native_of="bernoulli", source_acc_masked_before=a, seed=s)
        for m, d, a, s in [("bernoulli", 0.2, 0.8, 0), ("bernoulli", 0.4, 0.9, 1), ("random", 0.3, 0.1, 0)]
    ]
    text = report.native_findings(make(*rows, mask("bernoulli", 0, 0, 0, source_acc_masked_before=0)), "bernoulli")
    for said in (
        "**bernoulli** keeps 30.0 %",
        "answers 85.0 %",
        "10.0 % through a random",
        "95.0 % whole",
        "of 2 seeds",
    ):
        assert said in text


def test_density_findings_have_a_line_for_each_density():
    rows = [mask("snip", 0.8, 0.6, 0.7), mask("snip", 0.9, 0.7, 0.6, 0.25), at(0.5, 0.9), at(0.1, 0.1, "lp_ft")]
    rows += [at(0.5, 0.9, "two_networks")]
    assert report.density_findings(make(*rows), ["snip", "finetune", "two_networks"]).splitlines() == [
        "- **finetune**: source 50.0 % with the full network, target 90.0 %",
        "- **snip** at density 0.1: source 80.0 % through the mask and 60.0 % with the full network, target 70.0 %",
        "- **snip** at density 0.25: source 90.0 % through the mask and 70.0 % with the full network, target 60.0 %",
        "- **two_networks**: source 95.0 % with the task known, target 90.0 %",
    ]


def test_tradeoff_findings_are_those_of_the_frame():
    rows = [at(0.5, 0.96), mask("random", 0.1, 0.66, 0.92), mask("magnitude", 0.7, 0.6, 0.94)]
    rows += [mask("snip", 0.8, 0.62, 0.9, drift=0.0), mask("snip", 0.99, 0.99, 0.99, 0.5, drift=-0.25)]
    lines = report.tradeoff_findings(make(*rows)).splitlines()
    assert lines[0] == "- Fine-tuning takes the source from 95.0 % to 50.0 % and reaches 96.0 % on the target."
    assert "**snip** retains most: 80.0 %, against 10.0 % for a random mask and 70.0 % for magnitude" in lines[1]
    assert "lie between 60.0 % and 66.0 %: **random** retains most, **magnitude** adapts best (94.0 %" in lines[2]
    assert lines[3] == "- The largest drift through the mask, of 4 protected transfers, is 0.25."


def test_findings_name_all_who_do_it_best():
    rows = [
        at(0.5, 0.96),
        mask("random", 0.8, 0.62, 0.9),
        mask("snip", 0.8001, 0.6, 0.9),
        mask("edge_popup", 0.7, 0.5, 0.8),
    ]
    lines = report.tradeoff_findings(make(*rows)).splitlines()
    assert "**random** and **snip** retain most: 80.0 %" in lines[1]
    assert "**random** retains most, **random** and **snip** adapt best" in lines[2]


def test_findings_leave_out_the_controls_that_are_not_there():
    told = report.tradeoff_findings(make(at(0.5, 0.96), mask("snip", 0.8, 0.62, 0.9, drift=0.0))).splitlines()
    assert told[1] == "- Through the mask, at density 0.1, **snip** retains most: 80.0 %."


@pytest.mark.parametrize("rows", [[at(0.5, 0.96)], [mask("snip", 0.8, 0.62, 0.9)]])
def test_findings_of_which_the_records_hold_nothing_say_so(rows):
    assert report.tradeoff_findings(make(*rows)) == "The records hold no masks of density 0.1 beside fine-tuning."


def test_choices_say_what_to_choose_and_what_to_expect():
    rows = [at(0.95, 0.3, "l2_sp", strength=3), at(0.9, 0.8, "replay", fraction=0.05, alpha=0.5)]
    rows = [row | {"stored_bits": 0} for row in rows] + [mask("snip", 0.92, 0.7, 0.85, stored_bits=64_000)]
    table = choice_tables.choices(make(*rows), [0.01, 0.05], [0.8, 0.9])
    small, most, some, much = (
        "lose at most 1 point",
        "lose at most 5 points",
        "reach 80.0 % on the target",
        "reach 90.0 % on the target",
    )
    half = "replay + wise_ft (fraction 0.05, alpha 0.5)"
    assert table.to_numpy().tolist() == [
        [small, "yes", "l2_sp (strength 3)", "0.0", "30.0", "0", "1"],  # one seed has no interval
        [most, "yes", "snip (density 0.1)", "3.0", "85.0", "64", "1"],
        [some, "yes", "snip (density 0.1)", "3.0", "85.0", "64", "1"],
        [much, "yes", "nothing: the best target is 0.850", "–", "–", "–", "–"],
        [small, "no", "l2_sp (strength 3)", "0.0", "30.0", "0", "1"],
        [most, "no", half, "5.0", "80.0", "0", "1"],
        [some, "no", half, "5.0", "80.0", "0", "1"],
        [much, "no", "nothing: the best target is 0.850", "–", "–", "–", "–"],
    ]


def test_drops_that_lead_to_the_same_choice_are_one_row():
    rows = [at(0.95, 0.3, "l2_sp", strength=3), at(0.9, 0.8, "replay", fraction=0.05)]
    table = choice_tables.choices(make(*rows), [0.01, 0.02, 0.06, 0.1])
    needs = ["lose at most 1 or 2 points", "lose at most 6 or 10 points"]
    assert table["need"].tolist() == 2 * needs
    assert table["choose"].tolist() == 2 * ["l2_sp (strength 3)", "replay (fraction 0.05)"]


def test_choices_are_told_in_sentences():
    assert choice_tables.choice_findings(choice_tables.choices(make(at(0.95, 0.9)), [0.05])).splitlines() == [
        f"- To lose at most 5 points, if you {know} the task at test time: **finetune**. "
        "Expect a loss of 0.0 points on the source, and 90.0 % on the target."
        for know in ("know", "do not know")
    ]
    seeds = choice_tables.choice_findings(
        choice_tables.choices(make(*(at(0.95, 0.9, seed=s) for s in range(3))), [0.05])
    )
    assert "a loss of 0.0 [0.0, 0.0] points on the source, and 90.0 [90.0, 90.0] % on the target." in seeds
    said = choice_tables.choice_findings(choice_tables.choices(make(at(0.95, 0.9)), [], [0.99]))
    assert said.splitlines()[0].endswith("at test time: nothing: the best target is 0.900.")


def test_a_need_out_of_range_is_an_error_and_no_choice():
    with pytest.raises(ValueError, match="a fraction in"):
        choice_tables.choices(make(at(0.95, 0.9)), [5])


def test_a_choice_without_settings_has_no_empty_brackets():
    assert set(choice_tables.choices(make(at(0.95, 0.9)), [0.05])["choose"]) == {"finetune"}


def test_a_knob_has_the_name_that_its_approach_gives_it():
    assert set(choice_tables.choices(make(at(0.95, 0.9, "lora", knob=4)), [0.05])["choose"]) == {"lora (rank 4)"}
    half = make(at(0.95, 0.9, "lora", knob=4, alpha=0.5))
    assert set(choice_tables.choices(half, [0.05])["choose"]) == {"lora + wise_ft (rank 4, alpha 0.5)"}


def test_promises_are_counted_for_each_allowed_drop():
    checked = pd.DataFrame({"allowed": [0.05, 0.05, 0.05, 0.1], "found": [0.01, 0.07, 0.0701, 0.04]})
    assert choice_tables.promises(checked).to_numpy().tolist() == [["5", 3, 2, "+2.0"], ["10", 1, 1, "-6.0"]]


def test_no_promises_are_counted_where_none_were_checked():
    assert choice_tables.promises(choice.check_choice(make(at(0.9, 0.8)), [0.05])).empty


def test_each_family_is_shown_at_the_setting_that_is_best_over_all_pairs():
    rows = [at(0.5, 0.9, pair=p) for p in "ab"]
    rows += [at(f, 0.9, "l2_sp", strength=k, pair=p, **never) for k, p, f, never in [
        (1, "a", 0.95, {}), (2, "a", 0.9, {}), (1, "b", 0.1, {}), (2, "b", 0.7, {}), (3, "b", 0.95, {"val_target_acc": 0.1}),
    ]]  # fmt: skip
    rows += [at(0.9, 0.9, "elastic_mask", method="shuffled", strength=1), mask("snip", 0.9, 0.9, 0.9, per_layer=True)]
    table = tables.best_settings(make(*rows))
    assert list(table.columns) == [
        "family",
        "setting",
        "seeds",
        "source full network (%)",
        "target (%)",
        "harmonic mean (%)",
    ]
    # harmonic means with full adaptation: of 0.8 / 0.85 and of 0.6 / 0.85, averaged; of 0.4 / 0.85
    assert table.to_numpy().tolist() == [
        ["l2_sp", "strength 2", 1, "80.0", "90.0", "89.9"],
        ["wise_ft", "", 1, "50.0", "90.0", "64.0"],
    ]


VOLUMES = [{"pair": "x", "family": f, "seed": s, "hypervolume": v} for f, vs in {
    "o": [0.5, 0.5, 0.5], "a": [0.6, 0.7, 0.8], "b": [0.25, 0.25, 0.25]}.items() for s, v in enumerate(vs)]  # fmt: skip


def test_the_table_against_a_rival():
    table = report.against(pd.DataFrame(VOLUMES), "o").set_index("family")
    assert table["hypervolume (%)"].to_dict() == {"a": "70.0", "o": "50.0", "b": "25.0"}
    assert list(table.index) == ["a", "o", "b"]
    shown = table["minus o (points)"]
    assert shown["a"] == "+20.0 [-4.8, +44.8]"  # 4.303 * 10 / sqrt 3
    assert (shown["o"], shown["b"]) == ("", "-25.0 [-25.0, -25.0]")
    assert (
        table.loc["a", "p (Holm)"] == f"{1 - math.sqrt(12 / 14):.3f}"
    )  # t = 0.2 / (0.1 / sqrt 3), 2 degrees of freedom
    assert table.loc["o", "p (Holm)"] == ""
    t = 0.2 / (0.1 * math.sqrt(1 / 3 + 25 / 65))
    assert table.loc["a", ["corrected", "corrected p (Holm)"]].tolist() == [
        "[-16.5, +56.5]",
        f"{1 - t / math.sqrt(t**2 + 2):.3f}",
    ]
    assert table["seeds"].to_dict() == {"a": "3", "b": "3", "o": ""}


def test_a_mean_over_pairs_shows_what_it_hides():
    rows = [{"family": f, "pair": p, "seed": s, "hypervolume": v} for s in (0, 1) for f, p, v in [
        ("o", "x", 0.5), ("o", "y", 0.5), ("a", "x", 0.48), ("a", "y", 0.7)]]  # fmt: skip
    table = report.against(pd.DataFrame(rows), "o").set_index("family")
    assert table["by pair"].to_dict() == {"a": "-2.0 to +20.0", "o": ""}
    assert table.loc["a", ["x", "y", "random effects"]].tolist() == ["-2.0", "+20.0", ""]  # two seeds are too few
    assert table["mean rank"].to_dict() == {"a": "1.5", "o": "1.5"}
    assert "by pair" not in report.against(pd.DataFrame(VOLUMES), "o")


def test_a_mean_over_pairs_has_its_random_effects_beside_it():
    rows = [{"family": f, "pair": p, "seed": s, "hypervolume": v} for s in range(3) for f, p, v in [
        ("o", "x", 0.5), ("o", "y", 0.5), ("a", "x", 0.5), ("a", "y", 0.7)]]  # fmt: skip
    told = report.against(pd.DataFrame(rows), "o").set_index("family").loc["a", "random effects"]
    assert told == "+10.0 [-117.1, +137.1]"  # 0 and 20: 12.706 * 10, with one degree of freedom


def test_a_choice_may_be_limited_in_what_it_stores():
    rows = make(at(0.95, 0.3, stored_bits=0), mask("snip", 0.95, 0.7, 0.85, stored_bits=64_000))
    assert choice_tables.choices(rows, [0.01], max_bits=1e5)["choose"].tolist()[0] == "snip (density 0.1)"
    assert choice_tables.choices(rows, [0.01], max_bits=1e3)["choose"].tolist()[0] == "finetune"


def test_a_setting_at_an_end_of_its_grid_is_marked():
    rows = [at(0.5, 0.9), *(at(f, 0.9, "l2_sp", strength=k) for k, f in ((1, 0.9), (2, 0.8), (3, 0.7)))]
    assert tables.best_settings(make(*rows))["setting"].tolist() == ["strength 1 (end of its grid)", ""]
    two = tables.best_settings(make(*rows[:3]))["setting"].tolist()
    assert two == ["strength 1", ""], "of two values each is an end"


def test_domains_that_took_no_part_have_a_column_where_they_were_read():
    rows = [at(0.5, 0.9, other_acc=0.25), at(0.9, 0.5, "ewc", strength=1, other_acc=0.75)]
    table = tables.best_settings(make(*rows)).set_index("family")["other domains (%)"]
    assert table.to_dict() == {"wise_ft": "25.0", "ewc": "75.0"}
    assert "other domains (%)" not in tables.best_settings(make(*rows, at(0.7, 0.7, "l2_sp", strength=1)))


def test_choices_over_several_pairs_tell_the_worst():
    rows = [at(full, 0.9, pair=p) for p, full in (("a", 0.95), ("b", 0.9))]
    row = choice_tables.choices(make(*rows), [0.1]).iloc[0]
    assert (row["lost on the worst pair"], row["target on the worst pair"]) == ("5.0", "90.0")
    assert choice_tables.choice_findings(choice_tables.choices(make(*rows), [0.1]))


def test_convergence_is_told_pair_by_pair():
    rows = [at(0.5, 0.9, pair=p, late_gain=g) for p, g in (("a", 0.02), ("b", 0.001))]
    rows += [at(0.5, 0.9, pair=p, late_gain=g, protocol="lora") for p, g in (("a", 0.031), ("b", 0.05))]
    said = comparisons.convergence(make(*rows))
    assert "on average: +0.1 on `b` and +2.0 on `a` (points;" in said
    rows_shown = [[cell.strip() for cell in line.strip("|").split("|")] for line in said.splitlines()[2:]]
    assert rows_shown[0] == ["approach", "gained", "on"]
    assert rows_shown[2:] == [["lora", "+5.0", "b"], ["finetune", "+2.0", "a"]]
    assert comparisons.convergence(make(*rows[1:2])).endswith(
        "No approach gained 2 points or more on a pair, over all its settings."
    )


def test_no_p_is_shown_where_there_is_none():
    assert report.against(pd.DataFrame(VOLUMES), "o").set_index("family").loc["b", "p (Holm)"] == ""


def test_a_very_small_p_is_not_shown_as_zero():
    steady = [
        {"pair": "x", "family": f, "seed": s, "hypervolume": v + 1e-4 * s * s}
        for f, v in (("o", 0.5), ("a", 0.6))
        for s in range(4)
    ]
    steady[-1]["hypervolume"] += 1e-6
    assert report.against(pd.DataFrame(steady), "o").set_index("family").loc["a", "p (Holm)"] == "< 0.001"


def test_tables_are_written_as_markdown_and_latex(results):
    report.write_tables(pd.DataFrame({"name": ["a"], "target (%)": ["95.1"]}), "p", "t")
    markdown = (results / "p" / "t.md").read_text().splitlines()
    assert [cell.strip() for cell in markdown[0].strip("|").split("|")] == ["name", "target (%)"]
    assert [cell.strip() for cell in markdown[2].strip("|").split("|")] == ["a", "95.1"]
    latex = (results / "p" / "t.tex").read_text()
    assert r"name & target (\%) \\" in latex
    assert r"a & 95.1 \\" in latex
    assert sorted(p.name for p in (results / "p").iterdir()) == ["t.md", "t.tex"]


def test_markdown_keeps_the_decimals(results):
    report.write_tables(pd.DataFrame({"target (%)": ["95.0"]}), "p", "t")
    assert "95.0" in (results / "p" / "t.md").read_text()


def test_names_are_escaped_in_latex(results):
    report.write_tables(pd.DataFrame({"approach": ["gumbel_sigmoid"]}), "p", "t")
    assert r"gumbel\_sigmoid" in (results / "p" / "t.tex").read_text()


def test_the_interval_of_two_seeds_is_shown_nowhere():
    rows = [
        {"k": k, "seed": seed, "v": 0.5, "w": w}
        for k, n in (("x", 2), ("y", 3))
        for seed, w in list(enumerate((0.5, 0.5, math.nan)))[:n]
    ]
    table = report.percent(summarise(pd.DataFrame(rows), ["k"], ["v", "w"]), ["v", "w"])
    assert table["v"].tolist() == ["50.0", "50.0 ± 0.0"]
    assert table["w"].tolist() == ["50.0", "50.0"]  # two seeds have it


def test_domains_that_took_no_part_are_read_on_the_pairs_that_have_any():
    rows = [at(0.9, 0.8, pair=pair, other_acc=other) for pair, other in (("a", 0.4), ("b", math.nan))]
    assert tables.best_settings(make(*rows))["other domains (%)"].tolist() == ["40.0"]
    assert "other domains (%)" not in tables.best_settings(make(at(0.9, 0.8, other_acc=math.nan)))


def test_masks_are_shown_at_a_tenth_or_at_the_next_density_that_there_is():
    assert usual_density(make(mask("snip", 0.9, 0.5, 0.8), mask("snip", 0.9, 0.5, 0.8, 0.05))) == 0.1
    assert usual_density(make(mask("snip", 0.9, 0.5, 0.8, 0.5), mask("snip", 0.9, 0.5, 0.8, 0.2))) == 0.2
    assert usual_density(make(at(0.9, 0.8))) == 0.1


def test_readings_by_density_are_a_table_with_dashes_where_there_is_none():
    rows = make(mask("snip", 0.8, 0.6, 0.7), mask("snip", 0.9, 0.7, 0.6, 0.25), at(0.5, 0.9))
    assert report.by_density(rows).to_numpy().tolist() == [
        ["finetune", "–", 1, "–", "50.0", "90.0"],
        ["snip", "0.1", 1, "80.0", "60.0", "70.0"],
        ["snip", "0.25", 1, "90.0", "70.0", "60.0"],
    ]


def test_a_brief_table_has_the_first_columns_and_the_pairs():
    table = pd.DataFrame(
        columns=["family", "hypervolume (%)", "mean rank", "minus wise_ft (points)", "p (Holm)", "mnist_to_a", "b"]
    )
    first = ["family", "hypervolume (%)", "minus wise_ft (points)", "p (Holm)"]
    assert list(report.brief(table, ["b", "mnist_to_a", "c"])) == [*first, "b", "to_a"]


def test_a_limit_on_bits_has_a_row_of_its_own():
    rows = make(mask("snip", 0.94, 0.6, 0.7, stored_bits=1e4), at(0.5, 0.9, "two_networks", stored_bits=9e5))
    rows = choice_tables.within(rows, 0.02, (2e4, 1e6))
    assert rows["choose"].to_dict() == {"20 kbit": "snip (density 0.1)", "1000 kbit": "two_networks"}
