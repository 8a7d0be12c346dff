"""Settings of Inductor that keep a defect of its own from users whom the casts would expose to it."""

from __future__ import annotations

from typing import Any

import torch
from torch import fx

from xpu_amp_dynamo.lowering.graph.values import tensors_in, value_of

_FLEX_ATTENTION = (torch.ops.higher_order.flex_attention, torch.ops.higher_order.flex_attention_backward)


def inductor_workarounds(gm: fx.GraphModule) -> dict[str, Any]:
    """Return the settings without which Inductor cannot compile a lowered graph, mostly none.

    Its flex attention for the CPU raises ``NotImplementedError`` when an op after it is fused into it, be it
    ``relu`` or a cast (torch 2.13.0), so there nothing is fused into templates.
    """
    calls = [node for node in gm.graph.nodes if node.target in _FLEX_ATTENTION]
    on_cpu = any(t.device.type == "cpu" for node in calls for t in tensors_in(value_of(node)))
    return {"epilogue_fusion": False} if on_cpu else {}
