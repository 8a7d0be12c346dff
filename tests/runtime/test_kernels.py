"""Autocast kernels of ops that few policies list: arithmetic with Python numbers, ops that casts themselves call."""

from __future__ import annotations

import pytest
import torch

from tests.support.policies import policy_of
from tests.support.samples import OPS, calls_of, outcome_of, same
from xpu_amp_dynamo import Policy, install
from xpu_amp_dynamo.errors import UnlistableOpError
from xpu_amp_dynamo.policy.op_names import overloads_of

BFLOAT16, FLOAT32 = torch.bfloat16, torch.float32
XPU = Policy.named("xpu")
ARITHMETIC = {
    "add": lambda x: (x + 1, 1 + x, x + x, torch.add(x, 2.5, alpha=3)),
    "sub": lambda x: (x - 1, 1 - x, x - x, torch.sub(x, 2, alpha=3)),
    "mul": lambda x: (x * 2.0, 2 * x, x * True),
    "div": lambda x: (x / 3, x.div(3), torch.div(x, 2, rounding_mode="floor")),
    "true_divide": lambda x: torch.true_divide(x, 3),
    "floor_divide": lambda x: (x // 2, torch.floor_divide(x, 0.3)),
    "remainder": lambda x: (x % 2, 2 % x),
    "pow": lambda x: (x**2, 2**x),
    "rsub": lambda x: torch.rsub(x, 1),
    "where": lambda x: (torch.where(x > 0, x, 0.1), torch.where(x > 0, 0.1, x)),
    "eq": lambda x: (x == 1, x == x),
    "copysign": lambda x: torch.copysign(x, -0.3),
    "xlogy": lambda x: (torch.xlogy(x, 2.0), torch.xlogy(2.0, x.abs())),
}
WANTED = {"promote": None, "float32": FLOAT32, "lower_precision": BFLOAT16}


@pytest.mark.parametrize("op", ARITHMETIC)
@pytest.mark.parametrize("category", WANTED)
@pytest.mark.parametrize("dtype", [FLOAT32, BFLOAT16])
@pytest.mark.parametrize("shape", [(3, 4), ()])
def test_numbers_as_operands(op, category, dtype, shape, device):
    x = torch.rand(shape, device=device).to(dtype) + 0.5
    expected = outcome_of(lambda: ARITHMETIC[op](x.to(WANTED[category] or dtype)))
    install(XPU.with_ops(**{category: [op]}), device)
    with torch.autocast(device, BFLOAT16):
        actual = outcome_of(lambda: ARITHMETIC[op](x))
    assert same(actual, expected), (actual, expected)
    assert not isinstance(actual, type)


def test_numbers_beside_integers_stay_integers(device):
    install(XPU.with_ops(promote=["add"], float32=["mul"]), device)
    x = torch.arange(3, device=device)
    with torch.autocast(device, BFLOAT16):
        assert torch.equal(x + 1, torch.arange(1, 4, device=device))
        assert (x * 2).dtype is torch.int64


def test_numbers_reach_an_op_once(device):
    """Torch functions of modes and subclasses have had their turn when a kernel runs."""
    seen = []

    class Mode(torch.overrides.TorchFunctionMode):
        def __torch_function__(self, function, types, args=(), kwargs=None):
            seen.append(function.__name__)
            return function(*args, **(kwargs or {}))

    install(XPU.with_ops(promote=["add"]), device)
    x = torch.randn(3, device=device)
    with torch.autocast(device, BFLOAT16), Mode():
        x + 1
    assert len(seen) == 1


@pytest.mark.parametrize("category", ["lower_precision", "float32"])
@pytest.mark.parametrize("op", ["empty_like", "zeros_like", "clone"])
def test_ops_that_casts_call_do_not_recur(op, category, device):
    policy = policy_of("mine", **{category: [op]})
    install(policy, device)
    x = torch.randn(3, device=device).to(WANTED["float32" if category == "lower_precision" else "lower_precision"])
    with torch.autocast(device, BFLOAT16):
        assert torch.clone(x.to(torch.float64)).dtype is torch.float64
        assert torch.zeros_like(x).dtype is (WANTED[category] if op == "zeros_like" else x.dtype)


@pytest.mark.parametrize("category", ["float32", "promote"])
@pytest.mark.parametrize("op", ["batch_norm", "instance_norm"])
def test_running_statistics_are_updated(op, category, device):
    x = torch.randn(4, 3, 5, device=device).bfloat16() + 2
    kinds = {"batch_norm": torch.nn.BatchNorm1d, "instance_norm": torch.nn.InstanceNorm1d}
    norm, reference = (kinds[op](3, affine=True, track_running_stats=True, device=device) for _ in range(2))
    expected = reference(x.float())
    install(XPU.with_ops(**{category: [op]}), device)
    with torch.autocast(device, BFLOAT16):
        assert same(norm(x), expected)
    assert norm.running_mean is not None
    assert norm.running_mean.abs().max() > 0
    assert same(norm.running_mean, reference.running_mean)


def test_statistics_in_lower_precision_are_not_lost_in_silence(device):
    if device == "cuda":
        pytest.skip("kernels for CUDA write statistics in the dtype they are kept in")
    norm = torch.nn.BatchNorm1d(3, device=device).bfloat16()
    install(XPU.with_ops(float32=["batch_norm"]), device)
    with (
        torch.autocast(device, BFLOAT16),
        pytest.raises(RuntimeError, match="expected scalar type Float but found BFloat16"),
    ):
        norm(torch.randn(4, 3, device=device).bfloat16())


def may_be_listed(name):
    try:
        return bool(policy_of("one", promote=[name]))
    except UnlistableOpError:
        return False


def test_a_policy_that_promotes_everything_changes_nothing_where_all_is_float32(device):
    """Each op that a policy may list, over samples of all ops: nothing raises, recurs or changes."""
    names = {name.removeprefix("aten::").partition(".")[0] for name in torch._C._dispatch_get_all_op_names()}
    names = {name for name in names if "::" not in name and overloads_of(name) and may_be_listed(name)}
    assert len(names) > 1000
    install(policy_of("everything", promote=names), device)
    arithmetic = ("add", "sub", "mul", "div.no_rounding_mode", "pow", "where", "clamp", "lerp", "nan_to_num", "isclose")
    compared = 0
    for name in arithmetic:
        for call in calls_of(OPS[name], most=3, device=device):
            expected = outcome_of(call)
            with torch.autocast(device, BFLOAT16):
                assert same(outcome_of(call), expected), call
            compared += 1
    assert compared >= 20
