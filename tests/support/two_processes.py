"""Runs a program of the tests in two processes on the CPU, by torchrun."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def run_in_two_processes(module: str, *arguments: str, timeout: float = 300) -> str:
    """Return what a module printed that was run as a program; what it said is shown if it fails.

    Args:
        module: its name.
        arguments: the words behind it.
        timeout: when to give up, in seconds.
    """
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", module]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*command, *arguments], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=timeout
    )
    assert done.returncode == 0, done.stderr[-6000:]
    return done.stdout
