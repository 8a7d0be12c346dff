"""Where an op of a policy comes from: which of the tables that a named policy is made of, or a user."""

from __future__ import annotations

from xpu_amp_dynamo.policy.policy import CHANGED, Policy, policy_names
from xpu_amp_dynamo.policy.tables import completion, documented

# The policy that is made of two tables.
_XPU_TABLES = {"the documented lists": documented, "the completion of the documented lists": completion}


def where_listed(policy: Policy, op: str) -> str:
    """Return in words which list names an op of a policy.

    Args:
        policy: a policy.
        op: the name of an op that it lists.

    Example:
        >>> where_listed(Policy.named("xpu"), "linear")
        'the documented lists'
    """
    name = policy.name.removesuffix(CHANGED)
    category = policy.categories[op]
    if name not in policy_names():
        return f"policy {policy.name!r}"
    if Policy.named(name).categories.get(op) is not category:
        return "a change of the policy by with_ops"
    tables = _XPU_TABLES.items() if name == "xpu" else ()
    return next((words for words, t in tables if op in getattr(t, category.name, ())), f"policy {name!r}")
