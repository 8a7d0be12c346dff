"""One of two processes that torchrun starts: DistributedDataParallel by Accelerate, compiled by the plugin."""

from __future__ import annotations

import os

import torch
from accelerate import Accelerator
from torch.nn.parallel import DistributedDataParallel

import xpu_amp_dynamo
from tests.integrations.models import lowered_calls, mlp
from tests.support.comparison import relative_error
from xpu_amp_dynamo.integrations.accelerate import XpuAmpPlugin


def main() -> None:
    """Train a step on half of a batch each, and compare with one process in float32 on all of it."""
    accelerator = Accelerator(cpu=True, dynamo_plugin=XpuAmpPlugin({"inner_backend": "aot_eager"}))
    x, y = torch.randn(8, 16, generator=torch.Generator().manual_seed(1)), torch.zeros(8, 4)
    alone = mlp()
    torch.nn.functional.mse_loss(alone(x), y).backward()
    model = accelerator.prepare(mlp())
    half = slice(accelerator.process_index * 4, accelerator.process_index * 4 + 4)
    with xpu_amp_dynamo.record_lowerings() as reports:
        loss = torch.nn.functional.mse_loss(model(x[half]), y[half])
        accelerator.backward(loss)
    assert isinstance(model._orig_mod, DistributedDataParallel)
    assert lowered_calls(reports) == 2
    own = accelerator.unwrap_model(model, keep_torch_compile=False)
    for (name, parameter), wanted in zip(own.named_parameters(), alone.parameters(), strict=True):
        assert wanted.grad is not None
        assert parameter.grad.dtype is torch.float32, name
        assert relative_error(parameter.grad, wanted.grad) < 0.02, name
    print("as one process", flush=True)
    accelerator.wait_for_everyone()
    # One of the two sometimes waits for ever as it frees the process group at its end, torch 2.13.0 with gloo.
    os._exit(0)


if __name__ == "__main__":
    main()
