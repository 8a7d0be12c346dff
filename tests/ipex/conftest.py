"""Gives tests the names of IPEX, and an XPU to use them on."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

import xpu_amp_dynamo


@pytest.fixture
def installed() -> Iterator[None]:
    """Have IPEX's names in torch.xpu."""
    xpu_amp_dynamo.install_torch_xpu_amp()
    yield
    xpu_amp_dynamo.uninstall_torch_xpu_amp()


@pytest.fixture
def xpu(simulated_xpu: object, installed: None) -> torch.device:
    """Return a simulated XPU, beside IPEX's names."""
    return torch.device("xpu")
