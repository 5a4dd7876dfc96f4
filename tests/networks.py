"""Small networks and an easy task, for the tests of training and of learning masks."""

import torch
from torch import nn
from torch.utils.data import Dataset, TensorDataset

from maskutils.models.networks import build_model


def with_norm() -> nn.Module:
    convolutions = [nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten()]
    return nn.Sequential(*convolutions, nn.Linear(144, 16), nn.ReLU(), nn.Linear(16, 6))


NETS = {"mlp": lambda: build_model("mlp", 6, 1, 8), "cnn": lambda: build_model("cnn", 6, 1, 8), "norm": with_norm}


def easy(n: int = 192, seed: int = 0) -> TensorDataset:
    """Images of six classes, each a fixed pattern under noise."""
    patterns = torch.randn(6, 1, 8, 8, generator=torch.Generator().manual_seed(99))
    noise = torch.randn(n, 1, 8, 8, generator=torch.Generator().manual_seed(seed))
    y = torch.arange(n) % 6
    return TensorDataset(patterns[y] + 0.3 * noise, y)


def state(model: nn.Module) -> list:
    """Everything that a call could leave behind in a model, comparable."""
    tensors = [(name, tensor.tolist()) for name, tensor in model.state_dict().items()]
    flags = [(p.requires_grad, p.grad is None) for p in model.parameters()]
    return tensors + flags + [(type(m), m.training) for m in model.modules()]


class Plain(Dataset):
    """A dataset that is no TensorDataset."""

    def __init__(self, data: TensorDataset) -> None:
        self.data = data

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, i: int) -> tuple[torch.Tensor, torch.Tensor]:
        return self.data[i]
