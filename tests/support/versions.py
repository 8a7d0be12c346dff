"""Marks for tests of what a version of torch cannot do."""

from __future__ import annotations

import pytest
import torch


def not_on_2_11(reason: str) -> pytest.MarkDecorator:
    """Skip a test on torch 2.11, which lacks what the test is about; its support is reduced."""
    return pytest.mark.skipif(torch.__version__ < "2.12", reason=f"{reason} (torch 2.11.0)")
