"""Versions of torch that this package does not fit."""

from __future__ import annotations

import warnings

import pytest
import torch

import xpu_amp_dynamo
from xpu_amp_dynamo.compat.torch_version import NEWEST, refuse_older_torch, warn_of_newer_torch


@pytest.fixture
def another_torch(monkeypatch):
    """Return what gives torch another version; the next use of the package is the first one."""

    def pretend(version):
        monkeypatch.setattr(torch, "__version__", version)
        warn_of_newer_torch.cache_clear()

    yield pretend
    warn_of_newer_torch.cache_clear()


@pytest.mark.parametrize("version", ["2.10.0", "2.9.1+xpu", "1.13.1"])
def test_an_older_torch_is_refused(version, another_torch):
    another_torch(version)
    with pytest.raises(ImportError, match=r"torch 2\.11 or newer.*this is torch " + version.replace("+", r"\+")):
        refuse_older_torch()


@pytest.mark.parametrize("version", ["2.11.0", "2.13.0+cpu", "2.15.1+xpu", f"{NEWEST[0]}.{NEWEST[1]}.0a0+git1234"])
def test_versions_that_fit_go_without_a_word(version, another_torch):
    another_torch(version)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        refuse_older_torch()
        xpu_amp_dynamo.install("xpu", "cpu")


@pytest.mark.parametrize("version", ["2.16.0.dev20270101+xpu", "3.0.0"])
def test_a_newer_torch_is_warned_of_once_by_a_region(version, another_torch):
    another_torch(version)
    with pytest.warns(UserWarning, match="made for torch 2.11 to 2.15"):
        xpu_amp_dynamo.autocast("cpu")
    xpu_amp_dynamo.uninstall("cpu")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        xpu_amp_dynamo.autocast("cpu")


def test_a_newer_torch_is_warned_of_by_the_backend(another_torch):
    another_torch("2.16.0")
    graph = torch.fx.symbolic_trace(lambda x: torch.mm(x, x))
    with pytest.warns(UserWarning, match="made for torch 2.11 to 2.15"):
        xpu_amp_dynamo.xpu_amp(graph, [torch.ones(2, 2)], options={"inner_backend": "eager"})
