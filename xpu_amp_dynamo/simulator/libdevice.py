"""Stand-ins for Triton's device math library, whose functions exist only as names before they are compiled.

Triton's interpreter computes on NumPy arrays; PyTorch's CPU functions are the arithmetic here.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from types import ModuleType
from typing import Any
from unittest import mock

import torch

# Names of libdevice functions that PyTorch calls otherwise.
OTHER_NAMES: dict[str, Callable[..., torch.Tensor]] = {
    "abs": torch.abs,
    "fabs": torch.abs,
    "rint": torch.round,
    "nearbyint": torch.round,
    "llrint": lambda x: torch.round(x).to(torch.int64),
    "llround": lambda x: torch.trunc(x + torch.copysign(torch.full_like(x, 0.5), x)).to(torch.int64),
    "round": lambda x: torch.trunc(x + torch.copysign(torch.full_like(x, 0.5), x)),
    "ilogb": lambda x: torch.frexp(x).exponent - 1,
    # Rounded to nearest, and not fused with what follows.
    "add_rn": torch.add,
    "sub_rn": torch.sub,
    "mul_rn": torch.mul,
    "div_rn": torch.div,
    "sqrt_rn": torch.sqrt,
    "pow": torch.pow,
    "fmax": torch.fmax,
    "fmin": torch.fmin,
    "isnan": torch.isnan,
    "isinf": torch.isinf,
    "isinfd": torch.isinf,
    "isnand": torch.isnan,
    "j0": torch.special.bessel_j0,
    "j1": torch.special.bessel_j1,
    "y0": torch.special.bessel_y0,
    "y1": torch.special.bessel_y1,
    "cyl_bessel_i0": torch.special.i0,
    "cyl_bessel_i1": torch.special.i1,
    "erfcx": torch.special.erfcx,
    "tgamma": lambda x: torch.exp(torch.lgamma(x)),
    "fast_expf": torch.exp,
    "fast_logf": torch.log,
    "fast_sinf": torch.sin,
    "fast_cosf": torch.cos,
    "fast_tanhf": torch.tanh,
}


def simulate_libdevice(stack: contextlib.ExitStack) -> None:
    """Let libdevice functions compute under Triton's interpreter, until ``stack`` closes."""
    from triton.language.extra import libdevice

    for name in _function_names(libdevice):
        compute = OTHER_NAMES.get(name) or getattr(torch, name, None)
        if compute is not None:
            stack.enter_context(mock.patch.object(libdevice, name, _on_arrays(compute)))


def _function_names(module: ModuleType) -> list[str]:
    return [name for name, value in vars(module).items() if callable(value) and not name.startswith("_")]


def _on_arrays(compute: Callable[..., torch.Tensor]) -> Callable[..., Any]:
    """Return a function of interpreted Triton values that computes by PyTorch."""
    import triton.language as tl
    from triton.runtime.interpreter import TensorHandle, _get_np_dtype

    def call(*arguments: Any, **_: Any) -> Any:
        values = torch.broadcast_tensors(*[torch.as_tensor(_array(a)) for a in arguments])
        result = compute(*values).numpy()
        shape = next((a.shape for a in arguments if isinstance(a, tl.tensor)), ())
        scalar = tl.int1 if result.dtype == bool else _triton_dtype(result.dtype, tl)
        handle = TensorHandle(result.astype(_get_np_dtype(scalar)), scalar)
        return tl.tensor(handle, tl.block_type(scalar, [int(s) for s in shape]) if shape else scalar)

    return call


def _array(argument: Any) -> Any:
    """Return the array behind an interpreted value, a plain number as it is."""
    handle = getattr(argument, "handle", None)
    return argument if handle is None else handle.data


def _triton_dtype(dtype: Any, tl: ModuleType) -> Any:
    """Return the Triton dtype of an array's."""
    return {"float32": tl.float32, "float64": tl.float64, "int32": tl.int32, "int64": tl.int64}[dtype.name]
