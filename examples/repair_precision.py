"""Finds what overflows in float16 in a small model, and has ``tune`` find which modules to keep in float32.

One layer has weights so large that its results are no numbers of float16. ``explain`` names the call; ``tune`` searches
options that bring the model within a tolerance for the fewest bytes, and the model is run by them.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import torch

import xpu_amp_dynamo


def make_model() -> torch.nn.Sequential:
    """Return a model whose second layer overflows in float16."""
    large = torch.nn.Linear(64, 64)
    with torch.no_grad():
        large.weight.mul_(1e5)
    return torch.nn.Sequential(torch.nn.Linear(64, 64), large, torch.nn.LayerNorm(64), torch.nn.Linear(64, 8)).eval()


def error_of(model: torch.nn.Module, inputs: torch.Tensor, options: dict[str, Any]) -> float:
    """Return how far the compiled model is from float32."""
    with torch.no_grad():
        expected, output = model(inputs), torch.compile(model, backend="xpu_amp", options=options)(inputs)
    return float((output - expected).norm() / expected.norm())


def main() -> None:
    """Show the problem, the call at fault, the search and the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tolerance", type=float, default=0.01, help="the error that is allowed (default: 0.01)")
    parser.add_argument("--out", type=Path, help="where to write the options that were found (default: nowhere)")
    arguments = parser.parse_args()

    device = xpu_amp_dynamo.default_device_type()
    torch.manual_seed(0)
    model, inputs = make_model().to(device), 100 * torch.randn(16, 64, device=device)
    options: dict[str, Any] = {"dtype": torch.float16, "inner_backend": "eager"}
    print(f"1. In float16 on {device} the error is {error_of(model, inputs, options)}.")

    explanation = xpu_amp_dynamo.explain(model, inputs, options=options, compare="float32")
    culprit = explanation.first_overflow()
    if culprit is None:
        raise SystemExit("nothing overflows here")
    print(f"2. The first call that overflows is in module {culprit.module!r}; with its dtypes and the reason for them:")
    print(f"   {culprit}")

    print("3. Searching ...")
    tolerance, given = arguments.tolerance, {"dtype": torch.float16}
    # Bytes are counted on the simulated XPU, which needs a CPU build of PyTorch.
    cost = "bytes" if device == "cpu" else "time"
    tuning = xpu_amp_dynamo.tune(model, (inputs,), tolerance=tolerance, options=given, cost=cost)
    print(tuning)

    with tempfile.TemporaryDirectory() as folder:
        path = arguments.out or Path(folder, "tuning.toml")
        tuning.save(path)
        found = dict(xpu_amp_dynamo.Tuning.load(path).options)
    print(f"4. With what was found the error is {error_of(model, inputs, found):.2g}: compile with options={found}")


if __name__ == "__main__":
    main()
