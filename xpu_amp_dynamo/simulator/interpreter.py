"""Runs the Triton kernels that Inductor generates for XPUs with Triton's interpreter, on host memory.

Inductor itself knows how to launch under the interpreter; what is missing is a device library for it, access to
the memory of XPU tensors, and device functions of modules that were imported before the interpreter was asked for.
Checked on torch 2.13.0 with triton 3.7.1, and on 2.15.0 with 3.9.0.
"""

from __future__ import annotations

import contextlib
import types
from collections.abc import Callable
from typing import Any
from unittest import mock

import numpy as np
import torch
from torch._inductor.runtime.triton_heuristics import CachingAutotuner
from torch.utils import _pytree as pytree

from xpu_amp_dynamo.simulator.libdevice import simulate_libdevice

# How the grids of kernels that users wrote are described; Inductor's own have others.
_GRIDS_OF_USERS = ("FixedGrid", "PrecomputedGrid")
_TORCH_DTYPES = {
    "fp64": torch.float64,
    "fp32": torch.float32,
    "fp16": torch.float16,
    "bf16": torch.bfloat16,
    "fp8e4nv": torch.float8_e4m3fn,
    "fp8e5": torch.float8_e5m2,
}


def simulate_triton(stack: contextlib.ExitStack) -> None:
    """Run Triton kernels on the host, until ``stack`` closes."""
    import triton.compiler.compiler
    from triton.runtime import interpreter
    from triton.runtime.jit import JITFunction

    stack.enter_context(mock.patch.dict("os.environ", {"TRITON_INTERPRET": "1"}))
    stack.enter_context(mock.patch.object(JITFunction, "__call__", _call_device_function))
    stack.enter_context(mock.patch.object(CachingAutotuner, "run", _on_host(CachingAutotuner.run)))
    stack.enter_context(mock.patch("triton.runtime.interpreter._convert_float", _convert_float))
    create_dot = interpreter.InterpreterBuilder.create_dot
    stack.enter_context(mock.patch.object(interpreter.InterpreterBuilder, "create_dot", _create_dot(create_dot)))
    # Inductor compiles kernels so that they check their indices.
    options = interpreter.InterpreterOptions(debug=True, sanitize_overflow=False)
    stack.enter_context(mock.patch.object(interpreter.interpreter_builder, "options", options))
    make_backend = triton.compiler.compiler.make_backend
    stack.enter_context(mock.patch("triton.compiler.compiler.make_backend", _make_backend(make_backend)))
    simulate_libdevice(stack)


class _Backend:
    """Stands for the backend of XPUs, of which torch 2.15 asks what may be set where a user's kernel is launched."""

    # Those of Intel's Triton 3.7 that change how a kernel is run, and not what it computes.
    OPTIONS = (
        "num_warps",
        "num_ctas",
        "num_stages",
        "cluster_dims",
        "warp_size",
        "grf_mode",
        "enable_fp_fusion",
        "debug",
    )

    def parse_options(self, options: dict[str, Any]) -> types.SimpleNamespace:
        """Return the options by name, as given or else without a value."""
        return types.SimpleNamespace(**{**dict.fromkeys(self.OPTIONS), **options})


def _make_backend(make: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function that makes backends of Triton, of XPUs too."""
    return lambda target: _Backend() if target.backend == "xpu" else make(target)


def _convert_float(data: np.ndarray, source: Any, target: Any, rounding_mode: object) -> np.ndarray:
    """Convert numbers between dtypes of Triton, rounding to the nearest as GPUs do: the interpreter truncates.

    Takes and returns numbers as their bits, which is how the interpreter keeps bfloat16.
    """
    bits = torch.from_numpy(np.ascontiguousarray(data)).view(_TORCH_DTYPES[str(source)])
    converted = bits.to(_TORCH_DTYPES[str(target)])
    return converted.view(getattr(torch, f"int{8 * converted.element_size()}")).numpy()


def _create_dot(create: Callable[..., Any]) -> Callable[..., Any]:
    """Return what multiplies matrices of bfloat16 too: the interpreter takes their bits for integers."""
    from triton import language
    from triton.runtime.interpreter import TensorHandle

    def in_float32(matrix: Any) -> Any:
        if matrix.dtype.scalar is not language.bfloat16:
            return matrix
        bits = _convert_float(matrix.data, language.bfloat16, language.float32, None)
        return TensorHandle(bits.view(np.float32), language.float32)

    return lambda builder, left, right, *others: create(builder, in_float32(left), in_float32(right), *others)


def _on_host(run: Callable[..., Any]) -> Callable[..., Any]:
    """Return a kernel launch that hands over XPU tensors as CPU tensors over the same memory."""

    def run_on_host(kernel: CachingAutotuner, *args: Any, **kwargs: Any) -> Any:
        args, kwargs = pytree.tree_map_only(torch.Tensor, _host_view, (args, kwargs))
        name_constants(kernel)
        # Lanes that a mask switches off compute on zeros, of which a GPU says nothing.
        with _patched_language(), np.errstate(all="ignore"):
            return run(kernel, *args, **kwargs)

    return run_on_host


def name_constants(kernel: CachingAutotuner) -> None:
    """Make the compile-time constants of a user's kernel known where Inductor has those of its own."""
    if kernel.inductor_meta.get("grid_type") in _GRIDS_OF_USERS:
        for configuration in kernel.configs:
            configuration.kwargs.update(_constants(kernel))


def _constants(kernel: CachingAutotuner) -> dict[str, Any]:
    """Return the compile-time constants of a kernel."""
    signature = kernel.triton_meta["signature"]
    return {name: value for name, value in kernel.triton_meta["constants"].items() if signature[name] == "constexpr"}


def _host_view(tensor: torch.Tensor) -> torch.Tensor:
    """Return a CPU tensor over the memory of an XPU tensor, any other tensor as it is."""
    with torch._C._DisableTorchDispatch():
        return torch.ops.simulated_xpu.host_view(tensor.detach()) if tensor.is_xpu else tensor


@contextlib.contextmanager
def _patched_language() -> Any:
    """Make the builtins of ``triton.language`` interpret, in all its modules.

    The interpreter patches those modules only that the kernel itself names, and Triton's own device functions
    name another one.
    """
    import triton.language as tl
    from triton.runtime import interpreter

    scope = interpreter._patch_lang(types.SimpleNamespace(__globals__={"tl": tl, "core": tl.core}))
    try:
        yield
    finally:
        scope.restore()


def _call_device_function(function: Any, *args: Any, **kwargs: Any) -> Any:
    """Interpret a device function that was decorated before the interpreter was asked for."""
    from triton.runtime.interpreter import InterpretedFunction

    kwargs.pop("_semantic", None)
    if not hasattr(function, "_interpreted"):
        function._interpreted = InterpretedFunction(function.fn)
    return function._interpreted.rewrite()(*args, **kwargs)
