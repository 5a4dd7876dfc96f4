"""What a batch may be, what a network may return, and what is refused in one sentence."""

from types import SimpleNamespace

import pytest
import torch
from networks import NETS, easy
from torch import nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

from maskutils import evaluate, fit, learn_mask
from maskutils.masks.information import fisher_information
from maskutils.masks.rankings import RANKINGS, fisher, snip

IMAGES, CLASSES = easy(48).tensors


class Dicts(Dataset):
    """A data set of dicts, as those of Hugging Face are."""

    def __init__(self, images: str = "pixel_values", labels: str = "labels", used: slice = slice(None)) -> None:
        self.keys, self.images, self.classes = (images, labels), IMAGES[used], CLASSES[used]

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, i: int) -> dict:
        return dict(zip(self.keys, (self.images[i], int(self.classes[i])), strict=True))


class Answering(nn.Module):
    """A network whose output has logits beside other things, as those of transformers do."""

    def __init__(self, as_dict: bool) -> None:
        super().__init__()
        self.net, self.as_dict = NETS["mlp"](), as_dict

    def forward(self, pixel_values: torch.Tensor) -> object:
        logits = self.net(pixel_values)
        return {"loss": None, "logits": logits} if self.as_dict else SimpleNamespace(loss=None, logits=logits)


@pytest.mark.parametrize("keys", [("pixel_values", "labels"), ("pixel_values", "label")])
@pytest.mark.parametrize("form", [Dicts, lambda *keys: DataLoader(Dicts(*keys), 16)], ids=["data set", "loader"])
@pytest.mark.parametrize("as_dict", [True, False])
def test_dicts_and_outputs_with_logits_are_as_good_as_pairs_and_tensors(keys, form, as_dict):
    torch.manual_seed(0)
    model = Answering(as_dict)
    data, pairs = form(*keys), TensorDataset(IMAGES, CLASSES)
    assert evaluate(model, data) == evaluate(model.net, pairs)
    for name, s in snip(model, data, 0).items():
        torch.testing.assert_close(s, snip(model.net, pairs, 0)[name.removeprefix("net.")])
    for method in ("gumbel_sigmoid", "snip", "fisher", "magnitude"):
        assert learn_mask(model, data, method, density=0.2, steps=2).density == pytest.approx(0.2, abs=1e-3)
    assert fit(model, data, steps=2)[-1]["loss"] > 0


def test_what_has_no_logits_is_refused():
    class Features(Answering):
        def forward(self, x: torch.Tensor) -> list:
            return [self.net(x)]

    with pytest.raises(
        ValueError, match=r"returned a list; it must be a tensor of logits \(N, classes\), or have \.logits"
    ):
        evaluate(Features(True), easy(8))


WRONG = {
    "a column": (CLASSES[:, None], r"labels are torch.int64 \(48, 1\) for 48 images.*squeeze\(1\)"),
    "one-hot": (nn.functional.one_hot(CLASSES), r"labels are torch.int64 \(48, 6\) for 48 images.*argmax\(1\)"),
    "one-hot as probabilities": (
        nn.functional.one_hot(CLASSES).float(),
        r"labels are \(48, 6\); accuracy needs one class",
    ),
    "floats": (CLASSES.float(), r"labels are torch.float32 \(48,\).*labels.long\(\)"),
    "from one": (CLASSES + 1, "labels go from 1 to 6, but the network has the classes 0 to 5"),
    "ignored": (CLASSES - 1, "labels go from -1 to 4"),
}


@pytest.mark.parametrize(("labels", "message"), WRONG.values(), ids=WRONG.keys())
def test_labels_that_would_give_a_wrong_accuracy_are_refused(labels, message):
    with pytest.raises(ValueError, match=message):
        evaluate(NETS["mlp"](), TensorDataset(IMAGES, labels))


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int32, torch.int16])
def test_labels_of_any_whole_numbers_are_as_good(dtype):
    torch.manual_seed(0)
    model, plain, other = NETS["mlp"](), TensorDataset(IMAGES, CLASSES), TensorDataset(IMAGES, CLASSES.to(dtype))
    assert evaluate(model, other) == evaluate(model, plain)
    assert learn_mask(model, other, "snip", density=0.2) == learn_mask(model, plain, "snip", density=0.2)
    assert learn_mask(model, other, density=0.2, steps=2) == learn_mask(model, plain, density=0.2, steps=2)


def test_class_probabilities_can_be_trained_on():
    mixed = TensorDataset(IMAGES, nn.functional.one_hot(CLASSES).float())
    assert fit(NETS["mlp"](), mixed, steps=2)[-1]["loss"] > 0


@pytest.mark.parametrize("where", ["images", "weights"])
def test_accuracy_of_nan_is_refused(where):
    model, images = NETS["mlp"](), IMAGES.clone()
    if where == "images":
        images[3] = torch.nan
    else:
        next(model.parameters()).data[0] = torch.nan
    with pytest.raises(ValueError, match="logits are nan"):
        evaluate(model, TensorDataset(images, CLASSES))


@pytest.mark.parametrize("ranking", [snip, fisher])
def test_rankings_refuse_what_they_cannot_read(ranking):
    model = NETS["mlp"]()
    with pytest.raises(ValueError, match=r"images are torch\.uint8; make them float"):
        ranking(model, TensorDataset(IMAGES.byte(), CLASSES), 0)
    for empty in (DataLoader(Dicts(used=slice(0)), 4), [], TensorDataset(IMAGES[:0], CLASSES[:0])):
        with pytest.raises(ValueError, match="nothing to rank weights on"):
            ranking(model, empty, 0)
    assert RANKINGS["fisher"] is fisher
    assert fisher_information(model, Dicts(), 4)
