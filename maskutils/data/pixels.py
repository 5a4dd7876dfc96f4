"""Images that stay in memory as 8-bit values, and become normalised floats a batch at a time."""

from typing import Any

import torch
from torch import Tensor
from torch.utils.data import TensorDataset


class Pixels(TensorDataset):
    """Rows of `images` (M, C, H, W), uint8, as (x / 255 - mean) / std of float32, and their labels (N,).

    Parts of it share the images, which thus lie in memory once, whatever the number of splits and seeds. `mean` and `std` are numbers
    or (C, 1, 1). An index may be a number, a slice, a list or a tensor.
    """

    def __init__(
        self, images: Tensor, rows: Tensor, labels: Tensor, mean: Tensor | float = 0.0, std: Tensor | float = 1.0
    ) -> None:
        super().__init__(rows, labels)
        self.images, self.mean, self.std = images, mean, std

    def __getitem__(self, index: Any) -> tuple[Tensor, Tensor]:
        rows, labels = (t[index] for t in self.tensors)
        return self.images[rows].float().div_(255).sub_(self.mean).div_(self.std), labels

    def part(self, index: Tensor) -> "Pixels":
        """The items at `index` (N,)."""
        rows, labels = self.tensors
        return Pixels(self.images, rows[index], labels[index], self.mean, self.std)

    def normalised(self, mean: Tensor, std: Tensor) -> "Pixels":
        """The same images, normalised by `mean` and `std` (C, 1, 1)."""
        rows, labels = self.tensors
        return Pixels(self.images, rows, labels, mean, std)

    def on(self, device: torch.device, images: Tensor) -> "Pixels":
        """The same items with everything on `device`, where `images` are already."""
        rows, labels = (t.to(device) for t in self.tensors)
        mean, std = (v.to(device) if isinstance(v, Tensor) else v for v in (self.mean, self.std))
        return Pixels(images, rows, labels, mean, std)
