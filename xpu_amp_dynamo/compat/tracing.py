"""What follows the ops that a thread runs: tracers, levels of ``torch.func``, modes. Checked on torch 2.13.0."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch.fx.experimental.proxy_tensor import get_proxy_mode

from xpu_amp_dynamo.compat.dispatcher import dispatch_key

# Returns how many modes see the ops that are dispatched. PyTorch's own function, since every cast of a weight asks.
dispatch_mode_count: Callable[[], int] = torch._C._len_torch_dispatch_stack
_tracing_state, _innermost_level = torch._C._get_tracing_state, torch._C._functorch.maybe_current_level
_is_included, _pre_dispatch = torch._C._dispatch_tls_is_dispatch_key_included, dispatch_key("PreDispatch")


def is_traced() -> bool:
    """Tell whether a tracer or a level of ``torch.func`` follows what is computed, to which a kept value is constant.

    The tracers are ``torch.jit.trace`` and ``make_fx``; Dynamo, which follows no ops, is none.
    """
    if _tracing_state() is not None or _innermost_level() is not None:
        return True
    # The mode of ``make_fx`` is on one of two stacks, and asking for it takes longer than to see that both are empty.
    return bool(dispatch_mode_count() or _is_included(_pre_dispatch)) and get_proxy_mode() is not None
