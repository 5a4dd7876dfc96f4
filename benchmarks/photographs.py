"""What a transfer on photographs costs beside its steps: images of 8 bits in memory, a pretrained kind of network."""

import torch
from torch import nn
from torch.nn import functional as F

from benchmarks.timing import best_of, row
from maskutils.data.pair import Domain, Pair, Pixels
from maskutils.models.networks import build_model
from maskutils.training.transfer import transfer

NETWORK, SIDE, STEPS, BATCH = "mobilenet_v2", 64, 10, 32


def transfers() -> list[list[str]]:
    """Fine-tuning by `transfer`, against a plain loop of as many steps over batches that lie ready as floats."""
    pixels = torch.randint(0, 256, (8 * BATCH, 3, SIDE, SIDE), dtype=torch.uint8)
    colour = torch.full((3, 1, 1), 0.5)
    images = Pixels(pixels, torch.arange(len(pixels)), torch.arange(len(pixels)) % 7).normalised(colour, colour)
    domain = Domain("photo", images, images, images, tuple("abcdefg"))
    model = build_model(NETWORK, 7, 3, SIDE).to(memory_format=torch.channels_last)
    ready = [images[i * BATCH : (i + 1) * BATCH] for i in range(8)]

    def ours() -> None:
        transfer(model, Pair("photo", domain, domain), "finetune", steps=STEPS, lr=1e-4, batch_size=BATCH)

    times = best_of(ours, lambda: _plain(model, ready), repeats=2, steps=1)
    return [row(f"a transfer of {STEPS} steps, {NETWORK}, {SIDE} px", *times, "a plain loop of its steps", "s", 1.15)]


def _plain(model: nn.Module, ready: list[tuple[torch.Tensor, torch.Tensor]]) -> None:
    own = build_model(NETWORK, 7, 3, SIDE).to(memory_format=torch.channels_last)
    own.load_state_dict(model.state_dict())
    optim = torch.optim.AdamW(own.train().parameters(), 1e-4, fused=True)
    for module in own.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()
    for step in range(STEPS):
        x, y = ready[step % len(ready)]
        optim.zero_grad()
        F.cross_entropy(own(x), y).backward()
        optim.step()
