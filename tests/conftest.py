"""Fixtures of all tests: a clean process state around each, and the device to run on."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
import torch._inductor.config

import xpu_amp_dynamo
from xpu_amp_dynamo.devices import AUTOCAST_KEYS


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add ``--device``."""
    parser.addoption("--device", default="cpu", choices=sorted(AUTOCAST_KEYS), help="device type to test on")


@pytest.fixture
def device(request: pytest.FixtureRequest) -> str:
    """Return the device type to test on."""
    return request.config.getoption("--device")


@pytest.fixture(autouse=True)
def clean_state() -> Iterator[None]:
    """Give each test a fresh Dynamo, a fixed seed and stock autocast kernels."""
    torch._dynamo.reset()
    torch.manual_seed(0)
    yield
    for device_type in AUTOCAST_KEYS:
        xpu_amp_dynamo.uninstall(device_type)
    assert not torch.is_autocast_enabled("cpu"), "the test left an autocast region open"
