"""What the prose of notebooks and README claims, computed again from the committed records. A sentence and its function stand together."""

from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from maskutils.results.analysis import for_storage, source_read, storage_front, stored_bits, with_family
from maskutils.results.records import at_density, load_records, of_masks, on_grid

ROOT = Path(__file__).parent.parent
CLAIMS: dict[
    str, tuple[str, Callable[[pd.DataFrame], bool]]
] = {}  # sentence -> file, and what must be true of the records
PROFILES = ("default", "study")


def claim(file: str, sentence: str):
    """File the function below under the `sentence` that it computes."""

    def enter(holds: Callable[[pd.DataFrame], bool]) -> Callable[[pd.DataFrame], bool]:
        CLAIMS[sentence] = (file, holds)
        return holds

    return enter


@cache
def read(profile: str) -> pd.DataFrame:
    return load_records(profile)


def mean(rows: pd.DataFrame, approach: str, value: str) -> float:
    return float(rows.loc[rows["approach"] == approach, value].mean())


@claim("notebooks/01_source_and_forgetting.ipynb", "`source_only` retains everything and adapts nothing.")
def untrained_retains_all(records):
    rows = records[records["approach"] == "source_only"]
    return bool((rows["source_acc_full"] == rows["source_acc_before"]).all())


@claim("notebooks/01_source_and_forgetting.ipynb", "with the task known it loses nothing, and it stores the most.")
def two_networks_lose_nothing_and_store_most(records):
    rows = for_storage(records)
    two = rows[rows["approach"] == "two_networks"]
    stored = rows.groupby("approach")["stored_bits"].mean()
    return bool((two["source"] == two["source_acc_before"]).all()) and stored.idxmax() == "two_networks"


@claim("notebooks/01_source_and_forgetting.ipynb", "forgets nothing when the target has its own head")
def a_probe_forgets_only_with_one_head(records):
    rows = records[records["approach"] == "linear_probe"]
    lost = (rows["source_acc_before"] - rows["source_acc_full"]).groupby(rows["pair"]).max()
    return lost["mnist_low_to_high"] == 0 and lost.drop("mnist_low_to_high").min() > 0.01


@claim("notebooks/05_piggyback.ipynb", "Its ranking is better than chance and worse than that of the other masks")
def piggyback_ranks_between_chance_and_the_others(records):
    at = at_density(records, 0.1)
    names = ("random", "piggyback", "edge_popup", "hard_concrete", "gumbel_sigmoid")
    chance, its, *others = (mean(at, name, "source_acc_masked") for name in names)
    return chance < its < min(others)


@claim("notebooks/06_controls.ipynb", "it is the one to beat")
def magnitude_is_the_best_of_the_blind_controls(records):
    at = at_density(records, 0.1)
    kept = {name: mean(at, name, "source_acc_masked") for name in ("magnitude", "shuffled", "random")}
    return max(kept, key=kept.__getitem__) == "magnitude"


def nearest(records: pd.DataFrame, reading: str) -> str:
    """The family with the setting that lies nearest to the ideal point on `mnist_to_inverted`, of those in the talk figure."""
    rows = with_family(on_grid(records[records["pair"] == "mnist_to_inverted"]))
    free = rows[rows["approach"] == "finetune"]
    rows = rows.assign(x=source_read(rows, reading))[
        rows["family"].isin(["gumbel_sigmoid", "random", "wise_ft", "ewc"])
    ]
    means = rows.groupby(["family", "density", "strength", "alpha"], dropna=False)[["x", "target_acc"]].mean()
    lost = free["source_acc_before"].mean() - means["x"], free["target_acc"].mean() - means["target_acc"]
    return str(np.hypot(*(side.clip(lower=0) for side in lost)).idxmin()[0])


@claim("notebooks/08_tradeoff.ipynb", "With the task known (solid) a learnt mask comes closest.")
def a_learnt_mask_is_nearest_when_the_task_is_known(records):
    return nearest(records, "known") == "gumbel_sigmoid"


@claim("notebooks/08_tradeoff.ipynb", "With the task unknown (dashed) it does not: EWC, which needs no mask, does.")
def ewc_is_nearest_when_the_task_is_unknown(records):
    return nearest(records, "full") == "ewc"


