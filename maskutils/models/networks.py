"""Networks by name: two of our own, any classification network of torchvision's, and weights from safetensors files."""

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from maskutils.core.checks import BadSetting, known, needs, register
from maskutils.core.seeds import seeded
from maskutils.models.parts import head_name, set_submodule

MODELS: dict[str, Callable[[int, int, int], nn.Module]] = {}


def build_model(
    name: str = "cnn", n_classes: int = 10, in_channels: int = 1, image_size: int = 28, seed: int = 0, weights: str = ""
) -> nn.Module:
    """The network `name` for images (N, in_channels, image_size, image_size); its logits are (N, n_classes).

    `name` is one of `MODELS`, or any of torchvision's classification networks. `weights` are none (freshly initialised by
    `seed`), the name of torchvision's own ("DEFAULT", "IMAGENET1K_V1"; downloaded on first use, with a fresh head unless `n_classes` is
    theirs), or a .safetensors file of a state dict. Raises `BadSetting` for an unknown name, for weights that
    cannot be had and for those of another network, with the keys that differ.

    >>> build_model("mlp", n_classes=5)(torch.zeros(2, 1, 28, 28)).shape
    torch.Size([2, 5])
    """
    check_model(name)
    if weights and not is_file(weights):
        _weights_of(name, weights)
    with seeded(seed, f"model/{name}"):
        if name in MODELS:
            model = MODELS[name](n_classes, in_channels, image_size)
        else:
            model = torchvision_model(name, n_classes, in_channels, image_size, "" if is_file(weights) else weights)
    return load_weights(model, weights) if is_file(weights) else model


def is_file(weights: str) -> bool:
    """Whether `weights` names a file rather than weights of torchvision's."""
    return "." in weights or "/" in weights


def check_model(name: str) -> str:
    """`name` itself if there is a network of that name; else `BadSetting`."""
    return name if name in MODELS else known(name, [*MODELS, *torchvision_names()], "model")


@cache
def torchvision_names() -> list[str]:
    """Names of torchvision's classification networks."""
    with needs("study"):
        import torchvision.models  # here, for it takes a second and a half to import

    return torchvision.models.list_models(module=torchvision.models)


