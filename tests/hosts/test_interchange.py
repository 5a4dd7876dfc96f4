"""Masks to and from other libraries."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import prune

from maskutils import Mask, learn_mask, protect
from maskutils.masks import interchange


@pytest.fixture
def net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 20), nn.ReLU(), nn.Linear(20, 10), nn.ReLU(), nn.Linear(10, 3))


DATA = [(torch.randn(16, 6, generator=torch.Generator().manual_seed(0)), torch.arange(16) % 3)]


def test_pruning_gives_a_mask_and_a_mask_prunes(net):
    pruned = copy.deepcopy(net)
    for layer in (pruned[0], pruned[2]):
        prune.l1_unstructured(layer, "weight", 0.7)
    mask = Mask.from_pruning(pruned)
    assert mask.densities == pytest.approx({"0.weight": 0.3, "2.weight": 0.3})
    again = mask.to_pruning(copy.deepcopy(net))
    assert torch.equal(again(DATA[0][0]), pruned(DATA[0][0]))
    assert Mask.from_pruning(again) == mask
    for layer in (again[0], again[2]):
        prune.remove(layer, "weight")
    assert torch.equal(again(DATA[0][0]), mask.apply(net)(DATA[0][0]))
    with pytest.raises(ValueError, match=r"Sequential has no tensor that torch\.nn\.utils\.prune has pruned"):
        Mask.from_pruning(net)


class Tied(nn.Module):
    """Two layers of one weight, in bfloat16 and channels_last, beside a head, a buffer and a parameter without dimensions."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.head = (
            nn.Conv2d(3, 3, 3, padding=1),
            nn.Conv2d(3, 3, 3, padding=1),
            nn.Linear(3, 4),
        )
        self.second.weight, self.scale = self.first.weight, nn.Parameter(torch.ones(()))
        self.register_buffer("shift", torch.ones(()))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.scale * self.second(self.first(x)).mean((2, 3)) + self.shift)


def tied() -> Tied:
    torch.manual_seed(0)
    return Tied().to(torch.bfloat16, memory_format=torch.channels_last)


@pytest.mark.parametrize("wrap", [nn.Identity, nn.DataParallel, torch.compile], ids=["plain", "parallel", "compiled"])
def test_a_tied_weight_goes_there_and_back_in_every_format(wrap, tmp_path):
    model = tied() if wrap is nn.Identity else wrap(tied())
    images = torch.randn(2, 3, 5, 5, dtype=torch.bfloat16)
    mask = Mask({"first.weight": torch.rand(3, 3, 3, 3) < 0.5})
    through = mask.apply(model)(images)
    mask.with_state(model).save_pretrained(tmp_path)
    assert torch.equal(Mask.from_pretrained(tmp_path).apply(tied())(images), through)
    mask.to_pruning(model)
    pruned = model if wrap is nn.Identity else getattr(model, "module", None) or model._orig_mod
    assert torch.equal(pruned(images), through)
    assert Mask.from_pruning(model) == mask
    other = tied()
    with torch.no_grad():
        other.first.weight[mask.bits["first.weight"].logical_not()] += 1
    found = Mask.from_difference(tied() if wrap is nn.Identity else wrap(tied()), other, mask.density)
    assert found == mask
    ranked = Mask.from_scores({"a": found.scores["first.weight"], "b": found.scores["first.weight"]}, 0.5)
    ranked.save(tmp_path / "twice", scores=True)  # one tensor by two names
    assert Mask.load(tmp_path / "twice").at_density(0.5) == ranked


def test_owners_of_a_tied_weight_that_are_pruned_apart_keep_it_together():
    model = Tied()
    for layer, kept in ((model.first, 0), (model.second, 1)):
        prune.custom_from_mask(layer, "weight", (torch.arange(81) % 3 == kept).view(3, 3, 3, 3))
    mask = Mask.from_pruning(model)
    assert torch.equal(mask.bits["first.weight"], (torch.arange(81) % 3 < 2).view(3, 3, 3, 3))
    assert list(mask.bits) == ["first.weight"]


def test_equal_networks_have_no_difference(net):
    with pytest.raises(ValueError, match="equal weights, so no difference says which"):
        Mask.from_difference(net, copy.deepcopy(net), 0.5)


def test_differences_of_float64_that_float32_cannot_tell_are_told():
    net = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2)).double()
    after, moved = copy.deepcopy(net), torch.arange(16.0, dtype=torch.float64).view(4, 4) * 1e-12
    with torch.no_grad():
        after[0].weight += moved
    assert torch.equal(Mask.from_difference(net, after, 0.5).bits["0.weight"], moved < 8e-12)


