"""Graphs that higher-order ops call."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch.utils.checkpoint import checkpoint

import xpu_amp_dynamo


def test_checkpointed_subgraph_is_lowered():
    w = torch.randn(4, 4, requires_grad=True)

    def program(x, w):
        return checkpoint(lambda x: F.log_softmax(x @ w, -1), x @ w, use_reentrant=False)

    x = torch.randn(4, 4)
    compiled = torch.compile(program, backend="xpu_amp", fullgraph=True, options={"inner_backend": "aot_eager"})
    out = compiled(x, w)
    out.sum().backward()
    with xpu_amp_dynamo.autocast("cpu"):
        expected = program(x, w.detach())
    assert torch.equal(out, expected)
    assert w.grad is not None


def test_branches_of_cond_keep_their_dtypes():
    def program(x, w):
        return torch.cond(x.sum() > 0, lambda x, w: x @ w, lambda x, w: x + w, (x, w))

    x, w = torch.ones(4, 4), torch.randn(4, 4)
    compiled = torch.compile(program, backend="xpu_amp", fullgraph=True, options={"inner_backend": "eager"})
    assert torch.equal(compiled(x, w), (x.bfloat16() @ w.bfloat16()).float())
    assert torch.equal(compiled(-x, w), w - x)
