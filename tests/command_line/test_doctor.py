"""``doctor``: what is here, and whether the backend ran on a model."""

from __future__ import annotations

import importlib.util
import json
import sysconfig

import pytest
import torch

from xpu_amp_dynamo.command_line import environment, readiness
from xpu_amp_dynamo.command_line.environment import examine
from xpu_amp_dynamo.compat import torch_version
from xpu_amp_dynamo.errors import SimulatorError
from xpu_amp_dynamo.simulator.intel_compiler import triton_xpu


def finding(name):
    return next(f for f in examine() if f.name == name)


@pytest.fixture
def trial(monkeypatch):
    """Try nothing that takes Inductor's time."""
    monkeypatch.setattr(readiness, "_compile", lambda device: "1 op lowered")


def test_what_is_here(run, trial):
    result = run("doctor", "--device", "cpu", "--json", "here.json")
    assert result.exit_code == 0
    assert max(len(line) for line in result.stdout.splitlines() if line[:1] in "│┃") <= 80
    with open("here.json") as file:
        document = json.load(file)
    assert document["runs"]
    assert document["versions"]["torch"] == torch.__version__
    assert {"Python", "torch", "xpu", "cpu", "Triton", "C++ compiler", "Python headers", "ocloc", "IPEX"} <= {
        f["name"] for f in document["findings"]
    }
    assert document["abilities"][0]["what"] == 'torch.compile(backend="xpu_amp") on cpu'


def test_a_backend_that_does_not_run_ends_with_1_and_says_why(run, monkeypatch):
    def refuse(device):
        raise RuntimeError("no compiler")

    monkeypatch.setattr(readiness, "_compile", refuse)
    result = run("doctor", "--device", "cpu", "--json", "-")
    assert result.exit_code == 1
    assert json.loads(result.stdout)["abilities"][0]["detail"] == "RuntimeError: no compiler"
    assert "no compiler" in result.stderr


def test_a_wrong_result_is_no_success():
    with pytest.raises(Exception, match="results are wrong"):
        readiness._compared(torch.ones(2), torch.zeros(2) + 0.1, "")


@pytest.mark.parametrize(
    ("version", "present", "words"),
    [
        ("2.13.0+cpu", True, "supported in full"),
        ("2.12.1+xpu", True, "supported with less"),
        ("2.16.0.dev20270101", False, "newer than all that was tried"),
    ],
)
def test_support_of_a_version(version, present, words, monkeypatch):
    monkeypatch.setattr(torch, "__version__", version)
    found = finding("torch")
    assert (found.present, words in found.detail) == (present, True)
    assert bool(found.fix) is not present
    assert torch_version.checked_versions() == "2.11 to 2.15"


def test_what_is_missing_is_named_with_its_fix(monkeypatch, tmp_path):
    def not_installed():
        raise SimulatorError("not installed: run it once")

    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "triton" else real(name))
    monkeypatch.setattr(environment, "host_compiler", lambda: None)
    monkeypatch.setattr(sysconfig, "get_path", lambda name: str(tmp_path))
    monkeypatch.setattr(triton_xpu, "installed_folder", not_installed)
    monkeypatch.setattr(environment, "find_ocloc", lambda: None)
    fixes = {f.name: f.fix for f in examine() if not f.present}
    assert "pip install" in fixes["Triton"]
    assert "apt-get install g++" in fixes["C++ compiler"]
    assert "-dev" in fixes["Python headers"]
    assert fixes["Intel's compiler"] == "not installed: run it once"
    assert "apt-get install intel-ocloc" in fixes["ocloc"]
    able = {a.what: a for a in readiness.abilities(examine(), "cpu")[2:]}
    assert able["simulated XPU"].detail == "needs Triton, C++ compiler"


def test_an_intel_gpu_without_its_build_is_noticed(monkeypatch):
    if torch.xpu.is_available():
        pytest.skip("there is an XPU")
    monkeypatch.setattr(environment, "intel_gpus", lambda: ["0000:03:00.0"])
    monkeypatch.setattr(torch.version, "xpu", None)
    assert "https://download.pytorch.org/whl/xpu" in finding("xpu").fix
    monkeypatch.setattr(torch.version, "xpu", "20250101")
    assert "usermod -aG render" in finding("xpu").fix


def test_ipex_is_noticed(monkeypatch, tmp_path):
    assert finding("IPEX").present
    (tmp_path / "intel_extension_for_pytorch.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    assert "pip uninstall" in finding("IPEX").fix


def test_a_wrong_variable_of_ocloc_is_told(monkeypatch, tmp_path):
    monkeypatch.setenv("OCLOC", str(tmp_path / "none"))
    found = finding("ocloc")
    assert not found.present
    assert "names" in found.fix


@pytest.mark.parametrize("model", ["my_models:layer", "./my_models.py:layer", "my_models:by_name"])
def test_a_model_on_which_it_runs(run, model):
    result = run("doctor", model, "--device", "cpu", "--inner-backend", "eager", "--json", "-")
    assert result.exit_code == 0, result.stderr
    document = json.loads(result.stdout)
    assert document["ran"]
    assert document["graphs"] == 1
    assert document["ops"]["lower_precision"] == 1
    assert document["casts"] >= 2
    assert document["kept_bytes"] == 2 * (64 + 8)
    assert document["dynamo"] == {"compiled": 1, "breaks": [], "recompiled": [], "skipped": []}
    assert "train mode" not in result.stderr


def test_graph_breaks_are_named_with_place_and_reason(run):
    result = run("doctor", "my_models:breaks", "--device", "cpu", "--inner-backend", "eager", "--json", "-")
    document = json.loads(result.stdout)
    assert (result.exit_code, document["graphs"]) == (0, 2)
    (place,) = document["dynamo"]["breaks"]
    assert "my_models.py:" in place["where"]
    assert place["function"] == "forward"
    assert "graph_break" in place["reason"]
    assert "call the model inside" in " ".join(result.stderr.split())


def test_a_model_without_listed_ops_is_told(run):
    result = run("doctor", "my_models:unlisted", "--device", "cpu", "--inner-backend", "eager")
    assert result.exit_code == 1
    assert "no op of the policy's lists" in result.stdout


def test_where_no_graph_came_the_backend_did_not_run(run):
    with torch._dynamo.config.patch(disable=True):
        result = run("doctor", "my_models:layer", "--device", "cpu", "--inner-backend", "eager")
    assert result.exit_code == 1
    assert "The backend did not run" in result.stdout


def test_recompiled_code_is_named_with_its_guard():
    from xpu_amp_dynamo.compat.compilations import record_compilations

    compiled = torch.compile(lambda x: x + 1, backend="eager", dynamic=False)
    with record_compilations() as record:
        compiled(torch.ones(2))
        compiled(torch.ones(3))
    assert record.compiled == 2
    assert "expected 2, actual 3" in record.recompiled[0].reason


def test_a_model_in_train_mode_is_noticed(run):
    result = run("doctor", "my_models:training", "--device", "cpu", "--inner-backend", "eager")
    assert "note: my_models:training returns a model in train mode" in result.stderr
    assert "model.eval()" in result.stderr
    result = run("doctor", "my_models:training", "--device", "cpu", "--inner-backend", "eager", "--train")
    assert (result.exit_code, result.stderr) == (0, "")
