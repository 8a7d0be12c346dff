"""Training that is saved, and resumed in a model and an optimizer made anew."""

import os
import sys

import intel_extension_for_pytorch as ipex
import torch


def build():
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.ReLU(), torch.nn.Linear(16, 1)).to("xpu").train()
    return ipex.optimize(model, optimizer=torch.optim.Adam(model.parameters(), lr=0.01), dtype=torch.bfloat16)


def train(model, optimizer, data):
    for x in data:
        optimizer.zero_grad()
        with torch.xpu.amp.autocast(enabled=True, dtype=torch.bfloat16):
            loss = model(x.to("xpu")).float().square().mean()
        loss.backward()
        optimizer.step()


torch.manual_seed(1)
data = torch.randn(6, 16, 8)
model, optimizer = build()
train(model, optimizer, data[:3])
path = f"{sys.argv[1]}.checkpoint"
torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, path)

model, optimizer = build()
checkpoint = torch.load(path, map_location="xpu")
model.load_state_dict(checkpoint["model"])
optimizer.load_state_dict(checkpoint["optimizer"])
os.remove(path)
train(model, optimizer, data[3:])
torch.save(torch.cat([value.cpu().flatten() for value in model.state_dict().values()]), sys.argv[1])
