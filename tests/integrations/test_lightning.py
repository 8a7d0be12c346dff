"""Lightning: modules compiled whole and in part, at each precision, and stock regions under our policy."""

from __future__ import annotations

import lightning
import pytest
import torch
from lightning.pytorch.plugins import MixedPrecision
from torch.utils.data import DataLoader

import xpu_amp_dynamo
from tests.integrations.models import lowered_calls, mlp
from tests.support.comparison import relative_error

EAGER = {"inner_backend": "eager"}
SCALED = "16-mixed"
pytestmark = [
    pytest.mark.filterwarnings("ignore:.*does not have many workers"),
    # Lightning's own, on torch 2.13.0.
    pytest.mark.filterwarnings("ignore:.*LeafSpec"),
    pytest.mark.filterwarnings("ignore:.*`GradScaler`"),
]


class Regression(lightning.LightningModule):
    """Fits an MLP, and keeps the losses."""

    def __init__(self):
        super().__init__()
        self.net, self.losses = mlp(), []

    def forward(self, x):
        return self.net(x)

    def training_step(self, batch, number):
        x, y = batch
        return torch.nn.functional.mse_loss(self(x), y)

    def on_train_batch_end(self, outputs, batch, number):
        self.losses.append(float(outputs["loss"]))

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


class Logging(Regression):
    """Logs in its step."""

    def training_step(self, batch, number):
        loss = super().training_step(batch, number)
        self.log("loss", loss)
        return loss


def fit(module, batches, precision, compiled=None):
    """Fit a module, or what it was compiled to; return the Trainer and the losses."""
    chosen = {"precision": precision}
    if precision == SCALED:
        # Lightning takes bfloat16 instead on a CPU, unless it is given the plugin.
        scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
        chosen = {"plugins": MixedPrecision(SCALED, "cpu", scaler)}
    trainer = lightning.Trainer(
        max_epochs=2,
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        **chosen,
    )
    trainer.fit(module if compiled is None else compiled, DataLoader(batches, batch_size=None))
    return trainer, torch.tensor(module.losses)


@pytest.fixture
def expected(batches):
    """Return the losses in float32."""
    return fit(Regression(), batches, "32-true")[1]


@pytest.mark.parametrize("inner_backend", ["eager", "inductor"])
@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed", SCALED])
@pytest.mark.parametrize("part", ["module", "net"])
def test_fit(batches, expected, tmp_path, inner_backend, precision, part):
    module, compiled = Regression(), None
    if part == "net":
        module.net.compile(backend="xpu_amp", options={"inner_backend": inner_backend})
    else:
        compiled = torch.compile(module, backend="xpu_amp", options={"inner_backend": inner_backend})
    with xpu_amp_dynamo.record_lowerings() as reports:
        trainer, losses = fit(module, batches, precision, compiled)
    assert lowered_calls(reports) == 2
    assert 0 < relative_error(losses, expected) < (0.001 if precision == SCALED else 0.005)
    trainer.save_checkpoint(tmp_path / "last.ckpt", weights_only=True)
    fresh = Regression()
    fresh.load_state_dict(torch.load(tmp_path / "last.ckpt", weights_only=True)["state_dict"])
    assert all(weight.dtype is torch.float32 for weight in fresh.state_dict().values())
    assert list(fresh.state_dict()) == [f"net.{name}" for name in mlp().state_dict()]


def test_a_step_that_logs(batches, expected):
    """The net is compiled by itself: see the next test."""
    module = Logging()
    module.net.compile(backend="xpu_amp", options=EAGER)
    with xpu_amp_dynamo.record_lowerings() as reports:
        trainer, losses = fit(module, batches, "bf16-mixed")
    assert lowered_calls(reports) == 2
    assert 0 < relative_error(losses, expected) < 0.005
    assert torch.isfinite(trainer.callback_metrics["loss"])


@pytest.mark.parametrize("backend", ["eager", "xpu_amp"])
def test_a_step_that_logs_cannot_be_compiled(batches, backend):
    """Nor by any other backend: Dynamo 2.13.0 fails in ``self.log`` of Lightning 2.6.6, and so says the page."""
    module = Logging()
    with pytest.raises(torch._dynamo.exc.InternalTorchDynamoError, match="has no attribute '__dict__'"):
        fit(module, batches, "32-true", torch.compile(module, backend=backend))


@pytest.mark.parametrize(("policy", "dtype"), [("xpu", torch.bfloat16), ("torch", torch.bfloat16)])
def test_regions_of_lightning_follow_an_installed_policy(batches, expected, policy, dtype):
    xpu_amp_dynamo.install(policy, "cpu")
    module, seen = Regression(), []
    module.net.first.register_forward_hook(lambda *call: seen.append(call[-1].dtype))
    _, losses = fit(module, batches, "bf16-mixed")
    assert set(seen) == {dtype}
    assert 0 < relative_error(losses, expected) < 0.005
