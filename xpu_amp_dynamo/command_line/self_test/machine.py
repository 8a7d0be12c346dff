"""What a report of the self test tells of the machine."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch

from xpu_amp_dynamo.command_line.environment import examine

PLAIN = (str, int, float, bool)


def machine(device: str) -> dict[str, Any]:
    """Return what is here, and the properties of the device."""
    return {"findings": [dataclasses.asdict(finding) for finding in examine()], "properties": properties(device)}


def properties(device: str) -> dict[str, Any]:
    """Return what PyTorch tells of a device, lists and what is no number as text."""
    if device == "cpu":
        return {"capability": torch.backends.cpu.get_cpu_capability(), "threads": torch.get_num_threads()}
    found = torch.get_device_module(device).get_device_properties()
    values = {name: getattr(found, name) for name in dir(found) if not name.startswith("_")}
    return {name: v if isinstance(v, PLAIN) else str(v) for name, v in values.items() if not callable(v)}
