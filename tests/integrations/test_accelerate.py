"""Accelerate: the plugin compiles with our backend, alone, by regions and around two processes' data parallelism."""

from __future__ import annotations

import pytest
import torch
from accelerate import Accelerator
from accelerate.utils import TorchDynamoPlugin

import xpu_amp_dynamo
from tests.integrations.models import lowered_calls, mlp
from tests.support.comparison import relative_error
from tests.support.two_processes import run_in_two_processes
from xpu_amp_dynamo.errors import InvalidOptionError
from xpu_amp_dynamo.integrations.accelerate import XpuAmpPlugin

EAGER = {"inner_backend": "eager"}


def train(batches, accelerator):
    """Train an MLP, stepping once every few batches; return its outputs, the model as prepared, and the weights."""
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    model, optimizer = accelerator.prepare(model, optimizer)
    outputs = []
    for x, y in batches:
        with accelerator.accumulate(model):
            outputs.append(model(x))
            accelerator.backward(torch.nn.functional.mse_loss(outputs[-1], y))
            optimizer.step()
            optimizer.zero_grad()
    return outputs, model


def float32_outputs(batches, steps):
    """Return the outputs of the same training by hand, in float32."""
    model, outputs = mlp(), []
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for number, (x, y) in enumerate(batches, start=1):
        outputs.append(model(x))
        (torch.nn.functional.mse_loss(outputs[-1], y) / steps).backward()
        if number % steps == 0:
            optimizer.step()
            optimizer.zero_grad()
    return outputs, model.state_dict()


@pytest.mark.parametrize("mixed_precision", ["no", "bf16"])
@pytest.mark.parametrize("steps", [1, 2])
@pytest.mark.parametrize("inner_backend", ["eager", "aot_eager", "inductor"])
def test_training(batches, mixed_precision, steps, inner_backend):
    plugin = XpuAmpPlugin({"inner_backend": inner_backend})
    accelerator = Accelerator(
        cpu=True, mixed_precision=mixed_precision, dynamo_plugin=plugin, gradient_accumulation_steps=steps
    )
    with xpu_amp_dynamo.record_lowerings() as reports:
        outputs, model = train(batches, accelerator)
    expected, weights = float32_outputs(batches, steps)
    assert lowered_calls(reports) == 2
    assert all(output.dtype is torch.float32 for output in outputs)
    for output, wanted in zip(outputs, expected, strict=True):
        assert 0 < relative_error(output, wanted) < 0.01
    found = accelerator.unwrap_model(model, keep_torch_compile=False).state_dict()
    assert list(found) == list(weights)
    for name, weight in weights.items():
        assert found[name].dtype is torch.float32
        assert relative_error(found[name], weight) < 0.01


# Which the backend says once a process.
@pytest.mark.filterwarnings("ignore:.*GradScaler:UserWarning")
def test_float16(batches):
    """Without Accelerate's own mixed precision, which refuses float16 on CPUs."""
    accelerator = Accelerator(cpu=True, dynamo_plugin=XpuAmpPlugin({"dtype": torch.float16, **EAGER}))
    with xpu_amp_dynamo.record_lowerings(details=True) as reports:
        outputs, _ = train(batches, accelerator)
    assert torch.float16 in {cast.to_dtype for report in reports for cast in report.each_cast}
    assert 0 < relative_error(outputs[-1], float32_outputs(batches, 1)[0][-1]) < 0.002


def test_saving_and_loading(batches, tmp_path):
    accelerator = Accelerator(cpu=True, dynamo_plugin=XpuAmpPlugin(EAGER))
    _, model = train(batches, accelerator)
    accelerator.save_state(str(tmp_path))
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    output = model(batches[0][0])
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(2)
    assert not torch.equal(model(batches[0][0]), output)
    accelerator.load_state(str(tmp_path))
    assert all(torch.equal(weight, before[name]) for name, weight in model.state_dict().items())
    assert torch.equal(model(batches[0][0]), output)


# Dynamo's own, of inputs with gradients that are no leaves, torch 2.13.0.
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning")
def test_regional_compilation(batches):
    """Accelerate compiles a model's lists of blocks one by one."""

    class Blocks(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.blocks = torch.nn.ModuleList([mlp() for _ in range(3)])
            self.back = torch.nn.Linear(4, 16)

        def forward(self, x):
            for block in self.blocks:
                x = self.back(block(x))
            return x

    model = Blocks()
    x = batches[0][0]
    expected = model(x)
    plugin = XpuAmpPlugin({"inner_backend": "aot_eager"}, use_regional_compilation=True)
    accelerator = Accelerator(cpu=True, dynamo_plugin=plugin)
    with xpu_amp_dynamo.record_lowerings() as reports:
        prepared = accelerator.prepare(model)
        output = prepared(x)
    # A graph of the first block, whose input has no gradient, one of the layer, and one of the blocks behind it.
    assert [report.ops["lower_precision"] for report in reports] == [2, 1, 2]
    assert 0 < relative_error(output, expected) < 0.01
    unwrapped = accelerator.unwrap_model(prepared, keep_torch_compile=False)
    assert list(unwrapped.state_dict()) == list(model.state_dict())


def test_settings_reach_torch_compile(monkeypatch):
    assert XpuAmpPlugin().to_kwargs() == {"backend": "xpu_amp"}
    plugin = XpuAmpPlugin({"policy": "torch"}, fullgraph=True, dynamic=False)
    settings = {"backend": "xpu_amp", "options": {"policy": "torch"}, "fullgraph": True, "dynamic": False}
    assert plugin.to_kwargs() == settings
    monkeypatch.setenv("ACCELERATE_DYNAMO_BACKEND", "NO")
    monkeypatch.setenv("ACCELERATE_DYNAMO_MODE", "max-autotune")
    assert XpuAmpPlugin().to_kwargs() == {"backend": "xpu_amp", "mode": "max-autotune"}


def test_bad_options_are_refused_at_once():
    with pytest.raises(InvalidOptionError, match="dtyp"):
        XpuAmpPlugin({"dtyp": torch.float16})


def test_accelerates_own_plugin_refuses_the_backend():
    """Why there is one of ours; where this fails, ours can go."""
    with pytest.raises(ValueError, match="'XPU_AMP' is not a valid DynamoBackend"):
        TorchDynamoPlugin(backend="xpu_amp")


def test_data_parallel():
    """Two processes give the gradients of one, and lower."""
    assert run_in_two_processes("tests.integrations.data_parallel").count("as one process") == 2
