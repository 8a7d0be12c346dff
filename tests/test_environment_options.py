"""Options from the environment: where they count, which win, and what is refused."""

from __future__ import annotations

import json

import pytest
import torch
from torch._dynamo.exc import BackendCompilerFailed

import xpu_amp_dynamo
from tests.conftest import skip_unless_simulated
from tests.support.comparison import compile_program
from xpu_amp_dynamo.command_line.environment import examine
from xpu_amp_dynamo.environment_options import VARIABLE, environment_options
from xpu_amp_dynamo.errors import InvalidOptionError
from xpu_amp_dynamo.tuning.tuning import Measured, Tuning

X = torch.randn(4, 4)


def rounded(dtype):
    """Return what a product rounded to a dtype gives."""
    return (X.to(dtype) @ X.to(dtype)).float()


def product(x):
    return x @ x


@pytest.fixture(params=["inline", "json", "toml", "tuning"])
def set_options(request, tmp_path, monkeypatch):
    """Return a function that puts options into the variable, in each form that it takes."""

    def set_variable(options):
        path = tmp_path / f"options.{'json' if request.param == 'json' else 'toml'}"
        if request.param == "toml":
            path.write_text("".join(f"{name} = {json.dumps(value)}\n" for name, value in options.items()))
        elif request.param == "json":
            path.write_text(json.dumps(options))
        elif request.param == "tuning":
            Tuning("M", options, Measured(0, 0), Measured(0, 0), 0.1, "bytes", 1).save(path)
        monkeypatch.setenv(VARIABLE, json.dumps(options) if request.param == "inline" else str(path))

    return set_variable


def test_options_count_without_any_given(set_options):
    set_options({"dtype": "float16", "inner_backend": "eager"})
    torch.testing.assert_close(torch.compile(product, backend="xpu_amp")(X), rounded(torch.float16), rtol=0, atol=0)


def test_given_options_win_one_by_one(set_options):
    set_options({"dtype": "float16", "enabled": False, "weights": "recast"})
    compiled = compile_program(product, enabled=True)
    torch.testing.assert_close(compiled(X), rounded(torch.float16), rtol=0, atol=0)
    compiled = compile_program(product, dtype=torch.bfloat16, enabled=True)
    torch.testing.assert_close(compiled(X), rounded(torch.bfloat16), rtol=0, atol=0)
    torch.testing.assert_close(compile_program(product)(X), X @ X, rtol=0, atol=0)


def test_a_mode_goes_with_them(monkeypatch):
    """torch.compile takes options or a mode, not both."""
    monkeypatch.setenv(VARIABLE, '{"dtype": "float16"}')
    compiled = torch.compile(product, backend="xpu_amp", mode="max-autotune-no-cudagraphs")
    assert torch.equal(compiled(X), rounded(torch.float16))


@pytest.mark.parametrize("value", ["", "  ", "{}"])
def test_empty_is_no_option(monkeypatch, value):
    monkeypatch.setenv(VARIABLE, value)
    assert environment_options() == {}


UNREADABLE = [
    ("float16", "neither begins"),
    ('dtype = "float16"', "neither begins"),
    ('{"dtype": "float16"', "Expecting"),
    ('{"dtype": "float16", "dtype": "bfloat16"}', "gives 'dtype' more than once"),
    ('{"options": 1}', "no table of options"),
    ("/nowhere/options.toml", "No such file"),
    ("broken.toml", "broken.toml"),
    ("list.json", "no table of options"),
    ("twice.json", "gives 'a' more than once"),
]
ILLEGAL = [
    ('{"dtype": "float8"}', "'float8'"),
    ('{"dtyp": "float16"}', "dtyp"),
    ('{"enabled": "yes"}', "'enabled'"),
    ('{"policy": {"nmae": "x"}}', "nmae"),
]


