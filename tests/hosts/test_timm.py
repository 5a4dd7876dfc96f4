"""Networks of timm: their heads are found without being told, and everything else is masked, learnt and protected."""

import copy

import pytest
import torch
from torch.nn import functional as F
from torch.utils.data import TensorDataset

from maskutils import evaluate, learn_mask, protect
from maskutils.models.heads import heads
from maskutils.models.parts import maskable

timm = pytest.importorskip("timm")

SMALL_VIT = {"img_size": 32, "patch_size": 8, "embed_dim": 16, "depth": 2, "num_heads": 2}
NETS = {
    "resnet10t": ({}, ["fc"]),
    "vit_tiny_patch16_224": (SMALL_VIT, ["head"]),
    "deit_tiny_distilled_patch16_224": (SMALL_VIT, ["head", "head_dist"]),
    "convnext_atto": ({"depths": (1, 1, 1, 1), "dims": (8, 8, 8, 8)}, ["head.fc"]),
    "efficientnet_lite0": ({}, ["classifier"]),
    "mobilenetv3_small_050": ({}, ["classifier"]),
}


@pytest.mark.filterwarnings("ignore:norm layers train")
@pytest.mark.parametrize("name", NETS)
def test_heads_are_found_and_masks_hold(name):
    torch.manual_seed(0)
    options, expected = NETS[name]
    model = timm.create_model(name, pretrained=False, num_classes=4, **options)
    data = TensorDataset(torch.randn(4, 3, 32, 32), torch.arange(4))
    assert heads(model) == expected
    assert not [n for n in maskable(model) if n.startswith(tuple(f"{h}." for h in expected))]
    mask = learn_mask(model, data, "gumbel_sigmoid", density=0.2, steps=1, batch_size=4)
    before, optimizer = copy.deepcopy(model.state_dict()), torch.optim.AdamW(model.parameters(), 0.01, weight_decay=0.1)
    with protect(model.train(), mask, train=[f"{h}." for h in expected]):
        F.cross_entropy(model(data.tensors[0]), data.tensors[1]).backward()
        optimizer.step()
    after = model.state_dict()
    assert all(torch.equal(after[n][b], before[n][b]) for n, b in mask.bits.items())
    assert any((after[n] != before[n])[~b].any() for n, b in mask.bits.items())
    assert not torch.equal(after[f"{expected[0]}.weight"], before[f"{expected[0]}.weight"])
    evaluate(mask.apply(model), data)  # it runs
