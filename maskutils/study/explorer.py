"""The explorer in JupyterLab: its front end, and a source network that is masked anew whenever a slider moves."""

import json
from collections.abc import Mapping, Sequence
from time import perf_counter
from typing import Any

import numpy as np
import pandas as pd
from torch import Tensor

from maskutils.core import paths
from maskutils.core.checks import BadSetting, known, needs
from maskutils.core.files import write_atomically
from maskutils.core.progress import watched
from maskutils.masks.mask import Mask
from maskutils.masks.shown import layer_names
from maskutils.results.explorer import SCRIPT, SHEET, explorer_data, records_shown
from maskutils.results.written import note_written
from maskutils.study.anatomy import flips
from maskutils.study.artefacts import source_network, source_pair, source_subnetwork
from maskutils.study.setup import Setup
from maskutils.training.evaluation import accuracy, evaluate, predict
from maskutils.training.transfer import transfer

with needs("study"):
    import anywidget
    import traitlets

MOST_DRAWN = 4096  # weights of a layer that are drawn, at most
EXAMPLES = 12  # source images that fine-tuning forgets


class Masked:
    """The source network of the first seed of `setup`, and what each of `methods` learnt about its weights: a mask at any density.

    Network and scores are cached. Raises `BadSetting` for a pair whose source and target have heads of their own: with nothing trained on
    the target, there is no target accuracy to show.
    """

    def __init__(self, setup: Setup, methods: Sequence[str]) -> None:
        seed = setup.seeds[0]
        self.setup, self.pair, self.network = setup, source_pair(setup, seed), source_network(setup, seed)
        if not self.pair.shared_head:
            raise BadSetting(f"pair {setup.pair!r} has a head for each task; choose one with the same classes in both")
        self.learnt = {method: source_subnetwork(setup, method, seed) for method in methods}
        training: dict[str, Any] = {"steps": setup.target_steps, "lr": setup.target_lr, "batch_size": setup.batch_size}
        training |= {"seed": seed, "precision": setup.compute.precision}
        tuned = transfer(self.network, self.pair, "finetune", **training)
        both = {"source": self.network, "tuned": tuned}
        self.forgotten = flips(both, self.pair.source.test, "tuned", "source", EXAMPLES)

    def mask(self, method: str, density: float) -> Mask:
        """The mask of `method` at `density`, in (0, 1]."""
        return self.learnt[known(method, self.learnt, "method")][1].at_density(density)

    def state(self, method: str, density: float) -> dict[str, Any]:
        """What a mask keeps and does, ready for JSON. `source` and `target` are test accuracies through it, in [0, 1].

        `layers` is the fraction kept in each layer; `kept` has a bit for each weight that is drawn, in hex; `said` is the class that it
        gives to each of the examples in `about`.
        """
        mask = self.mask(method, density)
        through = mask.apply(self.learnt[method][0])
        logits, labels = predict(through, self.pair.source.test)
        source, target = accuracy(logits, labels), evaluate(through, self.pair.target.test)
        read = {"source": round(source, 4), "target": round(target, 4)}
        bits = [np.packbits(_tiles(b).ravel()).tobytes().hex() for b in mask.bits.values()]
        layers = [round(share, 4) for share in mask.layers.values()]
        said = logits.argmax(1)[self.forgotten["places"]].tolist()
        return {"method": method, "density": density, **read, "layers": layers, "kept": bits, "said": said}

    def about(self) -> dict[str, Any]:
        """What all states share: names, the test images, the accuracy of the whole network, and the weights that are drawn.

        `tiles` has for each layer the weights of the source network as whole numbers from -9 to 9, and their `shape` (n, h, w).
        `examples` are test images of the source that it knows and plain fine-tuning on the target forgets: grey values of 8 bits in
        hex, their `shape` (h, w), their classes (`truth`), and what the fine-tuned network says instead (`tuned`).
        """
        bits = next(mask for _, mask in self.learnt.values()).bits
        weights = [_tiles(self.network.get_parameter(name).detach()) for name in bits]
        tests = [domain.test for domain in (self.pair.source, self.pair.target)]
        return {
            "methods": list(self.learnt),
            "layers": list(layer_names(bits).values()),
            "densities": list(self.setup.densities),
            "images": [len(test) for test in tests],
            "network": [round(evaluate(self.network, test), 4) for test in tests],
            "tiles": [
                {"values": np.rint(9 * w / np.abs(w).max()).astype(int).ravel().tolist(), "shape": w.shape}
                for w in weights
            ],
            "examples": self._examples(),
        }

    def _examples(self) -> dict[str, Any]:
        pictures = [image.mean(axis=0) for image in self.forgotten["images"]]
        grey = [np.rint(255 * (p - p.min()) / max(np.ptp(p), 1e-6)).astype(np.uint8) for p in pictures]
        return {
            "classes": list(self.pair.source.classes),
            "images": [image.tobytes().hex() for image in grey],
            "shape": list(self.pair.image_shape[1:]),
            "truth": self.forgotten["truth"].tolist(),
            "tuned": self.forgotten["said"]["tuned"].tolist(),
            "forgotten": self.forgotten["count"],
        }

    def states(self) -> dict[str, Any]:
        """`about`, and the `states` of all methods at all densities of the setup, for the page without a kernel."""
        grid = [(method, density) for method in self.learnt for density in self.setup.densities]
        return self.about() | {"live": False, "states": [self.state(*place) for place in grid]}

    def write(self, profile: str) -> None:
        """Write `states` to results/<profile>/masks.json, where the page of the site finds them."""
        text = json.dumps(self.states(), separators=(",", ":"))
        write_atomically(file := paths.results_dir(profile) / "masks.json", f"{text}\n".encode())
        note_written(file)


def _tiles(weight: Tensor) -> np.ndarray:
    """The first `MOST_DRAWN` entries of a weight as pictures (n, h, w): filters, or the first rows of a linear layer as one picture."""
    values: np.ndarray = weight.cpu().numpy()
    if values.ndim > 2:
        tiles = values.reshape(-1, *values.shape[-2:])
        return tiles[: max(1, MOST_DRAWN // tiles[0].size)]
    rows = values[:, :MOST_DRAWN]
    return rows[None, : max(1, MOST_DRAWN // rows.shape[1])]


class Explorer(anywidget.AnyWidget):
    """The widget. `asked` is what the front end wants to see (method and density), `state` the answer of `Masked.state`."""

    _esm, _css = SCRIPT, SHEET
    tradeoffs = traitlets.Dict().tag(sync=True)
    masks = traitlets.Dict().tag(sync=True)
    asked = traitlets.Dict().tag(sync=True)
    state = traitlets.Dict().tag(sync=True)

    def __init__(self, records: Mapping[str, pd.DataFrame], masked: Masked) -> None:
        tradeoffs = {name: explorer_data(table) for name, table in records.items()}
        super().__init__(tradeoffs=tradeoffs, masks=masked.about() | {"live": True})
        self._masked = masked

    @traitlets.observe("asked")
    def _answer(self, change: dict[str, Any]) -> None:
        asked, start, state = change["new"], perf_counter(), {}
        try:
            state = self._masked.state(asked["method"], asked["density"])
        finally:  # an answer that failed ends the wait too, or no slider would move again
            self.state = state | {"ms": round(1000 * (perf_counter() - start)), "number": asked["number"]}


def show(profile: str, masked: Masked) -> Explorer | None:
    """The explorer of `records_shown(profile)`, to be the last line of a cell; None where nobody watches: no dead widget is saved."""
    return Explorer(records_shown(profile), masked) if watched() else None
