"""Skips the tests of the simulated XPU where it cannot start."""

from __future__ import annotations

import pytest
import torch

from xpu_amp_dynamo.errors import SimulatorError
from xpu_amp_dynamo.simulator.intel_compiler import triton_xpu
from xpu_amp_dynamo.simulator.opencl import device


@pytest.fixture(scope="session", autouse=True)
def cpu_build():
    if torch.backends.cuda.is_built() or torch.xpu._is_compiled():
        pytest.skip("an XPU can be simulated in CPU builds of torch only")


@pytest.fixture
def opencl():
    """Skip where the runtime or the compiler is not installed; `make test-opencl` installs both."""
    try:
        device.context()
        triton_xpu.installed_folder()
    except SimulatorError as error:
        pytest.skip(str(error))
