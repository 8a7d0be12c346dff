"""Verifies what the optimiser leaves in every compilation of these tests."""

from __future__ import annotations

import pytest

from xpu_amp_dynamo.inductor_passes import CastPasses
from xpu_amp_dynamo.lowering.optimiser.verify import run_verified


@pytest.fixture(autouse=True)
def verified_passes(monkeypatch):
    monkeypatch.setattr(CastPasses, "__call__", lambda self, graph: run_verified(self._passes, graph))
