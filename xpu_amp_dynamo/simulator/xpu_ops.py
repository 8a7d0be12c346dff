"""Tells which ATen ops an XPU build of PyTorch has kernels for, as far as files tell."""

from __future__ import annotations

import functools
from enum import Enum
from pathlib import Path

import torch

# Ops that torch-xpu-ops sends to the host, in all overloads: inputs are copied there and results back. Source: its file
# src/ATen/native/xpu/XPUFallback.template, August 2026.
HOST_FALLBACKS = frozenset(
    (
        "_cholesky_solve_helper",
        "_efficient_attention_forward",
        "_linalg_eigh",
        "_linalg_eigvals",
        "cholesky_inverse",
        "hash_tensor",
        "linalg_eig",
        "linalg_eigvals",
        "linalg_ldl_factor_ex",
        "linalg_ldl_solve",
        "linalg_lstsq",
        "linalg_lu",
        "linalg_matrix_exp",
        "linalg_matrix_sqrth",
        "linalg_polar",
        "lu_unpack",
        "ormqr",
    )
)
# Composite ops are made of others, of which each has its own answer.
COMPOSITE_KEYS = ("CompositeExplicitAutograd", "CompositeImplicitAutograd")


class XpuSupport(Enum):
    """How an XPU runs an op."""

    KERNEL = "kernel"
    COMPOSITE = "composite"
    HOST_FALLBACK = "host fallback"
    NONE = "no kernel"
    UNKNOWN = "another library's"


@functools.cache
def ops_with_xpu_kernels() -> frozenset[str]:
    """Return the ATen ops for which torch 2.15 has XPU kernels, by name and overload."""
    lines = Path(__file__).with_name("xpu_ops.txt").read_text().splitlines()
    return frozenset(line for line in lines if not line.startswith("#"))


def xpu_support(op: str) -> XpuSupport:
    """Return how an XPU runs an op.

    Args:
        op: an op by namespace, name and overload, such as ``"aten.addmm.out"``.
    """
    namespace, _, name = op.partition(".")
    if namespace != "aten":
        return XpuSupport.UNKNOWN
    name = name.removesuffix(".default")
    if name.partition(".")[0] in HOST_FALLBACKS:
        return XpuSupport.HOST_FALLBACK
    if name in ops_with_xpu_kernels():
        return XpuSupport.KERNEL
    has_kernel = torch._C._dispatch_has_kernel_for_dispatch_key
    return XpuSupport.COMPOSITE if any(has_kernel(f"aten::{name}", key) for key in COMPOSITE_KEYS) else XpuSupport.NONE
