"""``doctor --check``: what it finds right, and that it finds what is wrong."""

from __future__ import annotations

import json

import pytest
import torch

import xpu_amp_dynamo
from xpu_amp_dynamo import Policy
from xpu_amp_dynamo.command_line.self_test import command, run
from xpu_amp_dynamo.command_line.self_test.block import check_block
from xpu_amp_dynamo.command_line.self_test.ops import check_compiled, check_eager
from xpu_amp_dynamo.command_line.self_test.result import Result, attempt, require_close
from xpu_amp_dynamo.command_line.self_test.samples import SAMPLES, UNLISTED, Sample
from xpu_amp_dynamo.policy.cast_rule import Category

pytestmark = pytest.mark.filterwarnings("ignore:Mismatch dtype between input and weight")


@pytest.fixture
def gelu_kernel(request):
    """Replace the CPU's kernel of gelu for bfloat16."""

    def kernel(x: torch.Tensor, approximate: str = "none") -> torch.Tensor:
        if x.dtype is torch.bfloat16:
            return request.param(x)
        return x * 0.5 * (1 + torch.erf(x * 0.5**0.5))

    library = torch.library.Library("aten", "IMPL")
    library.impl("gelu", kernel, "CPU", allow_override=True)
    yield
    library._destroy()


def raise_error(x):
    raise NotImplementedError("no kernel of gelu for this device\nsecond line")


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_samples_are_right_in_eager_code(dtype, device):
    failed = [result for result in check_eager(SAMPLES, device, dtype) if not result.passed]
    assert failed == []


def test_samples_state_the_lists_of_the_policy():
    assert len(SAMPLES) >= 30
    categories = {category.value for category in Category if category is not Category.BANNED}
    assert {sample.category for sample in SAMPLES} == {*categories, UNLISTED}


@pytest.mark.parametrize("gelu_kernel", [lambda x: x + 1], indirect=True)
def test_a_wrong_kernel_is_seen(gelu_kernel):
    failed = [result for result in check_eager(SAMPLES, "cpu", torch.bfloat16) if not result.passed]
    assert [result.name for result in failed] == ["gelu"]
    assert failed[0].error is not None
    assert failed[0].error > 0.1
    assert "values are off by" in failed[0].detail


@pytest.mark.parametrize("gelu_kernel", [raise_error], indirect=True)
def test_a_kernel_that_is_missing_stops_nothing(gelu_kernel):
    results = check_eager(SAMPLES, "cpu", torch.bfloat16)
    assert len(results) == len(SAMPLES)
    failed = [result for result in results if not result.passed]
    assert [(result.name, result.detail.partition("\n")[0]) for result in failed] == [
        ("gelu", "NotImplementedError: no kernel of gelu for this device")
    ]


@pytest.mark.parametrize("gelu_kernel", [lambda x: (x * 0.5 * (1 + torch.erf(x * 0.5**0.5))).float()], indirect=True)
def test_a_wrong_dtype_is_seen(gelu_kernel):
    failed = [result for result in check_eager(SAMPLES, "cpu", torch.bfloat16) if not result.passed]
    assert "got float32 of shape (4, 16) on cpu, and gelu is in the list 'unlisted': bfloat16" in failed[0].detail


def test_another_policy_is_seen():
    xpu_amp_dynamo.install(Policy.named("xpu").with_ops(leave=["log_softmax"]), "cpu")
    sample = next(sample for sample in SAMPLES if sample.name == "log_softmax")
    (result,) = check_eager([sample], "cpu", torch.bfloat16)
    assert not result.passed


def test_compiled_ops_are_told_apart_where_one_raises(monkeypatch):
    def refuse(x):
        raise RuntimeError("not this one")

    good = next(sample for sample in SAMPLES if sample.name == "relu")
    results = check_compiled([good, Sample("refused", UNLISTED, refuse, ((2, 2),))], "cpu", torch.bfloat16)
    assert [(result.name, result.passed) for result in results] == [("relu", True), ("refused", False)]
    assert "not this one" in results[1].detail


