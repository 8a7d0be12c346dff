"""What autograd keeps for a backward. Checked on torch 2.13.0."""

from __future__ import annotations

import torch


def allows_saved_tensors_hooks() -> bool:
    """Tell whether hooks on tensors that are saved for a backward can be set here: not inside ``torch.func.grad``."""
    return torch._C._autograd._saved_tensors_hooks_is_enabled()  # type: ignore[attr-defined]
