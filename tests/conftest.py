"""Fixtures of all tests: a clean process state around each, and the device to run on."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from unittest import mock

import pytest
import torch
import torch._dynamo.guards
import torch._inductor.config

import xpu_amp_dynamo
from xpu_amp_dynamo.lowering.run_passes import verify_thoroughly
from xpu_amp_dynamo.policy.devices import AUTOCAST_KEYS

pytest_plugins = ["xpu_amp_dynamo.simulator.pytest_plugin", "tests.support.count_architectures"]


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add ``--device``."""
    parser.addoption("--device", default="cpu", choices=sorted(AUTOCAST_KEYS), help="device type to test on")


@pytest.fixture(scope="session", autouse=True)
def simulation(request: pytest.FixtureRequest) -> Iterator[None]:
    """Simulate the XPU for the whole run where ``--device xpu`` asks for one and there is none."""
    wanted = request.config.getoption("--device") == "xpu" and not torch.xpu.is_available()
    if wanted:
        skip_unless_simulated()
    mode = request.config.getoption("--xpu-mode")
    with xpu_amp_dynamo.simulated_xpu(mode=mode) if wanted else contextlib.nullcontext():
        yield


@pytest.fixture(autouse=True)
def only_where_simulated(request: pytest.FixtureRequest) -> None:
    """Skip what needs a simulated XPU where the build of torch allows none."""
    if "simulated_xpu" in request.fixturenames:
        skip_unless_simulated()


def skip_unless_simulated() -> None:
    """Skip a test where torch is built for a GPU."""
    if torch.backends.cuda.is_built():
        pytest.skip("an XPU can be simulated in CPU builds of torch only")


@pytest.fixture(scope="session", autouse=True)
def unmeasured_guards() -> Iterator[None]:
    """Leave out that Dynamo measures each graph's guards, for which it empties the processor's caches in 30 ms."""

    # No mock, which would keep the tensors that guards are called with.
    def measure(*_: object) -> float:
        return 0.0

    with mock.patch.object(torch._dynamo.guards, "profile_guard_manager", measure):
        yield


@pytest.fixture
def device(request: pytest.FixtureRequest) -> str:
    """Return the device type to test on."""
    return request.config.getoption("--device")


@pytest.fixture(autouse=True)
def verified_passes() -> Iterator[None]:
    """Verify what every pass leaves by computing it anew."""
    with verify_thoroughly():
        yield


@pytest.fixture(autouse=True)
def clean_state() -> Iterator[None]:
    """Give each test a fresh Dynamo, a fixed seed, stock autocast kernels and no casts that others kept."""
    torch._dynamo.reset()
    torch.manual_seed(0)
    yield
    xpu_amp_dynamo.release_weights()
    for device_type in AUTOCAST_KEYS:
        xpu_amp_dynamo.uninstall(device_type)
    assert not torch.is_autocast_enabled("cpu"), "the test left an autocast region open"