def test_the_block_in_eager_code(device):
    (result,) = check_block("eager in a region", device)
    assert result.passed, result.detail
    assert result.error is not None
    assert 0 < result.error < 0.05


@pytest.mark.parametrize("gelu_kernel", [lambda x: x + 1], indirect=True)
def test_a_wrong_kernel_is_seen_in_the_block(gelu_kernel):
    (result,) = check_block("eager in a region", "cpu")
    assert not result.passed
    assert "values are off by" in result.detail


def test_no_number_is_no_success():
    assert not attempt("", "", lambda: require_close(float("nan"), 1.0)).passed
    assert not attempt("", "", lambda: require_close(float("inf"), 1.0)).passed


def some_steps(report):
    """Two steps, of which one ends in an error that is no check's."""

    def fall():
        raise OSError("out of space")

    return [("first", lambda: check_eager(SAMPLES[:2], report.device, torch.bfloat16)), ("second", fall)]


def test_report_and_status(run_command, monkeypatch, tmp_path):
    monkeypatch.setattr(run, "steps", some_steps)
    monkeypatch.setattr(command, "steps", some_steps)
    result = run_command("doctor", "--check", "--device", "cpu", "--out", "report.json")
    assert result.exit_code == 1
    assert "2 of 3 checks passed on cpu" in result.stdout
    assert "OSError: out of space" in result.stdout
    document = json.loads((tmp_path / "report.json").read_text())
    assert (document["complete"], document["passed"], document["simulated"]) == (True, False, False)
    assert [r["passed"] for r in document["results"]] == [True, True, False]
    assert document["results"][0]["error"] < 0.02
    assert document["machine"]["properties"]["threads"] == torch.get_num_threads()
    monkeypatch.setattr(run, "steps", lambda report: some_steps(report)[:1])
    result = run_command("doctor", "--check", "--device", "cpu", "--json", "-")
    assert (result.exit_code, json.loads(result.stdout)["passed"]) == (0, True)
    assert xpu_amp_dynamo.installed_policy("cpu") is None


def test_a_process_that_dies_leaves_what_it_found(run_command, monkeypatch, tmp_path):
    class Died(BaseException):
        pass

    def die():
        raise Died

    monkeypatch.setattr(run, "steps", lambda report: [*some_steps(report)[:1], ("fatal step", die)])
    monkeypatch.setattr(command, "steps", lambda report: [])
    with pytest.raises(Died):
        run_command("doctor", "--check", "--device", "cpu", "--json", "report.json")
    document = json.loads((tmp_path / "report.json").read_text())
    assert (document["complete"], document["running"]) == (False, "fatal step")
    assert len(document["results"]) == 2


@pytest.fixture
def run_command(run):
    """The fixture ``run`` by another name, since this file is about a module of that name."""
    return run


def test_failures_are_printed_first_line_only():
    result = Result("group", "name", False, None, "first [bold]line\nsecond")
    table = command._failures([result])
    assert list(table.columns[1].cells) == ["first \\[bold]line"]


@pytest.mark.sweep
@pytest.mark.filterwarnings("ignore")
def test_all_of_it(run_command, tmp_path, device):
    result = run_command("doctor", "--check", "--device", device, "--out", "report.json")
    document = json.loads((tmp_path / "report.json").read_text())
    assert [r for r in document["results"] if not r["passed"]] == []
    assert result.exit_code == 0
    assert set(document["times"]) == {"mlp", "transformer", "convolutions"}
    assert set(document["times"]["mlp"]["ratios"]) == {"stock autocast", "float32"}


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.filterwarnings("ignore")
def test_all_of_it_on_a_simulated_xpu(run_command, tmp_path):
    if torch.backends.cuda.is_built() or torch.xpu.is_available():
        pytest.skip("an XPU can be simulated in CPU builds of torch only")
    result = run_command("doctor", "--check", "--simulated-xpu", "--out", "report.json")
    document = json.loads((tmp_path / "report.json").read_text())
    assert [r for r in document["results"] if not r["passed"]] == []
    assert (result.exit_code, document["times"], document["device"]) == (0, {}, "xpu")
    assert "Max 1550" in document["machine"]["properties"]["name"]
