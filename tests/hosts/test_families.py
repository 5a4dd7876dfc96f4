"""Families of networks of timm, torchvision and transformers, small and of random weights: the head is found without being told, masks are
learnt, applied and scored, and what they keep is held bit for bit.
"""

import copy
from functools import partial

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import TensorDataset

from maskutils import evaluate, learn_mask, protect
from maskutils.models.heads import heads, logits_of
from maskutils.training.loop import training_mode

timm = pytest.importorskip("timm")
pytest.importorskip("torchvision")

from timm import models as zoo  # noqa: E402
from torchvision import models as vision  # noqa: E402

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("default"),  # these libraries warn of their own
    pytest.mark.filterwarnings("ignore:norm layers train"),
]
CLASSES = 5  # of no other layer here
FOUR = {"depths": (1, 1, 1, 1), "dims": (8, 8, 8, 8)}
WIDE = {"depths": (1, 1, 1, 1), "embed_dims": (8, 8, 8, 8)}
LEVIT = {"img_size": 64, "embed_dim": (16, 16), "num_heads": (2, 2), "depth": (1, 1), "key_dim": 8}
SWIN = {"img_size": 32, "patch_size": 2, "window_size": 4, "embed_dim": 16, "depths": (1, 1), "num_heads": (2, 2)}
VIT = {"img_size": 32, "patch_size": 8, "embed_dim": 16, "depth": 1, "num_heads": 2}


def named(name: str, **options: object) -> partial:
    return partial(timm.create_model, name, num_classes=CLASSES, **options)


def of_torchvision(name: str, **options: object) -> partial:
    return partial(vision.get_model, name, weights=None, num_classes=CLASSES, **options)


def of_class(cls: type, **options: object) -> partial:
    return partial(cls, num_classes=CLASSES, **options)


def of_transformers(name: str, **options: object) -> nn.Module:
    transformers = pytest.importorskip("transformers")
    config = getattr(transformers, f"{name}Config")(num_labels=CLASSES, image_size=32, **options)
    return getattr(transformers, f"{name}ForImageClassification")(config)


SMALL = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16, "patch_size": 8}
NETS = {
    "beit": (named("beit_base_patch16_224", **VIT), 32),
    "byobnet": (named("test_byobnet"), 32),
    "cait": (of_class(zoo.cait.Cait, **VIT, depth_token_only=1), 32),
    "coatnet": (named("test_coatnet", img_size=64), 64),
    "convit": (of_class(zoo.convit.ConVit, **VIT, local_up_to_layer=1), 32),
    "convmixer": (of_class(zoo.convmixer.ConvMixer, dim=16, depth=1, kernel_size=3, patch_size=4), 32),
    "convnext": (named("convnext_atto", **FOUR), 32),
    "convnextv2": (named("convnextv2_atto", **FOUR), 32),
    "crossvit": (
        of_class(
            zoo.crossvit.CrossVit, img_size=32, img_scale=(1.0, 1.0), patch_size=(8, 16), embed_dim=(16, 16), depth=((1, 1, 0),),
            num_heads=(2, 2), mlp_ratio=(2.0, 2.0, 1.0),
        ),
        32,
    ),
    "davit": (of_class(zoo.davit.DaVit, **WIDE, num_heads=(1, 1, 1, 1)), 32),
    "deit, distilled": (named("deit_tiny_distilled_patch16_224", **VIT), 32),
    "deit3": (named("deit3_small_patch16_224", **VIT), 32),
    "densenet": (of_class(zoo.densenet.DenseNet, growth_rate=4, block_config=(1, 1)), 32),
    "edgenext": (of_class(zoo.edgenext.EdgeNeXt, dims=(8, 8, 16, 16), depths=(1, 1, 1, 1), heads=(2, 2, 2, 2)), 64),
    "efficientformer, distilled": (of_class(zoo.efficientformer.EfficientFormer, **WIDE, num_vit=1), 224),  # no other side
    "efficientnet": (named("test_efficientnet"), 32),
    "eva": (of_class(zoo.eva.Eva, **VIT), 32),
    "fastvit": (of_class(zoo.fastvit.FastVit, layers=(1, 1, 1, 1), embed_dims=(8, 8, 8, 8)), 64),
    "focalnet": (of_class(zoo.focalnet.FocalNet, depths=(1, 1), embed_dim=8), 32),
    "inception next": (of_class(zoo.inception_next.MetaNeXt, **FOUR), 64),
    "lcnet": (named("lcnet_035"), 32),
    "levit": (of_class(zoo.levit.Levit, **LEVIT), 64),
    "levit, distilled": (of_class(zoo.levit.LevitDistilled, **LEVIT), 64),
    "mambaout": (named("test_mambaout"), 32),
    "maxvit": (named("test_maxvit", img_size=64), 64),
    "mixer": (of_class(zoo.mlp_mixer.MlpMixer, img_size=32, patch_size=8, num_blocks=1, embed_dim=16), 32),
    "mobilenetv3": (named("mobilenetv3_small_050"), 32),
    "nfnet": (named("test_nfnet"), 32),
    "poolformer": (of_class(zoo.metaformer.MetaFormer, **FOUR), 32),
    "pvt": (of_class(zoo.pvt_v2.PyramidVisionTransformerV2, **WIDE, num_heads=(1, 1, 1, 1)), 64),
    "repvit, distilled": (of_class(zoo.repvit.RepVit, embed_dim=(8, 16), depth=(1, 1), distillation=True), 32),
    "resnet": (named("test_resnet"), 32),
    "starnet": (named("starnet_s050"), 32),
    "swin": (named("swin_tiny_patch4_window7_224", **SWIN), 32),
    "swin v2": (of_class(zoo.swin_transformer_v2.SwinTransformerV2, **SWIN), 32),
    "twins": (
        of_class(zoo.twins.Twins, img_size=32, patch_size=2, **WIDE, num_heads=(1, 1, 1, 1), mlp_ratios=(2, 2, 2, 2), wss=(2, 2, 2, 2)),
        32,
    ),
    "vgg": (of_class(zoo.vgg.VGG, cfg=[8, "M", 16, "M"], mlp_ratio=0.02), 32),
    "vit": (named("vit_tiny_patch16_224", **VIT), 32),
    "xcit": (of_class(zoo.xcit.Xcit, **VIT), 32),
    "torchvision densenet": (of_class(vision.DenseNet, growth_rate=4, block_config=(1, 1), num_init_features=8), 32),
    "torchvision maxvit": (
        of_class(
            vision.MaxVit, input_size=(64, 64), stem_channels=8, partition_size=2, block_channels=[8, 8], block_layers=[1, 1], head_dim=8,
            stochastic_depth_prob=0.0,
        ),
        64,
    ),
    "torchvision mnasnet": (of_torchvision("mnasnet0_5"), 32),
    "torchvision shufflenet": (of_torchvision("shufflenet_v2_x0_5"), 32),
    "torchvision squeezenet": (of_torchvision("squeezenet1_1"), 64),
    "torchvision vit": (
        of_class(vision.VisionTransformer, image_size=32, patch_size=8, num_layers=1, num_heads=2, hidden_dim=16, mlp_dim=32),
        32,
    ),
    "transformers beit": (partial(of_transformers, "Beit", **SMALL), 32),
    "transformers convnext": (partial(of_transformers, "ConvNext", depths=[1, 1], hidden_sizes=[8, 8], num_stages=2), 32),
    "transformers deit": (partial(of_transformers, "DeiT", **SMALL), 32),
    "transformers dinov2": (partial(of_transformers, "Dinov2", **(SMALL | {"mlp_ratio": 1})), 32),
    "transformers resnet": (
        partial(of_transformers, "ResNet", embedding_size=8, depths=[1, 1], hidden_sizes=[8, 16], layer_type="basic"),
        32,
    ),
    "transformers swin": (
        partial(of_transformers, "Swin", embed_dim=16, depths=[1, 1], num_heads=[2, 2], window_size=4, patch_size=2),
        32,
    ),
}  # fmt: skip
METHODS = {"magnitude": {}, "fisher": {}, "gumbel_sigmoid": {"steps": 2}, "edge_popup": {"steps": 2}}


