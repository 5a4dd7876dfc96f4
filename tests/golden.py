"""Golden records: the numbers of every mask layer, ranking and protocol on a tiny network, as they are and as they were.

`python tests/golden.py` writes tests/golden.json anew. It refuses where numbers changed and the version of their stage did not:
results that lie in caches would go on standing beside new ones.
"""

import json
import math
import os
import re
import sys
import tempfile
from pathlib import Path

if __name__ == "__main__":  # as in conftest.py: torch reads it when it is imported
    os.environ["OMP_NUM_THREADS"] = "1"

import torch
from torch import nn

from maskutils.core.approaches import described
from maskutils.core.seeds import generator
from maskutils.masks import information, rankings
from maskutils.masks.layers import LAYERS
from maskutils.masks.rankings import RANKINGS
from maskutils.models import sizes
from maskutils.models.networks import MODELS
from maskutils.study import experiment, provenance
from maskutils.study.setup import Setup
from maskutils.training.learn import learn_mask
from maskutils.training.transfer import PROTOCOLS

FILE = Path(__file__).with_suffix(".json")
STEPS = {"source_steps": 60, "mask_steps": 30, "target_steps": 20, "source_lr": 5e-3}
TINY = Setup(model="golden", pair="mnist_to_rotated", densities=(0.3,), alphas=(0.5, 1.0), **STEPS)
OTHER = Setup(
    model="golden", pair="mnist_low_to_high", densities=(0.3,), **STEPS
)  # other classes: a head for each task
# Which other versions are part of the name of what a stage caches; "mask" only where a transfer has the mask of a method.
UPSTREAM = {"source": (), "fisher": ("source",), "mask": ("source",)}
UPSTREAM |= {"transfer": ("source", "mask"), "score": ("source", "mask", "transfer")}
LARGE = ("gumbel_sigmoid", "edge_popup")  # whose masks are learnt in the way of large networks, too
# What numbers may differ by, relative or absolute. One image of 625 is 0.0016. On another processor, rounding moves scores by some images.
HERE = dict.fromkeys(provenance.STAGES, 2e-3)
ELSEWHERE = dict.fromkeys(provenance.STAGES, 2e-2) | {"score": 0.1}


