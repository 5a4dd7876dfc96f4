"""The README and the results: their numbers are those of the records."""

import pytest
from rows import at, make, mask

from maskutils.core.files import write_json
from maskutils.results import choice
from maskutils.results.records import save_records
from tools import fill_readme as readme

TEXT = "head\n<!-- a -->\nold\n<!-- /a -->\nbetween\n<!-- b --><!-- /b -->\ntail\n"


def test_blocks_are_filled_between_their_markers_and_nowhere_else():
    filled = readme.fill_readme(TEXT, {"a": "\nnew\nlines\n", "b": "x"})
    assert filled == (
        "head\n<!-- a -->\nnew\nlines\n<!-- /a -->\nbetween\n<!-- b -->\nx\n<!-- /b -->\ntail\n"
    )  # fmt: skip
    assert readme.fill_readme(filled, {"a": "\nnew\nlines\n", "b": "x"}) == filled
    assert readme.fill_readme(TEXT, {}) == TEXT


@pytest.mark.parametrize("text", ["", "<!-- a -->", "<!-- /a -->", "<!-- aa --><!-- /aa -->"])
def test_a_missing_marker_is_refused(text):
    with pytest.raises(ValueError, match=r"no <!-- a --> \.\.\. <!-- /a -->"):
        readme.fill_readme(text, {"a": "x"})


def test_blocks_are_filled_in_the_file_that_holds_them(tmp_path):
    first, second = tmp_path / "first.md", tmp_path / "second.md"
    first.write_text(TEXT, encoding="utf-8")
    second.write_text("<!-- c --><!-- /c -->", encoding="utf-8")
    texts = readme.fill_files([first, second], {"a": "new", "c": "x"})
    assert texts == {first: readme.fill_readme(TEXT, {"a": "new"}), second: "<!-- c -->\nx\n<!-- /c -->"}
    assert first.read_text(encoding="utf-8") == TEXT


@pytest.mark.parametrize("other", ["", TEXT, TEXT + TEXT])
def test_a_block_stands_once_in_all_files(tmp_path, other):
    files = [tmp_path / "first.md", tmp_path / "second.md"]
    for file, text in zip(files, ["", other] if other != TEXT else [TEXT, TEXT], strict=True):
        file.write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=r"<!-- a --> stands in .+; write it once, in one of .+first.md, .+second.md"):
        readme.fill_files(files, {"a": "x"})


MANIFEST = {"profile": "p", "versions": {"python": "3.11.7", "torch": "2.14.1"}, "cores": 2, "kernel_seconds": 90.0}
STEPS = {
    "source_steps": 600,
    "mask_steps": 300,
    "target_steps": 200,
    "seconds": 1.5,
    "mask_seconds": 0.03,
    "drift": 0.0,
}
BASE = [at(0.5, 0.9), at(0.95, 0.3, "source_only"), mask("random", 0.2, 0.6, 0.8), mask("magnitude", 0.7, 0.7, 0.8)]
BASE = [row | STEPS for row in BASE]
OTHERS = [at(0.8, 0.6, alpha=0.5) | STEPS, at(0.9, 0.6, "ewc", strength=1) | STEPS]


def test_the_cost_counts_transfers_once_and_interpolations_apart():
    learnt = mask("bernoulli", 0.9, 0.7, 0.8) | STEPS
    fresh = [learnt | {"mask_seconds": t, "seed": s} for s, t in enumerate([2.0, 4.0, 0.04])]
    assert readme.cost(make(*BASE, *OTHERS, *fresh), MANIFEST) == (
        "The `p` profile is 7 transfers over 1 pair and 3 seeds. 1 more records are of interpolated or rewound networks, which took no "
        "training. The source is trained for 600 steps, a mask for 300 and the target for 200. A transfer took 1.5 s (median), "
        "learning a mask that was in no cache 3.0 s, all transfers and masks 0 minutes of one core. The last runs of the notebooks took "
        "2 minutes. That is a sum over notebooks, of which up to 2 ran side by side on 2 cores, and without what they found in caches "
        "(Python 3.11.7, torch 2.14.1)."
    )
    said = readme.cost(make(*BASE), MANIFEST)
    assert said.startswith("The `p` profile is 3 transfers over 1 pair and 1 seed.")
    assert "learning" not in said
    said = readme.cost(make(*[row | {"seconds": 60.0} for row in BASE]), MANIFEST)
    assert "all transfers and masks 3 minutes of one core." in said


