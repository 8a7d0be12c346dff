"""Verifies what the optimiser leaves in every compilation of these tests."""

from __future__ import annotations

import pytest

from xpu_amp_dynamo.inductor.passes import CastPasses
from xpu_amp_dynamo.lowering.aten.verify import run_verified


@pytest.fixture(autouse=True)
def verified_passes(monkeypatch):
    def call(self, graph):
        for run in self._before:
            run(graph)
        run_verified(self._passes, graph)

    monkeypatch.setattr(CastPasses, "__call__", call)
