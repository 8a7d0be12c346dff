"""The passes that change no values, on random graphs: values, shared memory and gradients stay."""

from __future__ import annotations

import os
from typing import Any

import pytest
import torch
from hypothesis import Phase, given, seed, settings
from hypothesis import strategies as st
from torch._decomp import get_decompositions
from torch._inductor.decomposition import decompositions
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx

from tests.support.aten_graphs import run_pass
from tests.support.versions import only_since
from xpu_amp_dynamo.lowering.pipeline import JOINT, ROUNDING_LESS, without

aten = torch.ops.aten
# What Inductor decomposes: casts arrive as prims.
DECOMPOSITIONS: dict[Any, Any] = {op: decompositions[op] for op in (aten._to_copy.default,)} | get_decompositions(
    [aten.detach]
)
ROWS, COLUMNS = 6, 4


def there_and_back(x):
    return x.to(torch.bfloat16).to(torch.float32).t().to(torch.bfloat16)


def copied(x):
    return x.clone(memory_format=torch.contiguous_format)


# Every op keeps tensors of two dimensions, some without elements.
UNARY = {
    "to bfloat16": lambda x: x.to(torch.bfloat16),
    "to float16": lambda x: x.to(torch.float16),
    "to float32": lambda x: x.to(torch.float32),
    "there and back": there_and_back,
    "transpose": lambda x: x.t(),
    "reshape": lambda x: x.reshape(x.shape[1], x.shape[0]),
    "first half": lambda x: x.split((x.shape[0] + 1) // 2 or 1)[0],
    "left columns": lambda x: x[:, : x.shape[1] // 2],
    "every row thrice": lambda x: x.unsqueeze(1).expand(-1, 3, -1).flatten(0, 1),
    "first row everywhere": lambda x: x[:1].expand(x.shape[0], x.shape[1]),
    "overlapping rows": lambda x: x.unfold(0, 2, 1)[:, 0] if min(x.shape) > 1 else x,
    "strided": lambda x: there_and_back(copied(x)).as_strided((2, 2), (1, 1)) if min(x.shape) > 1 else x,
    "reversed": lambda x: x.flip(0),
    "copied": copied,
    "no rows": lambda x: x[:0],
    "square": lambda x: x * x,
    "plus its sum": lambda x: x + x.sum(),
    "product with itself": lambda x: x @ x.t(),
}
STEPS = st.lists(
    st.tuples(st.sampled_from([*UNARY, "concatenate"]), st.integers(0, 30), st.integers(0, 30)), min_size=2, max_size=12
)
INPUTS = st.sampled_from(["dense", "transposed", "part", "expanded", "empty"])


def values_of(steps, inputs):
    """Apply ops to values chosen among all earlier ones, and return the last four."""
    values = [*inputs]
    for name, first, second in steps:
        one, other = values[-1 - first % len(values)], values[-1 - second % len(values)]
        if name != "concatenate":
            values.append(UNARY[name](one))
        elif one.shape[1] == other.shape[1]:
            values.append(torch.cat([one, other]))  # promotes
    return values[len(inputs) :][-4:]


def input_of(kind, dtype):
    tensor = torch.randn(ROWS, COLUMNS * 2).to(dtype)
    layouts = {
        "dense": lambda: tensor[:, :COLUMNS].contiguous(),
        "transposed": lambda: tensor[:, :COLUMNS].t().contiguous().t(),
        "part": lambda: tensor[1:, 1:COLUMNS],
        "expanded": lambda: tensor[:1, :COLUMNS].expand(ROWS, COLUMNS),
        "empty": lambda: tensor[:0, :COLUMNS],
    }
    return layouts[kind]()


def joint_graph_of(function, inputs):
    """Return the graph of a function of inputs, of the gradients of its results, and of a write to the first input."""

    def joint(*inputs):
        results = function(*inputs)
        loss = sum(result.float().sum() for result in results if result.requires_grad)
        gradients = torch.autograd.grad(loss, inputs, allow_unused=True) if isinstance(loss, torch.Tensor) else ()
        if inputs[0].stride(0) > 0:
            aten.copy_(inputs[0].detach(), results[0].detach().sum())
        return *results, *(gradient for gradient in gradients if gradient is not None)

    with FakeTensorMode() as mode:
        fakes = [mode.from_tensor(value).requires_grad_() for value in inputs]
        gm = make_fx(joint, decomposition_table=DECOMPOSITIONS)(*fakes)
    gm.graph.eliminate_dead_code()
    gm.recompile()
    return gm


def copies_of(inputs):
    """Copy inputs with their whole memories."""
    memories = [torch.empty(0, dtype=value.dtype).set_(value.untyped_storage()).clone() for value in inputs]
    pairs = zip(memories, inputs, strict=True)
    return [memory.as_strided(value.shape, value.stride(), value.storage_offset()) for memory, value in pairs]


def tell(gm, inputs):
    """Run a graph; return the memory of inputs and results, which of them a write to each changes, and values.

    Strides are verified on fake tensors, which Inductor goes by: kernels differ from them where operands are expanded
    or have no elements (torch 2.13.0).
    """
    inputs = copies_of(inputs)
    ends = [*inputs, *gm(*inputs)]
    told = [(end.dtype, end.storage_offset(), end.untyped_storage().nbytes()) for end in ends]
    values, changed = [end.clone() for end in ends], []
    for number, end in enumerate(ends):
        before = [each.clone() for each in ends]
        torch.empty(0, dtype=torch.uint8).set_(end.untyped_storage()).fill_(number + 1)
        changed.append([i for i, (a, b) in enumerate(zip(before, ends, strict=True)) if not torch.equal(a, b)])
    return told, changed, values


def check(steps, kinds):
    """Run the passes over a random graph until they settle; return how often one changed it."""
    torch.manual_seed(0)
    inputs = [input_of(kind, dtype) for kind, dtype in zip(kinds, (torch.float32, torch.bfloat16), strict=True)]
    gm = joint_graph_of(lambda *inputs: values_of(steps, inputs), inputs)
    expected, changes = tell(gm, inputs), 0
    for _ in range(10):
        changed = [run_pass(run, gm) for run in without(JOINT, ROUNDING_LESS)]
        changes += sum(changed)
        if not any(changed):
            break
    else:
        raise AssertionError("the passes do not settle")
    gm.recompile()
    found = tell(gm, inputs)
    assert found[:2] == expected[:2]
    for before, after in zip(expected[2], found[2], strict=True):
        assert torch.equal(before, after) or torch.equal(before.isnan(), after.isnan())
    return changes


def check_many(examples):
    changes = []

    @seed(0)
    @settings(max_examples=examples, deadline=None, database=None, phases=[Phase.generate])
    @given(STEPS, st.tuples(INPUTS, INPUTS))
    def run(steps, kinds):
        changes.append(check(steps, kinds))

    run()
    assert sum(map(bool, changes)) > examples / 20, "the passes changed next to nothing"


@only_since("2.13", "an empty tensor cannot be split in a trace")
def test_values_and_memory_stay():
    check_many(30)


@pytest.mark.sweep
def test_values_and_memory_stay_in_many_graphs():
    check_many(int(os.environ.get("XPU_AMP_RANDOM_GRAPHS", "1000")))
