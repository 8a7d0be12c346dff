"""Where the inputs of AOTAutograd's graphs come from. Checked on torch 2.13.0."""

from __future__ import annotations

from torch import fx
from torch._functorch._aot_autograd.descriptors import PlainAOTInput


def input_position(placeholder: fx.Node) -> int | None:
    """Return the position of an input among those that AOTAutograd was called with, None if it made it itself."""
    description = placeholder.meta.get("desc")
    return description.idx if isinstance(description, PlainAOTInput) else None
