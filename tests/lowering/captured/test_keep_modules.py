"""What stands at the boundaries of kept modules, in graphs of Dynamo and of export."""

from __future__ import annotations

import pytest
import torch

import xpu_amp_dynamo
from tests.support.captured_graphs import assert_lowers_to, lowered_graphs
from tests.support.comparison import assert_same
from tests.support.kept_models import Model

BFLOAT16, FLOAT32 = torch.bfloat16, torch.float32


class Activated(torch.nn.Module):
    def forward(self, x):
        return torch.relu(torch.tanh(x)) + x


class Layers(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = Activated()

    def forward(self, x):
        return self.inner(x @ x) @ x


X = torch.ones(4, 4)


def in_region(model):
    def call(x):
        with torch.autocast("cpu", torch.bfloat16):
            return model(x)

    return call


def test_kept_in_float32_in_a_region():
    assert_lowers_to(
        """\
to_1: "bf16[4, 4]" = l_x_.to(torch.bfloat16)
matmul: "bf16[4, 4]" = to_1 @ to_1
to: "f32[4, 4]" = matmul.to(torch.float32)
tanh: "f32[4, 4]" = torch.tanh(to)
relu: "f32[4, 4]" = torch.relu(tanh)
add: "f32[4, 4]" = relu + to
to_2: "bf16[4, 4]" = add.to(torch.bfloat16)
matmul_1: "bf16[4, 4]" = to_2 @ to_1
return (matmul_1,)
""",
        in_region(Layers()),
        X,
        keep_float32=["inner"],
    )


def test_kept_in_float32_without_a_region():
    assert_lowers_to(
        """\
to_1: "bf16[4, 4]" = l_x_.to(torch.bfloat16)
matmul: "bf16[4, 4]" = to_1 @ to_1
to: "f32[4, 4]" = matmul.to(torch.float32)
tanh: "f32[4, 4]" = torch.tanh(to)
relu: "f32[4, 4]" = torch.relu(tanh)
add: "f32[4, 4]" = relu + to
to_2: "bf16[4, 4]" = add.to(torch.bfloat16)
matmul_1: "bf16[4, 4]" = to_2 @ to_1
to_3: "f32[4, 4]" = matmul_1.to(torch.float32)
return (to_3,)
""",
        Layers(),
        X,
        keep_float32=["inner"],
    )


def test_kept_lower_without_a_region():
    assert_lowers_to(
        """\
to_2: "bf16[4, 4]" = l_x_.to(torch.bfloat16)
matmul: "bf16[4, 4]" = to_2 @ to_2
tanh: "bf16[4, 4]" = torch.tanh(matmul)
relu: "bf16[4, 4]" = torch.relu(tanh)
add: "bf16[4, 4]" = relu + matmul
matmul_1: "bf16[4, 4]" = add @ to_2
to_3: "f32[4, 4]" = matmul_1.to(torch.float32)
return (to_3,)
""",
        Layers(),
        X,
        keep_lower=["inner"],
    )


class Weighted(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.scale = torch.nn.Parameter(torch.ones(4))

    def forward(self, x, other):
        return x * self.scale * other


class Weighing(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.inner, self.other = Weighted(), torch.nn.Parameter(torch.ones(4))

    def forward(self, x):
        return self.inner(x, self.other)


def test_tensors_that_a_module_holds_are_no_inputs_and_those_of_others_are():
    (gm,) = lowered_graphs(Weighing(), X, keep_lower=["inner"])
    cast = {node.args[0].name: node.args[1] for node in gm.graph.nodes if "xpu_amp_dynamo.cast_for" in node.meta}
    assert sum("other" in name for name in cast) == 1
    assert not any("scale" in name for name in cast)


@pytest.mark.parametrize("strict", [False, True])
def test_exported_programs(strict):
    model, x = Model(), torch.randn(4, 16)
    exported = torch.export.export(model, (x,), strict=strict)
    with xpu_amp_dynamo.record_lowerings() as reports:
        lowered = xpu_amp_dynamo.lower_exported(exported, keep_float32=["layers.1"], keep_lower=["layers.0"])
    assert reports[0].kept == {"layers.0": ["layers.0"], "layers.1": ["layers.1"]}
    dtypes = {
        name: dtypes_of(lowered.graph, name) for name in ("layers.0.up", "layers.1.up", "layers.1.norm", "layers.1")
    }
    assert dtypes == {
        "layers.0.up": {BFLOAT16},
        "layers.1.up": {FLOAT32},
        "layers.1.norm": {FLOAT32},
        "layers.1": {FLOAT32},
    }
    torch.testing.assert_close(lowered.module()(x), model(x), rtol=0.03, atol=0.03)
    everything = xpu_amp_dynamo.lower_exported(exported, keep_float32=["*"], weights="cached")
    assert_same([everything.module()(x)], [model(x)])


def dtypes_of(graph, module):
    """Return the dtypes of what is computed in a module itself."""
    stacks = {node: node.meta.get("nn_module_stack") or {"": ("", None)} for node in graph.nodes}
    inside = [node for node, stack in stacks.items() if list(stack.values())[-1][0] == module]
    return {node.meta["val"].dtype for node in inside if isinstance(node.meta.get("val"), torch.Tensor)}


def test_graphs_of_symbolic_tracing_name_modules_too():
    gm = torch.fx.symbolic_trace(Layers())
    lowered = xpu_amp_dynamo.lower(gm, [X], keep_float32=["inner"])
    tanh = next(node for node in lowered.graph.nodes if node.target is torch.tanh)
    assert tanh.meta["example_value"].dtype is FLOAT32
