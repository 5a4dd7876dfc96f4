"""Batches of images and labels, from datasets, loaders and other iterables."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, TypeGuard, cast

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset, default_collate

from maskutils.core.checks import BadSetting, some_of
from maskutils.core.seeds import generator, seeded
from maskutils.data.pair import Examples, sliced

Batches = Examples | Iterable[Any]  # of whatever `images_and_labels` understands


def batches(data: Batches, batch_size: int, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Batches without end. `seed` draws a new order for each epoch; the last, smaller batch of an epoch is left out.

    A `TensorDataset` (see `sliced`) is indexed a whole batch at a time, which makes small networks quick. Other datasets go through a
    DataLoader. Other iterables begin again when they end. Raises `ValueError` if there is no batch.
    """
    order = generator(seed, "batches")
    if sliced(data):
        n = len(data)
        size = min(batch_size, n)
        while n:
            mixed = torch.randperm(n, generator=order, device="cpu")[: n - n % size].to(data.tensors[0].device)
            for picked in mixed.split(size):
                yield data[picked]
    else:
        epoch = as_given(data, batch_size)
        if indexed(data):
            n = min(batch_size, len(data))
            epoch = loader(data, n, shuffle=True, drop_last=True, generator=order) if n else ()
        got_any = True
        while got_any:
            got_any = False
            for batch in epoch:
                got_any = True
                yield batch
    raise ValueError("there is nothing to train on: the data is empty or a used-up iterator; give a list or DataLoader")


def as_given(data: Batches, batch_size: int) -> Iterable[tuple[Tensor, Tensor]]:
    """Batches of all `data`, once, in its own order."""
    if sliced(data):
        return (data[i : i + batch_size] for i in range(0, len(data), batch_size))
    if not isinstance(data, Iterable) and not hasattr(data, "__getitem__"):
        raise BadSetting(f"data is a {type(data).__name__}; it must be a dataset, a DataLoader or a list of batches")
    return data if isinstance(data, Iterable) and not isinstance(data, Dataset) else loader(data, batch_size)


def loader(data: Batches, batch_size: int, **options: Any) -> DataLoader[Any]:
    """A DataLoader of the dataset `data`, with `data.workers` processes (none if it has no such attribute)."""
    workers = getattr(data, "workers", 0)
    pinned = workers > 0 and torch.cuda.is_initialized()  # without workers, images may be on the GPU already
    options |= {"num_workers": workers, "persistent_workers": workers > 0, "pin_memory": pinned}
    return DataLoader(cast(Dataset[Any], data), batch_size, **options)


def indexed(data: Batches) -> TypeGuard[Examples]:
    """Whether `data` is a dataset with a length, rather than a stream or a loader: torch's, or anything with a length and items alone."""
    bare = hasattr(data, "__len__") and hasattr(data, "__getitem__") and not isinstance(data, Iterable)
    return bare or (isinstance(data, Dataset) and not isinstance(data, IterableDataset))


def some(data: Batches, n: int, seed: int) -> tuple[Tensor, Tensor]:
    """Up to `n` images and labels: drawn by `seed` from a dataset, or the first ones of a stream or other iterable.

    `seed` also decides the order of a loader that shuffles, and what augmentation draws. Raises `ValueError` if there are none.
    """
    found: list[Any] = []
    with seeded(seed, "some"):
        if indexed(data):
            picked = torch.randperm(len(data), generator=generator(seed, "some"), device="cpu")[:n].tolist()
            if picked:
                drawn = data[picked] if sliced(data) else default_collate([data[i] for i in picked])
                found = [drawn]
        else:
            count = 0
            for batch in as_given(data, 100):
                found.append(batch)
                if (count := count + len(images_and_labels(batch)[1])) >= n:
                    break
    pairs = [(x, y) for x, y in map(images_and_labels, found) if len(y)]
    if not pairs:
        raise ValueError("there is nothing to rank weights on: the data is empty, or an iterator that is used up")
    images, labels = zip(*pairs, strict=True)
    if len(shapes := {tuple(x.shape[1:]) for x in images}) > 1:
        raise ValueError(
            f"batches hold images (or tokens) of shapes {some_of(sorted(map(str, shapes)))}, which cannot be ranked together; bring all to "
            "one shape, as by padding"
        )
    return torch.cat(images)[:n], torch.cat(labels)[:n]


def images_and_labels(batch: Any) -> tuple[Tensor, Tensor]:
    """Images, float (N, ...), and labels of a batch: a pair, or a mapping with pixel_values and labels (or label), as transformers has it.

    Token ids, int64 or int32 (N, ...), may stand for the images. Labels are int64 (N,), or class probabilities (N, classes), which can be
    trained on. Raises `ValueError` that says what the batch is and what to do.
    """
    found: list[Any] = list(batch) if isinstance(batch, (tuple, list)) else []
    if isinstance(batch, Mapping):
        found = [batch.get("pixel_values"), batch.get("labels", batch.get("label"))]
    if len(found) != 2 or not all(isinstance(t, Tensor) for t in found):
        what = f"a dict of {', '.join(map(str, batch))}" if isinstance(batch, Mapping) else f"a {type(batch).__name__}"
        what += f" of {len(batch)}" if isinstance(batch, (tuple, list)) else ""
        more = ", of input_ids and labels, and the network a forward that makes the attention_mask from the input_ids"
        raise ValueError(
            "a batch must be a pair of tensors, images and labels, or a dict with pixel_values and labels; it is "
            f"{what}: give the loader a collate_fn that makes pairs{more if isinstance(batch, Mapping) and 'input_ids' in batch else ''}"
        )
    images, labels = found
    if not labels.ndim:
        raise ValueError(
            "labels have no dimension: this is one image, not a batch; wrap the dataset, as in DataLoader(data, 64, shuffle=True)"
        )
    if not images.is_floating_point() and images.dtype not in (torch.int64, torch.int32):
        raise ValueError(f"images are {images.dtype}; make them float, as torchvision's ToTensor does")
    if 0 in images.shape[1:]:
        raise ValueError(f"images are {tuple(images.shape)}: there is nothing in them")
    probabilities = labels.ndim == 2 and labels.is_floating_point() and labels.shape[1] > 1
    if len(labels) != len(images) or not (probabilities or (labels.ndim == 1 and not labels.is_floating_point())):
        raise ValueError(
            f"labels are {labels.dtype} {tuple(labels.shape)} for {len(images)} images; they must be whole numbers ({len(images)},), the "
            "class of each: use labels.squeeze(1), labels.argmax(1) or labels.long()"
        )
    return images, labels if probabilities else labels.long()


def that_fit(images: Tensor, device: torch.device) -> int:
    """How many of `images` (N, ...) go through a network on `device` at once by default.

    27 of 3x224x224 on an accelerator, about as in training. A quarter of that on a processor, so that its caches hold what layers
    pass on: a MobileNetV2 at 64 pixels reads images twice as fast so.
    """
    return max(1, (2**20 if device.type == "cpu" else 2**22) // images.shape[1:].numel())
