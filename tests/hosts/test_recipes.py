"""Every recipe of the guide runs as it is printed, around networks, data and loops of a few lines."""

import functools
import re

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

import maskutils
from maskutils.core import paths

GUIDE = (paths.PACKAGE.parent / "docs" / "guides" / "hosts.md").read_text(encoding="utf-8")
FIRST, *RECIPES = re.findall(r"```python\n(.+?)```", GUIDE, re.DOTALL)
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("default")]  # these libraries warn of their own


def pictures(side: int, n: int = 8) -> TensorDataset:
    return TensorDataset(torch.randn(n, 3, side, side), torch.arange(n) % 3)


class Network(nn.Module):
    """A network whose head is called classifier; it takes what data sets of transformers give, too."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(288, 16))
        self.classifier = nn.Linear(16, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.classifier(self.features(x))


def usual(**more: object) -> dict:
    torch.manual_seed(0)
    quick = functools.partial(maskutils.learn_mask, steps=2)
    known = {
        "model": Network(),
        "source_loader": DataLoader(pictures(8), 4),
        "target_loader": DataLoader(pictures(8), 4),
    }
    known |= {"loss_function": F.cross_entropy, "torch": torch, "nn": nn}
    exec(FIRST, known)
    known |= {"learn_mask": quick, "optimizer": torch.optim.AdamW(known["model"].parameters(), 0.01, weight_decay=0.1)}
    return known | more


class Dicts(torch.utils.data.Dataset):
    """A data set as those of Hugging Face are."""

    def __len__(self) -> int:
        return 8

    def __getitem__(self, i: int) -> dict:
        return {"pixel_values": torch.randn(3, 32, 32), "labels": i % 3}


def of_gradients(folder, patch) -> dict:
    known = usual()
    images, labels = next(iter(known["target_loader"]))
    F.cross_entropy(known["model"](images), labels).backward()
    return known


def of_transformers(folder, patch) -> dict:
    transformers, accelerate = pytest.importorskip("transformers"), pytest.importorskip("accelerate")
    options = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    config = transformers.ViTConfig(image_size=32, patch_size=16, num_labels=10, **options)
    model, data = transformers.ViTForImageClassification(config), Dicts()
    model.save_pretrained(folder / "vit")
    arguments = transformers.TrainingArguments(
        str(folder), max_steps=2, report_to="none", use_cpu=True, save_strategy="no", disable_tqdm=True
    )
    known = usual(transformers=transformers, ViTForImageClassification=transformers.ViTForImageClassification)
    known |= {"name": folder / "vit", "source": data, "source_test": data, "target": data, "arguments": arguments}
    known |= {"model": model, "mask": maskutils.learn_mask(model, data, "magnitude", density=0.1)}
    known |= {"accelerator": accelerate.Accelerator(cpu=True), "loader": DataLoader(data, 4)}
    return known | {"optimizer": torch.optim.AdamW(model.parameters(), 0.01)}


def of_lightning(folder, patch) -> dict:
    lightning = pytest.importorskip("lightning")

    class Task(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.net = nn.Sequential()
            self.net.add_module("body", nn.Sequential(nn.Flatten(), nn.Linear(192, 8)))
            self.net.add_module("head", nn.Linear(8, 3))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.net(x)

        def training_step(self, batch: list, _: int) -> torch.Tensor:
            return F.cross_entropy(self(batch[0]), batch[1])

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.AdamW(self.parameters(), 0.01)

    module, quiet = Task(), {"max_epochs": 1, "accelerator": "cpu", "logger": False, "enable_checkpointing": False}
    patch.setattr(lightning, "Trainer", functools.partial(lightning.Trainer, default_root_dir=folder, **quiet))
    mask = maskutils.learn_mask(module, pictures(8), "magnitude", density=0.1)
    return usual(lightning=lightning, module=module, mask=mask)


def of_fabric(folder, patch) -> dict:
    return usual(fabric=pytest.importorskip("lightning").Fabric(accelerator="cpu", devices=1))


def of_fastai(folder, patch) -> dict:
    pytest.importorskip("fastai")
    import fastai.callback.schedule  # noqa: F401
    from fastai.callback.core import Callback
    from fastai.data.core import DataLoaders
    from fastai.data.load import DataLoader as Loader
    from fastai.learner import Learner

    loaders = DataLoaders(Loader(pictures(8), bs=4), Loader(pictures(8), bs=4))
    return usual(Callback=Callback, Learner=Learner, loaders=loaders)


def of_processes(folder, patch) -> dict:
    from torch.distributed.fsdp import fully_shard

    known = usual()
    known["mask"].save("mask.safetensors")
    known |= {"network": known["model"], "fully_shard": fully_shard}
    return known | {"DistributedDataParallel": nn.parallel.DistributedDataParallel}


def of_averages(folder, patch) -> dict:
    known = usual()

    def train_step(batch: list) -> None:
        known["loss_function"](known["model"](batch[0]), batch[1]).backward()
        known["optimizer"].step()

    average = torch.optim.swa_utils.AveragedModel(known["model"])
    return known | {"average": average, "loader": known["target_loader"], "train_step": train_step}


def of_formats(folder, patch) -> dict:
    known = usual()
    hub = pytest.importorskip("huggingface_hub")
    patch.setattr(hub.HfApi, "create_repo", lambda self, name, exist_ok: None)
    patch.setattr(hub.HfApi, "upload_folder", lambda self, **o: None)
    patch.setattr(hub, "hf_hub_download", lambda name, file, **o: str(folder / "folder" / file))
    known["mask"].to_pruning(known["model"])
    return known | {name: Network() for name in ("other", "before", "after")}


def of_peft(folder, patch) -> dict:
    known = of_transformers(folder, patch)
    return known | {"peft": pytest.importorskip("peft")}


def of(library: str, side: int = 8):
    images = DataLoader(pictures(side, 2), 2)
    return lambda folder, patch: usual(source_loader=images, **{library: pytest.importorskip(library)})


NEEDS = {  # what a recipe says -> what it finds
    "masked_fill_": of_gradients,
    "Trainer(precision": of_lightning,
    "fabric": of_fabric,
    "fit_one_cycle": of_fastai,
    "timm.": of("timm", 224),
    "bitsandbytes": of("bitsandbytes"),
    "torchvision.": of("torchvision", 32),
    "DistributedDataParallel": of_processes,
    "peft.": of_peft,
    "average": of_averages,
    "from_pruning": of_formats,
    "ViT": of_transformers,
    "transformers.": of_transformers,
    "accelerator": of_transformers,
}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A working directory of its own, and a group of one process."""
    monkeypatch.chdir(tmp_path)
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/meet", rank=0, world_size=1)
    yield tmp_path
    torch.distributed.destroy_process_group()


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda text: text.splitlines()[0][:50])
def test_a_recipe_runs_as_it_is_printed(recipe, folder, monkeypatch):
    make = next((make for said, make in NEEDS.items() if said in recipe), lambda *_: usual())
    exec(recipe.replace('weights="DEFAULT"', "weights=None"), make(folder, monkeypatch))  # they would be downloaded
