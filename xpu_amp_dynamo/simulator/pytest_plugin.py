"""The pytest fixture ``simulated_xpu``: ``pytest_plugins = ["xpu_amp_dynamo.simulator.pytest_plugin"]``.

``pytest --xpu-mode opencl`` has its kernels run by Intel's OpenCL runtime.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from xpu_amp_dynamo.simulator.parts import XpuProperties
from xpu_amp_dynamo.simulator.simulated_xpu import MODES
from xpu_amp_dynamo.simulator.simulated_xpu import simulated_xpu as simulated_xpu_region


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add ``--xpu-mode``."""
    parser.addoption("--xpu-mode", default="run", choices=MODES, help="what simulated XPUs do with compiled kernels")


@pytest.fixture
def simulated_xpu(request: pytest.FixtureRequest) -> Iterator[XpuProperties]:
    """Give a test a simulated XPU; an indirect parameter names its arguments, such as ``{"part": "arc-a770"}``."""
    arguments = {"mode": request.config.getoption("--xpu-mode"), **getattr(request, "param", {})}
    with simulated_xpu_region(**arguments) as properties:
        yield properties
