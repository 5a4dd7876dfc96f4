"""Tables beside the comparison of families: every number by hand."""

import pandas as pd
import pytest
from rows import at, make, mask

from maskutils.results import comparisons
from tools import tables


def seeds(*rows: dict, n: int = 3) -> pd.DataFrame:
    return make(*(row | {"seed": seed} for row in rows for seed in range(n)))


def test_the_difference_depends_on_the_corner_of_the_box():
    table = comparisons.by_reference(
        seeds(at(0.5, 0.9), at(0.8, 0.5, "l2_sp", strength=1), at(0.9, 0.9, "ewc", strength=1))
    )
    assert table["family"].tolist() == ["ewc", "l2_sp"]
    ewc, l2 = table.drop(columns="family").to_numpy().tolist()
    # boxes of 1, 0.81 and 0.2025; wise_ft has 0.45, 0.4 * 0.8 and 0 of them; l2_sp 0.4, 0.7 * 0.4 and 0; ewc 0.81, 0.64 and 0.35 squared
    assert ewc == ["+36.0 [+36.0, +36.0]", "+39.5 [+39.5, +39.5]", "+60.5 [+60.5, +60.5]"]
    assert l2 == ["-5.0 [-5.0, -5.0]", "-4.9 [-4.9, -4.9]", "+0.0 [+0.0, +0.0]"]
    assert list(table.columns[1:]) == ["from zero (points)", "from chance (points)", "from halfway (points)"]


def test_budgets_are_settings_and_steps():
    rows = [at(0.5, 0.9, alpha=a, target_steps=300) for a in (0.5, 0.75, 1.0)]
    rows += [mask("snip", 0.9, 0.9, 0.9, d, target_steps=s, mask_steps=100) for d, s in ((0.1, 300), (0.2, 900))]
    assert comparisons.budgets(seeds(*rows)).to_numpy().tolist() == [
        ["wise_ft", 3, 1, 300, 0],
        ["snip", 2, 2, 1200, 200],
    ]


def test_the_storage_table_is_the_front_in_kilobits():
    rows = [at(0.5, 0.9, stored_bits=0), at(0.5, 0.8, "l2_sp", strength=1, stored_bits=0)]
    rows += [mask("snip", 0.9, 0.5, 0.85, stored_bits=64_000)]
    expected = [
        ["wise_ft", "", "0", "50.0", "90.0", "70.0", "3"],
        ["snip", "density 0.1", "64", "90.0", "85.0", "87.5", "3"],
    ]
    assert comparisons.storage(seeds(*rows)).to_numpy().tolist() == expected


def test_the_smallest_difference_that_can_be_shown_is_told_in_points():
    volumes = pd.DataFrame([{"pair": "x", "family": f, "seed": s, "hypervolume": v} for f, vs in {
        "o": [0.5] * 5, "a": [0.5, 0.51, 0.52, 0.51, 0.51]}.items() for s, v in enumerate(vs)])  # fmt: skip
    told = comparisons.detectable(volumes, "o")
    assert told.startswith("With 5 seeds a difference of 1.2 points of hypervolume is found")  # 1.682 * 0.00707
    assert "finds 1.7 standard deviations over seeds" in told


def test_rewinding_is_set_beside_interpolation_at_the_best_setting_of_each():
    rows = []
    for seed, shift in enumerate((0.0, 0.02, 0.04)):
        rows += [at(0.15, 0.9, seed=seed), at(0.55, 0.5, alpha=0.5, seed=seed)]  # fine-tuning, and interpolated
        rows += [at(0.75 + shift, 0.8, rewound=True, seed=seed)]
        rows += [at(0.9, 0.6, "source_only", seed=seed)]
    table = tables.rewinding(make(*rows)).set_index("family")
    assert list(table.index) == ["wise_ft"]  # what is not rewound is left out

    def harmonic(source, target):
        kept, gained = (source - 0.1) / 0.85, (target - 0.1) / 0.8
        return 100 * 2 * kept * gained / (kept + gained)

    row = table.loc["wise_ft"]
    assert row["ended"] == pytest.approx(harmonic(0.15, 0.9), abs=0.06)
    assert row["interpolated"] == pytest.approx(harmonic(0.55, 0.5), abs=0.06)
    assert row["rewound"] == pytest.approx(sum(harmonic(0.75 + s, 0.8) for s in (0, 0.02, 0.04)) / 3, abs=0.06)
    assert row["rewound - interpolated (points)"].startswith(f"{row['rewound'] - row['interpolated']:+.0f}"[:2])
    assert row["seeds"] == 3
    assert tables.rewinding(make(at(0.5, 0.9))).empty


