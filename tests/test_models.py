"""Networks by name, heads and maskable weights, also of networks from elsewhere."""

import copy

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import nn
from torch.utils.data import TensorDataset
from torchvision.models import VisionTransformer, mobilenet_v3_small, resnet18

from maskutils.core.checks import BadSetting
from maskutils.models.heads import TaskHeads, for_task, head_name, head_parameters, own_head, with_target_head
from maskutils.models.inputs import device_of
from maskutils.models.networks import (
    MODELS,
    _with_stem,
    build_model,
    check_head_fits,
    load_weights,
    pretrained_transform,
    torchvision_names,
    with_head,
)
from maskutils.models.parts import maskable, norm_layers, summary
from maskutils.training.learn import learn_mask

NAMES = [*MODELS, "resnet18"]  # ours, and one of torchvision's
SHAPE = {"n_classes": 7, "in_channels": 3, "image_size": 12}
FOREIGN = {
    "resnet18": (lambda: resnet18(num_classes=4), "fc"),
    "mobilenet_v3_small": (lambda: mobilenet_v3_small(num_classes=4), "classifier.3"),
    "vit": (lambda: VisionTransformer(16, 8, 1, 2, 8, 16, num_classes=4), "heads.head"),
}


@pytest.fixture
def net() -> nn.Module:
    """Three linear layers with a norm layer; the head is "4"."""
    return nn.Sequential(nn.Linear(6, 5), nn.BatchNorm1d(5), nn.ReLU(), nn.Linear(5, 5), nn.Linear(5, 3)).eval()


def bits_of(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(t, b[n]) for n, t in a.items())


@pytest.mark.parametrize("name", NAMES)
def test_logits_have_one_column_a_class(name):
    assert build_model(name, **SHAPE).eval()(torch.zeros(2, 3, 12, 12)).shape == (2, 7)


@pytest.mark.parametrize("name", NAMES)
def test_the_seed_decides_every_initial_weight(name):
    first, again, other = (build_model(name, **SHAPE, seed=seed) for seed in (1, 1, 2))
    assert same(bits_of(first), bits_of(again))
    assert not any(torch.equal(first.get_parameter(n), other.get_parameter(n)) for n in maskable(first))


@pytest.mark.parametrize("name", NAMES)
def test_building_leaves_the_global_generator_alone(name):
    before = torch.random.get_rng_state()
    build_model(name, **SHAPE)
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.parametrize("name", NAMES)
def test_maskable_is_every_weight_but_the_head_biases_and_norm_layers(name):
    model = build_model(name, **SHAPE)
    layers = [m for m in model.modules() if isinstance(m, nn.Linear | nn.Conv2d)]
    assert [id(model.get_parameter(n)) for n in maskable(model)] == [id(layer.weight) for layer in layers[:-1]]
    assert model.get_submodule(head_name(model)) is layers[-1]


@pytest.mark.parametrize("name", ["cnn", "mlp"])
def test_the_small_networks_have_about_150_000_weights_and_say_how_many(name):
    weights = sum(p.numel() for p in build_model(name).parameters())
    assert 130_000 < weights < 170_000
    assert f"{weights / 1e6:.2f} M weights at 28x28" in MODELS[name].__doc__


@pytest.mark.parametrize("size", [5, 8, 13, 28])
def test_cnn_takes_images_of_any_size(size):
    assert build_model("cnn", 10, 1, size)(torch.zeros(1, 1, size, size)).shape == (1, 10)


def test_an_unknown_network_gets_a_suggestion():
    with pytest.raises(BadSetting, match=r"unknown model 'resnet81'.*Did you mean 'resnet18'"):
        build_model("resnet81")


@pytest.mark.parametrize("name", FOREIGN)
def test_the_head_of_a_network_from_elsewhere_is_found(name):
    make, head = FOREIGN[name]
    model = make()
    assert head_name(model) == head
    assert {id(p) for p in head_parameters(model)} == {id(p) for p in model.get_submodule(head).parameters()}


@pytest.mark.parametrize("name", FOREIGN)
def test_what_is_maskable_elsewhere_are_matrices_and_filters_outside_the_head(name):
    make, head = FOREIGN[name]
    model = make()
    by_rule = [n for n, p in model.named_parameters() if p.ndim > 1 and not n.startswith(head)]
    assert maskable(model) == [n for n in by_rule if n not in ("class_token", "encoder.pos_embedding")]


@pytest.mark.parametrize("model", [nn.Sequential(nn.ReLU()), nn.Sequential(nn.BatchNorm1d(3)), nn.ReLU()])
def test_a_network_without_weights_has_no_head(model):
    with pytest.raises(ValueError, match="no head and nothing to mask"):
        head_name(model)


