"""An autograd function of the user's own that computes in float32 inside of regions."""

import sys

import intel_extension_for_pytorch  # noqa: F401
import torch
from torch.xpu.amp import custom_bwd, custom_fwd


class Normalized(torch.autograd.Function):
    @staticmethod
    @custom_fwd(cast_inputs=torch.float32)
    def forward(ctx, x):
        norm = x.norm()
        ctx.save_for_backward(x, norm)
        return x / norm

    @staticmethod
    @custom_bwd
    def backward(ctx, grad):
        x, norm = ctx.saved_tensors
        return grad / norm - x * (grad * x).sum() / norm**3


torch.manual_seed(0)
layer = torch.nn.Linear(8, 8).to("xpu")
data, weights = torch.randn(4, 8).to("xpu"), torch.randn(4, 8).to("xpu")
with torch.xpu.amp.autocast(dtype=torch.bfloat16):
    normalized = Normalized.apply(layer(data))
assert normalized.dtype is torch.float32
(normalized * weights).sum().backward()
torch.save(layer.weight.grad.cpu(), sys.argv[1])
