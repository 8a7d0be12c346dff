"""The kernels generated for real models are valid Triton: parsed, and compiled to Triton IR."""

from __future__ import annotations

import pytest
import torch

import xpu_amp_dynamo
from benchmarks.models import MODELS, Size, build
from tests.simulator.triton_ir import compile_to_ir, kernel_sources
from tests.support.marks import slow_or_sweep

# The others are left to the larger sweeps: each takes half a minute.
NAMES = slow_or_sweep(sorted(MODELS), "mixtral")


def check(name, size):
    model, inputs = build(name, size, "cpu")
    report = xpu_amp_dynamo.xpu_kernels(model, kwargs=inputs, train=True)
    sources = kernel_sources(report)
    assert {source[0] for source in sources.values()} == {launch.name for launch in report.launches if launch.is_triton}
    for kernel, source in sources.values():
        text = compile_to_ir(kernel, source)
        assert f"tt.func public @{kernel}" in text
        assert "tt.store" in text or "tt.atomic_rmw" in text


@pytest.mark.parametrize("name", ["llama", "resnet"])
def test_kernels_are_valid_triton(name):
    check(name, Size(layers=1))


# Dynamo looks at the gradients of tensors that cross a graph break, on every device (torch 2.13.0).
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")
@pytest.mark.parametrize("name", NAMES)
def test_kernels_of_every_model_are_valid_triton(name):
    check(name, Size())


def test_a_wrong_kernel_is_found():
    report = xpu_amp_dynamo.xpu_kernels(torch.nn.Linear(8, 8), torch.randn(2, 8))
    name, source = next(iter(kernel_sources(report).values()))
    with pytest.raises(Exception, match="no_such_function"):
        compile_to_ir(name, source.replace("tl.store(", "tl.no_such_function("))
