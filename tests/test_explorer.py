"""What the explorer shows is what the records say, worked out here by other means, and what `recommend` takes."""

import csv
import json
import math
import statistics
from collections import defaultdict

import pytest
from rows import at, make, mask

from maskutils.core import paths
from maskutils.results import choice, explorer, findings
from maskutils.results.records import load_records
from maskutils.results.wording import settings

MEAN, T2 = "mean of 4 pairs", 4.302653  # Student's t, 97.5 %, two degrees of freedom: three seeds


@pytest.fixture(scope="module")
def shown():
    return explorer.explorer_data(load_records("default"))


@pytest.fixture(scope="module")
def raw():
    with open(paths.results_dir("default") / "records.csv", newline="", encoding="utf-8") as file:
        return [row for row in csv.DictReader(file) if not row["native_of"] and row["rewound"] != "True"]


def point(shown, pair, approach, text):
    """The values of one point, by column."""
    found = [i for i, s in enumerate(shown["settings"]) if (s["approach"], s["text"]) == (approach, text)]
    columns = shown["pairs"][pair]["points"]
    (place,) = (k for k, setting in enumerate(columns["setting"]) if [setting] == found)
    return {name: fraction(name, values[place]) for name, values in columns.items()}


def fraction(name, value):
    """Accuracies are hundredths of a percent."""
    if isinstance(value, list):
        return [fraction(name, part) for part in value]
    return value if value is None or name in ("setting", "n", "kbit") else value / 1e4


def same(found, wanted):
    if isinstance(wanted, str):
        return found == wanted
    return found != "" and math.isclose(float(found), wanted, abs_tol=5e-4)  # a density of 0.1 can be 0.09999


def by_hand(raw, column, pair, where):
    """Mean and half-width of the 95 % interval over seeds."""
    seeds = defaultdict(list)
    for row in raw:
        if pair in (None, row["pair"]) and all(same(row[name], value) for name, value in where.items()):
            seeds[row["seed"]].append(float(row[column]))
    means = [statistics.mean(values) for values in seeds.values()]
    assert len(means) == 3
    return statistics.mean(means), T2 * statistics.stdev(means) / math.sqrt(3)


GUMBEL = {"protocol": "protect", "method": "gumbel_sigmoid", "density": 0.1, "alpha": 1.0, "per_layer": "False"}


@pytest.mark.parametrize(("approach", "text", "where", "known"), [
    ("gumbel_sigmoid", "density 0.1", GUMBEL, "source_acc_masked"),  # the task known: through the mask
    ("lora", "rank 4", {"protocol": "lora", "knob": 4.0, "alpha": 1.0}, "source_acc_before"),  # the adapter taken off
    ("ewc", "strength 100", {"protocol": "ewc", "strength": 100.0, "alpha": 1.0}, "source_acc_full"),
])  # fmt: skip
@pytest.mark.parametrize("pair", [None, "mnist_to_inverted"])
def test_a_point_is_the_mean_of_its_records(shown, raw, approach, text, where, known, pair):
    values = point(shown, pair or MEAN, approach, text)
    assert values["n"] == len(values["seeds"]) == 3
    for name, column in {"full": "source_acc_full", "known": known, "target_acc": "target_acc"}.items():
        expected = by_hand(raw, column, pair, where)
        assert [values[name], values[f"{name}_ci"]] == pytest.approx(expected, abs=6e-5)
    assert statistics.mean(target for *_, target in values["seeds"]) == pytest.approx(values["target_acc"], abs=2e-4)
    assert values["both"] == pytest.approx((values["known"] + values["target_acc"]) / 2, abs=2e-4)
    bits = 0.0 if approach == "ewc" else by_hand(raw, "stored_bits", pair, where)[0]
    assert values["kbit"] == pytest.approx(bits / 1e3, rel=1e-3)


