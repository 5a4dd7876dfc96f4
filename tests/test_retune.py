"""Settings that break at the rate of their approach, run again at lower ones."""

import pandas as pd
import pytest
from projects import root, write_notebook, write_profile  # noqa: F401
from rows import at, make

from maskutils.core import files, paths
from maskutils.results import manifest, rates
from maskutils.results.records import load_records, save_records
from maskutils.study import experiment
from maskutils.study.setup import Setup
from tools import retune

TINY = {
    "pair": "mnist_to_digits",
    "model": "mlp",
    "seeds": [0, 1],
    "source_steps": 20,
    "target_steps": 10,
    "alphas": [0.5, 1.0],
}


def of(protocol, value, accuracy, bits=0.0, column="knob"):
    """A record of `protocol` at `value` that reaches `accuracy` of the target on validation."""
    cell = {"protocol": protocol, "method": None, "approach": protocol, column: value}
    return make(at(1.0, accuracy)).assign(**cell, val_target_acc=accuracy, stored_bits=bits)


def test_a_larger_change_that_adapts_worse_is_broken():
    adapters = [of("lora", r, a, 1000 * r) for r, a in ((2, 0.80), (4, 0.78), (8, 0.74), (16, 0.85))]
    penalties = [of("ewc", s, a, column="strength") for s, a in ((100.0, 0.2), (1000.0, 0.7), (1e4, 0.6))]
    records = pd.concat(adapters + penalties).assign(target_steps=9)
    found = [(retune.trial_of(cell).knobs, best) for cell, best in retune.broken(records)]
    assert found == [({"strength": 100.0}, 0.7), ({"rank": 8}, 0.8)]


@pytest.mark.slow
def test_what_is_broken_gets_the_lower_rate_that_is_best_and_nothing_else_changes(root):  # noqa: F811
    setup = Setup(**TINY)
    rows = rates.ranked(experiment.tune_rates(setup.changed(seeds=(7,)), [1e-3, 3e-2], [10], ["lora", "finetune"]))
    rates.write_rates(rows.sort_values("target_lr", ascending=False))
    kinds = {"seeds": "list[int]", "alphas": "list[float]"}
    parameters = "\n".join(f"{n}: {kinds.get(n, type(v).__name__)} = {v!r}  # it" for n, v in TINY.items())
    write_notebook(root / "notebooks" / "first.ipynb", parameters=f"{parameters}\ntuned: bool = False  # it")
    profile = write_profile(root / "mine.yaml", [{"notebook": "first", "parameters": {"tuned": True}}])
    tuned = setup.changed(tuned=True)
    before = pd.concat([experiment.run_grid(tuned, "lora", 3), experiment.run_protocol(tuned, "finetune")])
    assert set(before["target_lr"]) == {0.03}
    fell = before["knob"] == 8
    save_records(
        before.assign(val_target_acc=before["val_target_acc"].where(~fell, 0.0)), root / "results/mine/records.csv"
    )
    files.write_json(root / "results" / "mine" / "manifest.json", {"commit": "old", "runs": [], "checksums": {}})

    retune.main(profile)
    after = load_records("mine")
    assert after.groupby("knob")["target_lr"].unique().map(list).to_dict() == {2: [0.03], 4: [0.03], 8: [0.001]}
    assert len(after) == len(before)
    table = pd.read_csv(paths.tuned_rates()[0])
    assert table.loc[table["knob"] == 8, ["target_lr", "n"]].values.tolist() == [[0.001, 2], [0.03, 2]]
    assert rates.chosen("mnist_to_digits", "mlp", "lora", 10, 8) == (0.001, 10)
    assert rates.chosen("mnist_to_digits", "mlp", "lora", 10, 4) == (0.03, 10)

    text = paths.tuned_rates()[0].read_text()
    save_records(
        after.assign(val_target_acc=after["val_target_acc"].where(after["knob"] != 8, 0.0)),
        root / "results/mine/records.csv",
    )
    with pytest.raises(ValueError, match=r"records.csv is not what was written: .* restore it with git"):
        retune.main(profile)
    file = root / "results" / "mine" / "manifest.json"
    files.write_json(file, manifest.sealed(file.parent, files.read_json(file)))
    retune.main(profile)  # a value has its lower rates once
    assert paths.tuned_rates()[0].read_text() == text
    tuning = root / "results" / "tuning"
    files.write_json(tuning / "manifest.json", manifest.sealed(tuning, {}))
    paths.tuned_rates()[0].write_text(text + text.splitlines()[-1])
    with pytest.raises(ValueError, match=r"rates-mlp-mnist_to_digits.csv is not what was written"):
        retune.main(profile)


def test_records_of_two_source_networks_of_one_seed_are_not_joined(monkeypatch):
    own = of("ewc", 1000.0, 0.7, column="strength").assign(target_steps=9, target_lr=1e-3, source_acc_before=0.9)
    monkeypatch.setattr(retune.rates, "chosen", lambda *_: (1e-4, 9))
    monkeypatch.setattr(retune, "again", lambda setup, cell: cell.assign(source_acc_before=0.91))
    setups = {("mnist_to_digits", own["model"].iloc[0]): Setup(**TINY)}
    other = of("finetune", 1000.0, 0.7).assign(source_acc_before=0.9)
    records = pd.concat([own, other], ignore_index=True)
    with pytest.raises(ValueError, match="the source network of seed 0 on mnist_to_digits is another here"):
        retune.renewed(setups, records)
