"""The modes of float32 arithmetic."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from xpu_amp_dynamo.errors import InvalidOptionError
from xpu_amp_dynamo.ipex.math_mode import FP32MathMode, fp32_math_mode, get_fp32_math_mode, set_fp32_math_mode

# The checker of types knows no names that are put in there.
XPU: Any = torch.xpu
MKLDNN: Any = torch.backends.mkldnn


@pytest.fixture(autouse=True)
def settings():
    yield
    set_fp32_math_mode()


def test_bf32_on_cpus():
    assert get_fp32_math_mode() is FP32MathMode.FP32
    set_fp32_math_mode(FP32MathMode.BF32)
    assert torch.get_float32_matmul_precision() == "medium"
    assert MKLDNN.conv.fp32_precision == "bf16"
    assert get_fp32_math_mode() is FP32MathMode.BF32
    set_fp32_math_mode()
    assert torch.get_float32_matmul_precision() == "highest"
    assert MKLDNN.conv.fp32_precision == "ieee"


def test_a_context_puts_it_back():
    with fp32_math_mode(FP32MathMode.BF32, "cpu"):
        assert get_fp32_math_mode() is FP32MathMode.BF32
    assert get_fp32_math_mode() is FP32MathMode.FP32


def test_names_in_torch_xpu(installed):
    XPU.set_fp32_math_mode(XPU.FP32MathMode.FP32)
    assert XPU.get_fp32_math_mode() is FP32MathMode.FP32


@pytest.mark.parametrize(
    ("mode", "device", "said"),
    [
        (FP32MathMode.BF32, "xpu", r"autocast\(dtype=torch.bfloat16\)"),
        (FP32MathMode.TF32, "cpu", "use FP32MathMode.BF32 or FP32"),
        (7, "cpu", "7 is no mode .* use FP32MathMode.FP32, TF32, BF32"),
        (FP32MathMode.FP32, "cuda", "use 'cpu' or 'xpu'"),
    ],
)
def test_refusals(mode, device, said):
    with pytest.raises(InvalidOptionError, match=said):
        set_fp32_math_mode(mode, device)
    assert torch.get_float32_matmul_precision() == "highest"


def test_tf32_on_a_simulated_xpu_rounds_nothing(xpu):
    x = torch.randn(4, 4)
    XPU.set_fp32_math_mode(FP32MathMode.TF32)
    assert XPU.get_fp32_math_mode() is FP32MathMode.TF32
    assert torch.equal((x.to(xpu) @ x.to(xpu)).cpu(), x @ x)
    with XPU.fp32_math_mode(FP32MathMode.FP32):
        assert XPU.get_fp32_math_mode() is FP32MathMode.FP32
    assert XPU.get_fp32_math_mode() is FP32MathMode.TF32
    set_fp32_math_mode(FP32MathMode.FP32, "xpu")


@pytest.mark.skipif(torch.backends.mkldnn.allow_tf32 is not None, reason="this build has TF32 for XPUs")
def test_tf32_needs_a_build_for_xpus():
    with pytest.raises(InvalidOptionError, match="this build of PyTorch has no TF32 for XPUs"):
        set_fp32_math_mode(FP32MathMode.TF32, "xpu")