def test_shira_is_refused_more_weights_than_a_layer_has(net):
    mask_fn = Mask({"0.weight": torch.ones(20, 6).bool()}).shira_mask_fn(nn.DataParallel(net))
    assert int(mask_fn(net[0], 2).sum()) == 52
    with pytest.raises(ValueError, match=r"r = 5 trains 130 weights of Linear.* has 120; lower r"):
        mask_fn(net[0], 5)


def test_a_difference_keeps_what_moved_least(net):
    after, moved = copy.deepcopy(net), torch.rand(20, 6)
    with torch.no_grad():
        after[0].weight += moved
        after[2].weight += 2
    mask = Mask.from_difference(net, after, 0.2)
    assert int(mask.bits["0.weight"].sum()) == round(0.2 * mask.size) - 2  # the floor keeps two of the other layer
    kept = mask.bits["0.weight"]
    assert moved[kept].max() < moved[~kept].min() + 1e-6
    with pytest.raises(ValueError, match=r"different weights: \['0.weight'\]"):
        Mask.from_difference(net, nn.Sequential(nn.Linear(7, 20), *list(net)[1:]), 0.5)


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("scored", [True, False])
def test_a_learnt_mask_says_which_weights_shira_trains(net, scored):
    peft = pytest.importorskip("peft")
    mask = learn_mask(net, DATA, density=0.3, steps=5)
    mask = mask if scored else Mask(mask.bits)
    before = copy.deepcopy(net.state_dict())
    config = peft.ShiraConfig(r=1, target_modules=["0", "2"], mask_type="learnt")
    config.mask_fn = mask.shira_mask_fn(net)
    adapted = peft.get_peft_model(net, config)
    optimizer = torch.optim.AdamW([p for p in adapted.parameters() if p.requires_grad], 0.1)
    for _ in range(3):
        F.cross_entropy(adapted(DATA[0][0]), DATA[0][1]).backward()
        optimizer.step()
    after = adapted.merge_and_unload().state_dict()
    for name, bits in mask.bits.items():
        moved = after[name] != before[name]
        assert 0 < int(moved.sum()) <= sum(moved.shape)
        assert not (moved & bits).any()


def test_a_folder_in_the_form_of_the_hub_is_read_back(net, tmp_path, monkeypatch):
    mask = learn_mask(net, DATA, "magnitude", density=0.3).with_state(net)
    mask.save_pretrained(tmp_path / "mask")
    loaded = Mask.from_pretrained(tmp_path / "mask")
    assert loaded == mask
    assert (loaded.fingerprint, loaded.state.keys()) == (mask.fingerprint, mask.state.keys())
    text = (tmp_path / "mask" / "README.md").read_text()
    assert "It keeps 96 of 320 weights (density 0.3000) in 2 layers" in text
    assert "| 0.weight | 120 |" in text
    hub, calls = pytest.importorskip("huggingface_hub"), []
    monkeypatch.setattr(hub.HfApi, "create_repo", lambda self, name, exist_ok: calls.append(name))
    monkeypatch.setattr(hub.HfApi, "upload_folder", lambda self, **o: calls.append(o["repo_id"]))
    monkeypatch.setattr(hub, "hf_hub_download", lambda name, file, **o: str(tmp_path / "mask" / file))
    mask.push_to_hub("me/mask")
    assert calls == ["me/mask", "me/mask"]
    assert Mask.from_pretrained("me/mask") == mask


def test_five_tasks_one_after_another(net):
    torch.manual_seed(0)
    masks, answers, images = {}, {}, [torch.randn(32, 6) for _ in range(5)]
    for task, x in enumerate(images):
        data = [(x, torch.arange(32) % 3)]
        taken = next(iter(masks.values())) if masks else None
        for mask in masks.values():
            taken = taken | mask
        net[4] = nn.Linear(10, 3)  # each task has a head of its own
        free = ["4.", "0.bias", "2.bias"]
        optimizer = torch.optim.AdamW(net.parameters(), 0.01, weight_decay=0.1)
        empty = Mask({n: torch.zeros_like(net.get_parameter(n)).bool() for n in ("0.weight", "2.weight")})
        with protect(net, taken or empty, train=free):
            for _ in range(5):
                optimizer.zero_grad()
                F.cross_entropy(net(x), data[0][1]).backward()
                optimizer.step()
        learnt = learn_mask(net, data, "magnitude", density=0.15)
        masks[f"task {task}"] = learnt.with_state(net)
        answers[f"task {task}"] = learnt.apply(net)(x)
    capacity = interchange.free_capacity(masks)
    assert list(capacity.values()) == sorted(capacity.values(), reverse=True)
    assert capacity["task 0"] == pytest.approx(0.85)
    for (name, mask), x in zip(masks.items(), images, strict=True):  # every task is there, bit for bit
        assert torch.equal(mask.apply(net)(x), answers[name])
