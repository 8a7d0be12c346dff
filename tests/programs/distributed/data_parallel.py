"""DistributedDataParallel: Dynamo splits its graph by buckets, each of which our backend gets on its own."""

from __future__ import annotations

import logging
import sys
from typing import Any
from unittest import TestCase

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

import xpu_amp_dynamo
from tests.programs.distributed.common import TOLERANCE, assert_near, compiler, my_part, net, reference_losses, train
from xpu_amp_dynamo import LoweringReport


def compare(inner_backend: str, region: bool, tolerance: float = TOLERANCE, **options: Any) -> list[LoweringReport]:
    """Compare losses with those of one process; return the reports of the parts of the graph."""
    compile_model = compiler(inner_backend, region, **options)
    expected = reference_losses(compile_model, region)
    torch._dynamo.reset()
    model = net(region)
    distributed = DistributedDataParallel(model, bucket_cap_mb=0.02)
    with xpu_amp_dynamo.record_lowerings() as reports, TestCase().assertNoLogs("xpu_amp_dynamo", logging.WARNING):
        losses = train(model, compile_model(distributed), lambda tensor: [my_part(tensor)])
    assert len(reports) > 1, "the graph was not split"
    assert_near(losses, expected, tolerance)
    return reports


def main(inner_backend: str, region: bool) -> None:
    """Count what runs lower, of the whole model and with a module kept in float32."""
    # Buckets of some kilobytes, so that a graph of this size is split at all. The first has a size of its own.
    setattr(dist, "_DEFAULT_FIRST_BUCKET_BYTES", 2**14)  # noqa: B010, which the types do not know
    reports = compare(inner_backend, region)
    assert sum(report.ops["lower_precision"] for report in reports) == 6, [report.ops for report in reports]
    # A part that ends inside the module hands on what it has in the dtype of capture, in a region the lower one.
    reports = compare(inner_backend, region, 3e-3 if region else TOLERANCE, keep_float32=["blocks.1"])
    assert sum(report.ops["lower_precision"] for report in reports) == 4, [report.ops for report in reports]
    assert {name for report in reports for names in report.kept.values() for name in names} == {"blocks.1"}


if __name__ == "__main__":
    dist.init_process_group("gloo")
    main(sys.argv[1], region=sys.argv[2] == "region")
    dist.destroy_process_group()
