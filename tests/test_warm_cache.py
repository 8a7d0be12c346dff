"""What Inductor and AOTAutograd keep on disk serves the next process: nothing of ours makes code uncacheable."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PROGRAM = """
import json, sys, torch
from torch._dynamo.utils import counters

train, options = sys.argv[1] == "train", json.loads(sys.argv[2])
torch.manual_seed(0)
model = torch.nn.Sequential(torch.nn.Linear(16, 32), torch.nn.LayerNorm(32), torch.nn.Linear(32, 8))
with torch.set_grad_enabled(train):
    y = torch.compile(model, backend="xpu_amp", options=options)(torch.randn(4, 16))
if train:
    y.sum().backward()
result = y if not train else model[0].weight.grad
caches = {name: n for group in ("inductor", "aot_autograd") for name, n in counters[group].items() if "_cache_" in name}
print(json.dumps({"caches": caches, "result": result.tolist()}))
"""


def run(directory: Path, *arguments: str) -> dict:
    """Run the program in a new process with a cache in ``directory``."""
    environment = {**os.environ, "TORCHINDUCTOR_CACHE_DIR": str(directory), "TORCHINDUCTOR_FX_GRAPH_CACHE": "1"}
    command = [sys.executable, "-c", PROGRAM, *arguments]
    output = subprocess.run(command, cwd=ROOT, env=environment, check=True, capture_output=True, text=True).stdout
    return json.loads(output)


@pytest.mark.parametrize(
    ("program", "options"),
    [("infer", {}), ("infer", {"precision": "exact"}), ("infer", {"weights": "cached"}), ("train", {})],
    ids=str,
)
def test_a_second_process_compiles_nothing(program, options, tmp_path):
    cold = run(tmp_path, program, json.dumps(options))
    warm = run(tmp_path, program, json.dumps(options))
    graphs = 2 if program == "train" else 1
    assert cold["caches"]["autograd_cache_miss"] == 1
    # A hit of AOTAutograd's cache reads each graph's code from Inductor's.
    assert warm["caches"]["autograd_cache_hit"] == 1
    assert warm["caches"]["fxgraph_cache_hit"] == graphs
    assert not any("miss" in name or "bypass" in name for name in warm["caches"])
    assert warm["result"] == cold["result"]


def test_the_precisions_do_not_share_code(tmp_path):
    run(tmp_path, "infer", "{}")
    assert "autograd_cache_hit" not in run(tmp_path, "infer", '{"precision": "exact"}')["caches"]
