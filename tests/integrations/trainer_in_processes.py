"""One of two processes that torchrun starts: a Trainer whose callback compiles a model with its data parallelism."""

from __future__ import annotations

import os
import sys

import torch
from torch.nn.parallel import DistributedDataParallel
from transformers import LlamaForCausalLM, Trainer, TrainerCallback

import xpu_amp_dynamo
from tests.integrations.models import llama, lowered_calls, sentences
from tests.integrations.trainer_arguments import trainer_arguments
from tests.support.comparison import relative_error
from xpu_amp_dynamo.integrations.accelerate import XpuAmpPlugin
from xpu_amp_dynamo.integrations.transformers import XpuAmpCallback


def trained(folder: str, *callbacks: TrainerCallback) -> tuple[LlamaForCausalLM, Trainer]:
    """Train a Llama on sixteen sentences; return it and its Trainer."""
    model = llama()
    trainer = Trainer(model, trainer_arguments(folder, batch=2), train_dataset=sentences(16), callbacks=list(callbacks))
    trainer.train()
    return model, trainer


def main(folder: str) -> None:
    """Compare the weights with those that two processes give in float32, and count what runs lower."""
    expected = trained(folder)[0].state_dict()
    torch._dynamo.reset()
    with xpu_amp_dynamo.record_lowerings() as reports:
        model, trainer = trained(folder, XpuAmpCallback(XpuAmpPlugin({"inner_backend": "aot_eager"})))
    assert isinstance(trainer.model_wrapped._orig_mod, DistributedDataParallel)
    assert lowered_calls(reports) == 17, [report.ops for report in reports]
    for name, weight in model.state_dict().items():
        assert weight.dtype is torch.float32, name
        assert relative_error(weight, expected[name]) < 0.001, name
    print("as in float32", flush=True)
    trainer.accelerator.wait_for_everyone()
    # One of the two sometimes waits for ever as it frees the process group at its end, torch 2.13.0 with gloo.
    os._exit(0)


if __name__ == "__main__":
    main(sys.argv[1])
