"""Two processes on the CPU, started by torchrun: losses are those of one process."""

from __future__ import annotations

import pytest
import torch.distributed as dist

from tests.support.two_processes import run_in_two_processes

pytestmark = pytest.mark.skipif(not dist.is_available(), reason="this build of torch has no torch.distributed")
WITH_AND_WITHOUT_REGION = [
    ("aot_eager", "none"),
    pytest.param("aot_eager", "region", marks=pytest.mark.slow),
    pytest.param("inductor", "region", marks=pytest.mark.sweep),
]


def torchrun(program, *arguments):
    """Run a program of ``distributed/`` in two processes."""
    run_in_two_processes(f"tests.programs.distributed.{program}", *arguments, timeout=500)


@pytest.mark.parametrize(("inner_backend", "region"), WITH_AND_WITHOUT_REGION)
def test_data_parallel(inner_backend, region):
    torchrun("data_parallel", inner_backend, region)


@pytest.mark.parametrize("inner_backend", ["aot_eager", pytest.param("inductor", marks=pytest.mark.sweep)])
def test_fully_sharded(inner_backend):
    torchrun("fully_sharded", inner_backend)


@pytest.mark.parametrize(("inner_backend", "region"), WITH_AND_WITHOUT_REGION)
def test_tensor_parallel(inner_backend, region):
    torchrun("tensor_parallel", inner_backend, region)
