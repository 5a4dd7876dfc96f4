"""Lightning's Trainer.fit inside protect."""

import copy
import warnings

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from maskutils import evaluate, learn_mask, protect

lightning = pytest.importorskip("lightning")

DATA = TensorDataset(torch.randn(16, 6, generator=torch.Generator().manual_seed(0)), torch.arange(16) % 3)
QUIET = {
    "max_epochs": 2,
    "accelerator": "cpu",
    "logger": False,
    "enable_checkpointing": False,
    "enable_progress_bar": False,
}
pytestmark = pytest.mark.filterwarnings("default")


class Classifier(lightning.LightningModule):
    """A network in the form that Lightning trains."""

    def __init__(self, lbfgs: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.net, self.lbfgs = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 8), nn.Linear(8, 3)), lbfgs

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.net(x)

    def training_step(self, batch: tuple, _: int) -> torch.Tensor:
        return F.cross_entropy(self(batch[0]), batch[1])

    def configure_optimizers(self) -> torch.optim.Optimizer:
        if self.lbfgs:
            return torch.optim.LBFGS(self.parameters(), 0.1)
        return torch.optim.AdamW(self.parameters(), 0.01, weight_decay=0.1)


LOOPS = {
    "plain": {},
    "mixed precision": {"precision": "bf16-mixed"},
    "accumulation": {"accumulate_grad_batches": 2, "gradient_clip_val": 1.0},
    "lbfgs": {"lbfgs": True},
}


@pytest.mark.parametrize("loop", LOOPS)
def test_protect_around_fit(loop):
    options = dict(LOOPS[loop])
    model = Classifier(options.pop("lbfgs", False))
    mask, before = learn_mask(model, DATA, "magnitude", density=0.3), copy.deepcopy(model.state_dict())
    with protect(model, mask, train=["net.3."]):
        lightning.Trainer(**QUIET, **options, enable_model_summary=False).fit(model, DataLoader(DATA, 4))
    after = model.state_dict()
    assert all(torch.equal(after[n][b], before[n][b]) for n, b in mask.bits.items())
    assert all((after[n] != before[n])[~b].any() for n, b in mask.bits.items())
    assert torch.equal(after["net.0.bias"], before["net.0.bias"])
    assert not torch.equal(after["net.3.bias"], before["net.3.bias"])


def test_bf16_true_is_told():
    model = Classifier()
    mask = learn_mask(model, DATA, "magnitude", density=0.3)
    with warnings.catch_warnings(record=True, action="always") as found, protect(model, mask):
        lightning.Trainer(**QUIET, precision="bf16-true", enable_model_summary=False).fit(model, DataLoader(DATA, 4))
    assert [w for w in found if "became torch.bfloat16 inside protect" in str(w.message)]


def test_a_compiled_module_is_masked_and_copied():
    model = Classifier()
    model.forward = torch.compile(model.forward, backend="eager")
    mask = learn_mask(model, DATA, "gumbel_sigmoid", density=0.3, steps=2)
    assert evaluate((~(mask | ~mask)).apply(model), DATA) <= 0.5


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
@pytest.mark.parametrize("given", [True, False])
def test_protect_in_a_loop_of_fabric(given, precision):
    net, fabric = Classifier().net, lightning.Fabric(accelerator="cpu", devices=1, precision=precision)
    optimizer = torch.optim.AdamW(net.parameters(), 0.01, weight_decay=0.1)
    before = copy.deepcopy(net.state_dict())
    model, optimizer = fabric.setup(net, optimizer)
    mask = learn_mask(model, DATA, "magnitude", density=0.3)
    with protect(model, mask, train=["3."], optimizer=optimizer if given else None):
        for x, y in DataLoader(DATA, 4):
            optimizer.zero_grad()
            fabric.backward(F.cross_entropy(model(x), y))
            optimizer.step()
    after = net.state_dict()
    assert all(torch.equal(after[n][b], before[n][b]) for n, b in mask.bits.items())
    assert all((after[n] != before[n])[~b].all() for n, b in mask.bits.items())
    assert torch.equal(after["0.bias"], before["0.bias"])


def test_a_checkpoint_that_fit_loads_over_other_weights_is_told(tmp_path):
    model, options = Classifier(), {**QUIET, "enable_model_summary": False, "default_root_dir": tmp_path}
    mask = learn_mask(model, DATA, "magnitude", density=0.3)
    trainer = lightning.Trainer(**options)
    with protect(model, mask, train=["net.3."]):
        trainer.fit(model, DataLoader(DATA, 4))
    trainer.save_checkpoint(tmp_path / "a.ckpt")
    for other in (False, True):
        again = Classifier()
        if other:
            nn.init.ones_(again.net[0].weight)
        with warnings.catch_warnings(record=True, action="always") as found, protect(again, mask, train=["net.3."]):
            lightning.Trainer(**{**options, "max_epochs": 3}).fit(
                again, DataLoader(DATA, 4), ckpt_path=tmp_path / "a.ckpt"
            )
        assert any("before its first step" in str(w.message) for w in found) == other
