"""Wrappers of what PyTorch keeps to itself, with the versions that they were checked on."""

from xpu_amp_dynamo.compat.torch_version import refuse_older_torch

# The first of this package's modules to be imported: the others would fail on whatever an older torch lacks.
refuse_older_torch()
