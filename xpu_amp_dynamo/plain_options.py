"""Options of the backend as what a TOML file can hold, and back."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import torch

from xpu_amp_dynamo.errors import InvalidOptionError
from xpu_amp_dynamo.lowering.records import dtype_name
from xpu_amp_dynamo.options import checked_option
from xpu_amp_dynamo.policy.cast_rule import Category
from xpu_amp_dynamo.policy.devices import check_lower_dtype
from xpu_amp_dynamo.policy.policy import Policy, policy_names

LISTS = tuple(category.value for category in Category)


def plain(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return options as text, numbers, lists and dicts.

    Args:
        options: checked options of the backend.

    Raises:
        InvalidOptionError: a setting of Inductor is nothing that a file can hold, such as a function.
    """
    return {name: _plain(name, value) for name, value in options.items() if value is not None}


def options_from(found: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options that :func:`plain` was given.

    Raises:
        InvalidOptionError: there is no such dtype.
    """
    options = dict(found)
    if "dtype" in options:
        options["dtype"] = checked_option("dtype", check_lower_dtype, options["dtype"])
    if isinstance(options.get("policy"), Mapping):
        options["policy"] = Policy(**options["policy"])
    return options


def _plain(name: str, value: Any) -> Any:
    if isinstance(value, torch.dtype):
        return dtype_name(value)
    if isinstance(value, Policy):
        return _plain_policy(value)
    if isinstance(value, Mapping):
        return plain(value)
    if isinstance(value, (str, bool, int, float)):
        return value
    if not isinstance(value, Collection):
        raise InvalidOptionError(f"{name!r} is {value!r}, which a TOML file cannot hold; leave it out of the options")
    return list(value)


def _plain_policy(policy: Policy) -> str | dict[str, Any]:
    """Return the name of a named policy, the lists of any other."""
    if policy.name in policy_names() and policy == Policy.named(policy.name):
        return policy.name
    lists = {name: sorted(getattr(policy, name)) for name in LISTS}
    return {"name": policy.name, "casts_inside_kernels": policy.casts_inside_kernels, **lists}