def test_a_tied_weight_is_masked_once():
    tied = nn.Sequential(nn.Linear(5, 5), nn.Linear(5, 5), nn.Linear(5, 2))
    tied[1].weight = tied[0].weight
    assert maskable(tied) == ["0.weight"]


def test_an_embedding_is_not_masked():
    assert maskable(nn.Sequential(nn.Embedding(9, 4), nn.Linear(4, 4), nn.Linear(4, 2))) == ["1.weight"]


def test_summary_has_a_row_a_parameter_with_its_role(net):
    table = summary(net).set_index("parameter")
    assert list(table.index) == [n for n, _ in net.named_parameters()]
    assert list(table.index[table["role"] == "masked"]) == ["0.weight", "3.weight"]
    assert list(table.index[table["role"] == "head"]) == ["4.weight", "4.bias"]
    assert table["role"].str.startswith("not masked").sum() == 4
    assert (table.loc["0.weight", "shape"], table.loc["0.weight", "weights"]) == ("5x6", 30)


def test_norm_layers_are_those_with_running_statistics():
    statistical = [nn.BatchNorm1d(2), nn.BatchNorm2d(2), nn.BatchNorm3d(2), nn.InstanceNorm2d(2), nn.SyncBatchNorm(2)]
    model = nn.Sequential(*statistical, nn.LayerNorm(2), nn.GroupNorm(1, 2), nn.Linear(2, 2), nn.Dropout())
    assert norm_layers(model) == statistical


def test_device_of_is_where_the_parameters_are(net):
    assert device_of(net) == torch.device("cpu")
    assert device_of(net.to("meta")) == torch.device("meta")


def test_a_target_head_is_added_to_a_copy(net):
    before, both = bits_of(net), with_target_head(net, 6)
    assert same(bits_of(net), before)
    assert isinstance(both[4], TaskHeads)
    assert not isinstance(net[4], TaskHeads)
    assert not {id(p) for p in net.parameters()} & {id(p) for p in both.parameters()}


def test_the_target_head_is_active_and_is_the_head(net):
    both, x = with_target_head(net, 6), torch.randn(2, 6)
    assert both(x).shape == (2, 6)
    assert head_name(both) == "4"
    assert {id(p) for p in head_parameters(both)} == {id(p) for p in both[4]["target"].parameters()}
    assert maskable(both) == maskable(net)


def test_only_a_network_with_a_head_per_task_has_a_head_of_the_targets_own(net):
    assert own_head(net) == []
    assert own_head(with_target_head(net, 6)) == ["4.target."]


def test_the_active_head_survives_a_copy(net):
    both = for_task(with_target_head(net, 6), "target")
    assert both(torch.zeros(1, 6)).shape == (1, 6)


def test_for_task_gives_the_source_network_back_bit_for_bit(net):
    x, back = torch.randn(2, 6), for_task(with_target_head(net, 6), "source")
    assert torch.equal(back(x), net(x))
    assert same(bits_of(back), bits_of(net))


def test_for_task_leaves_its_input_alone(net):
    both = with_target_head(net, 6)
    assert for_task(both, "source") is not both
    assert isinstance(both[4], TaskHeads)
    assert both[4].active == "target"


def test_for_task_is_a_mere_copy_where_one_head_serves_both(net):
    copied = for_task(net, "target")
    assert copied is not net
    assert same(bits_of(copied), bits_of(net))


def test_for_task_refuses_an_unknown_task(net):
    with pytest.raises(BadSetting, match=r"unknown task 'sourse'.*Did you mean 'source'"):
        for_task(with_target_head(net, 6), "sourse")


