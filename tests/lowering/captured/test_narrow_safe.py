"""The table of ops through which values stay narrow, against PyTorch's OpInfo database and the list of XPU kernels."""

from __future__ import annotations

import pytest
import torch

from tests.support.samples import OPS
from xpu_amp_dynamo.policy.op_names import overloads_of
from xpu_amp_dynamo.policy.tables import narrow_safe
from xpu_amp_dynamo.simulator.xpu_ops import ops_with_xpu_kernels

COMPOSITE_KEYS = ("CompositeImplicitAutograd", "CompositeExplicitAutograd", "CompositeExplicitAutogradNonFunctional")
LOWER = (torch.bfloat16, torch.float16)
COMPUTING = (
    *narrow_safe.LAYOUT,
    *narrow_safe.CONVERSIONS,
    *narrow_safe.POINTWISE,
    *narrow_safe.ARITHMETIC,
    *narrow_safe.NORMALISATION,
    *narrow_safe.NEIGHBOURHOOD,
    *narrow_safe.JOINS,
)
# Names of the same ops in Python, in traces and in graphs of export, which OpInfo has under another name.
WITHOUT_OPINFO = {
    *("_to_copy", "_unsafe_view", "alias", "detach", "dropout1d", "feature_dropout", "getitem", "lift_fresh"),
    *("native_dropout", "type", "upsample", "upsample_bilinear2d", "upsample_nearest2d"),
}


def names_of(op) -> set[str]:
    return {op.name, op.name.rpartition(".")[2], op.aten_name, *(alias.name for alias in op.aliases)}


BY_NAME = {name: op for op in OPS.values() for name in names_of(op)}


def test_no_name_stands_twice():
    assert len(COMPUTING) == len(set(COMPUTING))


def test_what_opinfo_does_not_know_is_named():
    assert set(COMPUTING) - BY_NAME.keys() == WITHOUT_OPINFO


@pytest.mark.parametrize("name", sorted(set(COMPUTING) - WITHOUT_OPINFO))
def test_opinfo_has_both_lower_dtypes(name):
    infos = [op for op in OPS.values() if name in names_of(op)]
    for op in infos:
        assert set(LOWER) <= op.supported_dtypes("cpu"), op.full_name
        assert set(LOWER) <= set(op.dtypesIfCUDA or op.dtypes), op.full_name


@pytest.mark.parametrize("name", sorted(COMPUTING))
def test_an_xpu_has_kernels(name):
    """Names without an ATen op are methods and functions of Python, which call other ops of the table."""
    for op in overloads_of(name):
        composite = any(torch._C._dispatch_has_kernel_for_dispatch_key(op.name(), key) for key in COMPOSITE_KEYS)
        assert composite or op.name().removeprefix("aten::") in ops_with_xpu_kernels(), op.name()
