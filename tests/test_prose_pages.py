"""What the README, the glossary and the guides claim, computed again from the committed records."""

import re

import pytest
from sentences import read, text, tried_with_best_mask

from maskutils.core.approaches import every
from maskutils.results.analysis import (
    source_read,
)
from maskutils.results.findings import findings
from maskutils.results.fronts import hypervolumes
from maskutils.results.records import on_grid
from maskutils.results.rivals import BESIDE
from maskutils.results.statistics import by_pair, paired
from maskutils.results.verdicts import rankings


@pytest.mark.parametrize("profile", ["study", "photos"])
def test_the_answer_on_the_first_page_holds_on_digits_and_on_photographs(profile):
    told = " ".join(text("README.md").split())
    assert (
        "Task unknown: keep a few source images and take replay. If you can read them once: EWC where fine-tuning forgets half of "
        "the source. Else, or without any: WiSE-FT, which costs nothing. Task known, space scarce: take a learnt mask, which reads source "
        "images once, or an adapter of its size. Once all sources are trained alike, the two cannot be told apart."
        in told
    )
    whole, brief = findings(read(profile))
    of = (
        "cannot be told apart from its best rival"
        if profile == "study"
        else "leads its best rival, without its gain on the source too"
    )
    assert f"a learnt mask {of}.**" in whole
    unknown, known = brief.split("\n")
    assert re.search(
        r"Beside the best rival of each pair.* it leads on [12] of \d(, not for certain,)? and trails on none", whole
    )
    assert any(f"its best rival, `{adapter}`" in known for adapter in ("lora", "oft"))
    there = "lead every mask, learnt or not" if profile == "study" else "leads the best learnt mask there"
    assert re.search(rf"\*\* (Over whole curves|At one setting), `replay` .*{there}", unknown)


@pytest.mark.slow
@pytest.mark.parametrize("profile", ["study", "photos"])
def test_ewc_is_worth_it_where_fine_tuning_forgets_half_of_the_source(profile):
    guide = " ".join(text("docs/guides/your_network.md").split())
    assert "Where it forgets half of the source, as on two pairs of digits, EWC is ahead of WiSE-FT." in guide
    assert (
        "Where it forgets less than 20 points, as on all other pairs, EWC is at most three points of hypervolume ahead"
        in guide
    )
    free = on_grid(read(profile)).query("approach == 'finetune' and alpha == 1")
    forgotten = (free["source_acc_before"] - free["source_acc_full"]).groupby(free["pair"]).mean()
    ahead = by_pair(hypervolumes(read(profile)), "hypervolume", "ewc", "wise_ft")[forgotten.index]
    much = forgotten > 0.5
    assert sorted(forgotten.index[much]) == (["mnist_to_inverted", "mnist_to_rotated"] if profile == "study" else [])
    assert (ahead[much] > 0.025).all()
    assert (forgotten[~much] < 0.2).all()
    assert ahead[~much].round(2).max() <= 0.03


@pytest.mark.parametrize(("profile", "adapter", "most"), [("study", "oft", 2.5e5), ("photos", "lora", 2.7e6)])
def test_an_adapter_does_as_well_as_a_second_network(profile, adapter, most):
    assert "a larger adapter or a second network is as good as the mask; neither forgets" in text(
        "docs/guides/your_network.md"
    )
    rows, means, _ = tried_with_best_mask(profile)
    own = means[(means["approach"] == adapter) & (means["bits"] < most)]["val_both"].idxmax()
    two = means[means["whole"]].index[0]
    assert means.loc[own, "bits"] < means.loc[two, "bits"] / 8
    row = paired(rows, "both", [own], two, by="candidate").iloc[0]
    assert row["low"] < 0 < row["high"]


def test_the_glossary_names_every_approach():
    glossary = text("docs/glossary.md")
    assert [a.name for a in every() if f"`{a.name}`" not in glossary] == []


def test_the_glossary_lists_the_rivals_of_the_code():
    page = text("docs/glossary.md")
    [entry] = re.findall(
        r"\*Whole curves\*, and single settings with the task unknown: (.*?) \*One setting", page, re.DOTALL
    )
    rivals, known, controls, beside, ranked = (
        re.findall(r"`(\w+)`", part)
        for part in re.split(r"With the task known also|Claims on|too\.|A claim of its own", entry)
    )
    of = [a for a in every() if a.rival]
    assert set(rivals) | set(known) == {a.name for a in of if a.kind != "control"}
    assert known == ["two_networks"]
    assert set(controls) == {a.name for a in of if a.kind == "control"}
    assert set(beside) == set(BESIDE)
    assert set(ranked) == set(rankings())


def test_kilobytes_stand_beside_kbit():
    readme = " ".join(text("README.md").split())
    for page in ("docs/glossary.md", "docs/guides/your_network.md"):
        said = " ".join(text(page).split())
        for kb in ("6 kB", "279 kB", "182 kB", "4.5 MB"):
            assert kb in said
    kbits = []
    for profile, mask, two in (("study", 6, 279), ("photos", 182, 4472)):
        _, means, best = tried_with_best_mask(profile)
        bits = means.loc[best, "bits"], means[means["whole"]]["bits"].iloc[0]
        assert [round(number / 8e3) for number in bits] == [mask, two]
        kbits.append(f"{bits[1] / 1e3:,.0f}")
    assert "`two_networks` keeps both: {} kbit (digits), {}. 8 kbit are 1 kB.".format(*kbits) in readme


def test_a_learnt_mask_comes_within_two_points_of_the_ideal_of_the_talk_figure_and_a_larger_adapter_within_one():
    told = " ".join(text("README.md").split())
    assert "the learnt mask comes within two points of the ideal (star), a larger adapter, `oft`, within one." in told
    rows = on_grid(read("study").query("pair == 'mnist_to_inverted' and alpha == 1"))
    rows = rows.assign(x=source_read(rows, "known"))
    ideal = rows.query("approach == 'two_networks'")[["x", "target_acc"]].mean()
    for approach, knob, value, near in (("gumbel_sigmoid", "density", 0.1, 0.02), ("oft", "knob", 32, 0.01)):
        reached = rows[(rows["approach"] == approach) & (rows[knob] == value)][["x", "target_acc"]].mean()
        assert near - 0.01 < (ideal - reached).max() < near, approach
