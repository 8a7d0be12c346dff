"""The examples of docs/integrations.md run as they stand, with what stands for "your model" around them."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import lightning
import pytest
import torch
from transformers import CompileConfig, Trainer, TrainingArguments

import xpu_amp_dynamo
from tests.integrations.flux import flux, run
from tests.integrations.models import llama, lowered_calls, mlp, sentences

PAGE = Path(__file__).parents[2] / "docs" / "integrations.md"
EXAMPLES = re.findall(r"^```py\n(.*?)^```$", PAGE.read_text(), re.M | re.S)


class Module(lightning.LightningModule):
    """An MLP that learns nothing but zeros."""

    def __init__(self) -> None:
        super().__init__()
        self.net = mlp()

    def training_step(self, batch: torch.Tensor) -> torch.Tensor:
        """Return the loss of a batch."""
        return self.net(batch).square().mean()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return the optimizer."""
        return torch.optim.SGD(self.parameters(), lr=0.1)


def plain(given: dict[str, Any]) -> None:
    given["model"] = mlp()


def call(given: dict[str, Any]) -> None:
    given["model"](torch.randn(2, 16))


def trained(given: dict[str, Any]) -> None:
    given.update(model=mlp())
    given["optimizer"] = torch.optim.SGD(given["model"].parameters(), lr=0.1)


def for_a_trainer(given: dict[str, Any]) -> None:
    def arguments(output_dir: str) -> TrainingArguments:
        return TrainingArguments(output_dir=output_dir, use_cpu=True, report_to=[], disable_tqdm=True, max_steps=1)

    given.update(model=llama(), data=sentences(8), Trainer=Trainer, TrainingArguments=arguments)


def for_generation(given: dict[str, Any]) -> None:
    def config(**settings: Any) -> CompileConfig:
        made: Any = CompileConfig(**settings)
        # What is compiled on GPUs of each kind is on the CPU only if it is asked for.
        made._compile_all_devices = True
        return made

    model = llama().eval()
    model.generation_config.max_new_tokens = 3
    given.update(model=model, tokens=torch.tensor([[3, 4, 5]]), CompileConfig=config)


def for_lightning(given: dict[str, Any]) -> None:
    def trainer(**settings: Any) -> lightning.Trainer:
        quiet = {"accelerator": "cpu", "max_steps": 1, "logger": False, "enable_progress_bar": False}
        return lightning.Trainer(**quiet, enable_checkpointing=False, enable_model_summary=False, **settings)

    data = torch.utils.data.DataLoader(cast(Any, torch.randn(8, 16)), 4)
    given.update(module=Module(), data=data, lightning=SimpleNamespace(Trainer=trainer))


def for_a_pipeline(given: dict[str, Any]) -> None:
    given["pipe"] = SimpleNamespace(transformer=flux())


def denoise(given: dict[str, Any]) -> None:
    run(given["pipe"].transformer)


def nothing(given: dict[str, Any]) -> None:
    pass


Step = Callable[[dict[str, Any]], None]
# What is there before each example, and what follows it.
AROUND: list[tuple[Step, Step]] = [
    (plain, call),
    (trained, call),
    (for_a_trainer, nothing),
    (for_generation, nothing),
    (for_lightning, nothing),
    (for_a_pipeline, denoise),
]


def test_there_are_as_many_examples_as_here():
    assert len(EXAMPLES) == len(AROUND)


# The libraries' own, on torch 2.13.0.
@pytest.mark.filterwarnings("ignore:.*does not have many workers", "ignore:.*LeafSpec")
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning")
@pytest.mark.parametrize("number", range(len(AROUND)))
def test_examples_run(number, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    # Inductor takes a minute, and other tests.
    monkeypatch.setenv("XPU_AMP_OPTIONS", '{"inner_backend": "eager"}')
    before, after = AROUND[number]
    given: dict[str, Any] = {"torch": torch, "xpu_amp_dynamo": xpu_amp_dynamo}
    before(given)
    with xpu_amp_dynamo.record_lowerings() as reports:
        exec(compile(EXAMPLES[number], PAGE.name, "exec"), given)
        after(given)
    assert lowered_calls(reports)
