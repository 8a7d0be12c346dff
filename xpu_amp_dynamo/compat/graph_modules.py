"""What graphs and modules keep to themselves. Checked on torch 2.13.0."""

from __future__ import annotations

from typing import Any

import torch
from torch import fx


def is_erased(node: fx.Node) -> bool:
    """Tell whether a node was taken out of its graph."""
    return node._erased


def registries_of(module: torch.nn.Module) -> tuple[dict[str, Any], ...]:
    """Return the dicts in which a module keeps its submodules, buffers and parameters; edits of them are its own."""
    return module._modules, module._buffers, module._parameters
