"""Puts IPEX's names about precision into ``torch.xpu``, and takes them out again."""

from __future__ import annotations

import sys

import torch

from xpu_amp_dynamo.dynamo.backends import register_backend, unregister_backend
from xpu_amp_dynamo.errors import ForeignExtensionError
from xpu_amp_dynamo.ipex import amp
from xpu_amp_dynamo.ipex.backend import ipex_backend
from xpu_amp_dynamo.ipex.chosen_policy import choose
from xpu_amp_dynamo.ipex.math_mode import FP32MathMode, fp32_math_mode, get_xpu_fp32_math_mode, set_xpu_fp32_math_mode
from xpu_amp_dynamo.ipex.names import refuse_query
from xpu_amp_dynamo.ipex.optimize import optimize
from xpu_amp_dynamo.policy.policy import Policy, as_policy

# What torch.xpu gets.
NAMES = {
    "amp": amp,
    "optimize": optimize,
    "FP32MathMode": FP32MathMode,
    "fp32_math_mode": fp32_math_mode,
    "get_fp32_math_mode": get_xpu_fp32_math_mode,
    "set_fp32_math_mode": set_xpu_fp32_math_mode,
    "__getattr__": refuse_query,
}
_MODULE = "torch.xpu.amp"
# The default dtype of XPU regions before, while the names are installed.
_dtype_before: list[torch.dtype] = []


def install_torch_xpu_amp(policy: Policy | str | None = None) -> None:
    """Give ``torch.xpu`` the names of IPEX that are about precision, for programs that were written for it.

    These are the module ``torch.xpu.amp`` (``autocast``, ``custom_fwd``, ``custom_bwd``, ``GradScaler``, and getters
    and setters), ``torch.xpu.optimize``, the modes of float32 arithmetic, and the Dynamo backend ``"ipex"``. In the
    calling thread, regions for XPUs that name no dtype are of bfloat16, as IPEX had it; PyTorch's are of float16.
    A second call changes the policy at most.

    Args:
        policy: what the first region of ``torch.xpu.amp.autocast`` installs, a policy or the name of one. None means
            the one installed by then, else ``"xpu"``: Intel's documented lists, completed so that PyTorch's own
            kernels run what IPEX's ran. ``"ipex"`` is what the GPU build of IPEX 2.1 registered, with norms that
            follow their input, as its kernels did.

    Raises:
        ForeignExtensionError: ``torch.xpu.amp`` is there already, by IPEX itself.
        UnknownPolicyError: ``policy`` is neither a policy nor the name of one.

    Example:
        >>> xpu_amp_dynamo.install_torch_xpu_amp()
        >>> with torch.xpu.amp.autocast(enabled=True, dtype=torch.bfloat16):
        ...     y = model(x)
    """
    policy = None if policy is None else as_policy(policy)
    if not _dtype_before:
        _refuse_others()
        _install()
    if policy is not None:
        choose(policy)


def uninstall_torch_xpu_amp() -> None:
    """Take back what :func:`install_torch_xpu_amp` did, but for a policy that regions installed meanwhile.

    Models and optimizers that ``torch.xpu.optimize`` returned stay as they are. Without installation nothing happens.
    """
    if not _dtype_before:
        return
    for name in NAMES:
        delattr(torch.xpu, name)
    sys.modules.pop(_MODULE)
    unregister_backend("ipex")
    choose(None)
    torch.set_autocast_dtype("xpu", _dtype_before.pop())


def _refuse_others() -> None:
    """Refuse to replace what is there already."""
    there = [name for name in NAMES if hasattr(torch.xpu, name)]
    if there:
        raise ForeignExtensionError(
            f"torch.xpu.{there[0]} is there already, of intel_extension_for_pytorch or another library; leave its "
            "import out (pip uninstall intel-extension-for-pytorch) to have these names of xpu_amp_dynamo"
        )


def _install() -> None:
    """Put everything in its place."""
    register_backend("ipex", ipex_backend)
    for name, value in NAMES.items():
        setattr(torch.xpu, name, value)
    sys.modules[_MODULE] = amp
    _dtype_before.append(torch.get_autocast_dtype("xpu"))
    torch.set_autocast_dtype("xpu", torch.bfloat16)
