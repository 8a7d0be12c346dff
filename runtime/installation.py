"""Installs a policy on the dispatcher for one device type of this process, and takes it off again."""

from __future__ import annotations

import contextlib
import threading
import warnings
from collections.abc import Iterator
from typing import NamedTuple

import torch

from xpu_amp_dynamo.compat.dispatcher import names_with_kernel, unregister
from xpu_amp_dynamo.compat.op_types import OpOverload
from xpu_amp_dynamo.compat.torch_version import warn_of_newer_torch
from xpu_amp_dynamo.errors import PolicyConflictError, UnknownOpError
from xpu_amp_dynamo.policy.devices import AUTOCAST_KEYS, device_type_meant
from xpu_amp_dynamo.policy.foreign_autocast import REGISTERED_BY_POLICIES
from xpu_amp_dynamo.policy.op_names import overloads_of
from xpu_amp_dynamo.policy.policy import Policy, as_policy
from xpu_amp_dynamo.runtime.autocast_cache_lifetime import STOCK_DEVICE_TYPE, STOCK_OP
from xpu_amp_dynamo.runtime.hide_from_dynamo import hide_from_dynamo
from xpu_amp_dynamo.runtime.kernels import Kernel, make_kernel


class _Installation(NamedTuple):
    policy: Policy
    libraries: dict[str, torch.library.Library]
    # The overloads of ATen for which PyTorch itself has autocast kernels.
    stock: frozenset[str]


_installations: dict[str, _Installation] = {}
_lock = threading.RLock()


@hide_from_dynamo
def install(policy: Policy | str | None = None, device_type: str | torch.device | None = None) -> None:
    """Make a policy the one that every autocast region of a device type follows, in all threads.

    Autocast kernels that other libraries registered for their ops stay, unless the policy lists the op.

    Args:
        policy: the policy or the name of one; ``Policy.named("xpu")`` if None. It replaces one installed before.
        device_type: ``"xpu"``, ``"cuda"`` or ``"cpu"``, or a device of it; None means what it does for ``autocast``.

    Raises:
        UnsupportedDeviceError: the device type has no autocast.
        UnknownPolicyError: ``policy`` is neither a policy nor the name of one.
        UnknownOpError: an op that the policy lists is no longer registered. The policy installed before stays.
    """
    warn_of_newer_torch()
    device_type = device_type_meant(device_type)
    policy = as_policy(policy)
    with _lock:
        before = _installations.get(device_type)
        if before is not None and before.policy == policy:
            return
        kernels = _kernels(policy, device_type)
        stock = before.stock if before else _stock_overloads(device_type)
        # The new kernels go on top of the former ones, so that at no moment a region runs without any.
        libraries = _register(kernels, stock, device_type)
        _installations[device_type] = _Installation(policy, libraries, stock)
        REGISTERED_BY_POLICIES[device_type] = frozenset(op.name() for op in kernels)
        if before is not None:
            _destroy(before.libraries)


@hide_from_dynamo
def uninstall(device_type: str | torch.device | None = None) -> None:
    """Give a device type its stock autocast kernels back; nothing happens if no policy is installed.

    Args:
        device_type: as :func:`install`.

    Raises:
        UnsupportedDeviceError: the device type has no autocast.
    """
    device_type = device_type_meant(device_type)
    with _lock:
        installation = _installations.pop(device_type, None)
        if installation is not None:
            _destroy(installation.libraries)
            del REGISTERED_BY_POLICIES[device_type]


def installed_policy(device_type: str | torch.device | None = None) -> Policy | None:
    """Return the policy installed for a device type, None while it has stock PyTorch's.

    Args:
        device_type: as :func:`install`.

    Raises:
        UnsupportedDeviceError: the device type has no autocast.
    """
    installation = _installations.get(device_type_meant(device_type))
    return installation.policy if installation else None


@contextlib.contextmanager
def keeping_installed_policy(device_type: str) -> Iterator[None]:
    """Have the policy of a device type as it was before, or none again, once the context ends."""
    policy = installed_policy(device_type)
    try:
        yield
    finally:
        if policy is None:
            uninstall(device_type)
        else:
            install(policy, device_type)


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


def _kernels(policy: Policy, device_type: str) -> dict[OpOverload, Kernel]:
    """Return the kernels of all overloads that a policy is about, but for the one whose stock kernel must stay."""
    kernels: dict[OpOverload, Kernel] = {}
    for op, category in {**policy.categories, **dict.fromkeys(policy.opaque_ops)}.items():
        if not overloads_of(op):
            raise UnknownOpError(
                f"policy {policy.name!r} lists {op!r}, which is registered no longer; "
                f"install policy.with_ops(leave=[{op!r}]), or import the library that defines it"
            )
        kernels.update((overload, make_kernel(overload, category, device_type)) for overload in overloads_of(op))
    if device_type == STOCK_DEVICE_TYPE:
        kernels.pop(STOCK_OP, None)
    return kernels


def _stock_overloads(device_type: str) -> frozenset[str]:
    """Return the overloads of ATen with autocast kernels, but for the one whose kernel must stay."""
    names = names_with_kernel(AUTOCAST_KEYS[device_type])
    untouched = {STOCK_OP.name()} if device_type == STOCK_DEVICE_TYPE else set()
    return frozenset(name for name in names if name.startswith("aten::")) - untouched


def _register(
    kernels: dict[OpOverload, Kernel], stock: frozenset[str], device_type: str
) -> dict[str, torch.library.Library]:
    """Register kernels, and nothing in place of the stock kernels of other ops. If any fails, take back all."""
    key = AUTOCAST_KEYS[device_type]
    libraries: dict[str, torch.library.Library] = {}
    with warnings.catch_warnings():
        # The dispatcher reports every override of a stock kernel; overriding is the purpose here.
        warnings.filterwarnings("ignore", message="(?s).*Overriding a previously registered kernel")
        try:
            for overload, kernel in kernels.items():
                _library(libraries, overload.namespace).impl(
                    overload, kernel, key, with_keyset=True, allow_override=True
                )
            for name in stock - {overload.name() for overload in kernels}:
                fallthrough = torch.library.fallthrough_kernel
                _library(libraries, "aten").impl(name.removeprefix("aten::"), fallthrough, key, allow_override=True)
        except BaseException:
            _destroy(libraries)
            raise
    return libraries


def _destroy(libraries: dict[str, torch.library.Library]) -> None:
    """Take back the registrations of an installation."""
    for library in libraries.values():
        unregister(library)


def _library(libraries: dict[str, torch.library.Library], namespace: str) -> torch.library.Library:
    """Return the library that holds our kernels for ops of a namespace."""
    if namespace not in libraries:
        libraries[namespace] = torch.library.Library(namespace, "IMPL")
    return libraries[namespace]
