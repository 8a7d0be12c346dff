"""Regions leave the graph, and what is in them has their dtypes."""

from __future__ import annotations

import torch

from tests.support.captured_graphs import assert_lowers_to, casts_in, lowered_graphs
from tests.support.versions import only_since

X, W = torch.ones(2, 4), torch.ones(4, 4)
FLOAT16 = torch.float16


class Subclass(torch.autocast):
    """A subclass of autocast, which Dynamo inlines into calls that set the state."""


@only_since("2.12", "Dynamo inlines no subclass of autocast")
def test_inlined_subclass_is_lowered_and_its_calls_are_gone():
    def program(x):
        with Subclass("cpu", dtype=torch.float16):
            y = x @ x
        return y, x + x

    (gm,) = lowered_graphs(program, torch.randn(4, 4), enabled=False)
    assert casts_in(gm) == [torch.float16]
    assert [node.target for node in gm.graph.nodes if "autocast" in str(node.target)] == []


def test_nested_regions():
    def program(x, w):
        with torch.autocast("cpu", FLOAT16):
            a = x @ w
            with torch.autocast("cpu", enabled=False):
                b = x @ w
        return a, b, x @ w

    assert_lowers_to(
        """\
to: "f16[2, 4]" = l_x_.to(torch.float16)
to_1: "f16[4, 4]" = l_w_.to(torch.float16)
a: "f16[2, 4]" = to @ to_1
b: "f32[2, 4]" = l_x_ @ l_w_
to_2: "bf16[2, 4]" = l_x_.to(torch.bfloat16)
to_3: "bf16[4, 4]" = l_w_.to(torch.bfloat16)
matmul_2: "bf16[2, 4]" = to_2 @ to_3
to_4: "f32[2, 4]" = matmul_2.to(torch.float32)
return (a, b, to_4)
""",
        program,
        X,
        W,
    )
