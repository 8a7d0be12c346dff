"""Runs a small classifier in bfloat16, and shows what changed beside float32: dtypes, error and memory.

Nothing is timed: `xpu-amp bench` does that, on your model and your device.
"""

from __future__ import annotations

import argparse

import torch

import xpu_amp_dynamo


def make_model() -> torch.nn.Module:
    """Return a small classifier in evaluation mode."""
    return torch.nn.Sequential(
        torch.nn.LayerNorm(256),
        torch.nn.Linear(256, 1024),
        torch.nn.GELU(),
        torch.nn.Linear(1024, 10),
        torch.nn.LogSoftmax(-1),
    ).eval()


def main() -> None:
    """Compile the model, compare it with float32, and print what was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=32, help="rows of the input (default: 32)")
    batch = parser.parse_args().batch

    device = xpu_amp_dynamo.default_device_type()
    torch.manual_seed(0)
    model = make_model().to(device)
    inputs = torch.randn(batch, 256, device=device)
    compiled = torch.compile(model, backend="xpu_amp")

    print(f"Compiling on {device} ...")
    with torch.inference_mode(), xpu_amp_dynamo.record_lowerings(details=True) as reports:
        expected, output = model(inputs), compiled(inputs)

    print("What ran in which dtype, and why:")
    for call in (call for report in reports for call in report.calls):
        print(f"  {call.op:12} {call.output_dtypes[0]!s:15} {call.reason}")
    error = float((output - expected).norm() / expected.norm())
    print(f"The output is {output.dtype}, as without the backend, and {error:.2%} away from float32.")
    weights, kept = sum(p.nbytes for p in model.parameters()), xpu_amp_dynamo.cached_weight_bytes(model)
    print(
        f"Weights take {weights / 1e6:.2f} MB in float32, and the casts that later calls read {kept / 1e6:.2f} MB more."
    )


if __name__ == "__main__":
    main()
