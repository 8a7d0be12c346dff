"""What Inductor and AOTAutograd keep on disk serves the next process: nothing of ours makes code uncacheable."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

PROGRAM = """
import json, sys, torch
from torch._dynamo.utils import counters
from xpu_amp_dynamo import Policy

def run(program, options):
    torch._dynamo.reset()
    counters.clear()
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(16, 256), torch.nn.Softmax(-1), torch.nn.Linear(256, 256))
    with torch.set_grad_enabled(program == "train"):
        y = torch.compile(model, backend="xpu_amp", options=eval(options))(torch.randn(4, 16))
    if program == "train":
        y.sum().backward()
    result = y if program == "infer" else model[0].weight.grad
    counted = {**counters["inductor"], **counters["aot_autograd"]}
    return {"caches": {name: n for name, n in counted.items() if "_cache_" in name}, "result": result.tolist()}

functorch, inductor = torch._functorch.config, torch._inductor.config
for program, options in zip(sys.argv[2::2], sys.argv[3::2]):
    outcome = run(program, options)
    if "autograd_cache_hit" in outcome["caches"] and sys.argv[1] == "compare":
        with functorch.patch(enable_autograd_cache=False), inductor.patch(fx_graph_cache=False):
            outcome["uncached"] = run(program, options)["result"]
    print(json.dumps(outcome))
"""
SERVED = [
    ("infer", "{}"),
    ("infer", "{'precision': 'exact'}"),
    ("infer", "{'weights': 'recast'}"),
    ("infer", "{'dtype': torch.float16, 'policy': Policy.named('xpu').with_ops(float32=['softmax'])}"),
    ("train", "{}"),
]
OTHERS = [
    ("infer", "{'dtype': torch.float16}"),
    ("infer", "{'policy': 'torch'}"),
    ("infer", "{'policy': Policy.named('xpu').with_ops(leave=['linear', 'addmm'])}"),
    ("infer", "{'enabled': False}"),
]
Outcomes = dict[tuple[str, str], dict]


def run_twice(directory: Path) -> tuple[Outcomes, Outcomes]:
    """Return what two processes, one after the other, did with caches in a directory that was empty at first."""
    environment = {**os.environ, "TORCHINDUCTOR_CACHE_DIR": str(directory), "TORCHINDUCTOR_FX_GRAPH_CACHE": "1"}
    outcomes = []
    for programs, compare in ((SERVED + OTHERS, "compare"), (SERVED, "trust")):
        words = [word for program in programs for word in program]
        command = [sys.executable, "-c", PROGRAM, compare, *words]
        printed = subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout
        outcomes.append(dict(zip(programs, map(json.loads, printed.splitlines()), strict=True)))
    return outcomes[0], outcomes[1]


def test_caches(tmp_path):
    """One test, since each process takes half a minute to compile."""
    first, second = run_twice(tmp_path)
    for program in SERVED:
        assert_served(program[0], first[program], second[program])
    assert_no_code_is_shared(first)


def assert_served(program: str, first: dict, second: dict) -> None:
    """Check that a second process compiled nothing."""
    assert first["caches"]["autograd_cache_miss"] == 1
    # A hit of AOTAutograd's cache reads each graph's code from Inductor's.
    assert second["caches"]["autograd_cache_hit"] == 1
    assert second["caches"]["fxgraph_cache_hit"] == (2 if program == "train" else 1)
    assert not any("miss" in name or "bypass" in name for name in second["caches"])
    assert second["result"] == first["result"]


def assert_no_code_is_shared(outcomes: Outcomes) -> None:
    """Check that each found nothing in the caches that was compiled for other numerics.

    Options that come to the same graph may share its code: under some, the softmax is float32 anyhow.
    """
    for program, outcome in outcomes.items():
        assert outcome.get("uncached", outcome["result"]) == outcome["result"], program
    plain, float16, left, disabled = (outcomes[program]["result"] for program in (SERVED[0], OTHERS[0], *OTHERS[2:]))
    assert left == disabled
    # Rounded otherwise or not, the others can give the same numbers.
    assert len(set(map(str, (plain, float16, left)))) == 3
