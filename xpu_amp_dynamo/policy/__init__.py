"""The words of the field: policies, their tables, the cast rule, the names of ops and devices."""

from xpu_amp_dynamo.policy.policy import Policy as Policy
from xpu_amp_dynamo.policy.policy import as_policy as as_policy
from xpu_amp_dynamo.policy.policy import policy_names as policy_names
