"""The benchmark runs and says what it compares; no test looks at a time."""

import pytest

from benchmarks import bench
from maskutils.masks.layers import LAYERS


@pytest.mark.slow
def test_every_comparison_is_made(monkeypatch):
    monkeypatch.setattr(bench, "REPEATS", 1)
    monkeypatch.setattr(bench, "STEPS", 1)
    table = bench.measure().set_index("what")
    assert {f"a step of {name}" for name in LAYERS} < set(table.index)
    assert table["ratio"].astype(float).gt(0).all()
    assert float(table.loc["a saved mask", "ratio"]) < 0.04, "a bit is a thirty-second of a float"
