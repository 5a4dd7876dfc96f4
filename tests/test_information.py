"""The Fisher information by batches is that of one image at a time, whatever layers a network is made of."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import TensorDataset

from maskutils.masks import information
from maskutils.masks.information import fisher_information
from maskutils.models import sizes


class Tokens(nn.Module):
    """Linear layers and layer norm over tokens, beside a stream that goes past them."""

    def __init__(self):
        super().__init__()
        self.embed, self.norm, self.mix, self.head = nn.Linear(8, 6), nn.LayerNorm(6), nn.Linear(6, 6), nn.Linear(6, 3)

    def forward(self, x):
        tokens = self.embed(x.flatten(1, 2))
        return self.head((tokens + self.mix(self.norm(tokens)).relu()).mean(1))


def convolutions():
    return nn.Sequential(
        nn.Conv2d(2, 6, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(6), nn.ReLU6(inplace=True),
        nn.Conv2d(6, 6, 3, padding=2, dilation=2, groups=6), nn.GroupNorm(3, 6), nn.ReLU(inplace=True),
        nn.Conv2d(6, 4, 1, groups=2), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3),
    )  # fmt: skip


class Activated(nn.BatchNorm2d):
    """A subclass that computes something else, as those of timm do."""

    def forward(self, x):
        return super().forward(x).relu()


def data(n=12):
    g = torch.Generator().manual_seed(0)
    return TensorDataset(torch.randn(n, 2, 8, 8, generator=g), torch.zeros(n).long())


@pytest.fixture(autouse=True)
def _large(monkeypatch):
    monkeypatch.setattr(sizes, "LARGE", 1)


@pytest.mark.parametrize("network", [convolutions, Tokens])
def test_by_batches_it_is_that_of_one_image_at_a_time(network, monkeypatch):
    torch.manual_seed(0)
    model = network()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):  # statistics and scales of a network that was trained
            module.running_mean.normal_(), module.running_var.uniform_(0.5, 2), module.weight.data.normal_()
    by_image = information._by_image
    expected = by_image(model.eval(), data().tensors[0])
    monkeypatch.setattr(
        information, "_by_image", lambda m, x: by_image(m, x) if len(x) == information.TRIED_IMAGES else None
    )
    found = fisher_information(model, data(), len(data()))
    assert found.keys() == expected.keys()
    for name, t in expected.items():
        order = torch.equal(found[name] > 0, t > 0)
        assert order, name
        torch.testing.assert_close(found[name], t, rtol=1e-4, atol=1e-7)


class Folded(nn.Module):
    """Rows of an image go through a layer as images do, and come together again."""

    def __init__(self):
        super().__init__()
        self.mix, self.head = nn.Linear(16, 6), nn.Linear(6, 3)

    def forward(self, x):
        rows = x.transpose(1, 2).reshape(-1, 16)
        return self.head(self.mix(rows).relu().view(len(x), 8, 6).mean(1))


class RowsFirst(Folded):
    """As networks of sequences that have their images second."""

    def forward(self, x):
        return self.head(self.mix(x.permute(2, 0, 1, 3).flatten(2)).relu().mean(0))


class UsedTwice(nn.Module):
    """A weight that is used once more, past its layer."""

    def __init__(self):
        super().__init__()
        self.mix, self.head = nn.Linear(128, 128), nn.Linear(128, 3)

    def forward(self, x):
        return self.head(F.linear(self.mix(x.flatten(1)).tanh(), self.mix.weight.T))


class OfNoImage(nn.Module):
    """A layer that sees the same whatever the image, and one that sees it without gradients."""

    def __init__(self):
        super().__init__()
        self.fixed, self.still, self.head = nn.Linear(2, 6), nn.Linear(128, 6), nn.Linear(6, 3)

    def forward(self, x):
        with torch.no_grad():
            still = self.still(x.flatten(1))
        return self.head(self.fixed(torch.ones(1, 2)) + still.relu())


@pytest.mark.parametrize(
    "network",
    [
        nn.Sequential(nn.Flatten(), *[nn.Linear(128, 128)] * 2, nn.Linear(128, 3)),  # one layer, called twice
        nn.Sequential(nn.Conv2d(2, 2, 3, padding_mode="reflect", padding=1), nn.Flatten(), nn.Linear(128, 3)),
        nn.Sequential(nn.Flatten(1, 2), nn.TransformerEncoderLayer(8, 2, 8, batch_first=True), nn.Flatten(), nn.Linear(128, 3)),
        nn.Sequential(Activated(2), nn.Flatten(), nn.Linear(128, 3)),
        nn.Sequential(nn.BatchNorm2d(2, track_running_stats=False), nn.Flatten(), nn.Linear(128, 3)),
        Folded(), RowsFirst(), UsedTwice(), OfNoImage(),
    ],
    ids=["called twice", "reflected", "attention", "a subclass", "batch statistics", "folded", "rows first", "used past", "constant"],
)  # fmt: skip
def test_other_networks_are_taken_image_by_image(network):
    expected = information._by_image(network.eval(), data(4).tensors[0])
    for name, t in fisher_information(network, data(4), 4).items():
        torch.testing.assert_close(t, expected[name])


def test_the_network_is_left_as_it_was():
    model = convolutions().requires_grad_(False)
    fisher_information(model, data(), 4)
    assert model.training
    assert not any(m._forward_hooks for m in model.modules())
    assert not any(p.requires_grad for p in model.parameters())


class Attention(nn.Module):
    """The bias of its keys has a gradient of 0 in theory, and noise of rounding in truth; its head is called by keyword, if asked."""

    def __init__(self, keyword=False):
        super().__init__()
        self.keyword = keyword
        self.query, self.key, self.value, self.head = nn.Linear(8, 6), nn.Linear(8, 6), nn.Linear(8, 6), nn.Linear(6, 3)

    def forward(self, x):
        tokens = x.flatten(1, 2)
        mixed = F.scaled_dot_product_attention(self.query(tokens), self.key(tokens), self.value(tokens)).mean(1)
        return self.head(input=mixed) if self.keyword else self.head(mixed)


def test_noise_about_zero_is_no_disagreement():
    torch.manual_seed(0)
    assert information._agree(Attention(), data().tensors[0][:2])


def test_layers_that_are_called_by_keyword_go_image_by_image():
    torch.manual_seed(0)
    model = Attention(keyword=True)
    assert information._by_batch(model, data().tensors[0]) is None
    assert fisher_information(model, data())["head.weight"].sum() > 0
