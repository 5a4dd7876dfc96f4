"""Networks by name: two of our own and torchvision's classification networks; and weights from safetensors files."""

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

from maskutils.core.checks import BadSetting, known, needs, register
from maskutils.core.files import is_path
from maskutils.core.seeds import seeded
from maskutils.models.heads import head_name

Shapes = dict[str, tuple[int, ...]]
MODELS: dict[str, Callable[[int, int, int], nn.Module]] = {}


def build_model(
    name: str = "cnn", n_classes: int = 10, in_channels: int = 1, image_size: int = 28, seed: int = 0, weights: str = "",
    fresh_head: bool = True,
) -> nn.Module:  # fmt: skip
    """The network `name` for images (N, in_channels, image_size, image_size); its logits are (N, n_classes).

    `name` is one of `MODELS`, or any of torchvision's classification networks. Without `weights`, `seed` initialises the network. `weights`
    is a name of torchvision's ("DEFAULT", "IMAGENET1K_V1") or a .safetensors file of a state dict. The former are downloaded on first use,
    and get a fresh head unless `n_classes` is theirs. A file without a head gets a fresh one if `fresh_head` allows it. Raises `BadSetting`
    for an unknown name, for weights that cannot be read or downloaded, and for those of another network; the message lists the keys that
    differ.

    >>> build_model("mlp", n_classes=5)(torch.zeros(2, 1, 28, 28)).shape
    torch.Size([2, 5])
    """
    check_model(name)
    if weights and not is_path(weights):
        _weights_of(name, weights)
    with seeded(seed, f"model/{name}"):
        if name in MODELS:
            model = MODELS[name](n_classes, in_channels, image_size)
        else:
            model = torchvision_model(name, n_classes, in_channels, image_size, "" if is_path(weights) else weights)
    return load_weights(model, weights, fresh_head) if is_path(weights) else model


def check_model(name: str) -> str:
    """`name` itself. Raises `BadSetting` if there is no network of that name."""
    return name if name in MODELS else known(name, [*MODELS, *torchvision_names()], "model")


@cache
def torchvision_names() -> list[str]:
    """Names of torchvision's classification networks."""
    zoo = _zoo()
    return list(zoo.list_models(module=zoo))


def _zoo() -> Any:
    """torchvision.models, imported here because that takes a second and a half."""
    with needs("study"):
        from torchvision import models
    return models


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
    """torchvision's network, for `build_model`; a fresh ResNet gets a 3x3 stem of stride 1 without pooling for images up to 64 pixels."""
    if not weights:
        quick = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
        model = _with_one_answer(_zoo().get_model(name, num_classes=n_classes, **quick))
        small = name.startswith("resnet") and image_size <= 64
        if small:
            model.maxpool = nn.Identity()
        if small or in_channels != 3:
            _with_stem(model, name, in_channels, small)
        return model
    if in_channels != 3:
        found = f"weights {weights!r} of {name} are for 3 channels, the images have {in_channels}"
        raise BadSetting(f"{found}; load them with channels 3")
    chosen = _weights_of(name, weights)
    try:
        model = _with_one_answer(_zoo().get_model(name, weights=chosen))
    except (OSError, RuntimeError) as error:
        way_out = f"put {chosen.url} into {torch.hub.get_dir()}/checkpoints"
        raise BadSetting(f"the weights {chosen} cannot be downloaded ({error}); {way_out}") from None
    return model if n_classes == len(chosen.meta["categories"]) else with_head(model, n_classes)


def _with_one_answer(model: nn.Module) -> nn.Module:
    """`model` without the auxiliary heads of GoogLeNet and Inception; mutates `model`."""
    for name in ("aux_logits", "AuxLogits", "aux1", "aux2"):
        if hasattr(model, name):
            setattr(model, name, False if name == "aux_logits" else None)
    return model


def _weights_of(name: str, weights: str) -> Any:
    """torchvision's weights of that name for the network `name`. Raises `BadSetting`, which lists the names, if there are none."""
    if name in MODELS:
        found = f"model {name!r} has no pretrained weights {weights!r}"
        raise BadSetting(f"{found}; give a .safetensors file, or a network of torchvision's")
    kinds = _zoo().get_model_weights(name)
    known(weights, {*kinds.__members__, "DEFAULT"}, f"weights of {name}")
    return kinds[weights] if weights != "DEFAULT" else kinds.DEFAULT


def check_head_fits(name: str, weights: str, n_classes: int) -> None:
    """Raise `BadSetting` if torchvision's `weights` of `name` have a head for another number of classes."""
    if not is_path(weights) and len(_weights_of(name, weights).meta["categories"]) != n_classes:
        raise BadSetting(
            f"source_steps = 0, but the weights {weights!r} of {name} have no head for the {n_classes} classes of the source; set "
            "source_steps to train one, or give a .safetensors file of a network that does the source task already"
        )


@cache
def pretrained_transform(name: str, weights: str) -> Callable[[Any], Tensor] | None:
    """The transform (PIL image -> tensor) that torchvision's `weights` of `name` expect; None for other weights."""
    return _weights_of(name, weights).transforms() if weights and not is_path(weights) else None


