"""Dtypes that export asserts."""

from __future__ import annotations

import torch

import xpu_amp_dynamo

ASSERTION = torch.ops.aten._assert_tensor_metadata.default


class Model(torch.nn.Module):
    """Casts what an op of the policy made, and what none made."""

    def forward(self, x, w):
        return (x @ w).to(torch.float64), x.to(torch.float64)


def asserted_dtypes(program):
    """List the dtypes that an exported program asserts."""
    assertions = program.graph.find_nodes(op="call_function", target=ASSERTION)
    return [node.kwargs["dtype"] for node in assertions]


def test_assertions_follow_the_lowered_values():
    x, w = torch.randn(2, 4), torch.randn(4, 4)
    program = torch.export.export(Model(), (x, w))
    assert asserted_dtypes(program) == [torch.float32, torch.float32]
    lowered = xpu_amp_dynamo.lower_exported(program)
    assert asserted_dtypes(lowered) == [torch.bfloat16, torch.float32]
    assert torch.equal(lowered.module()(x, w)[0], (x.bfloat16() @ w.bfloat16()).double())
