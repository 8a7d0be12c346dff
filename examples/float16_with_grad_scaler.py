"""Trains in float16 with and without ``torch.amp.GradScaler``, and shows what the scaler saves: small gradients.

The smallest number of float16 is 6e-8. A gradient below half of that becomes zero in the backward, so that a parameter
stands still; the scaler multiplies the loss, and divides the gradients again before the optimizer sees them.
"""

from __future__ import annotations

import argparse
import warnings
from typing import Any

import torch

import xpu_amp_dynamo


def make_model(device: str) -> torch.nn.Module:
    """Return a small network, the same at each call."""
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(32, 64), torch.nn.Tanh(), torch.nn.Linear(64, 1)).to(device)


def train(device: str, steps: int, *, scaled: bool) -> tuple[list[float], float, float]:
    """Train on targets whose loss is tiny.

    Returns:
        The losses, the share of the first layer's gradients that are zero, and the last scale.
    """
    model, scaler = make_model(device), torch.amp.GradScaler(device, enabled=scaled)
    options: dict[str, Any] = {"dtype": torch.float16, "inner_backend": "eager"}
    compiled = torch.compile(model, backend="xpu_amp", options=options)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, eps=1e-15)
    inputs = torch.randn(256, 32, device=device)
    targets = inputs[:, :1].sin()
    losses, zeros = [], 0.0
    for _ in range(steps):
        optimizer.zero_grad()
        loss = 1e-6 * (compiled(inputs) - targets).square().mean()
        scaler.scale(loss).backward()
        scaler.unscale_(optimizer)
        gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
        zeros = float((gradients[0] == 0).float().mean())
        scaler.step(optimizer)
        scaler.update()
        losses.append(loss.item() * 1e6)
    return losses, zeros, scaler.get_scale()


def main() -> None:
    """Train both ways and print what became of losses and gradients."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=100, help="optimizer steps (default: 100)")
    steps = parser.parse_args().steps

    device = xpu_amp_dynamo.default_device_type()
    print(f"Training in float16 on {device}; the loss is multiplied by 1e-6, as a small term of a larger one may be.")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        without, zeros_without, _ = train(device, steps, scaled=False)
    with_scaler, zeros_with, scale = train(device, steps, scaled=True)

    for warning in caught:
        print(f"The backend warned: {warning.message}")
    print("                   first loss   last loss   gradients that are zero")
    print(f"without a scaler   {without[0]:10.3f}   {without[-1]:9.3f}   {zeros_without:23.0%}")
    print(f"with a scaler      {with_scaler[0]:10.3f}   {with_scaler[-1]:9.3f}   {zeros_with:23.0%}")
    print(f"Losses are printed without the factor. At the end the scaler multiplied by {scale:g}.")


if __name__ == "__main__":
    main()
