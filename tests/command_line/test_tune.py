"""``xpu-amp tune`` writes options that other commands and ``torch.compile`` take."""

from __future__ import annotations

import json
import math

import pytest
import torch

import xpu_amp_dynamo
from tests.support.free_meter import FreeMeter

FLOAT16 = ("--inner-backend", "eager", "--dtype", "float16", "--device", "cpu")


@pytest.fixture
def tuned(run, monkeypatch):
    """Tune a model that overflows in float16, and return what was printed."""
    monkeypatch.setattr("xpu_amp_dynamo.tuning.tune.MeasuredTime", FreeMeter)
    words = ("--cost", "time", "--metric", "my_models:largest", "--tolerance", "0.05", "--out", "found.toml")
    result = run("tune", "my_models:overflows", *FLOAT16, *words, "--json", "found.json")
    assert result.exit_code == 0, result.output
    return result


def test_what_is_found_is_printed_and_written(tuned):
    assert "keep_float32 = " in tuned.stdout
    assert max(map(len, tuned.stdout.splitlines())) <= 80
    with open("found.json") as file:
        found = json.load(file)
    assert found["command"] == "tune"
    assert found["start"]["error"] == math.inf
    assert found["tuned"]["error"] <= 0.05
    assert found["options"] == {"inner_backend": "eager", "dtype": "float16", "keep_float32": ["1"]}
    tuning = xpu_amp_dynamo.Tuning.load("found.toml")
    assert tuning.options == {**found["options"], "dtype": torch.float16}


def test_other_commands_take_it(tuned, run):
    result = run("explain", "my_models:overflows", "--device", "cpu", "--tuning", "found.toml", "--json", "-")
    (graph,) = json.loads(result.stdout)["graphs"]
    assert [call["output_dtypes"] for call in graph["calls"]] == [["float16"], ["float32"]]
    words = ("--device", "cpu", "--tuning", "found.toml", "--keep-float32", "*", "--json", "-")
    (graph,) = json.loads(run("explain", "my_models:overflows", *words).stdout)["graphs"]
    assert [call["output_dtypes"] for call in graph["calls"]] == [["float32"]] * 2


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["tune"], 2, "MODULE:FACTORY"),
        (["tune", "my_models:layer", "--cost", "energy"], 2, "'energy' is not one of"),
        (["tune", "my_models:layer", "--budget", "0"], 2, "--budget"),
        (["tune", "my_models:layer", "--tolerance", "-1"], 2, "tolerance is -1.0"),
        (["tune", "my_models:layer", "--metric", "my_models:larger"], 1, "did you mean 'largest'?"),
        (["tune", "my_models:layer", "--inner-backend", "eager"], 2, "give cost='time'"),
        (["tune", "my_models:stops", "--out", "my_models.py/found.toml"], 2, "cannot write 'my_models.py/found.toml'"),
        (["explain", "my_models:stops", "--html", "my_models.py/found.html"], 2, "cannot write"),
        (
            ["bench", "my_models:stops", "--json", "my_models.py/found.json"],
            2,
            "cannot write 'my_models.py/found.json'",
        ),
        (["explain", "my_models:layer", "--tuning", "nothing.toml"], 2, "'nothing.toml' does not exist"),
        (["explain", "my_models:layer", "--tuning", "my_models.py"], 2, "my_models.py is no tuning"),
    ],
)
def test_bad_words_are_refused(run, words, code, message):
    result = run(*words)
    assert result.exit_code == code, result.output
    assert message in result.stderr