def with_classes(model: nn.Module) -> list[str]:
    """Names of the layers that give a value for each class."""
    sizes = {n: (getattr(m, "out_features", 0), getattr(m, "out_channels", 0)) for n, m in model.named_modules()}
    return [name for name, size in sizes.items() if CLASSES in size]


@pytest.mark.parametrize("name", NETS)
def test_a_family_is_masked_and_protected_without_being_told_its_head(name):
    make, side = NETS[name]
    torch.manual_seed(0)
    model = make().eval()
    images, labels = torch.randn(2, 3, side, side), torch.arange(2)
    data = TensorDataset(images, labels)
    head = tuple(f"{h}." for h in heads(model))
    assert all(f"{layer}.".startswith(head) for layer in with_classes(model))
    assert all(any(f"{layer}.".startswith(h) for layer in with_classes(model)) for h in head)
    for layer in with_classes(model):  # some begin at 0, which lets no gradient through
        nn.init.normal_(model.get_submodule(layer).weight, std=0.1)
    masks = {m: learn_mask(model, data, m, density=0.2, batch_size=2, **options) for m, options in METHODS.items()}
    for mask in masks.values():
        assert mask.density == pytest.approx(0.2, abs=0.01)
        assert not [n for n in mask.bits if n.startswith(head)]
        assert all(s.isfinite().all() for s in mask.scores.values())
    mask = masks["gumbel_sigmoid"].with_state(model)
    evaluate(mask.apply(model), data)  # it runs
    through = logits_of(mask.apply(model)(images))
    before, optimizer = copy.deepcopy(model.state_dict()), torch.optim.AdamW(model.parameters(), 0.01, weight_decay=0.1)
    training_mode(model, "eval")  # all but the norm layers, for LeViT and its kin cannot train in evaluation mode
    with protect(model, mask, train=head):
        for _ in range(2):
            F.cross_entropy(logits_of(model(images)), labels).backward()
            optimizer.step()
    after = model.eval().state_dict()
    assert all(torch.equal(after[n][b], before[n][b]) for n, b in mask.bits.items())
    assert all(torch.equal(t, before[n]) for n, t in after.items() if n not in mask.bits and not n.startswith(head))
    assert all((after[n] != before[n])[~b].any() for n, b in mask.bits.items() if not b.all())
    assert torch.equal(logits_of(mask.apply(model)(images)), through)
