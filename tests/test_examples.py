"""The programs of examples/ run as a newcomer runs them, in processes of their own, and say what they promise."""

from __future__ import annotations

import os
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import skip_unless_simulated

FOLDER = Path(__file__).parent.parent / "examples"
# Patterns of what each prints, and what it takes to be quick.
PRINTED = {
    "inference": [
        r"linear +torch.bfloat16 +lower precision by the documented lists",
        r"log_softmax +torch.float32 ",
        r"output is torch.float32, as without the backend, and 0\.\d+% away",
        r"Weights take 1.10 MB in float32, .* 0.55 MB more",
    ],
    "training": [r"\n *20 +(0\.\d+) +0\.\d+\n", r"Parameters and gradients are torch.float32."],
    "float16_with_grad_scaler": [
        r"The backend warned: float16 training needs loss scaling",
        r"without a scaler +(\d\.\d+) +\1 +100%",
        r"with a scaler +\d\.\d+ +\d\.\d+ +[0-9]%",
    ],
    "repair_precision": [
        r"error is nan",
        r"first call that overflows is in module '1'.*\n.*linear\(float16, .*lower precision by the documented lists",
        r"the error is 0\.00\d+: .*'keep_float32': \['1'\]",
    ],
    "xpu_kernels": [r"aten.addmm", r"Triton kernels", r"run on xpu:0: torch.float32, 0\.\d+% away"],
}
ARGUMENTS = {"training": ["--steps", "20"], "float16_with_grad_scaler": ["--steps", "30"]}
SIMULATING = ("repair_precision", "xpu_kernels")


def run(name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(FOLDER / f"{name}.py"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, env=os.environ | {"COLUMNS": "120"})


def test_every_example_is_tested():
    assert {path.stem for path in FOLDER.glob("*.py")} == PRINTED.keys()


@pytest.mark.slow
@pytest.mark.parametrize("name", PRINTED)
def test_example(name):
    if name in SIMULATING:
        skip_unless_simulated()
    done = run(name, *ARGUMENTS.get(name, []))
    assert done.returncode == 0, done.stderr
    for pattern in PRINTED[name]:
        assert re.search(pattern, done.stdout), done.stdout


@pytest.mark.parametrize("name", PRINTED)
def test_help_says_what_it_shows(name, monkeypatch, capsys):
    program = runpy.run_path(str(FOLDER / f"{name}.py"))
    monkeypatch.setattr(sys, "argv", [name, "--help"])
    with pytest.raises(SystemExit) as end:
        program["main"]()
    assert end.value.code == 0
    assert program["__doc__"].splitlines()[0] in capsys.readouterr().out
