"""Says where the simulated XPU must not start: wherever a real one is."""

from __future__ import annotations

import sys
from pathlib import Path

import torch

from xpu_amp_dynamo.errors import SimulatorError

PCI_DEVICES = Path("/sys/bus/pci/devices")
INTEL, DISPLAY_CLASS = "0x8086", "0x03"
# PCI device ids of the discrete GPUs that PyTorch supports, by family: Data Center GPU Max, Arc A and Data
# Center GPU Flex, Arc B. Source: include/drm/intel/pciids.h of Linux 6.14.
DISCRETE_GPUS = (range(0x0BD0, 0x0BDC), range(0x5690, 0x56C3), range(0xE202, 0xE224))


def refuse_beside_real_xpu() -> None:
    """Raise unless this build and machine are free of real XPUs.

    Raises:
        SimulatorError: this is an XPU or CUDA build, an extension provides XPU kernels, or an Intel GPU is there.
    """
    if torch.xpu._is_compiled():
        raise SimulatorError(
            f"torch {torch.__version__} is built for real XPUs; the simulated one needs a CPU build of torch"
        )
    # torch 2.13.0 asserts in several places that XPU and CUDA are not compiled together.
    if torch.backends.cuda.is_built():
        raise SimulatorError(
            f"torch {torch.__version__} is a CUDA build, and PyTorch allows one kind of accelerator a build; the "
            "simulated XPU needs a CPU build of torch, in an environment of its own"
        )
    if torch._C._dispatch_has_kernel_for_dispatch_key("aten::empty.memory_format", "XPU"):
        loaded = sorted(name for name in sys.modules if "intel_extension" in name and "." not in name)
        raise SimulatorError(
            f"another library already provides an XPU in this process ({', '.join(loaded) or 'unknown'}), so that "
            "its tensors may exist; start the simulated XPU in a process without it"
        )
    gpus = intel_gpus()
    if gpus:
        raise SimulatorError(
            f"this machine has a real Intel GPU (PCI device {', '.join(gpus)}): install PyTorch's XPU build and use "
            "it; the simulated XPU is for machines without one"
        )


def intel_gpus() -> list[str]:
    """List the PCI addresses of discrete Intel GPUs that PyTorch supports; empty where the system does not tell."""
    if not PCI_DEVICES.is_dir():
        return []
    return [folder.name for folder in sorted(PCI_DEVICES.iterdir()) if _is_supported_gpu(folder)]


def _is_supported_gpu(folder: Path) -> bool:
    """Tell whether a PCI device is a discrete Intel GPU that PyTorch supports."""
    vendor, kind, device = ((folder / name).read_text().strip() for name in ("vendor", "class", "device"))
    return vendor == INTEL and kind.startswith(DISPLAY_CLASS) and any(int(device, 16) in ids for ids in DISCRETE_GPUS)
