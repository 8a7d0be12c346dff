"""``kernels``, ``bench`` and ``export``."""

from __future__ import annotations

import json

import pytest
import torch

from xpu_amp_dynamo.command_line.bench import times_table
from xpu_amp_dynamo.command_line.compare_ways import Times
from xpu_amp_dynamo.explanation.relative_error import largest_relative_error, relative_error
from xpu_amp_dynamo.simulator.ways import WAYS


def test_kernels_as_json_and_narrow(run):
    if torch.backends.cuda.is_built() or torch.xpu.is_available():
        pytest.skip("an XPU can be simulated in CPU builds of torch only")
    result = run("kernels", "my_models:layer", "--beside", "float32", "--json", "-", "--weights", "recast")
    assert result.exit_code == 0
    document = json.loads(result.stdout)
    assert document["launches"][0]["input_dtypes"] == ["float32"]
    assert document["triton_launches"] == len([launch for launch in document["launches"] if launch["is_triton"]])
    assert document["beside"]["float32"]["cast_launches"] == 0
    assert max(len(line) for line in result.stderr.splitlines()) <= 80
    assert "aten.mm.out" in result.stderr


def test_times_have_ratios_to_ours():
    times = Times({"xpu_amp": 1.0, "stock autocast": 2.0, "float32": 3.0}, dict.fromkeys(WAYS, 1.0), {})
    assert times.ratios == {"stock autocast": 2.0, "float32": 3.0}
    assert list(times_table({"model": times}, "").columns[3].cells) == ["", "2.00", "3.00"]


@pytest.mark.slow
def test_bench(run):
    words = ["bench", "my_models:training", "--train", "--rounds", "2", "--device", "cpu", "--weights", "recast"]
    result = run(*words, "--json", "-")
    assert result.exit_code == 0
    document = json.loads(result.stdout)
    assert set(document["medians"]) == {"xpu_amp", "stock autocast", "float32"}
    assert document["options"] == {"weights": "recast"}
    assert 0 < document["errors"]["xpu_amp"] < 0.02
    assert "stock autocast" in result.stderr


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:`isinstance.treespec, LeafSpec.` is deprecated")
def test_export(run, tmp_path):
    words = ["export", "my_models:layer", "--out", "deep/model.pt2", "--weights", "cached", "--device", "cpu"]
    result = run(*words, "--inductor", "max_autotune=False", "--json", "-")
    assert result.exit_code == 0
    document = json.loads(result.stdout)
    assert document["ops"]["lower_precision"] == 1
    assert document["error"] < 0.02
    assert document["bytes"] == (tmp_path / "deep" / "model.pt2").stat().st_size
    loaded = torch._inductor.aoti_load_package(str(tmp_path / "deep" / "model.pt2"))
    assert loaded(torch.randn(2, 8)).dtype is torch.float32


def test_an_unknown_setting_of_an_export_is_refused(run):
    result = run("export", "my_models:layer", "--out", "m.pt2", "--device", "cpu", "--inductor", "nonsense=1")
    assert result.exit_code == 2
    assert "Inductor has no setting 'nonsense'" in result.stderr


def test_errors_of_values():
    wanted = torch.tensor([3.0, 4.0])
    assert relative_error(wanted + torch.tensor([0.0, 0.5]), wanted) == pytest.approx(0.1)
    assert relative_error(torch.tensor([3.0, float("nan")]), wanted) == float("inf")
    assert largest_relative_error({"a": wanted, "b": 1}, {"a": wanted, "b": 1}) == 0.0
