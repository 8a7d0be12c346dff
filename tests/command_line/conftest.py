"""Models that commands are about, and a way to run a command in this process."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from click.testing import CliRunner, Result

from xpu_amp_dynamo.command_line.main import xpu_amp

Run = Callable[..., Result]

MODELS = """
import torch


class Breaks(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(8, 8)

    def forward(self, x):
        y = self.layer(x)
        torch._dynamo.graph_break()
        return self.layer(y)


def layer():
    return torch.nn.Linear(8, 8).eval(), (torch.randn(2, 8),)

def by_name():
    return torch.nn.Linear(8, 8).eval(), {"input": torch.randn(2, 8)}

def training():
    return torch.nn.Linear(8, 8), (torch.randn(2, 8),)

def frozen():
    return torch.nn.Linear(8, 8).requires_grad_(False), (torch.randn(2, 8),)

def breaks():
    return Breaks().eval(), (torch.randn(2, 8),)

def unlisted():
    return torch.nn.ReLU().eval(), (torch.randn(2, 8),)

def banned():
    return torch.nn.BCELoss(), (torch.rand(4), torch.rand(4))

def overflows():
    model = torch.nn.Sequential(*(torch.nn.Linear(8, 8, bias=False) for _ in range(2)))
    with torch.no_grad():
        model[1].weight.mul_(1e5)
    return model.eval(), (torch.full((2, 8), 100.0),)

def largest(output, reference):
    return (output - reference).abs().max() / reference.abs().max()

def stops():
    raise AssertionError("the model is made too early")

def wrong():
    return 3

def sized(width, *more, depth, dtype=torch.float32, **others):
    raise AssertionError("there is no width")

not_callable = 3
"""


@pytest.fixture(autouse=True)
def models(tmp_path, monkeypatch) -> Iterator[None]:
    """Change into a folder with a file of factories."""
    (tmp_path / "my_models.py").write_text(MODELS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    yield
    sys.modules.pop("my_models", None)


@pytest.fixture
def run() -> Run:
    """Return a function that runs a command; what no command catches, it raises."""

    def invoke(*words: Any) -> Result:
        result = CliRunner().invoke(xpu_amp, list(map(str, words)))
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result

    return invoke
