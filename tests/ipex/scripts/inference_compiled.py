"""Inference in bfloat16 with torch.compile, whose backend was IPEX's."""

import sys

import intel_extension_for_pytorch as ipex
import torch

torch.manual_seed(0)
model = torch.nn.Sequential(torch.nn.Linear(16, 16), torch.nn.GELU(), torch.nn.Linear(16, 4)).eval()
data = torch.rand(2, 16)

model = model.to("xpu")
model = ipex.optimize(model, dtype=torch.bfloat16)
with torch.no_grad():
    compiled = torch.compile(model, backend="ipex")
    with torch.xpu.amp.autocast(enabled=True, dtype=torch.bfloat16):
        output = compiled(data.to("xpu"))
torch.save(output.cpu(), sys.argv[1])
