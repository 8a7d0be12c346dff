"""Guards of compiled code on what Dynamo itself does not guard: regions that turn autocast off, and the policy."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from torch._dynamo.source import GlobalStateSource
from torch._guards import Guard, TracingContext

from xpu_amp_dynamo.compat.regions_around import turned_off
from xpu_amp_dynamo.policy.policy import Policy
from xpu_amp_dynamo.runtime.installation import installed_policy


def guard_regions_around(device_type: str, off: bool, enabled_elsewhere: int) -> None:
    """Have the code that Dynamo is compiling run only where regions around it do, or do not, turn autocast off.

    Dynamo guards for which device types autocast is enabled, so this is for code compiled where it is not.

    Args:
        device_type: the device type.
        off: whether they do now.
        enabled_elsewhere: for how many other device types it is enabled now.
    """
    _add_guard(_create_regions_guard, device_type, off, enabled_elsewhere)


def guard_installed_policy(device_type: str) -> None:
    """Have the code that Dynamo is compiling run only under the policy that is installed for a device type now.

    It decides the dtypes of what Dynamo captures inside a region, which are those of constants and outputs.
    """
    _add_guard(_create_policy_guard, device_type, installed_policy(device_type))


def _add_guard(create: Callable[..., None], *arguments: object) -> None:
    """Add a guard to the code in hand; nothing happens where Dynamo compiles none. Checked on torch 2.13.0."""
    context = TracingContext.try_get()
    if context is not None:
        guard = Guard(GlobalStateSource(), functools.partial(create, *arguments))
        context.guards_context.dynamo_guards.add(guard)


def _create_regions_guard(device_type: str, off: bool, enabled_elsewhere: int, builder: Any, guard: Guard) -> None:
    def check(values: object) -> bool:
        return turned_off(device_type, enabled_elsewhere) is off

    reason = f"regions around the call {'turn' if off else 'do not turn'} autocast of {device_type!r} off"
    builder.guard_manager.root.add_lambda_guard(check, [reason], guard.user_stack)


def _create_policy_guard(device_type: str, policy: Policy | None, builder: Any, guard: Guard) -> None:
    def check(values: object) -> bool:
        installed = installed_policy(device_type)
        return installed is policy or installed == policy

    reason = f"policy {policy and policy.name!r} is installed for {device_type!r}"
    builder.guard_manager.root.add_lambda_guard(check, [reason], guard.user_stack)
