"""Float32 products that read what their operands were widened from."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from expecttest import assert_expected_inline
from torch._inductor.utils import run_and_get_code

from tests.support.aten_graphs import BFLOAT16, FLOAT16, FLOAT32, convert, graph_of, run_pass, text_of
from tests.support.versions import only_since
from xpu_amp_dynamo.lowering.aten.narrow_operands import narrow_operands


def test_operands_across_layout_ops():
    def attention(q, k):
        return torch.bmm(torch.ops.aten.mul.Scalar(convert(q, FLOAT32), 1.0), convert(k, FLOAT32).transpose(1, 2)).exp()

    gm = graph_of(attention, (2, 3, 4), (2, 3, 4), dtypes=[FLOAT16] * 2, device="xpu")
    assert run_pass(narrow_operands, gm)
    assert_expected_inline(
        text_of(gm),
        """\
transpose_int = aten.transpose.int(k_1, 1, 2)
bmm_dtype = aten.bmm.dtype(q_1, transpose_int, float32)
exp = aten.exp(bmm_dtype)
return exp""",
    )
    assert not run_pass(narrow_operands, gm)


@only_since("2.13", "addmm with another dtype has no fake kernel")
def test_a_product_with_a_bias_is_computed_from_what_was_widened(simulated_xpu):
    def program(bias, x, w):
        return torch.addmm(bias.float(), x.float(), w.float(), beta=3, alpha=2).exp()

    torch.manual_seed(0)
    inputs = [torch.randn(size, device="xpu", dtype=BFLOAT16) for size in ((8,), (16, 4), (4, 8))]
    compiled = torch.compile(program, backend="xpu_amp", options={"enabled": False})
    found, (code,) = run_and_get_code(compiled, *inputs)
    assert "aten.addmm.dtype(arg0_1, arg1_1, arg2_1, torch.float32, beta=3, alpha=2)" in code
    torch.testing.assert_close(found, program(*inputs), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("device", "dtype", "program"),
    [
        ("cpu", BFLOAT16, lambda x: convert(x, FLOAT32) @ convert(x, FLOAT32)),
        ("xpu", FLOAT32, lambda x: convert(convert(x, BFLOAT16), FLOAT32) @ x),
        ("xpu", BFLOAT16, lambda x: convert(x, FLOAT32) @ convert(convert(x, FLOAT16), FLOAT32)),
        ("xpu", BFLOAT16, lambda x: (convert(x, FLOAT32) * 2) @ convert(x, FLOAT32)),
        ("xpu", BFLOAT16, lambda x: convert(x, torch.float64) @ convert(x, torch.float64)),
    ],
)
def test_products_of_true_float32_stay(device, dtype, program):
    gm = graph_of(program, (3, 3), dtypes=[dtype], device=device)
    before = text_of(gm)
    assert not run_pass(narrow_operands, gm)
    assert text_of(gm) == before


@pytest.mark.parametrize("train", [False, True])
def test_attention_without_a_fused_kernel(train, simulated_xpu):
    def attention(q, k, v):
        q, k, v = q.neg().float(), k.neg().float(), v.neg().float()
        return (q @ k.transpose(1, 2)).softmax(-1) @ v

    values = {}
    for backend in ("eager", "xpu_amp"):
        torch.manual_seed(0)
        inputs = [torch.randn(2, 8, 16, device="xpu", dtype=BFLOAT16, requires_grad=train) for _ in range(3)]
        options: dict[str, Any] = {"options": {"enabled": False}} if backend == "xpu_amp" else {}
        result = torch.compile(attention, backend=backend, **options)(*inputs)
        if train:
            result.square().sum().backward()
        values[backend] = [result, *(x.grad for x in inputs if train)]
    for expected, found in zip(values["eager"], values["xpu_amp"], strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-5 if found.dtype is FLOAT32 else 1e-2, atol=1e-5)


def test_a_backward_does_not_keep_what_the_caller_may_write_to(simulated_xpu):
    def program(x, w):
        return (x.float() @ w.float()).bfloat16()

    gradients: list[Any] = []
    for backend in ("eager", "xpu_amp"):
        x = torch.ones(8, 8, device="xpu", dtype=BFLOAT16)
        w = torch.full((8, 8), 2.0, device="xpu", dtype=BFLOAT16).requires_grad_()
        options: dict[str, Any] = {"options": {"enabled": False}} if backend == "xpu_amp" else {}
        result = torch.compile(program, backend=backend, **options)(x, w)
        x.fill_(9)
        result.sum().backward()
        gradients.append(w.grad)
    assert torch.equal(*gradients)
