"""``xpu-amp explain`` prints what ``explain`` returns."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import xpu_amp_dynamo
from tests.conftest import skip_unless_simulated

EAGER = ("--inner-backend", "eager", "--device", "cpu")


def test_a_summary_is_printed_and_written(run):
    result = run(
        "explain",
        "my_models:layer",
        *EAGER,
        "--compare",
        "float32",
        "--calls",
        "--json",
        "found.json",
        "--html",
        "page.html",
    )
    assert result.exit_code == 0, result.output
    for title in ("calls in program order", "calls by module", "casts", "what adds the largest errors itself"):
        assert title in result.stdout
    assert max(map(len, result.stdout.splitlines())) <= 80
    found = json.loads(Path("found.json").read_text())
    assert "<title>Linear: which op runs in which dtype</title>" in Path("page.html").read_text()
    (graph,) = found["graphs"]
    assert [call["op"] for call in graph["calls"]] == ["linear"]
    assert found["versions"]["xpu_amp_dynamo"] == xpu_amp_dynamo.__version__


def test_lists_of_patterns_are_flags(run):
    result = run("explain", "my_models:breaks", *EAGER, "--keep-float32", "layer", "--json", "-")
    calls = [call for graph in json.loads(result.stdout)["graphs"] for call in graph["calls"]]
    assert [call["module"] for call in calls] == ["layer", "layer"]
    assert {dtype for call in calls for dtype in call["output_dtypes"]} == {"float32"}
    assert "2 graphs, 1 ended by graph breaks" in result.stderr


@pytest.mark.slow
def test_an_xpu_is_simulated(run):
    skip_unless_simulated()
    result = run("explain", "my_models:training", "--simulated-xpu", "--train", "--json", "-")
    (graph,) = json.loads(result.stdout)["graphs"]
    assert {cast["fate"]["kind"] for cast in graph["casts"]} <= {"kept", "fused", "kernel", "removed"}
    assert any(name.startswith("triton_") for cast in graph["casts"] for name in cast["fate"]["kernels"])


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["my_models:layer", *EAGER, "--keep-float32", "layr"], 2, "matches no module"),
        (["my_models:breaks", *EAGER, "--keep-float32", "layr"], 2, "layer"),
        (["my_models:layer", "--compare", "float64"], 2, "'float64' is not"),
        (["my_models:layer", "--device", "cpu", "--simulated-xpu"], 2, "leave --device out"),
        (["my_models:layer", "--device", "tpu"], 2, "tpu"),
    ],
)
def test_bad_words_are_refused(words, code, said, run):
    result = run("explain", *words)
    assert result.exit_code == code, result.output
    assert said in result.stderr
