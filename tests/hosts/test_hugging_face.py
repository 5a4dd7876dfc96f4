"""transformers, accelerate and peft: classifiers from a configuration, their Trainer, and adapters."""

import copy

import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from maskutils import evaluate, learn_mask, protect
from maskutils.models.heads import heads
from maskutils.models.parts import maskable

transformers = pytest.importorskip("transformers")
accelerate = pytest.importorskip("accelerate")

TINY = {
    "image_size": 32,
    "patch_size": 8,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
}
NETS = {
    "ViT": (transformers.ViTConfig, transformers.ViTForImageClassification, TINY, ["classifier"]),
    "DeiT": (
        transformers.DeiTConfig,
        transformers.DeiTForImageClassificationWithTeacher,
        TINY,
        ["cls_classifier", "distillation_classifier"],
    ),
    "ResNet": (
        transformers.ResNetConfig,
        transformers.ResNetForImageClassification,
        {"embedding_size": 8, "hidden_sizes": [8, 8], "depths": [1, 1], "layer_type": "basic"},
        ["classifier.1"],
    ),
}  # fmt: skip
pytestmark = [
    pytest.mark.filterwarnings("ignore:norm layers train"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]


class Pictures(Dataset):
    """A data set as those of Hugging Face are."""

    def __init__(self) -> None:
        self.images = torch.randn(16, 3, 32, 32, generator=torch.Generator().manual_seed(0))

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, i: int) -> dict:
        return {"pixel_values": self.images[i], "labels": i % 4}


def make(name: str = "ViT") -> torch.nn.Module:
    torch.manual_seed(0)
    config, cls, options, _ = NETS[name]
    return cls(config(**options, num_labels=4))


def check(model: torch.nn.Module, before: dict, mask, free: str = "classifier.") -> None:
    after = model.state_dict()
    assert all(torch.equal(after[n][b], before[n][b]) for n, b in mask.bits.items())
    assert all(torch.equal(after[n], before[n]) for n in before.keys() - mask.bits.keys() if not n.startswith(free))
    assert any((after[n] != before[n])[~b].any() for n, b in mask.bits.items())


@pytest.mark.parametrize("name", NETS)
def test_masks_of_image_classifiers(name):
    model, data = make(name), Pictures()
    assert heads(model) == NETS[name][3]
    assert not [n for n in maskable(model) if "classifier" in n]
    for method in ("gumbel_sigmoid", "snip", "fisher"):
        mask = learn_mask(model, data, method, density=0.2, steps=1)
    evaluate(mask.apply(model), DataLoader(data, 5))  # it runs


def test_protect_around_the_trainer(tmp_path):
    model = make()
    mask, before = learn_mask(model, Pictures(), "magnitude", density=0.2), copy.deepcopy(model.state_dict())
    settings = transformers.TrainingArguments(
        str(tmp_path), per_device_train_batch_size=4, max_steps=4, weight_decay=0.1, learning_rate=0.01, report_to="none", use_cpu=True,
        save_strategy="no", logging_strategy="no", dataloader_pin_memory=False, disable_tqdm=True, gradient_accumulation_steps=2,
    )  # fmt: skip
    with protect(model, mask, train=["classifier."]):
        transformers.Trainer(model, settings, train_dataset=Pictures()).train()
    check(model, before, mask)


@pytest.mark.parametrize("given", [True, False])
def test_protect_in_a_loop_of_accelerate(given):
    model, loader = make(), DataLoader(Pictures(), 4)
    mask, before = learn_mask(model, Pictures(), "magnitude", density=0.2), copy.deepcopy(model.state_dict())
    host = accelerate.Accelerator(cpu=True, gradient_accumulation_steps=2)
    prepared, optimizer, loader = host.prepare(
        model, torch.optim.AdamW(model.parameters(), 0.01, weight_decay=0.1), loader
    )
    with protect(prepared, mask, train=["classifier."], optimizer=optimizer if given else None):
        for batch in loader:
            with host.accumulate(prepared):
                host.backward(prepared(**batch).loss)
                optimizer.step()
                optimizer.zero_grad()
    check(model, before, mask)


def test_a_network_with_adapters_is_named_and_one_whose_adapters_are_merged_is_masked():
    peft = pytest.importorskip("peft")
    names = maskable(make())
    adapted = peft.get_peft_model(make(), peft.LoraConfig(target_modules="all-linear"))
    with pytest.raises(ValueError, match=r"has adapters of peft.*merge_and_unload"):
        learn_mask(adapted, Pictures(), "magnitude", density=0.2)
    assert list(learn_mask(adapted.merge_and_unload(), Pictures(), "magnitude", density=0.2).bits) == names


def test_adapters_that_are_merged_inside_the_block_are_told():
    peft = pytest.importorskip("peft")
    model = make()
    mask = learn_mask(model, Pictures(), "magnitude", density=0.2)
    with pytest.warns(UserWarning, match="were replaced, wrapped or parametrised inside protect"), protect(model, mask):
        peft.get_peft_model(model, peft.LoraConfig(target_modules="all-linear"))
