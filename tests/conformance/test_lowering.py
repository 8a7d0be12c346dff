"""The lowered graph of one call against eager ``autocast``, bit for bit, over PyTorch's OpInfo database."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch
from torch import fx
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.symbolic_shapes import ShapeEnv
from torch.utils import _pytree as pytree

import xpu_amp_dynamo
from tests.conformance import known_exceptions as known
from tests.conformance.samples import OPS, Call, calls_of, first_lower, outcome_of, reset_random_state, same
from xpu_amp_dynamo import Policy
from xpu_amp_dynamo.lowering.autocast_state import AutocastState
from xpu_amp_dynamo.lowering.pipeline import lower_graph

EXCEPTIONS = known.UNINITIALISED | known.NOT_REPEATABLE | known.NOT_CAPTURABLE
NAMES = sorted(OPS.keys() - EXCEPTIONS)


def lowered_call(call: Call, lower: torch.dtype, eager: Any) -> Any:
    """Run the lowered graph of one call. Its value is recorded as Dynamo records it: what eager autocast gave."""
    mode = FakeTensorMode(allow_non_fake_inputs=True, shape_env=ShapeEnv())
    graph = fx.Graph()
    tensors: list[torch.Tensor] = []

    def fake(tensor: torch.Tensor) -> torch.Tensor:
        return mode.from_tensor(tensor.detach(), static_shapes=True).requires_grad_(tensor.requires_grad)

    def placeholder(tensor: torch.Tensor) -> fx.Node:
        tensors.append(tensor)
        node = graph.placeholder(f"input_{len(tensors)}")
        node.meta["example_value"] = fake(tensor)
        return node

    args, kwargs = pytree.tree_map_only(torch.Tensor, placeholder, (call.args, call.kwargs))
    node = graph.call_function(call.function, args, kwargs)
    node.meta["example_value"] = pytree.tree_map_only(torch.Tensor, lambda t: fake(t.detach()), eager)
    graph.output(node)
    gm = fx.GraphModule({}, graph)
    lower_graph(
        gm,
        tensors,
        policy=Policy.named("xpu"),
        device_type="cpu",
        initial_state=AutocastState(True, lower),
        preserve_output_dtype=False,
    )
    reset_random_state()
    return fx.Interpreter(gm).run(*[t.detach().clone().requires_grad_(t.requires_grad) for t in tensors])


def check(name: str, most: int | None, lower_dtypes: tuple[torch.dtype, ...]) -> int:
    """Compare samples of an op with float32 and mixed inputs; return how many could be compared."""
    compared = 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the ops' own: deprecations, non-deterministic algorithms
        for call in calls_of(OPS[name], most=most):
            for lower in lower_dtypes:
                for variant in (call, first_lower(call, lower)):
                    with xpu_amp_dynamo.autocast("cpu", lower):
                        eager = outcome_of(variant)
                    if isinstance(eager, type):
                        continue  # eager refuses the mixture, as it does without autocast
                    assert same(eager, lowered_call(variant, lower, eager)), variant
                    compared += 1
    return compared


@pytest.mark.parametrize("name", NAMES)
def test_lowered_equals_eager(name):
    check(name, most=2, lower_dtypes=(torch.bfloat16,))


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_lowered_equals_eager_on_many_samples(name):
    check(name, most=None, lower_dtypes=(torch.bfloat16, torch.float16))


def test_the_sweep_compares_something():
    assert check("nn.functional.linear", most=2, lower_dtypes=(torch.bfloat16,)) == 4
