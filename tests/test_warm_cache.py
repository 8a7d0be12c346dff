"""What Inductor and AOTAutograd keep on disk serves the next process: nothing of ours makes code uncacheable."""

from __future__ import annotations

import functools
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
model = torch.nn.Sequential(torch.nn.Linear(16, 256), torch.nn.Softmax(-1), torch.nn.Linear(256, 256))
with torch.set_grad_enabled(train):
    y = torch.compile(model, backend="xpu_amp", options=options)(torch.randn(4, 16))
if train:
    y.sum().backward()
result = y if not train else model[0].weight.grad
caches = {name: n for group in ("inductor", "aot_autograd") for name, n in counters[group].items() if "_cache_" in name}
print(json.dumps({"caches": caches, "result": result.tolist()}))
"""


@pytest.fixture(scope="module")
def cold(tmp_path_factory):
    """Return a function that runs the program with empty caches of its own, once for all tests.

    Code for other options lies in the same directory: each run must still find nothing that serves it.
    """
    directory = tmp_path_factory.mktemp("caches")
    return functools.cache(functools.partial(run, directory)), directory


def run(directory: Path, *arguments: str) -> dict:
    """Run the program in a new process with its caches in ``directory``."""
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
        ("infer", "{'dtype': torch.float16, 'policy': Policy.named('xpu').with_ops(float32=['softmax'])}"),
        ("train", "{}"),
    ],
    ids=str,
)
def test_a_second_process_compiles_nothing(program, options, cold):
    first_run, directory = cold
    first = first_run(program, options)
    second = run(directory, program, options)
    graphs = 2 if program == "train" else 1
    assert first["caches"]["autograd_cache_miss"] == 1
    # A hit of AOTAutograd's cache reads each graph's code from Inductor's.
    assert second["caches"]["autograd_cache_hit"] == 1
    assert second["caches"]["fxgraph_cache_hit"] == graphs
    assert not any("miss" in name or "bypass" in name for name in second["caches"])
    assert second["result"] == first["result"]


def test_other_options_do_not_share_code(cold, tmp_path):
    """Each finds nothing in the caches that was compiled for other numerics.

    Options that come to the same graph may share its code: under some, the softmax is float32 anyhow.
    """
    first_run, _ = cold
    results = []
    for options in (
        "{}",
        "{'precision': 'exact'}",
        "{'dtype': torch.float16}",
        "{'policy': 'torch'}",
        "{'policy': Policy.named('xpu').with_ops(leave=['linear', 'addmm'])}",
        "{'enabled': False}",
    ):
        outcome = first_run("infer", options)
        if "autograd_cache_hit" in outcome["caches"]:
            assert outcome["result"] == run(tmp_path / str(len(results)), "infer", options)["result"], options
        results.append(outcome["result"])
    assert results[4] == results[5]
    # Rounded otherwise or not, the other two can give the same numbers.
    assert len({str(results[i]) for i in (0, 2, 4)}) == 3
