"""What the programs of two processes share: a model, its data, and the losses that one process gets."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

STEPS, WIDTH, BATCH = 6, 32, 8
# Sums over processes add up float32 gradients in another order.
TOLERANCE = 1e-5
Parts = Callable[[torch.Tensor], list[torch.Tensor]]


class Block(nn.Module):
    """A feed-forward block with a residual."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.up, self.down = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 4 * WIDTH), nn.Linear(4 * WIDTH, WIDTH)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return float tensors of the shape of ``x``, [batch, width]."""
        return x + self.down(torch.nn.functional.gelu(self.up(self.norm(x))))


class Net(nn.Module):
    """Blocks, and a region of its own around some of them if asked for."""

    def __init__(self, region: bool = False) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Block() for _ in range(3))
        self.region = region

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return float32 tensors of the shape of ``x``, [batch, width]."""
        with torch.autocast("cpu", torch.bfloat16) if self.region else contextlib.nullcontext():
            for block in self.blocks:
                x = block(x)
        return x.float()


def net(region: bool = False) -> Net:
    """Build the model, with the same weights everywhere."""
    torch.manual_seed(0)
    return Net(region)


def batches() -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Yield the inputs and targets of each step, for all processes together."""
    torch.manual_seed(1)
    for _ in range(STEPS):
        x = torch.randn(BATCH, WIDTH)
        yield x, x.flip(-1)


def my_part(tensor: torch.Tensor) -> torch.Tensor:
    """Return the examples of this process."""
    return tensor.chunk(dist.get_world_size())[dist.get_rank()]


def mean_over_processes(loss: torch.Tensor) -> float:
    """Return the mean of a number over all processes."""
    total = loss.detach().clone()
    dist.all_reduce(total)
    return total.item() / dist.get_world_size()


def train(
    model: nn.Module, call: Callable[..., Any], parts: Callable[[torch.Tensor], list[torch.Tensor]]
) -> list[float]:
    """Train and return the mean loss of each step.

    Args:
        model: whose parameters to train.
        call: the model, compiled and distributed or not.
        parts: splits a batch; gradients of the parts are averaged.
    """
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    losses = []
    for x, target in batches():
        optimizer.zero_grad()
        pieces = list(zip(parts(x), parts(target), strict=True))
        values = []
        for piece, wanted in pieces:
            loss = (call(piece) - wanted).square().mean()
            (loss / len(pieces)).backward()
            values.append(loss.detach())
        optimizer.step()
        losses.append(torch.stack(values).mean())
    return [mean_over_processes(loss) for loss in losses]


def compiler(inner_backend: str, region: bool, **more: Any) -> Callable[[nn.Module], Any]:
    """Return what compiles a model whole; outside its region, if it has one, in float32."""
    options: dict[str, Any] = {"inner_backend": inner_backend, "enabled": not region, **more}
    return lambda model: torch.compile(model, backend="xpu_amp", options=options)


def reference_losses(compile_model: Callable[[Net], Any], region: bool = False) -> list[float]:
    """Return the losses of one process, which computes the parts of a batch one after the other."""
    torch._dynamo.reset()
    model = net(region)
    return train(model, compile_model(model), lambda tensor: list(tensor.chunk(dist.get_world_size())))


def assert_near(losses: list[float], reference: list[float], tolerance: float = TOLERANCE) -> None:
    """Check that two curves agree, and fall."""
    worst = max(abs(one - other) / other for one, other in zip(losses, reference, strict=True))
    assert worst < tolerance, (worst, losses, reference)
    assert losses[-1] < 0.9 * losses[0], losses
