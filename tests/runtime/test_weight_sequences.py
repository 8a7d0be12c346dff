"""Random sequences of changes of weights between calls of compiled and eager code: no call reads a stale cast."""

from __future__ import annotations

import os

import torch
import torch.nn.functional as F
from hypothesis import HealthCheck, given, note, settings
from hypothesis import strategies as st

import xpu_amp_dynamo
from tests.runtime.weight_changes import WAYS, WIDTH, expected, forward, small_model

# "recast" keeps no casts: to see, by hand, that the tests themselves are right.
MODE = "cached"
NUMBER = os.environ.get("RANDOM_PROGRAMS")
MODES = {"no_grad": torch.no_grad, "inference_mode": torch.inference_mode, "enable_grad": torch.enable_grad}
# These compile anew: they come with code, or other modules and dtypes.
COMPILE = ("compiled", "parametrized", "pruned", "weight_norm", "fused normalisation", "registered")
# Hooks that stay would write at each call, or refuse to be called in inference mode.
STAY = ("in backward", "written by a hook of load_state_dict")
# These turn off Dynamo, or take long.
OTHERS = ("LBFGS", "from meta", "checkpointed", "scaled")
NAMES = [name for name in WAYS if not name.startswith((*COMPILE, *STAY, *OTHERS)) and "compiled" not in name]


def crosswise(model, x):
    """Use the weights in another order, and views of them."""
    y = F.linear(x, model[2].weight[: WIDTH // 2])
    return F.linear(y, model[0].weight.t()[:, : WIDTH // 2])


def crosswise_expected(model, x):
    """Return what `crosswise` gives with every weight cast now."""
    second, first = model[2].weight.bfloat16(), model[0].weight.bfloat16()
    return F.linear(F.linear(x.bfloat16(), second[: WIDTH // 2]), first.t()[:, : WIDTH // 2]).float()


def eager(model, x):
    with xpu_amp_dynamo.autocast("cpu", cache_enabled=MODE == "cached"):
        return model(x).float()


def compiled(function):
    return torch.compile(function, backend="xpu_amp", options={"weights": MODE, "inner_backend": "aot_eager"})


CALLS = {
    "forward": (compiled(forward), expected),
    "crosswise": (compiled(crosswise), crosswise_expected),
    "eager": (eager, expected),
}
call_steps = st.tuples(st.just("call"), st.sampled_from([*CALLS]), st.sampled_from([*MODES]))
prepare_steps = st.tuples(st.just("prepare"), st.sampled_from(NAMES), st.just(""))
# Which of the changes that were prepared until then, counted from the last.
change_steps = st.tuples(st.just("change"), st.integers(0, 3), st.just(""))
sequences = st.lists(st.one_of(call_steps, prepare_steps, change_steps), min_size=6, max_size=24)


def check_call(name, mode, model, x):
    """Compare a call with what the weights of now give, and its gradients."""
    call, reference = CALLS[name]
    with MODES[mode]():
        actual, wanted = call(model, x), reference(model, x)
    torch.testing.assert_close(actual, wanted, rtol=0, atol=0)
    if wanted.requires_grad:
        weights = [model[0].weight, model[2].weight]
        gradients = [torch.autograd.grad(output.square().sum(), weights) for output in (actual, wanted)]
        # Dynamo runs a tied weight through a graph of two weights that it compiled before, which adds up in float32.
        bound = 1e-2 if weights[0] is weights[1] else 0
        torch.testing.assert_close(*gradients, rtol=bound, atol=bound, equal_nan=True)


def run(sequence):
    """Run a sequence on a new model, and a call of each kind behind it."""
    torch.manual_seed(0)
    model, x, changes = small_model(), torch.randn(4, WIDTH), []
    for kind, what, mode in [*sequence, *(("call", name, "no_grad") for name in CALLS)]:
        if kind == "call":
            check_call(what, mode, model, x)
        elif kind == "prepare":
            changes.append(WAYS[what](model))
        elif changes:
            changes[-1 - what % len(changes)]()


@settings(
    max_examples=int(NUMBER or 300),
    derandomize=NUMBER is None,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
@given(sequences)
def test_sequences(sequence):
    note(str(sequence))
    run(sequence)


def test_there_are_many_ways():
    assert len(NAMES) > 100
