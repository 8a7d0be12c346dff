"""Marks for tests of what a version of torch cannot do."""

from __future__ import annotations

import pytest
import torch


def only_since(version: str, reason: str) -> pytest.MarkDecorator:
    """Skip a test on versions of torch before one: 2.12 and 2.11 lack things, and their support is reduced."""
    return pytest.mark.skipif(torch.__version__ < version, reason=f"{reason} before torch {version}")


GRADIENTS_AS_EAGER = only_since("2.12", "stock Dynamo's gradients in a region differ from eager ones")
