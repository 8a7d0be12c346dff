"""Verifies what the optimiser leaves in every compilation of these tests."""

from __future__ import annotations

import pytest

from xpu_amp_dynamo.lowering.run_passes import verify_thoroughly


@pytest.fixture(autouse=True)
def verified_passes():
    with verify_thoroughly():
        yield
