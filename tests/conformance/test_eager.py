"""Eager ``autocast`` against the statement of the specification, over PyTorch's OpInfo database."""

from __future__ import annotations

import warnings

import pytest
import torch
from torch.utils import _pytree as pytree

import xpu_amp_dynamo
from tests.conformance import known_exceptions as known
from tests.conformance.statement import expected_outcome
from tests.support.samples import OPS, Call, a_few_slowly, calls_of, first_lower, outcome_of, same
from tests.support.versions import only_since
from xpu_amp_dynamo import Policy

NAMES = sorted(OPS.keys() - known.UNINITIALISED - known.NOT_REPEATABLE - known.RAISES_IN_REGION)
LOWER = (torch.bfloat16, torch.float16)


def check(name: str, device: str, most: int | None, lower_dtypes: tuple[torch.dtype, ...]) -> None:
    """Compare samples of an op on a device, with float32, mixed and float64 inputs."""
    if device == "xpu" and name in known.SPARSE:
        pytest.skip("the simulated XPU has dense tensors only")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the ops' own: deprecations, non-deterministic algorithms
        for call in calls_of(OPS[name], most=most, device=device):
            for lower in lower_dtypes:
                for variant in (call, first_lower(call, lower), _in_float64(call)):
                    _compare(name, variant, device, lower)


def _compare(name: str, call: Call, device: str, lower: torch.dtype) -> None:
    if "max_norm" in call.kwargs:
        return  # embedding_bag renormalises the weight in place, in the weight's own dtype, before it is cast
    with xpu_amp_dynamo.autocast(device, lower):
        actual = outcome_of(call)
    if name in known.COMPOSITES and call.tensors() and torch.float64 not in {t.dtype for t in call.tensors()}:
        _assert_close(actual, outcome_of(call), known.COMPOSITES[name], lower)
    else:
        expected = outcome_of(lambda: expected_outcome(name, call, lower))
        assert same(actual, expected), f"{call}\ngot {actual}\nwant {expected}"


def _assert_close(actual: object, reference: object, bound: float | None, lower: torch.dtype) -> None:
    """Check a composite's dtype, and its error against the call without autocast where there is a bound."""
    for got, want in zip(pytree.tree_leaves(actual), pytree.tree_leaves(reference), strict=False):
        if isinstance(got, torch.Tensor) and isinstance(want, torch.Tensor):
            assert got.dtype in (lower, torch.float32, want.dtype)
            if bound is not None and got.dtype.is_floating_point and want.numel() and want.isfinite().all():
                scale = want.abs().max().float().clamp_min(1.0)
                assert (got.float() - want.float()).abs().max() <= bound * scale


def _in_float64(call: Call) -> Call:
    return call.mapped(lambda tensor: tensor.double() if tensor.dtype is torch.float32 else tensor)


@pytest.mark.parametrize("name", NAMES)
def test_eager_follows_the_specification(name, device):
    check(name, device, most=2, lower_dtypes=(torch.bfloat16,))


@pytest.mark.parametrize("name", a_few_slowly(NAMES))
def test_eager_follows_the_specification_on_many_samples(name, device):
    check(name, device, most=None, lower_dtypes=LOWER)


@only_since("2.13", "not all of these ops are there")
def test_every_exception_names_an_op():
    lists = [value for key, value in vars(known).items() if key.isupper()]
    assert len(lists) == 5
    for names in lists:
        assert set(names) <= OPS.keys()


@pytest.mark.filterwarnings("ignore:torch.qr is deprecated")  # called by the samples
@pytest.mark.parametrize("name", sorted(known.RAISES_IN_REGION))
def test_ops_that_raise_in_a_region_raise_under_stock_policy_too(name, device):
    xpu_amp_dynamo.install(Policy.named("torch"), device)
    calls = calls_of(OPS[name], device=device)
    with torch.autocast(device, torch.bfloat16):
        assert any(isinstance(outcome_of(call), type) for call in calls)