@pytest.mark.parametrize(("value", "message"), [*UNREADABLE, *ILLEGAL])
def test_a_broken_value_is_refused_by_name(monkeypatch, tmp_path, value, message):
    (tmp_path / "broken.toml").write_text("dtype = ")
    (tmp_path / "list.json").write_text("[1]")
    (tmp_path / "twice.json").write_text('{"inductor": {"a": 1, "a": 2}}')
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(VARIABLE, value)
    with pytest.raises(InvalidOptionError) as caught:
        environment_options()
    for part in (message, VARIABLE, repr(value)):
        assert part in str(caught.value)
    assert ("JSON object" in str(caught.value)) == ((value, message) in UNREADABLE)
    with pytest.raises(BackendCompilerFailed, match=VARIABLE):
        compile_program(product)(X)


def test_what_does_not_go_together_names_the_variable(monkeypatch):
    monkeypatch.setenv(VARIABLE, '{"inductor": {"max_autotune": false}}')
    with pytest.raises(BackendCompilerFailed, match=f"inner_backend.*{VARIABLE} gives"):
        compile_program(product, "eager")(X)


def test_given_options_that_are_wrong_are_refused_as_before(monkeypatch):
    monkeypatch.setenv(VARIABLE, '{"enabled": false}')
    with pytest.raises(BackendCompilerFailed, match="unknown options"):
        compile_program(product, nonsense=1)(X)


def test_what_compiles_nothing_ignores_the_variable(monkeypatch):
    monkeypatch.setenv(VARIABLE, '{"enabled": false}')
    gm = xpu_amp_dynamo.lower(torch.fx.symbolic_trace(product), [X])
    torch.testing.assert_close(gm(X), rounded(torch.bfloat16), rtol=0, atol=0)


def test_explain_explains_what_would_be_compiled(monkeypatch):
    monkeypatch.setenv(VARIABLE, '{"dtype": "float16", "inner_backend": "eager"}')
    explanation = xpu_amp_dynamo.explain(torch.nn.Linear(4, 4), X)
    assert "f32 to f16" in str(explanation)
    assert "bf16" not in str(explanation)


def test_kernels_of_all_ways_are_in_the_dtype_of_the_variable(monkeypatch):
    skip_unless_simulated()
    monkeypatch.setenv(VARIABLE, '{"dtype": "float16"}')
    report = xpu_amp_dynamo.xpu_kernels(
        torch.nn.Linear(8, 8), torch.randn(4, 8), region=True, beside=["stock autocast"]
    )
    for each in (report, report.beside["stock autocast"]):
        assert torch.float16 in {dtype for launch in each.launches for dtype in launch.input_dtypes}
        assert torch.bfloat16 not in {dtype for launch in each.launches for dtype in launch.input_dtypes}


def test_compiled_code_keeps_what_it_was_compiled_with(monkeypatch):
    compiled = compile_program(product)
    before = compiled(X)
    monkeypatch.setenv(VARIABLE, '{"enabled": false}')
    assert torch.equal(compiled(X), before)
    torch._dynamo.reset()
    assert torch.equal(compiled(X), X @ X)


def test_doctor_shows_them(monkeypatch):
    assert VARIABLE not in {finding.name for finding in examine()}
    monkeypatch.setenv(VARIABLE, '{"enabled": false}')
    assert [f.detail for f in examine() if f.name == VARIABLE and f.present] == ["{'enabled': False}"]
    monkeypatch.setenv(VARIABLE, '{"enabled": 0}')
    assert [f.name for f in examine() if f.name == VARIABLE and not f.present] == [VARIABLE]


def test_tune_starts_from_them(monkeypatch):
    monkeypatch.setenv(VARIABLE, '{"dtype": "float16", "inner_backend": "eager"}')
    found = xpu_amp_dynamo.tune(torch.nn.Linear(4, 4), (X,), cost="time", budget=1, options={"policy": "torch"}).options
    assert (found["dtype"], found["inner_backend"], found["policy"]) == (torch.float16, "eager", "torch")
