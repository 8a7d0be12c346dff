"""The eager ``autocast`` region."""

from __future__ import annotations

import torch

from xpu_amp_dynamo.errors import InvalidOptionError, UnsupportedDeviceError
from xpu_amp_dynamo.policy.devices import check_lower_dtype, device_type_meant
from xpu_amp_dynamo.policy.policy import Policy, as_policy
from xpu_amp_dynamo.runtime.hide_from_dynamo import hide_from_dynamo
from xpu_amp_dynamo.runtime.installation import ensure_installed


@hide_from_dynamo
def autocast(
    device_type: str | torch.device | None = None,
    dtype: torch.dtype | str = torch.bfloat16,
    enabled: bool = True,
    cache_enabled: bool = True,
    *,
    policy: Policy | str | None = None,
) -> torch.autocast:
    """Return a region of mixed precision: a context manager, and a decorator of functions.

    The first enabled region of a device type installs its policy for the whole process; from then on the
    region is a ``torch.autocast`` region, so nesting, checkpointing, ``torch.compile`` and everything else
    that knows autocast works with it.

    Args:
        device_type: ``"xpu"``, ``"cuda"`` or ``"cpu"``, or a device of it; None means ``"xpu"`` if there
            is one, else the current accelerator, else ``"cpu"``.
        dtype: the lower precision, ``torch.bfloat16`` or ``torch.float16``, or a name of one, such as ``"bf16"``.
        enabled: False makes a region that runs in the dtypes of its inputs.
        cache_enabled: keep the casts of float32 parameters until the outermost region ends.
        policy: the policy to install on first use, or its name; None means the installed one, else ``"xpu"``.

    Returns:
        A ``torch.autocast`` object.

    Raises:
        UnsupportedDeviceError: the device type has no autocast, or what stands there is a bool, a dtype or a function.
        UnsupportedDtypeError: ``dtype`` is neither bfloat16 nor float16.
        UnknownPolicyError: ``policy`` is neither a policy nor the name of one.
        PolicyConflictError: another policy is installed already.
        InvalidOptionError: ``enabled`` or ``cache_enabled`` is no bool.

    Example:
        >>> with xpu_amp_dynamo.autocast(dtype=torch.float16):
        ...     y = model(x)
    """
    for name, value in (("enabled", enabled), ("cache_enabled", cache_enabled)):
        if not isinstance(value, bool):
            raise InvalidOptionError(f"{name} of autocast is {value!r}; it must be True or False")
    prepared_type, prepared_dtype = _prepare(device_type, dtype, enabled, policy)
    return torch.autocast(prepared_type, prepared_dtype, enabled, cache_enabled)


# Dynamo runs this while it compiles instead of looking into it: the region that it then sees is plain
# torch.autocast, whose state it guards.
@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
def _prepare(
    device: str | torch.device | None, dtype: torch.dtype | str, enabled: bool, policy: Policy | str | None
) -> tuple[str, torch.dtype]:
    """Check the arguments, install the policy if the region needs it, and return the device type and the dtype."""
    _refuse_other_order(device)
    device_type = device_type_meant(device)
    policy = None if policy is None else as_policy(policy)
    # A region that is off may say float32.
    lower_dtype = dtype if isinstance(dtype, torch.dtype) and not enabled else check_lower_dtype(dtype)
    if enabled:
        ensure_installed(policy, device_type)
    return device_type, lower_dtype


def _refuse_other_order(device_type: object) -> None:
    """Refuse what IPEX took first, and a function, as the first argument.

    Raises:
        UnsupportedDeviceError: it is a bool, a dtype or a function.
    """
    if isinstance(device_type, bool | torch.dtype):
        name = "enabled" if isinstance(device_type, bool) else "dtype"
        raise UnsupportedDeviceError(
            f"the first argument of autocast is the device type, and was {device_type!r}; torch.xpu.amp.autocast of "
            f"IPEX took enabled, dtype, cache_enabled. Name it, as in autocast({name}={device_type!r}), or keep the "
            "order of IPEX by xpu_amp_dynamo.install_torch_xpu_amp() and torch.xpu.amp.autocast"
        )
    if callable(device_type):
        raise UnsupportedDeviceError("autocast is used as @autocast(), with the parentheses, also without arguments")
