"""What patterns of kept modules are refused, with which words, and that nothing is changed then."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import xpu_amp_dynamo
from tests.support.captured_graphs import run_changed
from tests.support.kept_models import Model
from xpu_amp_dynamo.errors import InvalidOptionError
from xpu_amp_dynamo.policy.kept_modules import Kept, ModulePatterns

REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"keep_float32": "head"}, r"'keep_float32' is the string 'head'; it must be a list: \['head'\]"),
    ({"keep_lower": 3}, "'keep_lower' is 3; it must be a list"),
    ({"keep_lower": ["head", 3]}, "'keep_lower' has 3; it must be a list of strings"),
    ({"keep_float32": ["haed"]}, "'haed', which matches no module; did you mean 'head'"),
    ({"keep_float32": ["layers.2.*"]}, "'layers.2.*', which matches no module; did you mean 'layers.*'"),
    ({"keep_float32": ["layers.*"], "keep_lower": ["layers.1.up"]}, "both name module 'layers.1.up'; name it in one"),
]


@pytest.mark.parametrize(("options", "message"), REFUSED)
def test_refused_by_the_context_manager(options, message):
    model = Model()
    with pytest.raises(InvalidOptionError, match=message), xpu_amp_dynamo.keep_precision(model, **options):
        pass
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


@pytest.mark.parametrize(("options", "message"), REFUSED)
def test_refused_by_the_backend(options, message):
    compiled = torch.compile(Model(), backend="xpu_amp", options={"inner_backend": "eager", **options})
    with pytest.raises(Exception, match=message):
        compiled(torch.randn(4, 16))


@pytest.mark.parametrize(("options", "message"), REFUSED)
def test_refused_for_exported_programs(options, message):
    exported = torch.export.export(Model(), (torch.randn(4, 16),))
    before = exported.graph_module.code
    with pytest.raises(InvalidOptionError, match=message):
        xpu_amp_dynamo.lower_exported(exported, **options)
    assert exported.graph_module.code == before


def test_a_compiled_model_takes_options_and_no_hooks():
    model = Model()
    compiled: Any = torch.compile(model)
    model.compile()
    for refused in (compiled, model):
        with (
            pytest.raises(InvalidOptionError, match=r"give torch\.compile the options"),
            xpu_amp_dynamo.keep_precision(refused, keep_float32=["*head"]),
        ):
            pass


def test_graphs_of_models_that_are_gone_are_refused():
    _, graphs = run_changed(lambda gm, _: gm, Model(), torch.randn(4, 16))
    with pytest.raises(InvalidOptionError, match="lower the graph inside of the backend"):
        xpu_amp_dynamo.lower(graphs[0], [], keep_float32=["head"])


def test_the_innermost_module_decides():
    patterns = ModulePatterns(float32=("a", "a.b.*"), lower=("a.b",))
    assert patterns.kept(["a.c"]) == Kept("a", True)
    assert patterns.kept(["a.b"]) == Kept("a.b", False)
    assert patterns.kept(["a.b.d.e"]) == Kept("a.b.d.e", True)
    assert patterns.kept(["ab", ""]) is None
    assert patterns.kept(["x", "a.c"]) == Kept("a", True)
    assert patterns.matching(Kept("a.b.d", True)) == ["a.b.*"]
