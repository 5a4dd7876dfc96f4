"""What notebooks show of masks and of networks: a mask as it fills in, accuracy through masks, images that flip."""

import itertools
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from torch import nn

from maskutils.core.approaches import described
from maskutils.data.pair import Examples
from maskutils.masks.mask import Mask
from maskutils.models.heads import for_task
from maskutils.study import artefacts
from maskutils.study.setup import Setup
from maskutils.training.evaluation import evaluate, predict
from maskutils.training.learn import learn_mask, learn_subnetwork


def recorded_filters(records: pd.DataFrame, pair: str, density: float) -> tuple[np.ndarray, np.ndarray]:
    """`Mask.first_filters` of the network and the Gumbel-sigmoid mask that `records` of `pair` tell of, at their first seed.

    Both are trained once more where no cache has them. The settings are those of the packaged pairs: of images and compute the records
    hold only a description.
    """
    method = "gumbel_sigmoid"
    own = records[(records["pair"] == pair) & (records["method"] == method)].iloc[0]
    steps: dict[str, Any] = {name: int(own[name]) for name in ("source_steps", "mask_steps", "batch_size")}
    setup = Setup(pair=pair, model=own["model"], source_lr=float(own["source_lr"]), **steps)
    seed = int(own["seed"])
    return artefacts.source_mask(setup, method, seed, density).first_filters(artefacts.source_network(setup, seed))


def filling(setup: Setup, method: str, seed: int, **options: Any) -> dict[str, Mask]:
    """The mask of `method` at three moments of its learning, and in the end: name -> mask. It is learnt once more; nothing is cached."""
    seen: list[Mask] = []
    data, settings = artefacts.source_pair(setup, seed).source.train, artefacts.mask_settings(setup, seed) | options
    learn_subnetwork(artefacts.source_network(setup, seed), data, method, watch=seen.append, **settings)
    return {f"{(i + 1) * 100 // len(seen)} % of training": seen[i] for i in sorted({0, len(seen) // 3, len(seen) - 1})}


def through_masks(setup: Setup, methods: Sequence[str], densities: Sequence[float], seed: int) -> pd.DataFrame:
    """Source test accuracy through the mask of each of `methods` (columns) at each of `densities` (rows), before any transfer.

    What is made of another method's mask, as "shuffled", is made of the first of `methods`.
    """
    test, table = artefacts.source_pair(setup, seed).source.test, {}
    for method in methods:
        of = {"of": methods[0]} if described(method).method else {}
        read = {d: artefacts.source_subnetwork(setup, method, seed, d, **of) for d in densities}
        table[method] = {d: evaluate(mask.apply(network), test) for d, (network, mask) in read.items()}
    return pd.DataFrame(table).rename_axis("density")


def source_and_target(setup: Setup, method: str, density: float) -> pd.DataFrame:
    """How the masks of source and target overlap on one source network: a row for each seed."""
    found = {}
    for seed in setup.seeds:
        source = artefacts.source_mask(setup, method, seed, density)
        target = artefacts.target_mask(setup, method, seed, density)
        share = (source & target).density / target.density
        found[f"seed {seed}"] = {"IoU": source.iou(target), "share of the target's weights in the source mask": share}
    return pd.DataFrame(found).T


def learnt_again(setup: Setup, masks: Mapping[str, Mask], seed: int, density: float) -> pd.Series:
    """IoU of each learnt one of `masks` (by method, of `seed`) with a mask that is learnt again, with other noise and order of images."""
    network, data = artefacts.source_network(setup, seed), artefacts.source_pair(setup, seed).source.train
    learnt = [name for name in masks if described(name).kind == "mask"]
    settings = artefacts.mask_settings(setup, seed + 1000) | {"density": density, "per_layer": setup.per_layer}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "the mask does not carry")  # what it keeps is compared, whatever it carries
        found = {name: masks[name].iou(learn_mask(network, data, name, **settings)) for name in learnt}
    return pd.Series(found, name="IoU with itself")


def nearest(masks: Mapping[str, Mask], seed: int) -> dict[str, Any]:
    """The two of `masks` that are most alike: `names`, `IoU`, and `by layers`, the IoU if one kept its shares of layers alone."""
    pairs = [(masks[a].iou(masks[b]), a, b) for a, b in itertools.combinations(masks, 2)]
    overlap, a, b = max(pairs)
    return {"names": f"{a} and {b}", "IoU": overlap, "by layers": masks[a].iou(masks[b].shuffled(seed))}


def flips(networks: Mapping[str, nn.Module], data: Examples, wrong: str, right: str, n: int = 8) -> dict[str, Any]:
    """The first `n` images of `data` that the network `wrong` gets wrong and `right` gets right, one of each class in turn.

    A network that has a head for each task answers for the source. Returns `images` (arrays (C, H, W)), their `places` in `data`, `truth`
    and, by name of network, `said` (class numbers), and `count` of all such images.
    """
    said = {name: predict(for_task(networks[name], "source"), data) for name in (wrong, right)}
    truth = said[wrong][1].numpy()
    guess = {name: logits.argmax(1).numpy() for name, (logits, _) in said.items()}
    found = np.flatnonzero((guess[wrong] != truth) & (guess[right] == truth))
    rank = pd.Series(truth[found]).groupby(truth[found]).cumcount().to_numpy()  # first of its class, second, ...
    chosen = found[np.lexsort((truth[found], rank))][:n]
    return {
        "images": [data[int(i)][0].cpu().numpy() for i in chosen],
        "places": chosen,
        "truth": truth[chosen],
        "said": {name: answers[chosen] for name, answers in guess.items()},
        "count": len(found),
    }
