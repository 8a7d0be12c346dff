"""Private functions of PyTorch that captured graphs call where the program changes a state of its thread.

Dynamo writes the function object itself into the graph, so a node's target is one of these. Checked on torch 2.13.0.
"""

from __future__ import annotations

import torch
from torch.amp import autocast_mode
from torch.autograd import grad_mode

# ``with torch.autocast(...)``: the second takes what the first returned.
ENTER_AUTOCAST, EXIT_AUTOCAST = autocast_mode._enter_autocast, autocast_mode._exit_autocast
# What ``torch.autocast`` asks when it is made, which shows where a subclass of it was inlined.
IS_AUTOCAST_AVAILABLE = torch._C._is_autocast_available
# ``with torch.no_grad()`` and ``with torch.enable_grad()``. ``torch.set_grad_enabled`` stands for itself.
SET_GRAD_ENABLED = torch._C._set_grad_enabled
# ``with torch.inference_mode()``: what enters it and what leaves it.
INFERENCE_MODE_CALLS = (grad_mode._enter_inference_mode, grad_mode._exit_inference_mode)
# ``torch.func.grad`` forbids hooks on tensors that are saved for a backward, and allows them again.
SAVED_TENSORS_HOOKS_CALLS = (
    torch._C._autograd._saved_tensors_hooks_disable,
    torch._C._autograd._saved_tensors_hooks_enable,
)
