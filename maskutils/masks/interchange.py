"""Masks to and from other libraries: torch's prune, peft's SHiRA, the Hugging Face Hub, and pairs of networks."""

from collections.abc import Callable, Mapping
from itertools import accumulate
from operator import or_
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.utils import prune

from maskutils.core.checks import needs
from maskutils.masks.selection import highest
from maskutils.models.copies import unwrapped
from maskutils.models.parts import maskable, owner_of

if TYPE_CHECKING:
    from maskutils.masks.mask import Mask

FILE = "mask.safetensors"


class Interchange:
    """What `Mask` has for other libraries."""

    @classmethod
    def from_pruning(cls: "type[Mask]", model: nn.Module) -> "Mask":
        """The mask of what `torch.nn.utils.prune` keeps in `model`, by the names that the weights have after `prune.remove`.

        A tied weight is kept where any of its owners keeps it. Raises `ValueError` if no tensor is pruned.
        """
        model = unwrapped(model)
        bits: dict[str, Tensor] = {}
        names = {id(p): n.removesuffix("_orig") for n, p in model.named_parameters() if n.endswith("_orig")}
        for owner in model.modules():
            for leaf, b in owner.named_buffers(recurse=False):
                name = names.get(id(getattr(owner, leaf.removesuffix("_mask") + "_orig", None)))
                if name is not None and leaf.endswith("_mask"):
                    bits[name] = (b.detach() != 0) | bits.get(name, False)
        if not bits:
            raise ValueError(f"{type(model).__name__} has no tensor that torch.nn.utils.prune has pruned")
        return cls(bits)

    def to_pruning(self: "Mask", model: nn.Module) -> nn.Module:
        """`model` itself, with this mask put on its weights by `torch.nn.utils.prune`, on each owner of a tied one; mutates it."""
        self.check(model)
        inside = unwrapped(model)
        masked = {id(inside.get_parameter(name)): bits for name, bits in self.bits.items()}
        for name, p in list(inside.named_parameters(remove_duplicate=False)):
            owner, leaf = owner_of(inside, name)
            if id(p) in masked and leaf in owner._parameters:  # not pruned yet under another name of its owner
                prune.custom_from_mask(owner, leaf, masked[id(p)].to(p.device))
        return model

    @classmethod
    def from_difference(cls: "type[Mask]", before: nn.Module, after: nn.Module, density: float) -> "Mask":
        """The mask of the fraction `density` of weights that training moved least from `before` to `after`.

        Its scores are -|difference|. Raises `ValueError` for networks of different shapes, and for equal ones.
        """
        before, after = unwrapped(before), unwrapped(after)
        old, new = dict(before.named_parameters()), dict(after.named_parameters())
        names = maskable(before)
        if wrong := [n for n in names if n not in new or new[n].shape != old[n].shape]:
            raise ValueError(f"the networks have different weights: {wrong[:5]}")
        kinds = {n: torch.promote_types(old[n].dtype, torch.float32) for n in names}  # bfloat16 rounds a difference
        scores = {n: -(new[n].detach().to(old[n].device, k) - old[n].detach().to(k)).abs() for n, k in kinds.items()}
        if not any(s.any() for s in scores.values()):
            raise ValueError("the networks have equal weights, so no difference says which of them moved least")
        return cls.from_scores(scores, density).learnt_on(after)

    def shira_mask_fn(self: "Mask", model: nn.Module) -> Callable[..., Tensor]:
        """A `mask_fn` for peft's `ShiraConfig`: of each layer it trains the r (in + out) weights that this mask needs least.

        `model` is the network before `get_peft_model`. Without scores, weights that are not kept come first, in order of position.
        The function raises `ValueError` for a layer that the mask does not cover, or that has fewer weights than it is to train.
        """
        self.check(model)
        names = {id(unwrapped(model).get_parameter(n)): n for n in self.bits}

        def mask_fn(base_layer: nn.Module, r: int, **_: object) -> Tensor:
            weight = base_layer.get_parameter("weight")
            if id(weight) not in names:
                raise ValueError(f"the mask covers no weight of {base_layer}; leave it out of target_modules")
            if (count := r * sum(weight.shape)) > weight.numel():
                raise ValueError(f"r = {r} trains {count} weights of {base_layer}, which has {weight.numel()}; lower r")
            needed = (self.scores or self.bits)[names[id(weight)]].float()
            return highest(-needed, count).to(weight.device)

        return mask_fn

    def save_pretrained(self: "Mask", folder: str | Path) -> None:
        """Write this mask, without its scores, and a model card with its numbers to `folder`."""
        self.save(Path(folder) / FILE)
        (Path(folder) / "README.md").write_text(self.card(), encoding="utf-8")

    def push_to_hub(self: "Mask", repository: str, **options: Any) -> None:
        """Upload this mask and its model card to `repository` ("owner/name") on the Hugging Face Hub, made if it is not there.

        `options` go to `HfApi.create_repo`. Raises `MissingPackage` without huggingface_hub.
        """
        with needs("hosts"):
            from huggingface_hub import HfApi
        HfApi().create_repo(repository, exist_ok=True, **options)
        with TemporaryDirectory() as folder:
            self.save_pretrained(folder)
            HfApi().upload_folder(repo_id=repository, folder_path=folder)

    @classmethod
    def from_pretrained(cls: "type[Mask]", name: str | Path, **options: Any) -> "Mask":
        """The mask in the folder `name`, or in the repository of that name on the Hub; `options` go to `hf_hub_download`."""
        path = Path(name) / FILE
        if not Path(name).is_dir():
            with needs("hosts"):
                from huggingface_hub import hf_hub_download
            path = Path(hf_hub_download(str(name), FILE, **options))
        return cls.load(path)

    def card(self: "Mask") -> str:
        """A model card in Markdown: what this mask keeps in all and in each layer, and how to use it."""
        rows = [f"| {n} | {self.bits[n].numel():,} | {share:.4f} |" for n, share in self.densities.items()]
        return "\n".join([
            "---", "library_name: maskutils", "tags: [weight-mask]", "---", "", "# A weight mask", "",
            f"It keeps {self.kept:,} of {self.size:,} weights (density {self.density:.4f}) in {len(self.bits)} layers, and carries "
            f"{len(self.state)} tensors beside them.", "",
            f"Checksum: {self.checksum()}. Fingerprint of the kept weights: {self.fingerprint or 'none'}.", "",
            "| layer | weights | density |", "|---|---:|---:|", *rows, "",
            "```python", "from maskutils import Mask", "", 'subnetwork = Mask.from_pretrained("owner/name").apply(network)', "```", "",
        ])  # fmt: skip


def free_capacity(masks: "Mapping[str, Mask]") -> dict[str, float]:
    """Fraction of weights, in [0, 1], that no mask keeps after each task in turn, by the task's name."""
    return {task: 1 - taken.density for task, taken in zip(masks, accumulate(masks.values(), or_), strict=True)}
