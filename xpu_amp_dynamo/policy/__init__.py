"""The words of the field: policies, their tables, the cast rule, the names of ops and devices."""

from xpu_amp_dynamo.policy.policy import Policy as Policy
