"""The runner of passes: order, times, what it leaves out, and that broken passes of every moment are caught."""

from __future__ import annotations

import logging
import operator
from typing import Any

import pytest
import torch
import torch._functorch.config
import torch._inductor.config
from torch import fx

import xpu_amp_dynamo
from xpu_amp_dynamo.errors import InvalidOptionError, LoweringError
from xpu_amp_dynamo.lowering import pipeline
from xpu_amp_dynamo.lowering.graph.casting import insert_cast
from xpu_amp_dynamo.lowering.graph.graft import graft
from xpu_amp_dynamo.lowering.graph.values import set_value, value_of
from xpu_amp_dynamo.lowering.run_passes import record_passes

X = torch.randn(4, 4)


@pytest.fixture
def weight():
    """Return a weight that dies with its test, and its kept casts with it."""
    return torch.nn.Parameter(torch.randn(4, 4))


@pytest.fixture
def no_caches():
    """Have Inductor run passes, which it does not for code that it finds in a cache."""
    with torch._inductor.config.patch(fx_graph_cache=False), torch._functorch.config.patch(enable_autograd_cache=False):
        yield


def compiled(function, **options):
    return torch.compile(function, backend="xpu_amp", options={"inner_backend": "eager", **options})


def names(runs):
    return [run.name for run in runs]


def test_the_moments_of_a_graph_in_order(weight, no_caches):
    with record_passes() as runs, torch.no_grad():
        torch.compile(lambda x, w: x @ w, backend="xpu_amp", options={"weights": "cached"})(X, weight)
    moments = (pipeline.CAPTURED, pipeline.KEPT_WEIGHTS, pipeline.JOINT, pipeline.COMPILED)
    assert names(runs) == [run.__name__ for moment in moments for run in moment]
    assert all(0 < run.seconds < 60 for run in runs)
    changed = {run.name for run in runs if run.changed}
    assert {"insert_casts", "restore_output_dtypes", "lift_weight_casts"} <= changed
    assert not {"inline_regions", "record_values", "lower_subgraphs", "store_parameters"} & changed


@pytest.mark.parametrize("name", pipeline.SKIPPABLE)
def test_every_pass_of_the_list_can_be_left_out(name, weight, no_caches):
    options: dict[str, Any] = {"weights": "cached", "skip_passes": [name]}
    with record_passes() as runs, torch.no_grad():
        out = torch.compile(lambda x, w: (x @ w).add_(1) @ w, backend="xpu_amp", options=options)(X, weight)
    assert name not in names(runs)
    assert len(set(names(runs))) >= len(pipeline.SKIPPABLE) - 1
    torch.testing.assert_close(out, (X @ weight + 1) @ weight, rtol=0.05, atol=0.2)


def test_what_is_left_out_is_not_done():
    def program(x, w):
        return (x @ w).add_(1)

    with record_passes() as runs:
        compiled(program)(X, X)
    assert {"replace_in_place"} <= {run.name for run in runs if run.changed}
    gm = fx.symbolic_trace(program)
    xpu_amp_dynamo.lower(gm, [X, X], skip_passes=["replace_in_place"])
    assert [node.target for node in gm.graph.nodes if node.target == "add_"] == ["add_"]


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (["insert_casts"], "names 'insert_casts'"),
        (["group_cast"], "did you mean 'group_casts'"),
        (["erase_regions"], r"can be left out here are \['replace_in_place'"),
        ("group_casts", "a list of names of passes"),
        (3, "a list of names of passes"),
    ],
)
def test_bad_names_are_refused(value, message):
    with pytest.raises(InvalidOptionError, match=message):
        xpu_amp_dynamo.BackendOptions(skip_passes=value)


@pytest.mark.parametrize("options", [xpu_amp_dynamo.LoweringOptions, xpu_amp_dynamo.ExportOptions])
def test_passes_that_do_not_run_there_are_refused(options):
    with pytest.raises(InvalidOptionError, match="names 'fold_casts'"):
        options(skip_passes=["fold_casts"])
    assert options(skip_passes=["replace_in_place"]).skip_passes == ["replace_in_place"]


