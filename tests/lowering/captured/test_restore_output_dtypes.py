"""Outputs keep the dtypes that capture recorded."""

from __future__ import annotations

import torch

from tests.support.captured_graphs import assert_lowers_to, casts_in, lowered_graphs

X, W = torch.ones(2, 4), torch.ones(4, 4)


def test_outputs_keep_their_recorded_dtypes():
    assert_lowers_to(
        """\
to: "bf16[2, 4]" = l_x_.to(torch.bfloat16)
to_1: "bf16[4, 4]" = l_w_.to(torch.bfloat16)
matmul: "bf16[2, 4]" = to @ to_1
relu: "bf16[2, 4]" = matmul.relu()
to_2: "f32[2, 4]" = relu.to(torch.float32)
return (to_2,)
""",
        lambda x, w: (x @ w).relu(),
        X,
        W,
    )


def test_outputs_may_stay_low():
    assert_lowers_to(
        """\
to: "bf16[2, 4]" = l_x_.to(torch.bfloat16)
to_1: "bf16[4, 4]" = l_w_.to(torch.bfloat16)
matmul: "bf16[2, 4]" = to @ to_1
relu: "bf16[2, 4]" = matmul.relu()
return (relu,)
""",
        lambda x, w: (x @ w).relu(),
        X,
        W,
        preserve_output_dtype=False,
    )


def test_an_op_that_another_policy_cast_at_capture_keeps_its_recorded_dtype_at_the_edge():
    """Captured under stock kernels, tensordot of float32 gives bfloat16; ours promotes, and casts the output back."""

    def program(x, w):
        return torch.tensordot(x, w, 1)

    with torch.autocast("cpu", torch.bfloat16):
        (gm,) = lowered_graphs(program, torch.ones(2, 2), torch.ones(2, 2))
    assert casts_in(gm) == [torch.bfloat16]
