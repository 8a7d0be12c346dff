"""Policies made in tests."""

from __future__ import annotations

from typing import Any

from xpu_amp_dynamo import Policy


def policy_of(name: str, **lists: Any) -> Policy:
    """Return a policy of any iterables of ops, as users write them; its fields are declared as what they become."""
    return Policy(name, **lists)
