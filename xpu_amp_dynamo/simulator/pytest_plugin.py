"""The pytest fixture ``simulated_xpu``: ``pytest_plugins = ["xpu_amp_dynamo.simulator.pytest_plugin"]``."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from xpu_amp_dynamo.simulator.parts import XpuProperties
from xpu_amp_dynamo.simulator.simulated_xpu import simulated_xpu as simulated_xpu_region


@pytest.fixture
def simulated_xpu(request: pytest.FixtureRequest) -> Iterator[XpuProperties]:
    """Give a test a simulated XPU; an indirect parameter names its arguments, such as ``{"part": "arc-a770"}``."""
    with simulated_xpu_region(**getattr(request, "param", {})) as properties:
        yield properties
