"""Autocast kernels of other libraries: which ops of other namespaces have one that no policy of ours put there."""

from __future__ import annotations

from xpu_amp_dynamo.compat.dispatcher import has_kernel
from xpu_amp_dynamo.compat.op_types import OpOverload
from xpu_amp_dynamo.policy.devices import AUTOCAST_KEYS

# Qualified names of the overloads that the installed policy of a device type lists; kept by the installation.
REGISTERED_BY_POLICIES: dict[str, frozenset[str]] = {}


def has_foreign_autocast(op: OpOverload, device_type: str) -> bool:
    """Tell whether a library other than PyTorch and this one casts the inputs of its op in regions.

    Such kernels come from ``torch.library.register_autocast`` and from C++ extensions (torchvision registers them for
    ``nms`` and ``roi_align``). Installing a policy leaves them alone, unless it lists their op.

    Args:
        op: any overload.
        device_type: the device type of the region.

    Returns:
        Whether the op is not ATen's and has a kernel on the device type's autocast key that no installed policy
        registered.
    """
    if op.namespace == "aten" or op.name() in REGISTERED_BY_POLICIES.get(device_type, ()):
        return False
    return has_kernel(op, AUTOCAST_KEYS[device_type])
