"""Installs a policy on the dispatcher for one device type of this process, and takes it off again."""

from __future__ import annotations

import threading
import warnings
from typing import NamedTuple

import torch

from xpu_amp_dynamo.devices import AUTOCAST_KEYS, check_device_type
from xpu_amp_dynamo.errors import PolicyConflictError
from xpu_amp_dynamo.op_names import overloads_of
from xpu_amp_dynamo.policy import Policy
from xpu_amp_dynamo.runtime.autocast_cache_lifetime import STOCK_KEY, STOCK_OP
from xpu_amp_dynamo.runtime.kernels import make_kernel


class _Installation(NamedTuple):
    policy: Policy
    libraries: dict[str, torch.library.Library]


_installations: dict[str, _Installation] = {}
_lock = threading.RLock()


def install(policy: Policy | None = None, device_type: str = "xpu") -> None:
    """Make a policy the one that every autocast region of a device type follows, in all threads.

    Args:
        policy: the policy; ``Policy.named("xpu")`` if None. It replaces one installed before.
        device_type: ``"xpu"``, ``"cuda"`` or ``"cpu"``.

    Raises:
        UnsupportedDeviceError: the device type has no autocast.
    """
    check_device_type(device_type)
    policy = policy or Policy.named("xpu")
    with _lock:
        if installed_policy(device_type) == policy:
            return
        uninstall(device_type)
        _installations[device_type] = _Installation(policy, _register(policy, device_type))


def uninstall(device_type: str = "xpu") -> None:
    """Give a device type its stock autocast kernels back; nothing happens if no policy is installed.

    Raises:
        UnsupportedDeviceError: the device type has no autocast.
    """
    with _lock:
        installation = _installations.pop(check_device_type(device_type), None)
        for library in installation.libraries.values() if installation else ():
            library._destroy()


def installed_policy(device_type: str = "xpu") -> Policy | None:
    """Return the policy installed for a device type, None while it has stock PyTorch's.

    Raises:
        UnsupportedDeviceError: the device type has no autocast.
    """
    installation = _installations.get(check_device_type(device_type))
    return installation.policy if installation else None


def ensure_installed(policy: Policy | None, device_type: str) -> None:
    """Install a policy on first use.

    Raises:
        PolicyConflictError: another policy is installed than the one asked for.
    """
    with _lock:
        present = installed_policy(device_type)
        if present is None:
            install(policy, device_type)
        elif policy is not None and policy != present:
            raise PolicyConflictError(
                f"policy {policy.name!r} was asked for, but {present.name!r} is installed for {device_type!r} in "
                f"this process; call xpu_amp_dynamo.install(policy, {device_type!r}) to replace it everywhere"
            )


def _register(policy: Policy, device_type: str) -> dict[str, torch.library.Library]:
    """Register the policy's kernels, and nothing in place of the stock kernels it does not list."""
    key = AUTOCAST_KEYS[device_type]
    stock = torch._C._dispatch_get_registrations_for_dispatch_key(key)
    untouched = {STOCK_OP.name()} if key == STOCK_KEY else set()
    libraries: dict[str, torch.library.Library] = {}
    listed = {
        overload: make_kernel(overload, category, device_type)
        for op, category in policy.categories.items()
        for overload in overloads_of(op)
        if overload.name() not in untouched
    }
    unlisted = set(stock) - {overload.name() for overload in listed} - untouched
    with warnings.catch_warnings():
        # The dispatcher reports every override of a stock kernel; overriding is the purpose here.
        warnings.filterwarnings("ignore", message="(?s).*Overriding a previously registered kernel")
        for overload, kernel in listed.items():
            library = _library(libraries, overload.namespace)
            library.impl(overload, kernel, key, with_keyset=True)
        for name in unlisted:
            namespace, _, base = name.partition("::")
            _library(libraries, namespace).impl(base, torch.library.fallthrough_kernel, key)
    return libraries


def _library(libraries: dict[str, torch.library.Library], namespace: str) -> torch.library.Library:
    """Return the library that holds our kernels for ops of a namespace."""
    if namespace not in libraries:
        libraries[namespace] = torch.library.Library(namespace, "IMPL")
    return libraries[namespace]