@pytest.mark.parametrize("known", [False, True])
@pytest.mark.parametrize("drop", [0.0, 0.02, 0.1])
def test_the_choice_is_that_of_recommend(shown, known, drop):
    best = choice.recommend(load_records("default"), max_source_drop=drop, task_known=known)
    choices = shown["choices"]["known" if known else "full"]
    asked = choices["asked"][shown["drops"].index(drop)]
    chosen = shown["settings"][asked["setting"]]
    assert (chosen["approach"], chosen["text"]) == (best["approach"], settings(best))
    assert asked["text"].startswith(f"Choose {best['approach']}")
    assert f"{100 * best['source_drop']:.1f} [" in asked["text"]
    equal = choice.equivalent(load_records("default"), max_source_drop=drop, task_known=known)
    assert len(asked["same"]) == len(equal) - 1
    assert all(choices["worst"][i] <= drop for i in [asked["setting"], *asked["same"]])


def test_the_front_is_what_nothing_beats_on_validation():
    menu = [
        at(0.9, 0.5, "l2_sp", strength=2.0),
        at(0.8, 0.6, "l2_sp", strength=1.0),
        at(0.7, 0.55, "ewc", strength=1.0),
    ]
    masks = [
        mask("snip", kept, 0.6, 0.58, density=0.1 * n, stored_bits=1e3 * n)
        for n, kept in ((1, 0.93), (2, 0.92), (3, 0.94))
    ]
    shown = explorer.explorer_data(make(*menu, at(0.95, 0.99, "joint"), *masks))
    pair, named = shown["pairs"]["mnist_to_digits"], [f"{s['approach']} {s['text']}" for s in shown["settings"]]
    front, best = ({r: {named[i] for i in of[r]} for r in ("full", "known")} for of in (pair["front"], pair["best"]))
    assert front["full"] == {"l2_sp strength 2", "l2_sp strength 1"}  # joint training may not be chosen
    assert best["full"] == front["full"] | {
        "ewc strength 1",
        "joint ",
        *(f"snip density 0.{n}" for n in (1, 2, 3)),
    }  # equal ones
    # With the task known what counts is the mean of both, and the bits: 0 for the first two, whose better one is left.
    assert front["known"] == {"l2_sp strength 2", "l2_sp strength 1", "snip density 0.1", "snip density 0.3"}
    assert best["known"] == front["known"] | {"ewc strength 1", "joint "}


def test_the_families_shown_at_first_are_those_that_the_first_page_names(shown):
    _, brief = findings.findings(load_records("default"))
    named = [name for name in shown["looks"] if f"`{name}`" in brief or f"`{name} + wise_ft`" in brief]
    assert 3 < len(named) < len(shown["looks"]) / 2
    assert set(shown["first"]) == {*named, "wise_ft", "two_networks"} & set(shown["looks"])


def test_few_records_show_all_families_and_other_profiles_come_second():
    shown = explorer.explorer_data(make(at(0.8, 0.6), at(0.7, 0.9, "ewc", strength=1.0)))
    assert shown["first"] == list(shown["looks"]) == ["wise_ft", "ewc"]
    assert list(explorer.records_shown("default")) == ["default", "digits", "photographs"]
    assert list(explorer.records_shown("photos")) == ["photographs", "digits"]


def test_what_nothing_meets_and_one_seed_are_told():
    shown = explorer.explorer_data(make(at(0.8, 0.6), at(0.7, 0.9, "ewc", strength=1.0)), drops=(0.01, 0.3))
    nothing, ewc = shown["choices"]["full"]["asked"]
    assert nothing["setting"] is None
    assert (
        nothing["text"]
        == "No setting loses at most 1 points on every pair (validation images): the least drop is 0.150."
    )
    assert "25.0 points of the source lost, 90.0 % on the target (means over pairs)." in ewc["text"]
    assert shown["pairs"]["mnist_to_digits"]["points"]["full_ci"] == [None, None]
    assert shown["pairs"]["mnist_to_digits"]["ideal"] == [9500, 6000]


def test_the_page_holds_its_data_and_asks_nobody(shown):
    text = explorer.page({"digits": shown}, {})
    data = text.split('id="data">')[1].split("</script>")[0]
    assert json.loads(data) == {"tradeoffs": {"digits": json.loads(json.dumps(shown))}, "masks": {}}
    assert "http" not in text.replace("http://www.w3.org/2000/svg", "")


def test_the_front_end_is_short():
    assert explorer.SCRIPT.count("\n") <= 430
