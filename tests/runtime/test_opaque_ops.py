"""Ops whose compiled kernels call listed ops: they run in the dtypes of their inputs, inside too, eager as compiled."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from tests.support.comparison import assert_compiled_equals_eager
from tests.support.policies import policy_of
from tests.support.samples import outcome_of, same
from xpu_amp_dynamo import Policy, autocast, install
from xpu_amp_dynamo.policy.op_names import overloads_of
from xpu_amp_dynamo.policy.tables.opaque import OPAQUE

BFLOAT16, FLOAT32 = torch.bfloat16, torch.float32

NEW_IN_2_14 = {"linalg_matrix_sqrth", "linalg_polar"}
THERE = sorted(op for op in OPAQUE if overloads_of(op))


def positive_definite(x):
    """Return symmetric matrices with large diagonals, made of numbers between 0 and 1."""
    return x + x.mT + 2 * x.size(-1) * torch.eye(x.size(-1), device=x.device)


CALLS = {
    "_euclidean_dist": lambda x: torch._euclidean_dist(x, x[:5]),
    "_linalg_det": lambda x: torch.linalg.det(x.view(-1, 4, 4)),
    "_safe_softmax": lambda x: torch.ops.aten._safe_softmax(x, -1),
    "_trilinear": lambda x: F.bilinear(x, x, x.view(-1, 8, 8)),
    "affine_grid_generator": lambda x: F.affine_grid(x.view(-1)[:24].view(4, 2, 3), [4, 1, 5, 5], align_corners=False),
    "ldexp": lambda x: torch.ldexp(x, x),
    "linalg_matrix_sqrth": lambda x: torch.ops.aten.linalg_matrix_sqrth(positive_definite(x.view(-1, 4, 4))),
    "linalg_pinv": lambda x: (torch.linalg.pinv(x), torch.pinverse(x), torch.linalg.pinv(x, atol=x.new_tensor(0.1))),
    "linalg_polar": lambda x: torch.ops.aten.linalg_polar(x),
    "mvlgamma": lambda x: torch.mvlgamma(x + 2, 2),
}


@pytest.fixture
def x(device):
    return torch.rand(32, 8, device=device)


@pytest.mark.parametrize("op", THERE)
def test_nothing_inside_is_cast(op, x, device):
    x.requires_grad_()

    def outcome():
        with torch.autocast(device, BFLOAT16):
            results = CALLS[op](x)
        leaves = results if isinstance(results, tuple) else (results,)
        return leaves, torch.autograd.grad(sum(leaf.float().sum() for leaf in leaves), x)

    install(Policy("nothing"), device)
    expected = outcome()
    install(policy_of("mine", lower_precision=OPAQUE[op], casts_inside_kernels=True), device)
    # The XPU's kernels, of which the simulated one has none, may be others.
    assert device != "cpu" or not same(outcome_of(outcome), expected), "the table says more than is so"
    install(policy_of("mine", lower_precision=OPAQUE[op]), device)
    assert same(outcome(), expected)


def test_only_policies_that_cast_what_is_inside_have_opaque_ops():
    assert Policy.named("torch").opaque_ops == frozenset()
    assert policy_of("mine", float32=["exp"]).opaque_ops == frozenset()
    xpu = Policy.named("xpu").opaque_ops
    always = {"_euclidean_dist", "_trilinear", "affine_grid_generator", "linalg_pinv"}
    assert xpu == always | NEW_IN_2_14.intersection(THERE)
    assert Policy.named("xpu").with_ops(float32=["linalg_pinv"]).opaque_ops == xpu - {"linalg_pinv"}
    assert OPAQUE.keys() - THERE <= NEW_IN_2_14


def test_derived_policies_keep_what_stock_does():
    assert Policy.named("torch").with_ops(leave=["exp"]).casts_inside_kernels


@pytest.mark.parametrize("policy", ["xpu", "torch"])
def test_the_torch_policy_casts_inside_as_stock_does(policy, x, device):
    install(policy, device)
    with torch.autocast(device, BFLOAT16):
        assert torch.linalg.pinv(x).dtype is (BFLOAT16 if policy == "torch" else FLOAT32)


def test_mixtures_that_a_region_makes_are_promoted(x, device):
    low, weight = x.bfloat16(), torch.randn(3, 8, 8, device=device)
    with autocast(device):
        assert same(F.bilinear(low, low, weight), F.bilinear(low.float(), low.float(), weight))
        assert same(torch.cdist(low, x), torch.cdist(low.float(), x))
        assert F.bilinear(low, low, weight.bfloat16()).dtype is BFLOAT16


def test_compiled_code_agrees_bit_for_bit():
    def program(x, w, b):
        low = x @ w
        grid = F.affine_grid(torch.stack([w[:2, :3], w[2:4, :3]]), [2, 1, 4, 4], align_corners=False)
        return F.bilinear(low, x, b), torch.cdist(low, x), torch.linalg.pinv(w), grid, torch.cdist(x, w)

    inputs = [torch.randn(*s).requires_grad_() for s in ((32, 8), (8, 8), (3, 8, 8))]
    outcome = assert_compiled_equals_eager(
        program, inputs, region=lambda: autocast("cpu"), inner_backends=("eager", "aot_eager")
    )
    assert [t.dtype for t in outcome[:5]] == [FLOAT32] * 5