def test_the_seed_decides_the_target_head(net):
    first, again, other = (with_target_head(net, 6, seed)[4]["target"].weight for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize("name", FOREIGN)
def test_networks_from_elsewhere_get_a_target_head_too(name):
    model = FOREIGN[name][0]().eval()
    x = torch.randn(1, 3, 16, 16) if name == "vit" else torch.randn(1, 3, 32, 32)
    both = with_target_head(model, 6).eval()
    assert both(x).shape == (1, 6)
    assert torch.equal(for_task(both, "source")(x), model(x))


def test_a_head_that_is_not_linear_gets_no_sibling():
    with pytest.raises(ValueError, match="head '1' is a Conv2d; a head per task needs a Linear one"):
        with_target_head(nn.Sequential(nn.Linear(2, 2), nn.Conv2d(1, 1, 1)), 3)


def test_every_classification_network_of_torchvision_is_known_by_name_and_no_other():
    assert {"resnet50", "vit_b_16", "swin_t", "mobilenet_v3_large", "efficientnet_b0"} <= set(torchvision_names())
    assert not [name for name in torchvision_names() if "rcnn" in name or "deeplab" in name]
    with pytest.raises(BadSetting, match=r"unknown model 'resnet5'.*Did you mean 'resnet50'"):
        build_model("resnet5")


def test_a_resnet_has_the_stem_for_small_images_and_torchvisions_for_large_ones():
    small, large = build_model("resnet18", 4, 3, 32), build_model("resnet18", 4, 3, 224)
    assert (small.conv1.kernel_size, small.conv1.stride) == ((3, 3), (1, 1))
    assert isinstance(small.maxpool, nn.Identity)
    assert (large.conv1.kernel_size, large.conv1.stride) == ((7, 7), (2, 2))
    assert isinstance(large.maxpool, nn.MaxPool2d)


@pytest.mark.parametrize("name", ["mobilenet_v3_small", "resnet18"])
def test_the_first_convolution_takes_the_channels_of_the_images(name):
    assert build_model(name, 4, 1, 96).eval()(torch.zeros(1, 1, 96, 96)).shape == (1, 4)


def test_a_network_that_begins_with_no_convolution_says_so():
    with pytest.raises(BadSetting, match="'plain' begins with no convolution to adapt to 1 channels"):
        _with_stem(nn.Sequential(nn.Flatten(), nn.Linear(4, 2)), "plain", 1, small=False)


def test_pretrained_weights_are_for_three_channels():
    with pytest.raises(BadSetting, match="weights 'DEFAULT' of resnet18 are for 3 channels, the images have 1"):
        build_model("resnet18", 10, 1, 224, weights="DEFAULT")


@pytest.fixture
def saved(tmp_path):
    """A state dict of the cnn, and where it lies."""
    model = build_model("cnn", seed=5)
    save_file(model.state_dict(), tmp_path / "weights.safetensors")
    return model, str(tmp_path / "weights.safetensors")


def test_weights_come_from_a_safetensors_file(saved):
    model, path = saved
    assert same(bits_of(build_model("cnn", weights=path)), bits_of(model))


def test_weights_of_another_network_are_refused_with_the_keys_that_differ(saved):
    with pytest.raises(BadSetting, match=r"another network than Sequential: .*missing: 1.bias.*unexpected: 0.bias.*"):
        load_weights(build_model("mlp"), saved[1])
    with pytest.raises(BadSetting, match=r"1 of another shape: 0.weight \(8, 1, 5, 5\) for \(8, 3, 5, 5\)"):
        build_model("cnn", in_channels=3, weights=saved[1])


@pytest.mark.parametrize("name", ["weights.pt", "weights.pth", "model.ckpt"])
def test_a_pickled_checkpoint_is_refused_and_says_how_to_convert(name, tmp_path):
    torch.save(build_model("cnn").state_dict(), tmp_path / name)
    with pytest.raises(BadSetting, match=r"may hold a pickle.*safetensors.torch.save_file"):
        build_model("cnn", weights=str(tmp_path / name))


def test_missing_or_damaged_weights_are_refused(tmp_path):
    with pytest.raises(BadSetting, match=r"none\.safetensors: there is no such file"):
        build_model("cnn", weights=str(tmp_path / "none.safetensors"))
    (tmp_path / "half.safetensors").write_bytes(b"half of a file")
    with pytest.raises(BadSetting, match="cannot be read"):
        build_model("cnn", weights=str(tmp_path / "half.safetensors"))


def test_names_of_weights_are_checked_before_anything_is_downloaded():
    with pytest.raises(BadSetting, match=r"unknown weights of resnet18 'IMAGENET'; known: .*IMAGENET1K_V1"):
        build_model("resnet18", in_channels=3, weights="IMAGENET")
    with pytest.raises(BadSetting, match="model 'cnn' has no pretrained weights 'DEFAULT'"):
        build_model("cnn", weights="DEFAULT")


def test_pretrained_weights_that_cannot_be_had_say_what_to_put_where(monkeypatch):
    def offline(*_: object, **__: object) -> None:
        raise OSError("no network here")

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", offline)
    with pytest.raises(BadSetting, match=r"no network here\); put https://.*resnet18.*into .*checkpoints"):
        build_model("resnet18", in_channels=3, weights="DEFAULT")


def test_pretrained_weights_bring_their_transforms_and_get_a_head_of_the_classes(monkeypatch):
    state = resnet18().state_dict()
    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", lambda *_, **__: state)
    model = build_model("resnet18", 7, 3, 224, weights="DEFAULT")
    assert torch.equal(model.conv1.weight, state["conv1.weight"])
    assert model.fc.out_features == 7
    assert build_model("resnet18", 1000, 3, 224, weights="DEFAULT").fc.weight.equal(state["fc.weight"])
    picture = Image.new("RGB", (300, 200), (124, 116, 104))
    assert pretrained_transform("resnet18", "DEFAULT")(picture).shape == (3, 224, 224)
    assert pretrained_transform("resnet18", "DEFAULT")(picture).abs().max() < 0.02, "the mean colour of ImageNet is 0"
    assert pretrained_transform("resnet18", "") is None


def test_a_fresh_head_is_of_the_kind_of_the_old_one():
    assert with_head(build_model("squeezenet1_1", 4, 3, 64), 9).eval()(torch.zeros(1, 3, 64, 64)).shape == (1, 9)
    with pytest.raises(ValueError, match="is a Conv1d; give the network a Linear one"):
        with_head(nn.Sequential(nn.Linear(3, 3), nn.Conv1d(3, 3, 1)), 2)


class HeadFirst(nn.Module):
    """A network that defines its head before its body."""

    def __init__(self, said: str = "") -> None:
        super().__init__()
        self.fc, self.body = nn.Linear(8, 3), nn.Linear(4, 8)
        if said:
            self.head_name = said

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(self.body(x).relu())


def test_a_mask_brings_a_head_of_other_classes_that_is_a_convolution():
    seven = build_model("squeezenet1_1", 7, 3, 64)
    four = with_head(copy.deepcopy(seven), 4)
    data = TensorDataset(torch.randn(8, 3, 64, 64), torch.arange(8) % 7)
    back = learn_mask(seven, data, "magnitude", density=0.5).with_state(seven).apply(four)
    assert back.eval()(data.tensors[0]).shape == (8, 7)
    assert learn_mask(back, data, "snip", density=0.5).density == pytest.approx(0.5, abs=0.01)


def test_a_network_can_say_which_module_is_its_head():
    assert (head_name(HeadFirst()), head_name(HeadFirst("fc"))) == ("body", "fc")
    assert maskable(HeadFirst("fc")) == ["body.weight"]
    with pytest.raises(BadSetting, match=r"unknown head_name 'fx'; known: body, fc"):
        head_name(HeadFirst("fx"))


def test_a_head_that_cannot_be_it_is_found_out_when_a_mask_is_learnt():
    data = TensorDataset(torch.randn(8, 4), torch.arange(8) % 3)
    with pytest.raises(
        ValueError, match=r"'body', defined last in HeadFirst, gives 8 values and the network 3.*head_name"
    ):
        learn_mask(HeadFirst(), data, "piggyback", steps=1)
    assert learn_mask(HeadFirst("fc"), data, "piggyback", steps=1).bits.keys() == {"body.weight"}


def test_norm_weights_of_many_dimensions_are_not_masked():
    assert maskable(nn.Sequential(nn.Conv2d(1, 2, 3), nn.LayerNorm([2, 4, 4]), nn.Flatten(), nn.Linear(32, 3))) == [
        "0.weight"
    ]


@pytest.mark.parametrize("name", ["googlenet", "inception_v3"])
def test_networks_with_extra_answers_give_one(name):
    with torch.device("meta"):
        model = build_model(name, 10, 3, 299)
        assert model.train()(torch.empty(2, 3, 299, 299)).shape == (2, 10)


def test_weights_of_a_network_of_ours_are_refused_wherever_they_are_asked_for():
    for ask in (lambda: build_model("cnn", weights="DEFAULT"), lambda: pretrained_transform("mlp", "DEFAULT")):
        with pytest.raises(BadSetting, match=r"has no pretrained weights 'DEFAULT'; give a \.safetensors file"):
            ask()


def test_pretrained_weights_do_the_source_task_only_with_its_number_of_classes():
    check_head_fits("resnet18", "DEFAULT", 1000)
    check_head_fits("resnet18", "own.safetensors", 10)
    with pytest.raises(
        BadSetting, match="source_steps = 0, but the weights 'DEFAULT' of resnet18 have no head for the 10"
    ):
        check_head_fits("resnet18", "DEFAULT", 10)


def test_a_parametrised_weight_is_listed_as_what_it_is():
    model = nn.Sequential(nn.Linear(3, 4), nn.utils.parametrizations.weight_norm(nn.Linear(4, 4)), nn.Linear(4, 2))
    roles = summary(model).set_index("parameter")["role"]
    assert roles["0.weight"] == "masked"
    assert roles["1.parametrizations.weight.original1"].startswith("not masked: parametrised")
    assert roles["1.bias"] == "not masked: bias, norm or embedding"
