"""The policy that programs for IPEX follow in this process."""

from __future__ import annotations

from xpu_amp_dynamo.policy.policy import Policy, as_policy
from xpu_amp_dynamo.runtime.hide_from_dynamo import hide_from_dynamo
from xpu_amp_dynamo.runtime.installation import installed_policy

DEFAULT_POLICY = "xpu"

_chosen: dict[str, Policy] = {}


def choose(policy: Policy | str | None) -> None:
    """Have a policy installed by the first region from now on; None is the one installed by then, else the default."""
    if policy is None:
        _chosen.clear()
    else:
        _chosen["xpu"] = as_policy(policy)


@hide_from_dynamo
def policy_to_install() -> Policy | None:
    """Return the policy that was chosen; None stands for the one installed, else the default."""
    return _chosen.get("xpu")


def policy_in_force() -> Policy:
    """Return the policy that code compiled now follows."""
    return installed_policy("xpu") or _chosen.get("xpu") or as_policy(DEFAULT_POLICY)