def blocks_of(results, *rows: dict) -> dict[str, str]:
    save_records(make(*rows), results / "p" / "records.csv")
    write_json(results / "p" / "manifest.json", MANIFEST)
    return readme.readme_blocks("p")


NAMES = {
    "brief",
    "findings",
    "tradeoff",
    "headline",
    "baselines",
    "choices",
    "families",
    "families_known",
    "storage",
    "budgets",
    "rewinding",
    "detectable",
    "verdicts",
    "evidence",
    "cost",
    "convergence",
}


def test_the_readme_has_every_block_for_records_with_baselines(results):
    blocks = blocks_of(results, *BASE, *OTHERS)
    assert set(blocks) == NAMES
    assert "| ewc" in blocks["baselines"]
    assert "strength 1" in blocks["baselines"]
    assert "minus wise_ft" in blocks["families"]
    assert "p (Holm)" in blocks["families_known"]
    assert not [
        name for name in readme.DETAILS for table in ("families", "families_known") if f"| {name}" in blocks[table]
    ]
    assert blocks["choices"].count("lose at most") >= 2
    assert "3 transfers" not in blocks["cost"]


def test_the_choice_with_the_task_unknown_is_made_once(monkeypatch):
    asked, recommend = [], choice.recommend
    monkeypatch.setattr(choice, "recommend", lambda rows, **need: asked.append(need) or recommend(rows, **need))
    readme.choices(make(at(0.5, 0.95, "two_networks", stored_bits=1600), at(0.9, 0.6, stored_bits=0)), [0.01])
    assert [(need["task_known"], need.get("max_bits")) for need in asked] == [(True, None), (False, None), (True, 100)]


def test_who_can_store_little_has_choices_of_his_own():
    """Two networks of 100 weights: 1,600 bits. A mask is behind them, at less than a bit for each weight."""
    two, learnt = at(0.5, 0.95, "two_networks", stored_bits=1600), mask("snip", 0.95, 0.5, 0.9, stored_bits=64)
    chosen = readme.choices(make(two, learnt, at(0.9, 0.6, stored_bits=0)), [0.01, 0.06])
    assert chosen[["need", "task known", "choose"]].to_numpy().tolist() == [
        ["lose at most 1 or 6 points", "yes", "two_networks"],
        ["lose at most 1 or 6 points, store at most 0 kbit", "yes", "snip (density 0.1)"],
        ["lose at most 1 point", "no", "nothing: the least drop is 0.050"],
        ["lose at most 6 points", "no", "finetune"],
    ]
    alike = readme.choices(make(two | {"target_acc": 0.9}, learnt | {"target_acc": 0.95}), [0.01])
    assert alike["need"].tolist() == 2 * ["lose at most 1 point"]


def test_the_readme_says_what_records_without_baselines_do_not_hold(results):
    blocks = blocks_of(results, *BASE)
    assert set(blocks) == NAMES
    for name in readme.COMPARED:
        assert blocks[name] == "The records of `p` hold no baselines with their interpolations; those of `study` do."


def test_the_audit_on_the_site_is_that_of_the_committed_notebook(tmp_path):
    table = readme.audit_table()
    assert table in (readme.ROOT / "docs" / "guides" / "leaks.md").read_text(encoding="utf-8")
    rows = dict(line.strip("| ").split(" | ", 1) for line in table.splitlines())
    assert rows["recipe"].startswith("held (of all parameters) | largest change of a held weight")
    assert rows["protect, re-used Adam"].endswith("exact")
    assert rows["zeroed gradients, re-used Adam"].endswith("leaks")
    (tmp_path / "empty.ipynb").write_text('{"cells": [{"source": []}]}', encoding="utf-8")
    with pytest.raises(ValueError, match="shows no audit"):
        readme.audit_table(tmp_path / "empty.ipynb")
