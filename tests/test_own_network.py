"""Somebody else's network in somebody else's training loop: families of torchvision, tied weights, AMP, compile, EMA."""

import copy
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import TensorDataset
from torchvision.models.convnext import CNBlockConfig, ConvNeXt
from torchvision.models.swin_transformer import SwinTransformer
from torchvision.models.vision_transformer import VisionTransformer

from maskutils import Mask, build_model, fit, learn_mask, load_pair, protect, score, transfer
from maskutils.masks.layers import attach, detach
from maskutils.models.heads import head_name
from maskutils.models.parts import maskable, summary
from maskutils.training.transfer import interpolate

pytestmark = pytest.mark.filterwarnings("ignore:norm layers train")  # somebody's loop holds them without looking

FAMILIES = {
    "resnet": lambda: build_model("resnet18", 4, 3, 32),
    "mobilenet": lambda: build_model("mobilenet_v3_small", 4, 3, 32),
    "efficientnet": lambda: build_model("efficientnet_b0", 4, 3, 32),
    "squeezenet": lambda: build_model("squeezenet1_1", 4, 3, 32),
    "vit": lambda: VisionTransformer(32, 8, num_layers=2, num_heads=2, hidden_dim=16, mlp_dim=32, num_classes=4),
    "swin": lambda: SwinTransformer([4, 4], 8, [2, 2], [2, 2], [4, 4], num_classes=4),
    "convnext": lambda: ConvNeXt([CNBlockConfig(8, 16, 1), CNBlockConfig(16, None, 1)], num_classes=4),
}


def data(n: int = 8, side: int = 32, classes: int = 4) -> TensorDataset:
    generator = torch.Generator().manual_seed(0)
    return TensorDataset(torch.randn(n, 3, side, side, generator=generator), torch.arange(n) % classes)


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_is_masked_protected_and_given_back(name):
    model, images = FAMILIES[name](), data(4)
    names = maskable(model)
    mask = learn_mask(model, images, "magnitude", density=0.2)
    assert mask.bits.keys() == set(names)
    assert mask.density == pytest.approx(0.2, abs=0.01)
    assert not [n for n in names if n.startswith(head_name(model) + ".")]
    before = copy.deepcopy(model.state_dict())
    optimiser = torch.optim.AdamW(model.parameters(), 1e-3, weight_decay=0.1)
    model.train()
    with protect(model, mask, optimizer=optimiser):
        F.cross_entropy(model(images.tensors[0]), images.tensors[1]).backward()
        optimiser.step()
    after = model.state_dict()
    assert all(torch.equal(after[n][b], before[n][b]) for n, b in mask.bits.items())
    assert all(torch.equal(after[n], before[n]) for n in before.keys() - mask.bits.keys())
    assert any((after[n] != before[n])[~b].any() for n, b in mask.bits.items())


@pytest.mark.parametrize("name", ["mobilenet", "vit", "swin"])
def test_scores_are_learnt_on_every_family(name):
    model, images = FAMILIES[name](), data(4)
    with torch.no_grad():  # a head that begins at 0 gives no gradient
        [p.add_(0.1 * torch.randn_like(p)) for p in model.parameters()]
    before = copy.deepcopy(model.state_dict())
    mask = learn_mask(model, images, "gumbel_sigmoid", steps=1, batch_size=4)
    assert all(scores.ne(2.0).any() for scores in mask.scores.values()), "a score without a gradient"
    assert all(torch.equal(t, before[n]) for n, t in model.state_dict().items())


def test_the_projections_of_attention_are_maskable_and_what_is_not_is_listed():
    table = summary(FAMILIES["vit"]()).set_index("parameter")["role"]
    assert table.filter(like="in_proj_weight").eq("masked").all()
    assert table.filter(like="out_proj.weight").eq("masked").all()
    assert table.filter(like="ln_1").str.startswith("not masked").all()
    assert table.notna().all()


