"""Dynamic shapes: no compilation more than stock Inductor needs."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F

import xpu_amp_dynamo
from tests.support.comparison import counting_backend

LENGTHS = (4, 7, 12, 33)
# Equal to no other size: Dynamo takes sizes that are equal at first to stay equal.
BATCH = 5


class Attention(torch.nn.Module):
    """Attention with a growing cache of keys and values."""

    def __init__(self):
        super().__init__()
        self.projections = torch.nn.Linear(16, 48)
        self.out = torch.nn.Linear(16, 16)

    def forward(self, x, past):
        q, k, v = self.projections(x).chunk(3, -1)
        k, v = torch.cat([past[0], k], 1), torch.cat([past[1], v], 1)
        mask = torch.ones(q.shape[1], k.shape[1], dtype=torch.bool).tril(k.shape[1] - q.shape[1])
        y = F.scaled_dot_product_attention(q[:, None], k[:, None], v[:, None], attn_mask=mask)
        return self.out(y[:, 0]), (k, v)


class UNetLike(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.down, self.up = torch.nn.Conv2d(3, 8, 3, padding=1), torch.nn.Conv2d(11, 3, 3, padding=1)

    def forward(self, x, _):
        y = F.interpolate(F.avg_pool2d(self.down(x), 2), size=x.shape[-2:])
        return self.up(torch.cat([x, y], 1)), None


def attention_inputs(length):
    past = torch.randn(BATCH, length // 2, 16), torch.randn(BATCH, length // 2, 16)
    return torch.randn(BATCH, length, 16), past


def image_inputs(length):
    return torch.randn(BATCH, 3, 2 * length, 8 + length), None


CASES = {"attention": (Attention, attention_inputs), "convolutions": (UNetLike, image_inputs)}


def compilations(case, inner, backend, *, dynamic, mark=False, train=False, **options):
    """Return how many graphs were compiled for all lengths, and check each result."""
    make, inputs_of = CASES[case]
    torch.manual_seed(0)
    model = make()
    counter, name = counting_backend(inner)
    torch._dynamo.reset()
    if backend == "xpu_amp":
        compiled = torch.compile(model, backend=backend, dynamic=dynamic, options={"inner_backend": name, **options})
    else:
        compiled = torch.compile(model, backend=counter, dynamic=dynamic)
    for length in LENGTHS:
        x, past = inputs_of(length)
        if mark:
            torch._dynamo.mark_dynamic(x, 1 if case == "attention" else 3)
        with torch.set_grad_enabled(train):
            y, _ = compiled(x, past)
            reference, _ = model(x, past)
        assert y.dtype is torch.float32
        torch.testing.assert_close(y, reference, rtol=0.05, atol=0.05)
        if train:
            y.sum().backward()
    return counter.frame_count


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("settings", [{"dynamic": True}, {"dynamic": None}, {"dynamic": None, "mark": True}], ids=str)
@pytest.mark.parametrize("train", [False, True], ids=["inference", "training"])
def test_as_many_compilations_as_stock(case, settings, train):
    stock = compilations(case, "aot_eager", "stock", train=train, **settings)
    assert compilations(case, "aot_eager", "xpu_amp", train=train, **settings) == stock
    if settings["dynamic"]:
        assert stock == 1
    if not train:
        assert compilations(case, "aot_eager", "xpu_amp", weights="cached", **settings) == stock


@pytest.mark.parametrize(
    "case", [pytest.param(case, marks=pytest.mark.sweep if case == "convolutions" else ()) for case in CASES]
)
def test_inductor(case):
    """Inductor itself compiles the convolutions anew for each width (torch 2.13.0)."""
    stock = compilations(case, "inductor", "stock", dynamic=True, train=True)
    assert compilations(case, "inductor", "xpu_amp", dynamic=True, train=True) == stock


def test_generation_compiles_once():
    """A decoder that is given one token more at each call."""
    torch.manual_seed(0)
    model = Attention()
    counter, name = counting_backend("eager")
    options: dict[str, Any] = {"inner_backend": name}
    compiled = torch.compile(model, backend="xpu_amp", dynamic=True, options=options)
    past = (torch.zeros(1, 0, 16), torch.zeros(1, 0, 16))
    with torch.no_grad(), xpu_amp_dynamo.autocast("cpu"):
        _, past = compiled(torch.randn(1, 5, 16), past)
        started = counter.frame_count
        for _ in range(12):
            y, past = compiled(torch.randn(1, 1, 16), past)
    assert past[0].shape == (1, 17, 16)
    assert y.dtype is torch.bfloat16
    # A first token of length 1 is a shape of its own, as is an empty cache.
    assert counter.frame_count - started <= 1
