"""Products that write float32 where a cast to it follows."""

from __future__ import annotations

import pytest
import torch
from expecttest import assert_expected_inline

from tests.support.aten_graphs import BFLOAT16, FLOAT32, convert, graph_of, run_pass, text_of
from tests.support.versions import only_since
from xpu_amp_dynamo.lowering.aten.widen_results import widen_results


def test_a_cast_behind_a_product():
    # Not x[None]: indexing asks for a device guard, which the XPU has only once it was simulated.
    def gradients(x, w, y):
        first = convert((x.t() @ w).t(), FLOAT32)
        return first, convert(torch.bmm(x.unsqueeze(0), w.t().unsqueeze(0)), FLOAT32).select(0, 0) @ y

    gm = graph_of(gradients, (3, 4), (3, 4), (3, 3), dtypes=[BFLOAT16, BFLOAT16, FLOAT32], device="xpu")
    assert run_pass(widen_results, gm)
    assert_expected_inline(
        text_of(gm),
        """\
t = aten.t(x_1)
mm_dtype = aten.mm.dtype(t, w_1, float32)
t_default = aten.t(mm_dtype)
unsqueeze = aten.unsqueeze(x_1, 0)
t_2 = aten.t(w_1)
unsqueeze_1 = aten.unsqueeze(t_2, 0)
bmm_dtype = aten.bmm.dtype(unsqueeze, unsqueeze_1, float32)
select = aten.select.int(bmm_dtype, 0, 0)
mm_1 = aten.mm(select, y_1)
return (t_default, mm_1)""",
    )
    assert not run_pass(widen_results, gm)


@only_since("2.13", "addmm with another dtype has no fake kernel")
def test_a_cast_behind_a_product_with_a_bias():
    gm = graph_of(
        lambda bias, x, w: convert(torch.addmm(bias, x, w, beta=3, alpha=2), FLOAT32),
        *((4,), (2, 3), (3, 4)),
        dtypes=[BFLOAT16] * 3,
        device="xpu",
    )
    assert run_pass(widen_results, gm)
    assert_expected_inline(
        text_of(gm),
        """\
addmm_dtype = aten.addmm.dtype(bias_1, x_1, w_1, float32, beta = 3, alpha = 2)
return addmm_dtype""",
    )


@pytest.mark.parametrize(
    ("device", "dtype", "program"),
    [
        ("cpu", BFLOAT16, lambda x: convert(x @ x, FLOAT32)),
        ("xpu", BFLOAT16, lambda x: convert(x @ x, FLOAT32).exp()),
        ("xpu", BFLOAT16, lambda x: ((y := x @ x), convert(y, FLOAT32))),
        ("xpu", BFLOAT16, lambda x: convert((x @ x).exp(), FLOAT32)),
        ("xpu", FLOAT32, lambda x: convert(x @ x, BFLOAT16)),
    ],
)
def test_results_that_gain_nothing_stay(device, dtype, program):
    gm = graph_of(program, (3, 3), dtypes=[dtype], device=device)
    before = text_of(gm)
    assert not run_pass(widen_results, gm)
    assert text_of(gm) == before


@pytest.mark.parametrize(("precision", "dtype"), [("fast", FLOAT32), ("exact", BFLOAT16)])
def test_a_result_keeps_the_bits_of_float32_unless_exact(precision, dtype, simulated_xpu):
    x, w = torch.randn(2, 64, 64, device="xpu")

    options = {"precision": precision}
    result = torch.compile(torch.mm, backend="xpu_amp", options=options)(x, w)
    rounded = result.bfloat16().float()
    assert result.dtype is FLOAT32
    assert torch.equal(result, rounded) == (dtype is BFLOAT16)
    reference = x.bfloat16().double() @ w.bfloat16().double()
    assert (result - reference).abs().max() < (1e-5 if dtype is FLOAT32 else 0.2)
