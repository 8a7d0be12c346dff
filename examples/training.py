"""Trains a small network in bfloat16 over micro-batches, and prints its losses beside those of float32.

Parameters, gradients and the optimizer stay in float32; only what the policy lists runs lower.
"""

from __future__ import annotations

import argparse

import torch
import torch.nn.functional as F

import xpu_amp_dynamo

MICRO_BATCHES = 4


def make_data(device: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Return points and their classes: the signs of two sums of their coordinates."""
    points = torch.randn(512, 16, device=device)
    return points, 2 * (points[:, :8].sum(1) > 0).long() + (points[:, 8:].sum(1) > 0).long()


def make_model() -> torch.nn.Module:
    """Return a small network, the same at each call."""
    torch.manual_seed(0)
    layers = [torch.nn.Linear(16, 128), torch.nn.GELU(), torch.nn.LayerNorm(128), torch.nn.Linear(128, 4)]
    return torch.nn.Sequential(*layers)


def train(model: torch.nn.Module, backend: str, points: torch.Tensor, labels: torch.Tensor, steps: int) -> list[float]:
    """Train a model compiled by a backend; return the loss of each step."""
    compiled = torch.compile(model, backend=backend)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    losses = []
    for _ in range(steps):
        optimizer.zero_grad()
        parts = zip(points.chunk(MICRO_BATCHES), labels.chunk(MICRO_BATCHES), strict=True)
        total = 0.0
        for part, part_labels in parts:
            loss = F.cross_entropy(compiled(part), part_labels) / MICRO_BATCHES
            loss.backward()
            total += loss.item()
        optimizer.step()
        losses.append(total)
    return losses


def main() -> None:
    """Train twice and print the losses beside each other."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=60, help="optimizer steps (default: 60)")
    steps = parser.parse_args().steps

    device = xpu_amp_dynamo.default_device_type()
    torch.manual_seed(1)
    points, labels = make_data(device)
    model = make_model().to(device)
    print(f"Training on {device}, {steps} steps of {MICRO_BATCHES} micro-batches ...")
    in_bfloat16 = train(model, "xpu_amp", points, labels, steps)
    in_float32 = train(make_model().to(device), "eager", points, labels, steps)

    print("step   loss in bfloat16   loss in float32")
    for step in sorted({*range(0, steps, max(1, steps // 5)), steps - 1}):
        print(f"{step + 1:4}   {in_bfloat16[step]:16.4f}   {in_float32[step]:15.4f}")
    gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    dtypes = {str(tensor.dtype) for tensor in (*model.parameters(), *gradients)}
    print(f"Parameters and gradients are {' and '.join(dtypes)}.")


if __name__ == "__main__":
    main()
