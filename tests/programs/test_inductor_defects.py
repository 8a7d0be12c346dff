"""Defects of Inductor that casts expose, and that compiled programs of ours are kept from."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch._dynamo.utils import counters
from torch._inductor.utils import fresh_cache

from tests.support.comparison import relative_error

BFLOAT16 = torch.bfloat16


@pytest.fixture
def model():
    """Nearest upsampling between convolutions, large enough that Inductor fuses loops of other shapes."""
    convolutions = [
        torch.nn.Conv2d(3, 32, 3, padding=1),
        torch.nn.Conv2d(32, 32, 3, stride=2, padding=1),
        torch.nn.Conv2d(32, 32, 3, padding=1),
    ]
    return torch.nn.Sequential(*convolutions[:2], torch.nn.Upsample(scale_factor=2.0), convolutions[2])


def gradients(model, program, x):
    model.zero_grad()
    program(x).square().mean().backward()
    return [weight.grad for weight in model.parameters()]


@pytest.mark.parametrize("beside", [False, True], ids=["alone", "beside the user's"])
def test_gradients_behind_nearest_upsampling(model, beside):
    """A pass of the user's own over the same kernels runs beside the one that mends them."""
    seen = []

    def note(nodes):
        seen.extend(nodes)
        return nodes

    x = torch.randn(1, 3, 32, 32)
    expected = gradients(model, model, x)
    options: dict[str, Any] = {"inductor": {"_post_fusion_custom_pass": note}} if beside else {}
    program = torch.compile(model, backend="xpu_amp", options=options)
    for ours, theirs in zip(gradients(model, program, x), expected, strict=True):
        assert relative_error(ours, theirs) < 0.02
    assert bool(seen) is beside


def test_inductor_reads_a_gradient_before_it_is_added_up(model):
    """Torch 2.13 does, 2.12.1 and 2.14 do not: ``_wait_for_writes`` can go with it."""

    def convolution(layer, x):
        weights = layer.weight.to(BFLOAT16), layer.bias.to(BFLOAT16)
        return F.conv2d(x.to(BFLOAT16), *weights, layer.stride, layer.padding).float()

    def program(x):
        return convolution(model[3], model[2](convolution(model[1], convolution(model[0], x))))

    first, *_ = gradients(model, torch.compile(program), torch.randn(1, 3, 32, 32))
    assert bool(first.any()) is (not torch.__version__.startswith("2.13"))


def test_views_of_a_product_come_from_the_cache():
    """Torch before 2.15 wrote their sizes out of freed memory, after which a process raised or broke down."""
    x, w = (torch.randn(*size, requires_grad=True) for size in ((3, 4, 5), (5, 6)))

    def program(x, w):
        with torch.autocast("cpu", BFLOAT16):
            y = x @ w
            return y, y.transpose(1, 2), y[:, 0], w.view(-1)

    def run(function):
        outputs = function(x, w)
        assert len({output.untyped_storage().data_ptr() for output in outputs[:3]}) == 1
        loss = sum((output * output).sum() for output in outputs)
        return [*outputs, *torch.autograd.grad(loss, (x, w))]

    expected = run(program)
    with fresh_cache():
        for served in (0, 1):
            torch._dynamo.reset()
            counters.clear()
            results = run(torch.compile(program, backend="xpu_amp", dynamic=False))
            assert counters["aot_autograd"]["autograd_cache_hit"] == served
            torch.testing.assert_close(results, expected)