def test_runs_are_logged(caplog):
    with caplog.at_level(logging.DEBUG, "xpu_amp_dynamo.lowering.run_passes"):
        compiled(lambda x, w: x @ w)(X, X)
    lines = [record.getMessage() for record in caplog.records]
    assert any(line.startswith("insert_casts changed the graph in ") for line in lines)
    assert any(line.startswith("lower_subgraphs changed nothing in ") for line in lines)


def output_twice(gm, _):
    """Return the first output in place of the second."""
    output = gm.graph.output_node()
    first, _ = output.args[0]
    output.args = ((first, first),)
    return True


def cast_for_nothing(gm, _):
    """Insert a cast that nothing uses."""
    (node,) = gm.graph.find_nodes(op="call_method", target="exp")
    insert_cast(node, torch.float16, gm.graph.output_node())
    return True


def record_float32(gm, _):
    """Record another dtype for a value than it has."""
    (matmul,) = gm.graph.find_nodes(op="call_function", target=operator.matmul)
    set_value(matmul, value_of(matmul).float())
    (cast,) = matmul.users
    cast.replace_all_uses_with(matmul)
    gm.graph.erase_node(cast)
    return True


def cast_to_the_same(gm, _):
    """Cast a value to the dtype that it has."""
    (node,) = gm.graph.find_nodes(op="call_method", target="exp")
    cast = insert_cast(node, torch.float32, gm.graph.output_node())
    gm.graph.output_node().replace_input_with(node, cast)
    return True


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (output_twice, "after output_twice, .* shares memory with"),
        (cast_for_nothing, "cast that nothing uses"),
        (cast_to_the_same, "cast to the dtype it comes from"),
        (record_float32, r"computes \[torch.bfloat16\], recorded are \[torch.float32\]"),
    ],
)
def test_broken_passes_over_captured_graphs(broken, message, monkeypatch):
    monkeypatch.setattr(pipeline, "CAPTURED", (*pipeline.CAPTURED, broken))
    graphs = []

    def backend(gm, example_inputs):
        before = gm.print_readable(print_output=False)
        with pytest.raises(LoweringError, match=message):
            xpu_amp_dynamo.lower(gm, example_inputs)
        graphs.append(gm.print_readable(print_output=False) == before)
        return gm

    torch.compile(lambda x: (x.exp(), x @ x), backend=backend)(X)
    assert graphs == [True], "a graph that cannot be lowered stays as it was"


def forget_the_plan(gm, plan):
    plan.kept.pop()
    return True


def promise_float16(gm, plan):
    plan.kept[-1] = plan.kept[-1]._replace(dtype=torch.float16)
    return True


def return_the_weight(gm, plan):
    output = gm.graph.output_node()
    output.args = ((next(iter(plan.weights)),),)
    return True


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (forget_the_plan, "after forget_the_plan, 3 inputs do not fit the plan"),
        (promise_float16, "inputs of dtypes .* do not fit the plan"),
        (return_the_weight, "outputs have dtypes .* and had|share memory that did not"),
    ],
)
@torch.no_grad()
def test_broken_passes_over_weights(broken, message, monkeypatch, weight):
    monkeypatch.setattr(pipeline, "KEPT_WEIGHTS", (*pipeline.KEPT_WEIGHTS, broken))
    with pytest.raises(torch._dynamo.exc.BackendCompilerFailed, match=message):
        compiled(lambda x, w: x @ w, weights="cached")(X, weight)


def test_a_graft_gives_single_and_several_results():
    body = fx.symbolic_trace(lambda a, b: (a + b, None, a))
    graph = fx.Graph()
    x, y = graph.placeholder("x"), graph.placeholder("y")
    call = graph.call_function(torch.add, (x, y))
    items = [graph.call_function(operator.getitem, (call, i)) for i in range(3)]
    graph.output(items)

    def copy(inner, copies):
        with graph.inserting_before(call):
            return graph.node_copy(inner, copies.__getitem__)

    grafted = graft(call, body, [x, y], copy)
    (added,) = [node for node in graph.nodes if node.op == "call_function"]
    assert graph.output_node().args[0] == [added, None, x]
    assert [new for _, new in grafted.results] == [added, x]
    assert set(grafted.erased) == {call, *items}