def network(n_classes, in_channels, image_size):
    """A network with all that protocols tell apart: a convolution, a norm layer, linear layers, biases."""
    side = -(-image_size // 4)
    return nn.Sequential(
        nn.Conv2d(in_channels, 8, 5, stride=4, padding=2), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(),
        nn.Linear(8 * side**2, 32), nn.ReLU(), nn.Linear(32, n_classes),
    )  # fmt: skip


def machine():
    """What decides how numbers are rounded."""
    at = {"torch": torch.__version__.partition("+")[0], "cpu": torch.backends.cpu.get_cpu_capability()}
    return at | {"processor": provenance.machine()["processor"]}


def measure(methods=(*LAYERS, *RANKINGS, "shuffled"), protocols=tuple(PROTOCOLS)):
    """The numbers of every stage, by what they are of. Caches go where $MASKUTILS_ROOT says."""
    MODELS["golden"] = network
    some, large = rankings.some, sizes.LARGE
    for module in (rankings, information):  # a Fisher information of 500 images takes seconds
        module.some = lambda data, n, seed: some(data, min(n, 16), seed)
    try:
        found = {"source": {"network": _weights(experiment.source_network(TINY, 0).state_dict())}}
        found["fisher"] = {"ewc": _weights(experiment.source_importance(TINY, "ewc", None, 0))}
        found["mask"] = {method: _mask(method) for method in methods}
        found |= _transfers(methods, protocols)
        sizes.LARGE = 1
        return _of_large(found, [method for method in LARGE if method in methods])
    finally:
        rankings.some = information.some = some
        sizes.LARGE = large
        del MODELS["golden"]


def _of_large(found, methods):
    """`found` with what is computed in another way for large networks, here of the same small one, and not cached."""
    model, data = experiment.source_network(TINY, 0), experiment.source_pair(TINY, 0).source.train
    found["fisher"]["by batch"] = _weights(information.fisher_information(model, data))
    for method in methods:
        mask = learn_mask(model, data, method, density=0.3, steps=TINY.mask_steps)
        found["mask"][f"{method}, large"] = _kept(mask) | {"loss": mask.history[-1]["loss"]}
    return found


def _weights(tensors):
    """The length of all weights as one vector, and its components along three fixed directions."""
    vector = torch.cat([t.flatten() for t in tensors.values() if t.is_floating_point()])
    length = vector.norm().item()
    return {"length": length} | {f"along {i}": (vector @ _signs(i, len(vector))).item() / length for i in range(3)}


def _kept(mask):
    """Which weights are kept, as the mean of three fixed signs over them: eight other weights of 4,000 are told apart."""
    kept = torch.cat([bits.flatten() for bits in mask.bits.values()])
    return {f"bits {i}": _signs(i, len(kept))[kept].mean().item() for i in range(3)}


def _mask(method):
    found = _kept(experiment.source_mask(TINY, method, 0, 0.3))
    if method in LAYERS:
        native = experiment.source_mask(TINY, method, 0)
        found |= {"native density": native.density, "loss": native.history[-1]["loss"]}
    return found


def _signs(i, n):
    return torch.randint(0, 2, (n,), generator=generator(i, "golden signs")).float() * 2 - 1


def _transfers(methods, protocols):
    tables = {protocol: _table(protocol) for protocol in protocols}
    tables |= {f"protect {method}": experiment.run_method(TINY, method) for method in methods if method != "shuffled"}
    tables["finetune (other classes)"] = experiment.run_protocol(OTHER, "finetune")
    found = {"transfer": {}, "score": {}}
    for name, table in tables.items():
        for row in table.to_dict("records"):
            if row["history"]:
                found["transfer"][name] = {"loss": row["history"][-1]["loss"]}
            readings = {k: v for k, v in row.items() if "_acc" in k or k.endswith(("_ece", "_bits"))}
            at = "rewound" if row["rewound"] else f"alpha {row['alpha']:g}"
            found["score"][f"{name}, {at}"] = {k: v for k, v in readings.items() if v == v and v is not None}
    return found


def _table(protocol):
    about = described(protocol)
    if about.grid:
        return experiment.run_grid(TINY, protocol, 1)
    if "mask" in about.needs:
        return experiment.run_method(TINY, about.method or "magnitude", protocol)
    return experiment.run_protocol(TINY, protocol)


def differences(golden, found):
    """Stage -> what of `found` differs, in words; stages that agree are left out."""
    close = HERE if golden["machine"] == machine() else ELSEWHERE
    said = {}
    for stage, numbers in found.items():
        told = []
        for name, now in numbers.items():
            was = golden[stage].get(name, {})
            for key in now.keys() | was.keys():
                old, new = was.get(key, math.nan), now.get(key, math.nan)
                if not math.isclose(old, new, rel_tol=close[stage], abs_tol=close[stage]):
                    told.append(f"{name}: {key} was {old:g}, is {new:g}")
        if told:
            said[stage] = sorted(told)
    return said


def faults(golden, found, stages):
    """A sentence for each stage whose numbers changed, although no version did that is part of the names of its cached files."""
    lines = []
    for stage, told in differences(golden, found).items():
        raised = {s for s in stages if stages[s] != golden["stages"].get(s)}
        changed = [t for t in told if "was nan" not in t and not raised & _named_by(stage, t)]
        if changed:
            more = f" and {len(changed) - 3} more" if len(changed) > 3 else ""
            lines.append(
                f"the numbers of stage {stage!r} changed ({'; '.join(changed[:3])}{more}), its version did not: if that is meant, raise "
                f"STAGES[{stage!r}] in maskutils/study/provenance.py, so that nothing old is read from caches; then: python tests/golden.py"
            )
    return lines


def _named_by(stage, told):
    upstream = UPSTREAM[stage]
    if stage in ("transfer", "score"):
        about = described(re.match(r"\w+", told)[0])
        upstream = upstream if "mask" in about.needs or about.method else [s for s in upstream if s != "mask"]
    return {stage, *upstream}


def _rounded(value):
    return {k: _rounded(v) for k, v in value.items()} if isinstance(value, dict) else float(f"{value:.5g}")


def renew():
    """Write golden.json; returns the faults that forbid it."""
    with tempfile.TemporaryDirectory() as folder:
        os.environ["MASKUTILS_ROOT"] = folder
        found = measure()
    golden = json.loads(FILE.read_text()) if FILE.exists() else None
    if golden and (lines := faults(golden, found, provenance.STAGES)):
        return lines
    content = {"machine": machine(), "stages": provenance.STAGES} | _rounded(found)
    stages = [
        f'"{k}": {{\n' + ",\n".join(f'"{name}": {json.dumps(row)}' for name, row in v.items()) + "\n}"
        for k, v in content.items()
        if k in found
    ]
    head = [f'"{k}": {json.dumps(v)}' for k, v in content.items() if k not in found]
    FILE.write_text("{\n" + ",\n".join(head + stages) + "\n}\n")
    return []


if __name__ == "__main__":
    sys.exit("\n".join(renew()) or 0)
