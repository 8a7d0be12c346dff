"""Training with autocast alone, its region as a decorator, without an import of IPEX's module by name."""

import argparse

import intel_extension_for_pytorch  # noqa: F401
import torch
from torch.xpu.amp import autocast

parser = argparse.ArgumentParser()
parser.add_argument("out")
parser.add_argument("--steps", type=int, default=1)
arguments = parser.parse_args()


class Model(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.ReLU(), torch.nn.Linear(16, 1))

    @autocast(True, torch.bfloat16)
    def forward(self, x):
        return self.layers(x)


if __name__ == "__main__":
    torch.manual_seed(0)
    model = Model().to("xpu")
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    data = torch.randn(16, 8)
    for _ in range(arguments.steps):
        optimizer.zero_grad(set_to_none=True)
        with autocast(False):
            torch.nn.functional.mse_loss(model(data.to("xpu")).float(), data[:, :1].to("xpu")).backward()
        optimizer.step()
    torch.save(torch.cat([p.detach().cpu().flatten() for p in model.parameters()]), arguments.out)
