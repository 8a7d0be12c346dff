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
from xpu_amp_dynamo import Policy

train, options = sys.argv[1] == "train", eval(sys.argv[2])
torch.manual_seed(0)
model = torch.nn.Sequential(torch.nn.Linear(16, 32), torch.nn.Softmax(-1), torch.nn.Linear(32, 8))
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
    [
        ("infer", "{}"),
        ("infer", "{'precision': 'exact'}"),
        ("infer", "{'weights': 'cached'}"),
        ("infer", "{'policy': Policy.named('xpu').with_ops(float32=['softmax'])}"),
        ("train", "{}"),
    ],
    ids=str,
)
def test_a_second_process_compiles_nothing(program, options, tmp_path):
    cold = run(tmp_path, program, options)
    warm = run(tmp_path, program, options)
    graphs = 2 if program == "train" else 1
    assert cold["caches"]["autograd_cache_miss"] == 1
    # A hit of AOTAutograd's cache reads each graph's code from Inductor's.
    assert warm["caches"]["autograd_cache_hit"] == 1
    assert warm["caches"]["fxgraph_cache_hit"] == graphs
    assert not any("miss" in name or "bypass" in name for name in warm["caches"])
    assert warm["result"] == cold["result"]


def test_other_options_do_not_share_code(tmp_path):
    """The first process fills the cache; each of the others must find nothing there for other numerics."""
    first = run(tmp_path, "infer", "{}")
    results = [first["result"]]
    for options in (
        "{'precision': 'exact'}",
        "{'dtype': torch.float16}",
        "{'policy': 'torch'}",
        "{'policy': Policy.named('xpu').with_ops(leave=['linear', 'addmm'])}",
        "{'enabled': False}",
    ):
        other = run(tmp_path, "infer", options)
        # Leaving linear and the addmm inside alone gives the same graph of float32 as turning autocast off.
        if options != "{'enabled': False}":
            assert "autograd_cache_hit" not in other["caches"], options
        results.append(other["result"])
    assert results[4] == results[5]
    # Rounded otherwise or not, the other two can give the same numbers.
    assert len({str(results[i]) for i in (0, 2, 4)}) == 3
