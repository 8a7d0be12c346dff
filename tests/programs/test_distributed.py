"""Two processes on the CPU, started by torchrun: losses are those of one process."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch.distributed as dist

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.skipif(not dist.is_available(), reason="this build of torch has no torch.distributed")
WITH_AND_WITHOUT_REGION = [
    ("aot_eager", "none"),
    pytest.param("aot_eager", "region", marks=pytest.mark.slow),
    pytest.param("inductor", "region", marks=pytest.mark.sweep),
]


def torchrun(program, *arguments):
    """Run a program of ``distributed/`` in two processes; its output is shown if it fails."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    command += ["-m", f"tests.programs.distributed.{program}", *arguments]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr[-6000:]


@pytest.mark.parametrize(("inner_backend", "region"), WITH_AND_WITHOUT_REGION)
def test_data_parallel(inner_backend, region):
    torchrun("data_parallel", inner_backend, region)


@pytest.mark.parametrize("inner_backend", ["aot_eager", pytest.param("inductor", marks=pytest.mark.sweep)])
def test_fully_sharded(inner_backend):
    torchrun("fully_sharded", inner_backend)


@pytest.mark.parametrize(("inner_backend", "region"), WITH_AND_WITHOUT_REGION)
def test_tensor_parallel(inner_backend, region):
    torchrun("tensor_parallel", inner_backend, region)
