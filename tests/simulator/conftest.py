"""Skips the tests of the simulated XPU where it cannot start."""

from __future__ import annotations

import pytest
import torch


@pytest.fixture(scope="session", autouse=True)
def cpu_build():
    if torch.backends.cuda.is_built() or torch.xpu._is_compiled():
        pytest.skip("an XPU can be simulated in CPU builds of torch only")
