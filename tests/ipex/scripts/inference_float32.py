"""Inference in float32, as IPEX's examples for GPUs had it."""

import sys

import intel_extension_for_pytorch as ipex
import torch

torch.manual_seed(0)
model = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.BatchNorm2d(8), torch.nn.ReLU(), torch.nn.Flatten())
model.append(torch.nn.Linear(8 * 6 * 6, 4))
model.eval()
data = torch.rand(2, 3, 8, 8)

model = model.to("xpu")
data = data.to("xpu")
model = ipex.optimize(model, weights_prepack=False)

with torch.no_grad():
    output = model(data)
torch.xpu.synchronize()
torch.save(output.cpu(), sys.argv[1])
