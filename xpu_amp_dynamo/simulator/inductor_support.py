"""What Dynamo and Inductor need to believe to generate XPU code here. Checked on torch 2.13.0."""

from __future__ import annotations

import contextlib
import math
import re
from collections.abc import Iterable
from typing import Any
from unittest import mock

import torch
import torch._functorch.config
import torch._inductor.codecache
import torch._inductor.codegen.triton
import torch._inductor.config
import torch._inductor.lowering
import torch._inductor.utils
import torch.utils._triton
from torch._dynamo import device_interface
from torch._dynamo.device_interface import XpuInterface
from torch._inductor.runtime import hints, triton_helpers
from torch._inductor.select_algorithm import AlgorithmSelectorCache

from xpu_amp_dynamo.simulator.bindings import Event, Stream

# What these answer depends on the devices present, and they answer once.
CACHED: tuple[Any, ...] = (
    *(answer for answer in vars(torch.utils._triton).values() if hasattr(answer, "cache_clear")),
    torch._inductor.utils.get_gpu_type,
    torch._inductor.utils.is_big_gpu,
    torch._inductor.utils.get_max_num_sms,
    hints.DeviceProperties.create,
    torch._inductor.codecache.CacheBase.get_system,
)
# The setting has another name since torch 2.15.
TIMED_FUSION = next(
    name for name in ("benchmark_template_fusion", "benchmark_epilogue_fusion") if hasattr(torch._inductor.config, name)
)
# Kernels are made anew each time, so that none comes from a cache that real devices use. Padding matmuls to
# aligned shapes, and fusing what follows a template into it, is decided by timing kernels on the device.
SETTINGS = {
    "fx_graph_cache": False,
    "compile_threads": 1,
    "shape_padding": False,
    TIMED_FUSION: False,
}
# As Inductor describes a kernel made from a template; it says nothing of those of libraries.
BLOCK_SIZES = re.compile(r"\bBLOCK_[MNK]\d?=(\d+)")
# A fallback that Inductor registers when it is imported by an XPU build.
XPU_FALLBACK = torch.ops.aten.embedding_dense_backward


def simulate_inductor_support(stack: contextlib.ExitStack) -> None:
    """Let Dynamo and Inductor compile for the simulated XPU, until ``stack`` closes."""
    for owner, name, value in (
        (torch._C._dynamo.guards, "_empty_strided_xpu", _empty_strided),
        (torch.utils._triton, "triton_backend", _Backend),
        (torch.utils._triton, "triton_hash_with_backend", lambda: "SIMULATEDXPU"),
        (torch._inductor.codecache, "triton_hash_with_backend", lambda: "SIMULATEDXPU"),
        (triton_helpers, "set_driver_to_gpu", lambda: None),
        (XpuInterface, "is_triton_capable", staticmethod(lambda device=None: True)),
        (XpuInterface, "raise_if_triton_unavailable", staticmethod(lambda device=None: None)),
        (XpuInterface, "get_raw_stream", staticmethod(torch._C._xpu_getCurrentRawStream)),
        (XpuInterface, "exchange_device", staticmethod(torch.xpu._exchange_device)),
        (XpuInterface, "maybe_exchange_device", staticmethod(torch.xpu._maybe_exchange_device)),
        (AlgorithmSelectorCache, "benchmark_choices", _sizes_of_blocks),
        (XpuInterface, "Stream", Stream),
        (XpuInterface, "Event", Event),
    ):
        stack.enter_context(mock.patch.object(owner, name, value, create=owner is torch._inductor.codecache))
    stack.enter_context(torch._inductor.config.patch(SETTINGS))
    stack.enter_context(torch._functorch.config.patch(enable_autograd_cache=False))
    stack.enter_context(mock.patch.dict(device_interface.caching_worker_device_properties))
    stack.enter_context(mock.patch.dict(device_interface.caching_worker_current_devices))
    _register_fallback(stack)
    for function in CACHED:
        function.cache_clear()
        stack.callback(function.cache_clear)


def _sizes_of_blocks(choices: Iterable[Any], *_: object, **__: object) -> dict[Any, float]:
    """Return a time for each kernel that autotuning compares: libraries first, then small blocks, soon compiled."""
    return {choice: float(math.prod(map(int, BLOCK_SIZES.findall(choice.description)))) for choice in choices}


def _register_fallback(stack: contextlib.ExitStack) -> None:
    """Register the op that XPU builds leave to ATen."""
    lowering = torch._inductor.lowering
    stack.enter_context(mock.patch.dict(lowering.lowerings))
    before = set(lowering.fallbacks)
    stack.callback(lambda: lowering.fallbacks.intersection_update(before))
    if XPU_FALLBACK.default not in lowering.lowerings:
        lowering.make_fallback(XPU_FALLBACK, warn=False)


class _Backend:
    """Stands for Triton's backend of the device, of which Inductor wants a hash."""

    def hash(self) -> str:
        """Return one that no real device has."""
        return "simulated-xpu"


def _empty_strided(size: Any, stride: Any, dtype: torch.dtype) -> torch.Tensor:
    """Allocate a tensor as the C++ function of XPU builds does."""
    return torch.empty_strided(size, stride, dtype=dtype, device="xpu")