class Tied(nn.Module):
    """Two layers with one weight."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.head = nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, 3)
        self.second.weight = self.first.weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.second(self.first(x.flatten(1)).relu()).relu())


def test_a_tied_weight_is_masked_wherever_it_is_used_and_stays_tied():
    model = Tied()
    assert maskable(model) == ["first.weight"]
    attach(model, "piggyback", init=-1.0)  # nothing is kept
    assert not model.first.weight.any()
    assert not model.second.weight.any()
    detach(model)
    assert model.second.weight is model.first.weight
    assert dict(model.named_parameters()).keys() == dict(Tied().named_parameters()).keys()


def test_tied_weights_are_carried_and_interpolated_once():
    model, x = Tied(), torch.randn(5, 6)
    mask = learn_mask(model, TensorDataset(x, torch.arange(5) % 3), "magnitude", density=0.5)
    carrying = mask.with_state(model)
    assert "second.weight" not in carrying.state
    again = carrying.apply(model)
    assert again.second.weight is again.first.weight
    assert torch.equal(again(x), mask.apply(model)(x))
    moved = copy.deepcopy(model)
    with torch.no_grad():
        moved.first.weight += 1
    half = interpolate(model, moved, 0.5)
    torch.testing.assert_close(half.first.weight, model.first.weight + 0.5)
    assert half.second.weight is half.first.weight


def small() -> nn.Module:
    layers = [
        nn.Conv2d(3, 8, 3, stride=2),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3, stride=2),
        nn.ReLU(),
        nn.Flatten(),
    ]
    return nn.Sequential(*layers, nn.Linear(72, 4))


@pytest.mark.parametrize("way", ["plain", "accumulation", "bf16", "compiled", "schedule", "channels_last", "clipping"])
def test_protection_holds_in_every_way_to_train(way):
    torch.manual_seed(0)
    model, (x, y) = small(), data(16, 16).tensors
    mask = learn_mask(model, data(16, 16), "magnitude", density=0.3)
    if way == "channels_last":
        model = model.to(memory_format=torch.channels_last)
    before = copy.deepcopy(model.state_dict())
    optimiser = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9, weight_decay=0.1)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, 5)
    forward = torch.compile(model, backend="eager") if way == "compiled" else model
    with protect(model, mask, train=["6."]):
        for step in range(5):
            with torch.autocast("cpu", torch.bfloat16) if way == "bf16" else nullcontext():
                loss = F.cross_entropy(forward(x), y)
            loss.backward()
            if way == "clipping":
                nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            if way != "accumulation" or step % 2:
                optimiser.step()
                optimiser.zero_grad()
            if way == "schedule":
                schedule.step()
    after = model.state_dict()
    assert all(torch.equal(after[n][b], before[n][b]) for n, b in mask.bits.items())
    assert all((after[n] != before[n])[~b].any() for n, b in mask.bits.items())
    assert torch.equal(after["1.running_mean"], before["1.running_mean"])
    assert not torch.equal(after["6.weight"], before["6.weight"])


@pytest.mark.parametrize("wrap", [lambda m: torch.compile(m, backend="eager"), nn.DataParallel, AveragedModel])
def test_a_wrapped_network_is_the_network_inside(wrap):
    model, (x, y) = small(), data(16, 16).tensors
    wrapped = wrap(model)
    inside = model if not isinstance(wrapped, AveragedModel) else wrapped.module
    mask = learn_mask(wrapped, data(16, 16), "magnitude", density=0.3).with_state(wrapped)
    assert mask == learn_mask(model, data(16, 16), "magnitude", density=0.3)
    before = copy.deepcopy(inside.state_dict())
    with protect(wrapped, mask):
        F.cross_entropy(wrapped(x), y).backward()
        torch.optim.SGD(wrapped.parameters(), 1.0).step()
    assert all(torch.equal(inside.get_parameter(n)[b], before[n][b]) for n, b in mask.bits.items())
    assert all((inside.get_parameter(n) != before[n])[~b].any() for n, b in mask.bits.items())
    assert torch.equal(mask.apply(wrapped).eval()(x), mask.apply(inside).eval()(x))


def test_an_average_of_protected_weights_is_the_weight():
    model, (x, y) = small(), data(16, 16).tensors
    mask = learn_mask(model, data(16, 16), "magnitude", density=0.3)
    before = copy.deepcopy(model.state_dict())
    optimiser, average = (
        torch.optim.AdamW(model.parameters(), 0.01),
        AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.9)),
    )
    with protect(model, mask):
        for _ in range(3):
            F.cross_entropy(model(x), y).backward()
            optimiser.step()
            average.update_parameters(model)
    for name, bits in mask.bits.items():
        torch.testing.assert_close(average.module.get_parameter(name)[bits], before[name][bits], rtol=1e-6, atol=1e-7)


def test_a_saved_mask_with_state_switches_back_to_the_source_bit_for_bit(tmp_path):
    torch.manual_seed(0)
    model, (x, y) = small(), data(16, 16).tensors
    mask = learn_mask(model, data(16, 16), "magnitude", density=0.3)
    through = mask.apply(model).eval()(x)
    mask.with_state(model).save(tmp_path / "source.safetensors")
    model[6] = nn.Linear(72, 7)  # a head for other classes
    optimiser = torch.optim.AdamW(model.parameters(), 0.01)
    with protect(
        model, mask, train=["1.", "6.", "0.bias", "3.bias"]
    ):  # even norm layers and biases are the target's own
        for _ in range(3):
            F.cross_entropy(model.train()(x), y).backward()
            optimiser.step()
    loaded = Mask.load(tmp_path / "source.safetensors")
    assert torch.equal(loaded.apply(model).eval()(x), through)
    assert model(x).shape == (16, 7), "the network itself was changed"
    assert mask.apply(model).eval()(x).shape == (16, 7), "a mask alone has no head to put back"


@pytest.mark.filterwarnings("ignore:the mask was learnt on other weights")
def test_state_of_another_network_is_refused():
    model = small()
    state = learn_mask(model, data(), "magnitude", density=0.5).with_state(model)
    other = nn.Sequential(*list(small())[:1], nn.Identity(), *list(small())[2:])
    with pytest.raises(ValueError, match=r"carries '1.weight', which Sequential does not have"):
        state.apply(other)


def test_mixed_precision_learns_and_keeps_scores_and_weights_in_float32():
    torch.manual_seed(0)
    model = small()
    mask = learn_mask(model, data(32, 16), "gumbel_sigmoid", steps=3, precision="bf16")
    full = learn_mask(model, data(32, 16), "gumbel_sigmoid", steps=3)
    assert {s.dtype for s in mask.scores.values()} == {torch.float32}
    assert any((mask.scores[n] != full.scores[n]).any() for n in mask.scores), "nothing was computed in bf16"


def test_a_mask_costs_its_entropy_on_disk(tmp_path):
    model = build_model("resnet18", 10, 3, 32)
    mask = learn_mask(model, data(), "magnitude", density=0.1)
    mask.save(tmp_path / "mask.safetensors")
    assert (tmp_path / "mask.safetensors").stat().st_size < 0.55 * mask.size / 8  # 0.47 bits a weight at density 0.1


def test_the_guide_ties_weights_to_the_source_and_goes_back_a_part_of_the_way():
    guide = (Path(__file__).parent.parent / "docs" / "guides" / "your_network.md").read_text(encoding="utf-8")
    ewc, back = (part.partition("```")[0] for part in guide.partition("## Without a mask")[2].split("```python\n")[1:3])
    noise = torch.Generator().manual_seed(0)
    source, batches = build_model("mlp"), [(torch.randn(8, 1, 28, 28, generator=noise), torch.arange(8))]

    def trained(code: str) -> dict:
        net = copy.deepcopy(source)
        names = {"my_network": net, "source_network": source, "optimizer": torch.optim.SGD(net.parameters(), 0.01)}
        names |= {"my_source_loader": batches, "my_target_loader": 30 * batches, "cross_entropy": F.cross_entropy}
        exec(code, names)
        weights = {
            n: dict(names[n].named_parameters())["1.weight"].detach() for n in names if isinstance(names[n], nn.Module)
        }
        return weights | {"moved": (weights["my_network"] - weights["source_network"]).norm()}

    tied, free = (trained(ewc.replace("500", strength) + back) for strength in ("500", "1e-9"))
    assert tied["moved"] < 0.98 * free["moved"]
    torch.testing.assert_close(free["between"], 0.25 * free["source_network"] + 0.75 * free["my_network"])


def test_weights_that_are_sharded_over_processes_are_refused():
    net = build_model("mlp")
    net[1].weight.device_mesh = "as a DTensor has"
    with pytest.raises(ValueError, match="sharded over processes"):
        learn_mask(net, data(), "magnitude", density=0.5)


def test_a_default_device_of_the_users_own_changes_nothing():
    with torch.device("meta"):  # as a GPU that nothing of ours may land on by accident
        pair = load_pair("mnist_to_digits")
    net = build_model("mlp")
    with torch.device("meta"):
        fit(net, pair.source.train, steps=2)
        masks = [
            learn_mask(net, pair.source.train, m, density=0.1, steps=2) for m in ("edge_popup", "shuffled", "snip")
        ]
        after = transfer(net, pair, "joint", steps=2)
        assert "target_acc" in score(net, after, pair, masks[0])
    assert {b.device.type for mask in masks for b in mask.bits.values()} == {"cpu"}