def test_where_no_difference_can_be_told_the_sentence_says_so():
    volumes = pd.DataFrame({"family": ["ewc", "wise_ft"], "pair": "a", "seed": 0, "hypervolume": [0.5, 0.4]})
    two = pd.concat([volumes, volumes.assign(seed=1, hypervolume=[0.5, 0.3])])
    for table in (volumes, volumes[1:], two):
        assert comparisons.detectable(table, "wise_ft").endswith("no difference can be told.")


def test_each_change_stands_as_a_difference_to_the_usual_at_the_same_density():
    rows = make(mask("snip", 0.9, 0.5, 0.8), mask("fisher", 0.8, 0.7, 0.75), mask("fisher", 0.5, 0.5, 0.5, 0.4))
    table = comparisons.minus(rows, "snip")
    assert table.index.tolist() == [("fisher", 0.1), ("fisher", 0.4)]
    assert table.loc[("fisher", 0.1)].tolist() == pytest.approx([-10, 20, -5])
    assert table.loc[("fisher", 0.4)].isna().all()


def test_a_longer_source_is_set_beside_the_usual_one_for_mask_and_rivals():
    def rows(before, masked, of_lora, seeds=(0.0, 0.01, 0.02), **rest):
        for pair in ("mnist_to_digits", "mnist_to_inverted"):
            for seed, shift in enumerate(seeds):
                about = {"seed": seed, "pair": pair, "source_acc_before": before} | rest
                yield mask("edge_popup", masked, 0.5, 0.8 + shift, 0.3, **about)
                yield at(0.5, of_lora + 2 * shift, "lora", knob=4, **about)

    other = [at(0.5, 0.9, "lora", knob=8, seed=s, source_acc_before=0.7) for s in range(3)]
    usual, longer = make(*rows(0.7, 0.8, 0.78), *other), make(*rows(0.8, 0.82, 0.8))
    table = tables.trained_longer(usual, longer).set_index("")
    assert table.columns.tolist() == ["mnist_to_digits", "mnist_to_inverted", "mean of 2"]
    assert table["mean of 2"].str.partition(" ")[0].to_dict() == {
        "source, usual (%)": "70.0",
        "source, longer (%)": "80.0",
        "source through edge_popup, usual (%)": "80.0",
        "source through edge_popup, longer (%)": "82.0",
        "edge_popup - lora, usual": "+5.5",  # source 80 - 70, target 81 - 80
        "edge_popup - lora, rival longer": "-0.5",  # 80 - 80, 81 - 82
        "edge_popup - lora, both longer": "+0.5",  # 82 - 80, 81 - 82
    }
    assert tables.trained_alike(usual, longer) == (
        "With all sources trained as long, `edge_popup` cannot be told apart from `lora` (+0.5 [-0.7, +1.7] points)."
    )
    better = longer.assign(target_acc=longer["target_acc"] + 0.05 * (longer["approach"] == "edge_popup"))
    assert tables.trained_alike(usual, better) == (
        "With all sources trained as long, `edge_popup` leads `lora` by 3.0 [1.8, 4.2] points; "
        "on the target alone it leads by 4.0 [1.5, 6.5] points."
    )


def test_changes_stand_by_their_bits_and_the_ends_are_told():
    rows = make(at(0.8, 0.9, "oft", stored_bits=2e4), at(0.9, 0.5, "bias_only", stored_bits=5e3))
    table, ends = comparisons.removable(rows)
    assert table["approach"].tolist() == ["bias_only", "oft"]
    assert table["kbit stored"].tolist() == ["5.0", "20.0"]
    assert ends == "Fewest bits: `bias_only`, 50.0 % for 5.0 kbit. Best on the target: `oft`, 90.0 % for 20.0 kbit."
