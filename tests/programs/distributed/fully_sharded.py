"""FSDP2: blocks are compiled one by one and sharded, with and without its own mixed precision."""

from __future__ import annotations

import sys
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard

import xpu_amp_dynamo
from tests.programs.distributed.common import BATCH, WIDTH, Net, assert_near, my_part, net, reference_losses, train


def shard(model: Net, options: dict[str, Any], policy: MixedPrecisionPolicy) -> Net:
    """Compile and shard each block, then the rest."""
    for block in model.blocks:
        block.compile(backend="xpu_amp", options=options)
        fully_shard(block, mp_policy=policy)
    fully_shard(model, mp_policy=policy)
    return model


def compare(options: dict[str, Any], policy: MixedPrecisionPolicy, tolerance: float, lowered: int = 2) -> None:
    """Compare losses with those of one process, and count what of each block runs lower."""

    def compiler(model: Net) -> Net:
        for block in model.blocks:
            block.compile(backend="xpu_amp", options=options)
        return model

    expected = reference_losses(compiler)
    torch._dynamo.reset()
    model = shard(net(), options, policy)
    with xpu_amp_dynamo.record_lowerings() as reports:
        losses = train(model, model, lambda tensor: [my_part(tensor)])
    assert {report.ops["lower_precision"] for report in reports} == {lowered}
    assert_near(losses, expected, tolerance)
    assert {p.dtype for p in model.parameters()} == {torch.float32}


def cached_weights_are_correct_when_resharded(options: dict[str, Any]) -> None:
    """Weights are gathered into new memory at each call and freed after it; updates must show in the next call."""
    torch._dynamo.reset()
    model = shard(net(), {**options, "weights": "cached"}, MixedPrecisionPolicy())
    torch._dynamo.reset()
    plain = shard(net(), options, MixedPrecisionPolicy())
    assert isinstance(model, FSDPModule)
    x = torch.randn(BATCH, WIDTH)
    for factor in (1.0, 0.5, 3.0):
        with torch.no_grad():
            for each in (model, plain):
                for parameter in each.parameters():
                    parameter.mul_(factor)
            for _ in range(2):
                torch.testing.assert_close(model(x), plain(x), rtol=0, atol=0)
                model.reshard()


def main(inner_backend: str) -> None:
    """Run all comparisons."""
    options = {"inner_backend": inner_backend}
    compare(options, MixedPrecisionPolicy(), 1e-5)
    compare({**options, "keep_float32": ["down"]}, MixedPrecisionPolicy(), 1e-5, lowered=1)
    # Its own policy keeps activations between blocks in bfloat16 too.
    half = MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32, output_dtype=torch.float32)
    compare(options, half, 0.03)
    cached_weights_are_correct_when_resharded(options)


if __name__ == "__main__":
    dist.init_process_group("gloo")
    main(sys.argv[1])
    dist.destroy_process_group()