@register(MODELS)
def cnn(n_classes: int, in_channels: int, image_size: int) -> nn.Module:
    """Three strided convolutions and two linear layers, no norm layers; 0.14 M weights at 28x28."""
    side = -(-image_size // 8)  # three times halved, rounded up
    return nn.Sequential(
        nn.Conv2d(in_channels, 8, 5, stride=2, padding=2), nn.ReLU(),
        nn.Conv2d(8, 16, 3, stride=2, padding=1), nn.ReLU(),
        nn.Conv2d(16, 32, 3, stride=2, padding=1), nn.ReLU(),
        nn.Flatten(), nn.Linear(32 * side**2, 256), nn.ReLU(),
        nn.Linear(256, n_classes),
    )  # fmt: skip


@register(MODELS)
def mlp(n_classes: int, in_channels: int, image_size: int) -> nn.Module:
    """Two hidden layers of 160 units; 0.15 M weights at 28x28."""
    return nn.Sequential(
        nn.Flatten(), nn.Linear(in_channels * image_size**2, 160), nn.ReLU(),
        nn.Linear(160, 160), nn.ReLU(),
        nn.Linear(160, n_classes),
    )  # fmt: skip


def torchvision_model(name: str, n_classes: int, in_channels: int, image_size: int, weights: str = "") -> nn.Module:
    """A classification network of torchvision's, for `build_model`.

    A ResNet without weights gets the usual stem for images of 64 pixels or less: a 3x3 convolution of stride 1, no max-pooling.
    """
    with needs("study"):
        import torchvision.models

    if not weights:
        quick = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
        model = _with_one_answer(torchvision.models.get_model(name, num_classes=n_classes, **quick))
        small = name.startswith("resnet") and image_size <= 64
        if small:
            model.maxpool = nn.Identity()
        if small or in_channels != 3:
            _with_stem(model, name, in_channels, small)
        return model
    if in_channels != 3:
        raise BadSetting(
            f"the weights {weights!r} of {name} are for 3 channels, the images have {in_channels}; load them with channels 3"
        )
    chosen = _weights_of(name, weights)
    try:
        model = _with_one_answer(torchvision.models.get_model(name, weights=chosen))
    except (OSError, RuntimeError) as error:
        folder = f"{torch.hub.get_dir()}/checkpoints"
        raise BadSetting(
            f"the weights {chosen} cannot be downloaded ({error}); put {chosen.url} into {folder}"
        ) from None
    return model if n_classes == len(chosen.meta["categories"]) else with_head(model, n_classes)


def _with_one_answer(model: nn.Module) -> nn.Module:
    """`model` without the extra heads with which GoogLeNet and Inception train; mutates `model`."""
    for name in ("aux_logits", "AuxLogits", "aux1", "aux2"):
        if hasattr(model, name):
            setattr(model, name, False if name == "aux_logits" else None)
    return model


def _weights_of(name: str, weights: str) -> Any:
    """torchvision's weights of that name for a network. Raises `BadSetting` that lists those there are."""
    if name in MODELS:
        raise BadSetting(
            f"model {name!r} has no pretrained weights {weights!r}; give a .safetensors file, or a network of torchvision's"
        )
    with needs("study"):
        import torchvision.models

    kinds = torchvision.models.get_model_weights(name)
    known(weights, {*kinds.__members__, "DEFAULT"}, f"weights of {name}")
    return kinds[weights] if weights != "DEFAULT" else kinds.DEFAULT


def check_head_fits(name: str, weights: str, n_classes: int) -> None:
    """Raise `BadSetting` if torchvision's `weights` of `name` have a head for another number of classes."""
    if not is_file(weights) and len(_weights_of(name, weights).meta["categories"]) != n_classes:
        raise BadSetting(
            f"source_steps = 0, but the weights {weights!r} of {name} have no head for the {n_classes} classes of the source; train one "
            "with source_steps, or give a .safetensors file of a network that does the source task already"
        )


@cache
def pretrained_transform(name: str, weights: str) -> Callable[[Any], Tensor] | None:
    """The transforms (PIL image -> tensor) that torchvision's `weights` of `name` want; None for other weights."""
    return _weights_of(name, weights).transforms() if weights and not is_file(weights) else None


def _with_stem(model: nn.Module, name: str, in_channels: int, small: bool) -> None:
    """Replace the first convolution by one for `in_channels`; `small`: 3x3 with stride 1. Mutates `model`."""
    first = next((n for n, m in model.named_modules() if isinstance(m, nn.Conv2d)), None)
    if first is None:
        raise BadSetting(
            f"model {name!r} begins with no convolution to adapt to {in_channels} channels; load the images with channels=3"
        )
    old = model.get_submodule(first)
    form = (
        {"kernel_size": 3, "stride": 1, "padding": 1}
        if small
        else {k: getattr(old, k) for k in ("kernel_size", "stride", "padding")}
    )
    set_submodule(model, first, nn.Conv2d(in_channels, old.out_channels, bias=old.bias is not None, **form))


def with_head(model: nn.Module, n_classes: int) -> nn.Module:
    """`model` with a fresh head of its kind (Linear or 1x1 convolution) for `n_classes`; mutates `model`.

    Raises `ValueError` for a head of another kind.
    """
    name = head_name(model)
    old = model.get_submodule(name)
    if isinstance(old, nn.Conv2d):  # SqueezeNet
        new = nn.Conv2d(old.in_channels, n_classes, old.kernel_size)
    elif isinstance(old, nn.Linear):
        new = nn.Linear(old.in_features, n_classes, bias=old.bias is not None)
    else:
        raise ValueError(f"the head {name!r} is a {type(old).__name__}; give the network a Linear one yourself")
    set_submodule(model, name, new.to(old.weight))
    return model


def weights_file(path: str | Path) -> Path:
    """`path` as a file of weights that may be read. Raises `BadSetting` for a pickle, and where there is none."""
    path = Path(path).expanduser()
    if path.suffix != ".safetensors":
        raise BadSetting(
            f"{path} may hold a pickle, which can run code when it is read, and is refused; convert it once where you trust it: "
            "state = torch.load(path, map_location='cpu', weights_only=True); state = state.get('state_dict', state); "
            "safetensors.torch.save_file({k: v.contiguous() for k, v in state.items()}, 'weights.safetensors')"
        )
    if not path.is_file():
        raise BadSetting(
            f"weights {path}: there is no such file; give a .safetensors file, or the name of torchvision's weights"
        )
    return path


def load_weights(model: nn.Module, path: str | Path) -> nn.Module:
    """`model` with the state dict of a .safetensors file; mutates `model`.

    Raises `BadSetting` for a pickled checkpoint (nothing is unpickled here), a missing or damaged file, and one of another
    network, with the names and shapes that differ.
    """
    path = weights_file(path)
    try:
        state = load_file(path)
    except (SafetensorError, OSError) as error:
        raise BadSetting(f"weights {path} cannot be read ({error})") from None
    mine = {n: tuple(t.shape) for n, t in model.state_dict().items()}
    missing, unexpected = sorted(mine.keys() - state.keys()), sorted(state.keys() - mine.keys())
    shapes = [
        f"{n} {tuple(state[n].shape)} for {mine[n]}"
        for n in sorted(mine.keys() & state.keys())
        if tuple(state[n].shape) != mine[n]
    ]
    if missing or unexpected or shapes:
        faults = {"missing": missing, "unexpected": unexpected, "of another shape": shapes}
        said = "; ".join(f"{len(v)} {k}: {', '.join(v[:5])}" for k, v in faults.items() if v)
        raise BadSetting(f"weights {path} are of another network than {type(model).__name__}: {said}")
    model.load_state_dict(state)
    return model
