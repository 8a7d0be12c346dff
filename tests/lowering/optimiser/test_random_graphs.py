"""The passes that change no values, on random graphs of casts and layout ops."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.lowering.optimiser.aten_graphs import BFLOAT16, FLOAT16, FLOAT32, convert, graph_of
from xpu_amp_dynamo.lowering.optimiser.passes import EXACT_JOINT_PASSES

ROWS, COLUMNS = 6, 4
# Every op keeps tensors of two dimensions.
UNARY = {
    "to bfloat16": lambda x: convert(x, BFLOAT16),
    "to float16": lambda x: convert(x, FLOAT16),
    "to float32": lambda x: convert(x, FLOAT32),
    "transpose": lambda x: x.t(),
    "reshape": lambda x: x.reshape(x.shape[1], x.shape[0]),
    "first half": lambda x: x.split((x.shape[0] + 1) // 2)[0],
    "every row thrice": lambda x: x.unsqueeze(1).expand(-1, 3, -1).flatten(0, 1),
    "reversed": lambda x: x.flip(0),
    "square": lambda x: x * x,
}
STEPS = st.lists(
    st.tuples(st.sampled_from([*UNARY, "concatenate"]), st.integers(0, 30), st.integers(0, 30)), max_size=12
)


def run_steps(steps, x, y):
    """Apply ops to values chosen among all earlier ones, and return the last four."""
    values = [x, y]
    for name, first, second in steps:
        one, other = values[first % len(values)], values[second % len(values)]
        if name != "concatenate":
            values.append(UNARY[name](one))
        elif one.shape[1] == other.shape[1] and one.dtype == other.dtype:
            values.append(torch.cat([one, other]))
        elif one.shape[1] == other.shape[1]:
            values.append(torch.cat([convert(one, FLOAT32), convert(other, FLOAT32)]))
    return values[-4:]


@settings(max_examples=150, deadline=None)
@given(STEPS)
def test_values_stay_and_passes_settle(steps):
    inputs = torch.randn(ROWS, COLUMNS), torch.randn(ROWS, COLUMNS).bfloat16()
    shapes, dtypes = [value.shape for value in inputs], [value.dtype for value in inputs]
    gm = graph_of(lambda x, y: run_steps(steps, x, y), *shapes, dtypes=dtypes)
    expected = gm(*inputs)
    for _ in range(10):
        changed = [run(gm.graph) for run in EXACT_JOINT_PASSES]
        if not any(changed):
            break
    else:
        raise AssertionError("the passes do not settle")
    gm.graph.lint()
    gm.recompile()
    for before, after in zip(expected, gm(*inputs), strict=True):
        assert before.dtype is after.dtype
        assert torch.equal(before, after)
    for node in gm.graph.find_nodes(op="call_function", target=convert):
        assert node.meta["val"].dtype is node.args[1]