@claim("notebooks/08_tradeoff.ipynb", "Which weights are held matters far less there.")
def the_choice_of_weights_matters_less_in_the_full_network(records):
    rows = on_grid(records).query("alpha == 1")
    readings = ("source_acc_masked", "source_acc_full")
    masked, full = (mean(rows, "gumbel_sigmoid", v) - mean(rows, "random", v) for v in readings)
    return masked > 4 * abs(full)


@claim("notebooks/11_which_mask.ipynb", "at most one bit for each weight, less than half of that at density 0.1")
def a_mask_stores_less_than_half_a_bit_a_weight(records):
    rows = at_density(records, 0.1)
    weights = records.loc[records["approach"] == "two_networks", "stored_bits"].min() / 32
    masks = stored_bits(rows)[of_masks(rows) & (rows["alpha"] == 1)]
    return bool((masks < weights / 2).all())


@claim("notebooks/11_which_mask.ipynb", "which is nothing where biases, norm layers and head are held too")
def nothing_drifts_under_protection(records):
    return bool((records.loc[records["protocol"] == "protect", "drift"].dropna() == 0).all())


@claim("README.md", "EWC, which\nneeds no mask, comes closer than any mask.")
def ewc_is_closer_than_masks(records):
    return ewc_is_nearest_when_the_task_is_unknown(records)


def text(file: str) -> str:
    return (ROOT / file).read_text(encoding="utf-8")


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("sentence", CLAIMS)
def test_a_sentence_is_true_of_the_records(sentence, profile):
    assert CLAIMS[sentence][1](read(profile)), f"{profile}: {sentence}"


@pytest.mark.parametrize("sentence", CLAIMS)
def test_the_sentence_still_stands(sentence):
    assert sentence in text(CLAIMS[sentence][0])


def test_gumbel_reaches_for_few_bits_what_oft_takes_many_for():
    """The alternative text of the storage figure in docs/results.md."""
    found = storage_front(read("study")).assign(
        kbit=lambda t: (t["stored_bits"] / 1e3).round(), both=lambda t: t["both"].round(3)
    )
    both = {(row.family, row.kbit): row.both for row in found.itertuples()}
    assert both["gumbel_sigmoid", 51] == both["oft", 233]
    assert "gumbel_sigmoid reaches at 51 kbit what oft reaches at 233" in text("docs/results.md")


def test_a_lower_rate_serves_adapters_better_with_the_task_unknown():
    found = pd.read_csv(ROOT / "results" / "tuning" / "rates-cnn-mnist_to_inverted.csv").groupby("approach")[
        "area_unknown"
    ]
    told = {name: (round(100 * found.first()[name]), round(100 * found.max()[name])) for name in ("lora", "oft")}
    assert told == {"lora": (9, 54), "oft": (14, 40)}  # of the rate that is best with the task known, and of the best
    limits = " ".join(text("docs/limits.md").split())
    assert "takes LoRA's hypervolume from 9 to 54 points, and OFT's from 14 to 40." in limits


def test_no_adapter_on_photographs_stores_as_little_as_a_sparse_mask():
    rows = on_grid(read("photos")).query("alpha == 1")
    rows = rows.assign(both=source_read(rows, "known") + rows["target_acc"])
    mask, lora, ewc = (
        rows.query("method == 'gumbel_sigmoid' and density == 0.3"),
        *(rows[rows["approach"] == a] for a in ("lora", "ewc")),
    )
    rank_4 = lora[lora["knob"] == 4]
    assert lora["stored_bits"].min() == rank_4["stored_bits"].max()
    assert 1.7 < rank_4["stored_bits"].mean() / mask["stored_bits"].mean() < 2
    assert rank_4["both"].mean() < ewc.groupby("strength")["both"].mean().max()


def test_on_photographs_learnt_masks_carry_the_source_where_rankings_do_not():
    told = " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())
    assert (
        "At density 0.3 learnt masks lose at most a point of the source; the Fisher and magnitude rankings lose about sixty."
        in told
    )
    lost = 100 * at_density(read("photos"), 0.3).groupby("approach")["masking_cost"].mean()
    assert lost[["gumbel_sigmoid", "edge_popup"]].max() < 1.05
    assert lost[["fisher", "magnitude"]].between(55, 67).all()
