"""What running a model changes of it is put back."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import xpu_amp_dynamo
from tests.support.free_meter import FreeMeter


class Model(nn.Module):
    seen: torch.Tensor

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(4, 4)
        self.register_buffer("seen", torch.zeros(()))
        self.last, self.calls = None, 0


class Counts(Model):
    def forward(self, x):
        self.seen += 1
        return self.linear(x) * self.seen


class Replaces(Model):
    def forward(self, x):
        self.seen = self.seen + 1
        return self.linear(x) * self.seen


class Keeps(Model):
    def forward(self, x):
        y = self.linear(x)
        self.last = y if self.last is None else torch.cat([self.last, y])
        self.new = y
        return self.last


class Numbers(Model):
    def forward(self, x):
        self.calls += 1
        return self.linear(x) * self.calls


@pytest.fixture(params=["explain", "tune"])
def look(request, monkeypatch):
    """Return a function that runs a model to look at it."""
    monkeypatch.setattr("xpu_amp_dynamo.tuning.tune.MeasuredTime", FreeMeter)
    options = {"inner_backend": "eager"}
    if request.param == "tune":
        return lambda model, x: xpu_amp_dynamo.tune(model, (x,), options=options, cost="time", tolerance=0.02)
    return lambda model, x: xpu_amp_dynamo.explain(model, x, options=options, compare="float32")


@pytest.mark.parametrize("kind", [Counts, Replaces, Keeps, Numbers])
def test_a_model_stays_as_it_is(kind, look):
    model, x = kind().eval(), torch.randn(2, 4)
    attributes, buffer = dict(vars(model)), model.seen
    look(model, x)
    assert vars(model) == attributes
    assert model.seen is buffer
    assert model.seen == 0
    assert model(x).shape == (2, 4)


def test_modules_whose_state_lies_elsewhere_are_left_alone():
    scripted = torch.jit.script(nn.BatchNorm1d(4))
    model = nn.Sequential(nn.Linear(4, 4), scripted)
    xpu_amp_dynamo.explain(model, torch.randn(2, 4), options={"inner_backend": "eager"})
    assert scripted.num_batches_tracked == 0


def test_a_model_without_shapes_gets_them():
    model = nn.Sequential(nn.LazyLinear(4))
    xpu_amp_dynamo.explain(model, torch.randn(2, 3), options={"inner_backend": "eager"})
    assert model[0].weight.shape == (4, 3)
    assert model(torch.randn(2, 3)).shape == (2, 4)