def _with_stem(model: nn.Module, name: str, in_channels: int, small: bool) -> None:
    """Replace the first convolution by one for `in_channels`; `small`: 3x3 with stride 1. Mutates `model`."""
    first, old = next(((n, m) for n, m in model.named_modules() if isinstance(m, nn.Conv2d)), ("", None))
    if old is None:
        found = f"model {name!r} begins with no convolution to adapt to {in_channels} channels"
        raise BadSetting(f"{found}; load the images with channels=3")
    usual = {key: getattr(old, key) for key in ("kernel_size", "stride", "padding")}
    form = {"kernel_size": 3, "stride": 1, "padding": 1} if small else usual
    model.set_submodule(first, nn.Conv2d(in_channels, old.out_channels, bias=old.bias is not None, **form))


def with_head(model: nn.Module, n_classes: int) -> nn.Module:
    """`model` with a fresh Linear or Conv2d head for `n_classes`; mutates `model`. Raises `ValueError` for a head of another kind."""
    name = head_name(model)
    old, new = model.get_submodule(name), nn.Module()
    if isinstance(old, nn.Conv2d):  # SqueezeNet
        height, width = old.kernel_size
        new = nn.Conv2d(old.in_channels, n_classes, (height, width))
    elif isinstance(old, nn.Linear):
        new = nn.Linear(old.in_features, n_classes, bias=old.bias is not None)
    else:
        raise ValueError(f"the head {name!r} is a {type(old).__name__}; give the network a Linear one yourself")
    model.set_submodule(name, new.to(old.weight))
    return model


def weights_file(path: str | Path) -> Path:
    """`path` as a `Path`. Raises `BadSetting` if it is no .safetensors file or does not exist."""
    path = Path(path).expanduser()
    if path.suffix != ".safetensors":
        raise BadSetting(
            f"{path} may hold a pickle, which can run code when it is read, and is refused; convert it once if you trust it: "
            "state = torch.load(path, map_location='cpu', weights_only=True); state = state.get('state_dict', state); "
            "safetensors.torch.save_file({k: v.contiguous() for k, v in state.items()}, 'weights.safetensors')"
        )
    if not path.is_file():
        raise BadSetting(f"weights {path}: there is no such file; give one, or the name of torchvision's weights")
    return path


def load_weights(model: nn.Module, path: str | Path, fresh_head: bool = False) -> nn.Module:
    """`model` with the state dict of a .safetensors file; mutates `model`. With `fresh_head` it keeps its own head if the file has none.

    Raises `BadSetting` for a pickled checkpoint (nothing is unpickled here), for a missing or damaged file, and for the weights of
    another network; the message lists the names and shapes that differ.
    """
    path = weights_file(path)
    try:
        state = load_file(path)
    except (SafetensorError, OSError) as error:
        raise BadSetting(f"weights {path} cannot be read ({error})") from None
    mine, theirs = ({n: tuple(v.shape) for n, v in tensors.items()} for tensors in (model.state_dict(), state))
    _check_same(path, type(model).__name__, mine, theirs, f"{head_name(model)}." if fresh_head else "")
    model.load_state_dict(state, strict=False)  # what may be missing was found above
    return model


def check_weights(name: str, path: str | Path) -> None:
    """Raise `BadSetting` if the .safetensors file at `path` is missing, damaged or of another network than `name`. No value is read.

    What depends on the images is left to `load_weights`: the head, the shape of a first convolution, and all shapes of our own networks.
    """
    path = weights_file(path)
    with torch.device("meta"):
        model = build_model(name, 10, 3, 224)
    try:
        with safe_open(path, "pt") as file:
            theirs = {n: tuple(file.get_slice(n).get_shape()) for n in file.keys()}  # noqa: SIM118 (it is no dict)
    except (SafetensorError, OSError) as error:
        raise BadSetting(f"weights {path} cannot be read ({error})") from None
    mine, head = {n: tuple(v.shape) for n, v in model.state_dict().items()}, f"{head_name(model)}."
    first = next(iter(mine))
    theirs |= {n: mine[n] for n in theirs if n in mine and (n == first or n.startswith(head) or name in MODELS)}
    _check_same(path, name, mine, theirs, head)


def _check_same(path: Path, network: str, mine: Shapes, theirs: Shapes, head: str) -> None:
    """Raise `BadSetting` if the names or shapes of a file's tensors, `theirs`, are not those of the `network`; a whole `head` may lack."""
    if head and not any(n.startswith(head) for n in theirs):
        mine = {n: shape for n, shape in mine.items() if not n.startswith(head)}
    shapes = [f"{n} {theirs[n]} for {shape}" for n, shape in mine.items() if theirs.get(n, shape) != shape]
    faults = {"missing": mine.keys() - theirs, "unexpected": theirs.keys() - mine, "of another shape": shapes}
    if any(faults.values()):
        said = "; ".join(f"{len(v)} {k}: {', '.join(sorted(v)[:5])}" for k, v in faults.items() if v)
        raise BadSetting(f"weights {path} are of another network than {network}: {said}")
