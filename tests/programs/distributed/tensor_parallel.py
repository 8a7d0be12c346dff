"""Tensor parallelism: weights are DTensors, sharded by columns and by rows."""

from __future__ import annotations

import sys

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module

import xpu_amp_dynamo
from tests.programs.distributed.common import assert_near, compiler, net, reference_losses, train


def main(inner_backend: str, region: bool) -> None:
    """Compare losses with those of one process: all processes compute every example."""
    compile_model = compiler(inner_backend, region)
    expected = reference_losses(compile_model, region)
    torch._dynamo.reset()
    model = net(region)
    mesh = init_device_mesh("cpu", (dist.get_world_size(),))
    for block in model.blocks:
        parallelize_module(block, mesh, {"up": ColwiseParallel(), "down": RowwiseParallel()})
    assert isinstance(model.get_parameter("blocks.0.up.weight"), DTensor)
    with xpu_amp_dynamo.record_lowerings() as reports:
        losses = train(model, compile_model(model), lambda tensor: list(tensor.chunk(dist.get_world_size())))
    assert sum(report.ops["lower_precision"] for report in reports) >= 6, [report.ops for report in reports]
    # A row-wise product is rounded to bfloat16 on each process before the sum.
    assert_near(losses, expected, 0.01)


if __name__ == "__main__":
    dist.init_process_group("gloo")
    main(sys.argv[1], region=sys.argv[2] == "region")
    dist.destroy_process_group()
