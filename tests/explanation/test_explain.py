"""``explain`` tells what lowering did, what became of it, and what it costs in precision, and leaves no trace."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import subprocess
import sys
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import xpu_amp_dynamo
from benchmarks.models import Size, build
from xpu_amp_dynamo.errors import InvalidOptionError
from xpu_amp_dynamo.explanation.fates import FUSED, KEPT, KERNEL

EAGER: dict[str, Any] = {"inner_backend": "eager"}


class Net(nn.Module):
    """A block with a norm, a composite that contains products, and a loss."""

    def __init__(self):
        super().__init__()
        self.norm = nn.LayerNorm(16)
        self.first = nn.Linear(16, 16)
        self.statistics = nn.BatchNorm1d(16)
        self.head = nn.Linear(16, 4)

    def forward(self, x):
        x = F.dropout(self.statistics(F.gelu(self.first(self.norm(x)))), 0.1, self.training)
        return F.cross_entropy(torch.einsum("bi,oi->bo", x, self.head.weight), torch.zeros(8, dtype=torch.long))


def calls_by_op(explanation):
    return {call.op: call for call in explanation.calls}


def test_each_call_has_its_rule():
    calls = calls_by_op(xpu_amp_dynamo.explain(Net().eval(), torch.randn(8, 16), options=EAGER))
    linear = calls["linear"]
    assert (linear.rule, linear.category, linear.module) == ("listed", "lower_precision", "first")
    assert linear.reason == "lower precision by the documented lists, by the options"
    assert set(linear.input_dtypes) == {torch.bfloat16} == set(linear.output_dtypes)
    assert linear.captured_dtypes == (torch.float32,)
    assert "self.first(self.norm(x))" in linear.line
    assert len(linear.casts) == 3
    assert (calls["gelu"].rule, calls["gelu"].category) == ("unchanged", "")
    assert calls["cross_entropy_loss"].category == "float32"
    assert calls["layer_norm"].reason.startswith("the dtype of its first input by the completion")
    assert {call.inside for call in calls.values()} == {"", "einsum"}
    assert calls["bmm"].inside == "einsum"


def test_the_casts_are_those_that_the_lowering_counts():
    with xpu_amp_dynamo.record_lowerings() as reports:
        explanation = xpu_amp_dynamo.explain(Net(), torch.randn(8, 16), options=EAGER)
    assert [len(explanation.casts)] == [report.casts for report in reports]
    weights = {cast.source for cast in explanation.casts if cast.of_weight}
    assert len(weights) == 2, "the head's weight is cast behind a view"
    cast = explanation.casts[0]
    assert (cast.from_dtype, cast.to_dtype, cast.bytes) == (torch.float32, torch.bfloat16, 8 * 16 * 6)


def test_a_region_and_a_policy_are_named():
    policy = xpu_amp_dynamo.Policy.named("xpu").with_ops(float32=["gelu"])
    with xpu_amp_dynamo.autocast("cpu", policy=policy):
        calls = calls_by_op(xpu_amp_dynamo.explain(Net(), torch.randn(8, 16), options={**EAGER, "policy": policy}))
    xpu_amp_dynamo.uninstall("cpu")
    assert calls["gelu"].reason == "float32 by a change of the policy by with_ops, in a region"
    assert calls["linear"].reason == "lower precision by the documented lists, in a region"


def test_calls_of_disabled_regions_say_so():
    def function(x):
        with torch.autocast("cpu", enabled=False):
            return x @ x

    (call,) = xpu_amp_dynamo.explain(function, torch.randn(4, 4), options=EAGER).calls
    assert call.reason == "autocast is off in a region"


def test_sizes_may_be_expressions():
    x = torch.randn(8, 16)
    torch._dynamo.mark_dynamic(x, 0)
    explanation = xpu_amp_dynamo.explain(nn.Linear(16, 16), x, options=EAGER)
    size: Any = explanation.casts[0].bytes
    (symbol,) = size.free_symbols
    assert size == 16 * 6 * symbol
    assert explanation.casts[0].bytes_now == 8 * 16 * 6
    assert calls_by_op(explanation)["linear"].shape == (symbol, 16)


def test_calls_in_checkpointed_blocks_are_listed():
    block = nn.Sequential(nn.Linear(16, 16), nn.ReLU())

    def function(x):
        return torch.utils.checkpoint.checkpoint(block, x, use_reentrant=False)

    explanation = xpu_amp_dynamo.explain(function, torch.randn(8, 16), options=EAGER, train=True, compare="float32")
    assert calls_by_op(explanation)["linear"].category == "lower_precision"
    (checkpoint,) = (call for call in explanation.calls if "checkpoint" in call.op)
    assert 0 < explanation.errors[checkpoint.tag].own < 0.01, "its casts are left out of the float32 run"


@pytest.mark.parametrize("weights", ["cached", "recast"])
def test_fates_of_casts(weights):
    explanation = xpu_amp_dynamo.explain(Net().eval(), torch.randn(8, 16), options={"weights": weights})
    fates = {cast.name: explanation.fates[cast.tag] for cast in explanation.casts}
    of_weights = {cast.name for cast in explanation.casts if cast.of_weight}
    assert {fates[name].kind for name in of_weights} & {KEPT} == ({KEPT} if weights == "cached" else set())
    assert FUSED in {fates[name].kind for name in fates.keys() - of_weights}
    assert all(fate.kernels for fate in fates.values() if fate.kind == FUSED)


def test_casts_of_weights_share_a_kernel_on_the_xpu():
    with xpu_amp_dynamo.simulated_xpu(mode="inspect"):
        layers = [nn.Linear(16, 16, bias=False) for _ in range(2)]
        model, x = nn.Sequential(*layers).to("xpu"), torch.randn(8, 16, device="xpu")
        explanation = xpu_amp_dynamo.explain(model, x, options={"weights": "recast"})
    (fate,) = {explanation.fates[cast.tag] for cast in explanation.casts if cast.of_weight}
    assert fate.kind == KERNEL
    (kernel,) = fate.kernels
    assert kernel.startswith("triton_")


def test_errors_are_those_of_each_call_alone():
    layers, x = (nn.Linear(64, 64), nn.Linear(64, 8)), torch.randn(16, 64)
    model = nn.Sequential(layers[0], nn.Tanh(), layers[1], nn.LogSoftmax(-1))
    explanation = xpu_amp_dynamo.explain(model, x, options=EAGER, compare="float32")
    first, second = (call for call in explanation.calls if call.op == "linear")
    model.requires_grad_(False)
    hidden = torch.tanh(layers[0](x))
    exact = layers[1](hidden)
    lower = F.linear(hidden.bfloat16(), layers[1].weight.bfloat16(), layers[1].bias.bfloat16())
    own = (lower.double() - exact.double()).norm() / exact.double().norm()
    assert explanation.errors[second.tag].own == pytest.approx(float(own), rel=1e-3)
    assert explanation.errors[second.tag].accumulated > explanation.errors[second.tag].own
    assert explanation.errors[first.tag].accumulated == explanation.errors[first.tag].own
    (loss,) = (call for call in explanation.calls if call.op == "log_softmax")
    assert explanation.errors[loss.tag].own < 1e-6 < explanation.errors[loss.tag].accumulated
    compiled = torch.compile(model, backend="xpu_amp", options=EAGER)
    error = (compiled(x).double() - model(x).double()).norm() / model(x).double().norm()
    assert explanation.errors[loss.tag].accumulated == pytest.approx(float(error), rel=1e-3)
    worst = explanation.worst()
    assert [explanation.errors[node.tag].own for node in worst] == sorted(
        (explanation.errors[node.tag].own for node in worst), reverse=True
    )


def test_the_first_overflow_is_named():
    layers, x = (nn.Linear(16, 16), nn.Linear(16, 16)), torch.full((4, 16), 10.0)
    model = nn.Sequential(layers[0], nn.ReLU(), layers[1])
    with torch.no_grad():
        layers[0].weight.fill_(1.0)
        layers[1].weight.fill_(6000)
    float16 = xpu_amp_dynamo.explain(model, x, options={**EAGER, "dtype": torch.float16}, compare="float32")
    overflow = float16.first_overflow()
    assert overflow is not None
    assert (overflow.name, overflow.module) == (float16.calls[-1].name, "2")
    assert "is the first that overflows" in str(float16)
    assert "(, " not in str(float16)
    bfloat16 = xpu_amp_dynamo.explain(model, x, options=EAGER, compare="float32")
    assert bfloat16.first_overflow() is None
    assert bfloat16.errors[bfloat16.calls[-1].tag].largest > 65504


def test_random_numbers_are_the_same_in_both_runs():
    model = nn.Sequential(nn.Linear(64, 64), nn.Dropout(0.5))
    explanation = xpu_amp_dynamo.explain(model, torch.randn(16, 64), options=EAGER, train=True, compare="float32")
    assert explanation.errors[calls_by_op(explanation)["dropout"].tag].accumulated < 0.01


def test_writes_do_not_reach_the_inputs():
    def function(x):
        x.mul_(2)
        return x @ x

    x = torch.eye(4)
    explanation = xpu_amp_dynamo.explain(function, x.clone(), options=EAGER, compare="float32")
    assert all(error.accumulated == 0 for error in explanation.errors.values()), "twos are exact"


def test_the_model_stays_as_it_was():
    model, x = Net(), torch.randn(8, 16)
    model.first.weight.grad = gradient = torch.ones(16, 16)
    state = {name: value.clone() for name, value in model.state_dict().items()}
    numbers = torch.get_rng_state()
    xpu_amp_dynamo.explain(torch.compile(model), x, options=EAGER, train=True, compare="float32")
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert model.first.weight.grad is gradient
    assert torch.equal(gradient, torch.ones(16, 16))
    assert model.head.weight.grad is None
    assert torch.equal(torch.get_rng_state(), numbers)
    assert model.training


def test_graph_breaks_are_told():
    def function(x):
        x = x @ x
        torch._dynamo.graph_break()
        return x @ x

    explanation = xpu_amp_dynamo.explain(function, torch.randn(4, 4), options=EAGER)
    first, second = explanation.graphs
    assert "graph_break" in first.ends_because
    assert "test_explain.py" in first.ends_because
    assert second.ends_because == ""
    assert "2 graphs, 1 ended by graph breaks" in str(explanation)


def test_what_is_captured_again_is_told():
    layer = nn.Linear(4, 4)

    def inner(x):
        x = layer(x)
        torch._dynamo.graph_break()
        return layer(x)

    def function(x):
        return inner(x[:2]), inner(x[:3])

    explanation = xpu_amp_dynamo.explain(function, torch.randn(4, 4), options=EAGER)
    assert explanation.recompiles
    assert all("test_explain.py" in again for again in explanation.recompiles)
    assert str(explanation).count("captured again: ") == len(explanation.recompiles)


def test_modules_behind_graph_breaks_have_their_names():
    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 4)

        def forward(self, x):
            x = self.first(x)
            torch._dynamo.graph_break()
            return self.second(x)

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.blocks = nn.ModuleList([Block()])

        def forward(self, x):
            return self.blocks[0](x)

    explanation = xpu_amp_dynamo.explain(Model(), torch.randn(4, 4), options=EAGER)
    assert [call.module for call in explanation.calls] == ["blocks.0.first", "blocks.0.second"]


def test_kept_modules_are_explained():
    model, x = nn.Sequential(nn.Linear(16, 16), nn.Linear(16, 16)), torch.randn(8, 16)
    options = {**EAGER, "keep_float32": ["1"]}
    for region in (contextlib.nullcontext(), xpu_amp_dynamo.autocast("cpu")):
        with region:
            first, second = xpu_amp_dynamo.explain(model, x, options=options, compare="float32").calls
        assert (first.output_dtypes, second.output_dtypes) == ((torch.bfloat16,), (torch.float32,))
        assert "kept in float32" in second.reason


def test_nothing_captured_is_said():
    @torch.compiler.disable
    def uncompiled(x):
        return x @ x

    def function(x):
        return uncompiled(x)

    explanation = xpu_amp_dynamo.explain(function, torch.randn(4, 4), options=EAGER)
    assert "nothing was compiled" in str(explanation)


@pytest.mark.parametrize("name", ["bert", "llama", "resnet"])
def test_real_models(name):
    model, inputs = build(name, Size(), "cpu")
    explanation = xpu_amp_dynamo.explain(model, **inputs, options=EAGER, train=True, compare="float32")
    assert {"listed", "unchanged"} <= {call.rule for call in explanation.calls}
    modules = dict(model.named_modules())
    assert {node.module for node in (*explanation.calls, *explanation.casts)} - {""} <= modules.keys()
    assert explanation.errors.keys() <= {node.tag for node in (*explanation.calls, *explanation.casts)}
    assert 0 < max(error.own for error in explanation.errors.values()) < 0.02
    assert max(len(line) for line in str(explanation).splitlines()) <= 80


def test_json_has_everything(tmp_path):
    explanation = xpu_amp_dynamo.explain(Net().eval(), torch.randn(8, 16), compare="float32")
    found = json.loads(explanation.to_json(tmp_path / "explanation.json"))
    assert json.loads((tmp_path / "explanation.json").read_text()) == found
    (graph,) = found["graphs"]
    assert [call["op"] for call in graph["calls"]] == [call.op for call in explanation.calls]
    assert graph["casts"][0]["from_dtype"] == "float32"
    assert {"fate", "error", "bytes"} <= graph["casts"][0].keys()


def test_bad_arguments_are_refused_before_anything_runs():
    model = nn.Linear(4, 4)
    model.register_forward_pre_hook(lambda *_: pytest.fail("it ran"))
    with pytest.raises(InvalidOptionError, match=r"compare is 'bfloat16'; it may be 'float32'"):
        xpu_amp_dynamo.explain(model, torch.ones(4, 4), compare="bfloat16")
    with pytest.raises(InvalidOptionError, match="unknown options"):
        xpu_amp_dynamo.explain(model, torch.ones(4, 4), options={"dtpe": torch.float16})
    with pytest.raises(TypeError, match=r"explain takes a model or a function, and got int"):
        xpu_amp_dynamo.explain(5, torch.ones(4, 4))  # type: ignore[arg-type]


def test_details_are_listed_for_those_who_ask(caplog):
    model, x = nn.Linear(16, 16), torch.randn(8, 16)
    with xpu_amp_dynamo.record_lowerings() as reports, xpu_amp_dynamo.record_lowerings(details=True) as detailed:
        torch.compile(model, backend="xpu_amp", options=EAGER)(x)
    assert len(detailed[0].calls) == 1
    torch._dynamo.reset()
    with xpu_amp_dynamo.record_lowerings() as reports:
        torch.compile(model, backend="xpu_amp", options=EAGER)(x)
    assert (reports[0].calls, reports[0].each_cast) == ([], [])
    assert str(reports[0]).startswith("1 lower precision; 4 casts, in ")
    torch._dynamo.reset()
    with caplog.at_level(logging.DEBUG, "xpu_amp_dynamo"):
        torch.compile(model, backend="xpu_amp", options=EAGER)(x)
    assert "linear(bfloat16, bfloat16, bfloat16) -> bfloat16: lower precision by the documented lists" in caplog.text
    assert "float32 -> bfloat16, 768 bytes, for linear" in caplog.text


def test_a_structured_trace_has_the_graph_and_the_decisions(tmp_path):
    program = (
        "import torch, xpu_amp_dynamo\n"
        "model = torch.compile(torch.nn.Linear(16, 16), backend='xpu_amp', options={'inner_backend': 'eager'})\n"
        "model(torch.randn(8, 16))\n"
    )
    environment = {**os.environ, "TORCH_TRACE": str(tmp_path)}
    subprocess.run([sys.executable, "-c", program], env=environment, check=True)
    (log,) = tmp_path.iterdir()
    trace = log.read_text()
    assert '"name": "xpu_amp_lowered_graph"' in trace
    assert "torch.bfloat16" in trace.partition("xpu_amp_lowered_graph")[2]
    assert "lower precision by the documented lists" in trace.partition("xpu_amp_decisions")[2]
