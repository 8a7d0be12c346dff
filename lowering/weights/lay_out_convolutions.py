"""Hands the cached weights of convolutions over channels-last, as Inductor wants them where oneDNN convolves.

before:  forward(x, w_bfloat16):                y = conv2d(x, w_bfloat16)     # Inductor copies w_bfloat16 in every call
after:   forward(x, w_bfloat16_channels_last):  y = conv2d(x, w_bfloat16)

Left alone: weights with any other use. Values do not change in what Inductor makes of the graph, nor do strides; they
may where the graph is run as it is.
"""

from __future__ import annotations

import torch
from torch import fx

from xpu_amp_dynamo.lowering.graph.node_kind import op_name_of
from xpu_amp_dynamo.lowering.graph.values import set_value, value_of
from xpu_amp_dynamo.lowering.weights.plan import WeightPlan

# Inductor, torch 2.13.0, copies the weights of these into that layout in every call, on the CPU and on XPUs.
CHANNELS_LAST_OF: dict[tuple[str | None, int], torch.memory_format] = {
    ("conv2d", 4): torch.channels_last,
    ("conv3d", 5): torch.channels_last_3d,
}


def lay_out_convolution_weights(gm: fx.GraphModule, plan: WeightPlan) -> bool:
    """Have convolutions read weights that lie channels-last; tell whether there were any.

    Args:
        gm: a graph whose caller hands over casts of weights. Edited in place.
        plan: which casts; it asks for another layout where these are read.
    """
    changed = False
    for position, weight in enumerate(plan.kept_inputs(gm)):
        layout = _layout_for(weight)
        if layout is not None:
            set_value(weight, value_of(weight).to(memory_format=layout))
            plan.kept[position] = plan.kept[position]._replace(layout=layout)
            changed = True
    return changed


def _layout_for(weight: fx.Node) -> torch.memory_format | None:
    """Return the layout that all uses of a weight want, None if they want none or several."""
    value = value_of(weight)
    onednn = value.device.type == "xpu" or (value.device.type == "cpu" and torch.backends.mkldnn.is_available())
    layouts = {CHANNELS_LAST_OF.get((op_name_of(user), value.dim())) for user in weight.users}
    return layouts.pop() if onednn and len(layouts) == 1 else None
