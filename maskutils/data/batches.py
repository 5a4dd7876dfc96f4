"""Batches of images and labels, from datasets, loaders and other iterables."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset, default_collate

from maskutils.core.seeds import generator, seeded

Batches = Dataset | Iterable[tuple[Tensor, Tensor]]


def batches(data: Batches, batch_size: int, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Batches without end: each epoch in a new order drawn from `seed`, the last, smaller batch of an epoch left out.

    A `TensorDataset` is indexed a batch at a time, which is what makes small networks quick; other datasets go through
    a DataLoader, and other iterables are begun again when they end.
    """
    order = generator(seed, "batches")
    if isinstance(data, TensorDataset):
        n = len(data)
        size = min(batch_size, n)
        while n:
            for picked in torch.randperm(n, generator=order, device="cpu")[: n - n % size].split(size):
                yield data[picked]
    else:
        if isinstance(data, IterableDataset):
            data = loader(data, batch_size)
        elif isinstance(data, Dataset) and len(data):
            data = loader(data, min(batch_size, len(data)), shuffle=True, drop_last=True, generator=order)
        got_any = not isinstance(data, Dataset)  # one that is empty, that is
        while got_any:
            got_any = False
            for batch in data:
                got_any = True
                yield batch
    raise ValueError(
        "there is nothing to train on: the data is empty, or an iterator that is used up (give a list or a DataLoader)"
    )


def in_order(data: Batches, batch_size: int) -> Iterable[tuple[Tensor, Tensor]]:
    """Batches of the whole of `data`, once, in its own order."""
    if isinstance(data, TensorDataset):
        return zip(*(t.split(batch_size) for t in data.tensors), strict=True)
    return loader(data, batch_size) if isinstance(data, Dataset) else data


def loader(data: Dataset, batch_size: int, **options: object) -> DataLoader:
    """A DataLoader of `data`, with as many worker processes as its attribute `workers` says (none if it has none)."""
    workers = getattr(data, "workers", 0)
    pinned = workers > 0 and torch.cuda.is_initialized()  # what comes from this process may be on the GPU already
    return DataLoader(
        data, batch_size, num_workers=workers, persistent_workers=workers > 0, pin_memory=pinned, **options
    )


def some(data: Any, n: int, seed: int) -> tuple[Tensor, Tensor]:
    """Up to `n` images and labels of `data`, drawn by `seed` from a dataset, or the first ones of a stream or other iterable.

    A loader that shuffles draws its order from the stream of `seed` too.
    """
    if isinstance(data, Dataset) and not isinstance(data, IterableDataset):
        picked = torch.randperm(len(data), generator=generator(seed, "some"), device="cpu")[:n].tolist()
        batch = data[picked] if isinstance(data, TensorDataset) else default_collate([data[i] for i in picked])
        return batch[0], batch[1]
    images, labels, count = [], [], 0
    with seeded(seed, "some"):
        for x, y in map(images_and_labels, loader(data, 100) if isinstance(data, IterableDataset) else data):
            images.append(x), labels.append(y)
            if (count := count + len(y)) >= n:
                break
    return torch.cat(images)[:n], torch.cat(labels)[:n]


def images_and_labels(batch: Sequence[Tensor]) -> Sequence[Tensor]:
    """`batch` itself if it is images, float (N, ...), and labels (N,); else `ValueError` that says what it is and what to do."""
    if not isinstance(batch, (tuple, list)) or len(batch) != 2 or not all(isinstance(t, Tensor) for t in batch):
        found = f"a dict of {', '.join(map(str, batch))}" if isinstance(batch, dict) else f"a {type(batch).__name__}"
        found += f" of {len(batch)}" if isinstance(batch, (tuple, list)) else ""
        raise ValueError(
            f"a batch must be a pair of tensors, images and labels; it is {found}: give the loader a collate_fn that makes pairs"
        )
    if not batch[0].is_floating_point():
        raise ValueError(f"images are {batch[0].dtype}; make them float, as torchvision's ToTensor does")
    return batch


def that_fit(images: Tensor) -> int:
    """How many of `images` (N, ...) to put through a network at once where no batch size is given: 27 of 3x224x224, so that its
    activations are not larger than in training.
    """
    return max(1, 2**22 // images.shape[1:].numel())
