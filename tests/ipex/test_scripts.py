"""Whole programs of the kinds in IPEX's documentation, unchanged, against the same in float32 on the CPU."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from torch import nn

from tests.conftest import skip_unless_simulated
from xpu_amp_dynamo.ipex.__main__ import command
from xpu_amp_dynamo.ipex.run_script import run_script

SCRIPTS = Path(__file__).parent / "scripts"


def run(*arguments, path=""):
    """Run the command line."""
    words = [sys.executable, "-m", "xpu_amp_dynamo.ipex", *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": str(path), "OMP_NUM_THREADS": "1"}
    return subprocess.run(words, capture_output=True, text=True, check=False, timeout=300, env=environment)


def trained(model, optimizer, losses, scheduler=None, clip=None):
    """Return the parameters of a model that was trained in float32."""
    for loss in losses:
        optimizer.zero_grad()
        loss(model).backward()
        if clip is not None:
            nn.utils.clip_grad_norm_(model.parameters(), clip)
        optimizer.step()
        if scheduler is not None:
            scheduler.step()
    return flat(model)


def flat(model):
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


@torch.no_grad()
def inference_float32():
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 6 * 6, 4))
    return model.eval()(torch.rand(2, 3, 8, 8))


@torch.no_grad()
def inference_compiled():
    return nn.Sequential(nn.Linear(16, 16), nn.GELU(), nn.Linear(16, 4))(torch.rand(2, 16))


def training_optimize():
    model = nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 2))
    data, target = torch.randn(32, 8), torch.randint(2, (32,))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, step_size=5, gamma=0.5)
    return trained(model, optimizer, [lambda m: nn.functional.cross_entropy(m(data), target)] * 10, scheduler, 1.0)


def training_autocast():
    model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 1))
    data = torch.randn(16, 8)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    return trained(model, optimizer, [lambda m: nn.functional.mse_loss(m(data), data[:, :1])] * 4)


def custom_function():
    layer = nn.Linear(8, 8)
    data, weights = torch.randn(4, 8), torch.randn(4, 8)
    y = layer(data)
    (y / y.norm() * weights).sum().backward()
    return layer.weight.grad


def save_and_resume():
    model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 1))
    torch.manual_seed(1)
    data = torch.randn(6, 16, 8)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    return trained(model, optimizer, [lambda m, x=x: m(x).square().mean() for x in data])


# The largest error relative to the reference, and the least that shows that bfloat16 was used at all. Weights are
# compared whole, of which training moves a part.
# Each takes the start of a process and of a simulated XPU, 8 seconds: half of them are for the complete run.
CASES = [
    pytest.param(inference_float32, [], 0.0, 1e-6, id="inference_float32", marks=pytest.mark.slow),
    pytest.param(inference_compiled, [], 1e-4, 2e-2, id="inference_compiled"),
    pytest.param(training_optimize, [], 1e-6, 2e-2, id="training_optimize"),
    pytest.param(training_autocast, ["--steps", "4"], 1e-6, 2e-2, id="training_autocast", marks=pytest.mark.slow),
    pytest.param(custom_function, [], 1e-4, 2e-2, id="custom_function", marks=pytest.mark.slow),
    pytest.param(save_and_resume, [], 1e-6, 2e-2, id="save_and_resume"),
]


@pytest.mark.parametrize(("reference", "arguments", "least", "most"), CASES)
def test_script(reference, arguments, least, most, tmp_path):
    skip_unless_simulated()
    done = run("--simulated-xpu", SCRIPTS / f"{reference.__name__}.py", tmp_path / "out.pt", *arguments)
    assert done.returncode == 0, done.stderr
    got = torch.load(tmp_path / "out.pt").detach().double()
    torch.manual_seed(0)
    expected = reference().detach().double()
    error = ((got - expected).norm() / expected.norm()).item()
    assert least <= error <= most


EXPLAINED = """
import importlib
import sys

import helper
import intel_extension_for_pytorch as ipex
import torch

assert sys.argv[1:] == ["--simulated-xpu", "-x"] and __name__ == "__main__", sys.argv
assert ipex.xpu is torch.xpu and ipex.__version__.startswith("2.1.40") and ipex.optimize is torch.xpu.optimize
from intel_extension_for_pytorch.xpu.amp import autocast
assert autocast is torch.xpu.amp.autocast
try:
    ipex.quantization
except AttributeError as error:
    print(error)
assert not hasattr(ipex, "llm") and not hasattr(ipex, "__nothing__")
for name in ("llm", "cpu.runtime"):
    try:
        importlib.import_module(f"intel_extension_for_pytorch.{name}")
    except ImportError as error:
        print(error)
try:
    from intel_extension_for_pytorch import transformers
except ImportError as error:
    print(error)
ipex.enable_onednn_fusion(True)
ipex.disable_auto_channels_last()
with torch.xpu.amp.autocast(enabled=False):
    pass

def fail():
    raise KeyError("mine")

try:
    1 / 0
except ZeroDivisionError:
    fail()
"""


def test_what_a_script_sees(tmp_path):
    """Its arguments, its folder, the names of the stand-in and why others are missing, and its own traceback."""
    (tmp_path / "helper.py").write_text("")
    script = tmp_path / "script.py"
    script.write_text(EXPLAINED)
    done = run("--policy", "ipex", script, "--simulated-xpu", "-x")
    for said in ("torchao.quantization", "intel_extension_for_pytorch.llm has no", "torch.autocast('cpu')"):
        assert said in done.stdout
    assert "models of the transformers library" in done.stdout
    assert done.stderr.splitlines()[-1] == "KeyError: 'mine'"
    files = {line.split('"')[1] for line in done.stderr.splitlines() if line.startswith("  File ")}
    assert files == {str(script)}, done.stderr
    assert done.returncode == 1


def test_where_there_is_no_xpu_the_simulated_one_is_named(tmp_path):
    if torch.xpu.is_available():
        pytest.skip("there is an XPU")
    script = tmp_path / "script.py"
    script.write_text("import torch\ntorch.ones(2).to('xpu')\n")
    done = run(script)
    assert done.returncode == 1
    *_, error, advice = done.stderr.splitlines()
    assert "XPU" in error
    assert advice.startswith("There is no XPU here. --simulated-xpu")


def test_status_of_a_script(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["python"])
    monkeypatch.setattr(sys, "path", ["", *sys.path])
    script = tmp_path / "script.py"
    script.write_text("import sys\nsys.exit(len(sys.argv))\n")
    with pytest.raises(SystemExit) as ended:
        run_script(str(script), ["one", "two"])
    assert ended.value.code == 3
    script.write_text("pass")
    assert run_script(str(script), []) == 0


def test_ipex_itself_is_not_hidden(tmp_path):
    package = tmp_path / "intel_extension_for_pytorch"
    package.mkdir()
    (package / "__init__.py").write_text("")
    script = tmp_path / "script.py"
    script.write_text("print('it ran')\n")
    done = run(script, path=tmp_path)
    assert done.returncode == 1
    assert done.stdout == ""
    assert f"itself is installed, at {package / '__init__.py'}" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(("words", "said"), [(["nothing.py"], "does not exist"), ([], "Missing argument 'SCRIPT'")])
def test_usage(words, said):
    result = CliRunner().invoke(command, words)
    assert result.exit_code == 2
    assert said in result.output


def test_unknown_policy(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", [*sys.path])
    script = tmp_path / "script.py"
    script.write_text("print('it ran')\n")
    result = CliRunner().invoke(command, ["--policy", "nothing", str(script)])
    assert result.exit_code == 2
    assert "error: " in result.output
    assert "it ran" not in result.output
