"""Models of which modules are kept in one precision, and a training step of them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import torch
from torch.utils.checkpoint import checkpoint

import xpu_amp_dynamo


class Norm(torch.nn.Module):
    """An RMS norm as models of transformers have it: it gives the dtype that Python reads off its input."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.rand(16) + 0.5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = x.to(torch.float32)
        y = y * torch.rsqrt(y.square().mean(-1, keepdim=True) + 1e-6)
        return self.weight * y.to(x.dtype)


class Block(torch.nn.Module):
    """A norm and two layers around an activation, with a residual."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.up, self.down = Norm(), torch.nn.Linear(16, 32), torch.nn.Linear(32, 16)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.down(torch.tanh(self.up(self.norm(x))) * 1.1)


class Model(torch.nn.Module):
    """Blocks behind a layer and in front of a head; checkpointed on demand."""

    def __init__(self, *, checkpointed: bool = False) -> None:
        super().__init__()
        self.checkpointed = checkpointed
        self.first, self.head = torch.nn.Linear(16, 16), torch.nn.Linear(16, 8)
        self.layers = torch.nn.ModuleList(Block() for _ in range(2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.first(x)
        for layer in self.layers:
            x = checkpoint(layer, x, use_reentrant=False) if self.checkpointed else layer(x)
        return torch.sigmoid(self.head(x)) * 1.1


def step(call: Callable[..., Any], model: torch.nn.Module, *inputs: torch.Tensor, region: bool = True) -> list[Any]:
    """Return the output of a training step on copies of inputs, and all gradients."""
    copies = [x.clone().requires_grad_(x.is_floating_point()) for x in inputs]
    model.zero_grad(set_to_none=True)
    with xpu_amp_dynamo.autocast("cpu") if region else contextlib.nullcontext():
        output = call(*copies)
    output.float().square().sum().backward()
    tensors = [x for x in [*copies, *model.parameters()] if x.is_floating_point()]
    return [output.detach(), *(t.grad for t in tensors if t.grad is not None)]


def compiled_step(
    model: torch.nn.Module, *inputs: torch.Tensor, region: bool = True, fullgraph: bool = True, **options: Any
) -> list[Any]:
    """Return the same of a model compiled without Inductor."""
    torch._dynamo.reset()
    options = {"inner_backend": "eager", **options}
    compiled = torch.compile(model, backend="xpu_amp", fullgraph=fullgraph, options=options)
    return step(compiled, model, *inputs, region=region)
