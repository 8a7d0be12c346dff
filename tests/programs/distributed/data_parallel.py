"""DistributedDataParallel: Dynamo splits its graph by buckets, each of which our backend gets on its own."""

from __future__ import annotations

import sys

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

import xpu_amp_dynamo
from tests.programs.distributed.common import assert_near, compiler, my_part, net, reference_losses, train


def main(inner_backend: str, region: bool) -> None:
    """Compare losses with those of one process, and count the parts of the graph."""
    compile_model = compiler(inner_backend, region)
    expected = reference_losses(compile_model, region)
    torch._dynamo.reset()
    model = net(region)
    # Buckets of some kilobytes, so that a graph of this size is split at all. The first has a size of its own.
    setattr(dist, "_DEFAULT_FIRST_BUCKET_BYTES", 2**14)  # noqa: B010, which the types do not know
    distributed = DistributedDataParallel(model, bucket_cap_mb=0.02)
    with xpu_amp_dynamo.record_lowerings() as reports:
        losses = train(model, compile_model(distributed), lambda tensor: [my_part(tensor)])
    assert len(reports) > 1, "the graph was not split"
    assert sum(report.ops["lower_precision"] for report in reports) == 6, [report.ops for report in reports]
    assert_near(losses, expected)


if __name__ == "__main__":
    dist.init_process_group("gloo")
    main(sys.argv[1], region=sys.argv[2] == "region")
    dist.destroy_process_group()
