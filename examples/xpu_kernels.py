"""Lists the kernels that an Intel GPU would launch for a model, on a machine without one, and runs them.

The GPU is simulated: its code is what Inductor writes for XPUs, run by Triton's interpreter on the CPU. That shows what
would be launched, with which dtypes and bytes, and says nothing of speed.

Needs a CPU build of PyTorch, Triton (``pip install "xpu-amp-dynamo[simulator]"``) and g++.
"""

from __future__ import annotations

import argparse

import torch

import xpu_amp_dynamo


def make_model() -> torch.nn.Module:
    """Return a small network, the same at each call."""
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(32, 64), torch.nn.GELU(), torch.nn.Linear(64, 8)).eval()


def main() -> None:
    """Print the launches, and compare what the simulated XPU computes with the CPU."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", default="max-1550", choices=["max-1550", "arc-b580", "arc-a770"], help="which GPU")
    part = parser.parse_args().part

    model, inputs = make_model(), torch.randn(16, 32)
    report = xpu_amp_dynamo.xpu_kernels(model, inputs, beside=["stock autocast", "float32"], part=part)
    print(f"What {part} would run for one call, in order:")
    print(report)

    with xpu_amp_dynamo.simulated_xpu(part), torch.no_grad():
        compiled = torch.compile(make_model().to("xpu"), backend="xpu_amp")
        output = compiled(inputs.to("xpu"))
        print(f"The same run on {output.device}: {output.dtype}, ", end="")
        output = output.cpu()
    with torch.no_grad():
        expected = model(inputs)
    print(f"{float((output - expected).norm() / expected.norm()):.2%} away from float32 on the CPU.")


if __name__ == "__main__":
    main()
