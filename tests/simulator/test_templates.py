"""Kernels that Inductor makes from templates, with Triton's ``dot``: autotuned products and flex attention."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch._inductor.utils import run_and_get_code
from torch.nn.attention.flex_attention import create_block_mask, flex_attention

import xpu_amp_dynamo
from tests.support.comparison import relative_error

# Inductor's autotuning asks tensors for their storage so, torch 2.13.0.
pytestmark = pytest.mark.filterwarnings("ignore:TypedStorage is deprecated")
# The runtime for CPUs takes minutes to compile large ones.
SMALL_BLOCKS: Any = {f"BLOCK_{name}": 16 for name in ("M", "N", "M1", "N1", "M2", "N2")}


class Attention(torch.nn.Module):
    """Causal attention of two heads, by flex attention where a mask is given."""

    def __init__(self) -> None:
        super().__init__()
        self.project = torch.nn.Linear(32, 96)
        self.out = torch.nn.Linear(32, 32)

    def forward(self, x: torch.Tensor, mask: Any = None) -> torch.Tensor:
        """Attend to what came before."""
        q, k, v = self.project(x).view(1, -1, 3, 2, 16).permute(2, 0, 3, 1, 4)
        if mask is None:
            result = torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        else:
            result = flex_attention(q, k, v, block_mask=mask, kernel_options=SMALL_BLOCKS)
        return self.out(result.transpose(1, 2).flatten(2))


@pytest.mark.parametrize(
    ("backends", "product"),
    [("TRITON", "triton_tem_"), ("ATEN,TRITON", "extern_kernels.addmm"), (None, "aten.addmm.dtype")],
)
def test_casts_around_autotuned_products(backends, product, simulated_xpu):
    """Templates fuse the cast behind a product, and cannot write float32 otherwise; libraries come first here."""
    check_products(backends, product)


def check_products(backends, product):
    """Check that a linear layer is compiled to some kernel, and right."""
    model, x = torch.nn.Linear(128, 64).to("xpu"), torch.randn(64, 128, device="xpu")
    settings: Any = {} if backends is None else {"max_autotune": True, "max_autotune_gemm_backends": backends}
    compiled = torch.compile(model, backend="xpu_amp", options={"inductor": settings})
    with torch.no_grad():
        result, (code,) = run_and_get_code(compiled, x)
        assert product in code
        assert result.dtype is torch.float32
        assert relative_error(result, model(x)) < 0.01


def test_templates_by_opencl(opencl):
    with xpu_amp_dynamo.simulated_xpu(mode="opencl"):
        check_products("TRITON", "triton_tem_")
        check_flex_attention()


def test_float32_products_of_widened_values_where_only_templates_are_timed(simulated_xpu):
    x = torch.randn(64, 64, device="xpu", dtype=torch.bfloat16)
    options: Any = {"enabled": False, "inductor": {"max_autotune": True, "max_autotune_gemm_backends": "TRITON"}}
    compiled = torch.compile(lambda x: (x.float() @ x.float()).exp(), backend="xpu_amp", options=options)
    assert relative_error(compiled(x * 0.1), ((x * 0.1).float() @ (x * 0.1).float()).exp()) < 1e-5


def test_flex_attention_and_its_backward(simulated_xpu):
    check_flex_attention()


def check_flex_attention():
    """Check a step of a model with flex attention on the XPU."""
    torch.manual_seed(0)
    reference, x = Attention(), torch.randn(1, 128, 32)
    model = copy.deepcopy(reference).to("xpu")
    mask = create_block_mask(lambda b, h, q, k: q >= k, None, None, 128, 128, device="xpu")
    result, codes = run_and_get_code(torch.compile(model, backend="xpu_amp"), x.to("xpu"), mask)
    result.square().sum().backward()
    expected = reference(x)
    expected.square().sum().backward()
    assert any("triton_tem_" in code for code in codes)
    assert relative_error(result.cpu(), expected) < 0.01
    for parameter, other in zip(model.parameters(), reference.parameters(), strict=True):
        assert parameter.grad is not None
        assert other.grad is not None
        assert relative_error(parameter.grad.cpu(), other.grad) < 0.01
