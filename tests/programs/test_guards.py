"""One compiled function in and out of regions: the region around each call decides, and none compiles twice."""

from __future__ import annotations

import contextlib
import gc
import threading
from typing import Any

import pytest
import torch
from torch.amp.autocast_mode import _enter_autocast, _exit_autocast
from torch.utils.checkpoint import checkpoint

import xpu_amp_dynamo
from tests.support.comparison import compile_program, counting_backend
from tests.support.versions import only_since
from xpu_amp_dynamo import Policy
from xpu_amp_dynamo.compat.regions_around import open_regions

REGIONS_OF_GRAPHS = only_since("2.12", "regions of graphs cannot be told from others")
BFLOAT16, FLOAT16, FLOAT32 = torch.bfloat16, torch.float16, torch.float32


def within(run, *regions):
    with contextlib.ExitStack() as stack:
        for region in regions:
            stack.enter_context(region)
        return run()


@contextlib.contextmanager
def entered_by_hand(region):
    region.__enter__()
    try:
        yield
    finally:
        region.__exit__(None, None, None)


# How to run something in each. Each has a place in the code of its own, as regions of programs have.
REGIONS = {
    "none": lambda run: run(),
    "off": lambda run: within(run, torch.autocast("cpu", enabled=False)),
    "bfloat16": lambda run: within(run, torch.autocast("cpu", BFLOAT16)),
    "float16": lambda run: within(run, torch.autocast("cpu", FLOAT16)),
    "ours, off": lambda run: within(run, xpu_amp_dynamo.autocast("cpu", enabled=False)),
    "other, off": lambda run: within(run, torch.autocast("xpu", enabled=False)),
    "other, on": lambda run: within(run, torch.autocast("xpu", BFLOAT16)),
    "off in on": lambda run: within(run, torch.autocast("cpu", BFLOAT16), torch.autocast("cpu", enabled=False)),
    "on in off": lambda run: within(run, torch.autocast("cpu", enabled=False), torch.autocast("cpu", BFLOAT16)),
    "off in other": lambda run: within(run, torch.autocast("xpu", BFLOAT16), torch.autocast("cpu", enabled=False)),
    "other in off": lambda run: within(run, torch.autocast("cpu", enabled=False), torch.autocast("xpu", enabled=False)),
    "off, by hand": lambda run: within(run, entered_by_hand(torch.autocast("cpu", enabled=False))),
    "other, by hand": lambda run: within(run, entered_by_hand(torch.autocast("xpu", enabled=False))),
}
OFF = {name for name in REGIONS if "off" in name} - {"on in off", "other, off"}
LOWER = {"bfloat16": BFLOAT16, "float16": FLOAT16, "on in off": BFLOAT16}


def product(x, w):
    return x @ w


def dtype_of_product(region):
    """Return in which dtype a product runs, compiled with default options, in a region."""
    return LOWER.get(region, FLOAT32 if region in OFF else BFLOAT16)


@pytest.fixture
def operands():
    return torch.randn(4, 8), torch.randn(8, 8)


@pytest.fixture
def counted(operands):
    """A compiled product that checks its own result, and the counter of its graphs."""
    xpu_amp_dynamo.install(device_type="cpu")
    counter, name = counting_backend("eager")
    compiled = compile_program(product, name)

    def call(region):
        x, w = operands
        dtype = dtype_of_product(region)
        y = REGIONS[region](lambda: compiled(x, w))
        wanted = dtype if region in LOWER else FLOAT32
        assert y.dtype is wanted, region
        assert torch.equal(y, product(x.to(dtype), w.to(dtype)).to(y.dtype)), region

    return call, counter


BY_HAND = pytest.param("other, by hand", marks=REGIONS_OF_GRAPHS)


@pytest.mark.parametrize("first", [BY_HAND if name == "other, by hand" else name for name in REGIONS])
@pytest.mark.parametrize("second", ["off", "other, off"])
def test_the_region_around_the_call_decides(first, second, counted):
    call, _ = counted
    for region in (first, second, first):
        call(region)


@REGIONS_OF_GRAPHS
@pytest.mark.parametrize("held_by", ["a cycle", "a decorator", "a graph"])
def test_regions_that_were_left_are_not_taken_for_open_ones(held_by, counted):
    call, _ = counted
    region = torch.autocast("cpu", enabled=False)
    decorated = region(lambda: None)
    decorated()
    graph = torch.fx.Graph()
    if held_by == "a graph":
        region = graph.placeholder("region").meta["example_value"] = _enter_autocast("cpu", None, False, None)
        _exit_autocast(region)
    if held_by == "a cycle":
        cycle: list[Any] = [region]
        cycle.append(cycle)
        del cycle, decorated
    del region
    gc.freeze()  # So that no collection of young objects finds the cycle before the call does.
    gc.unfreeze()
    call("other, by hand")


def test_each_state_is_compiled_once(counted):
    call, counter = counted
    counts = []
    for region in ("none", "off", "none", "off", "bfloat16", "off", "float16", "none", "bfloat16", "off in on", "none"):
        call(region)
        counts.append(counter.frame_count)
    assert counts == [1, 2, 2, 2, 3, 3, 4, 4, 4, 4, 4]
    with torch.compiler.set_stance("fail_on_recompile"):
        for region in ("off", "none", "ours, off", "off in on", "on in off", "other, off", "other in off"):
            call(region)


def test_options_that_turn_the_policy_off_need_no_second_graph(operands):
    counter, name = counting_backend("eager")
    compiled = compile_program(product, name, enabled=False)
    for region in ("none", "off", "other, off"):
        assert torch.equal(REGIONS[region](lambda: compiled(*operands)), product(*operands))
    assert counter.frame_count == 1


def test_decorated_callers_and_threads(counted):
    call, counter = counted

    @torch.autocast("cpu", enabled=False)
    def decorated():
        call("off")

    call("none")
    decorated_too = torch.autocast("cpu", enabled=False)(lambda: call("off"))
    threads = [threading.Thread(target=target) for target in (decorated, decorated_too, lambda: call("none"))]
    for run in (decorated, *(thread.start for thread in threads), *(thread.join for thread in threads)):
        run()
    with torch.no_grad(), contextlib.ExitStack() as stack:
        call("none")
        stack.enter_context(torch.autocast("cpu", enabled=False))
        call("off")
    assert counter.frame_count == 4, "two, and two without gradients"


def broken(x, w):
    """Breaks the graph in a disabled region and in an enabled one, with products before them."""
    y = x @ w
    with torch.autocast("cpu", enabled=False):
        y = y.float() @ w
        torch._dynamo.graph_break()
        y = y @ w
    z = y @ w
    with torch.autocast("cpu", BFLOAT16):
        z = z @ w
        torch._dynamo.graph_break()
        z = z @ w
    return y @ w, z


@only_since("2.12", "a break inside a region leaves the function uncompiled")
@pytest.mark.parametrize("around", ["none", "off", "bfloat16"])
def test_regions_that_a_graph_break_leaves_open_are_not_around_the_graph(around, operands):
    xpu_amp_dynamo.install(device_type="cpu")
    x, w = operands
    expected = [y.float() for y in REGIONS["bfloat16" if around == "none" else around](lambda: broken(x, w))]
    counter, name = counting_backend("eager")
    compiled = compile_program(broken, name, fullgraph=False, preserve_output_dtype=False)
    for _ in range(2):
        actual = REGIONS[around](lambda: compiled(x, w))
        assert [torch.equal(a.float(), e) for a, e in zip(actual, expected, strict=True)] == [True, True]
    assert counter.frame_count == 3
    assert open_regions() == 0


@REGIONS_OF_GRAPHS
def test_a_graph_that_raised_in_its_region_leaves_none(operands):
    """A graph run by "eager" does not leave its region then (torch 2.11.0 to 2.15.0): the thread's count stays."""
    x, w = operands

    def pick(x, i):
        with torch.autocast("cpu", enabled=False):
            return x[i] @ x[i].T

    bad = torch.tensor([99])
    with pytest.raises(IndexError):
        torch.compile(pick, backend="eager")(x, bad)
    try:
        compiled = compile_program(pick, inner_backend="eager")
        assert torch.equal(compiled(x, torch.tensor([1])), x[[1]] @ x[[1]].T)
        lowered = compile_program(product, inner_backend="eager")(x, w)
        assert torch.equal(lowered, (x.bfloat16() @ w.bfloat16()).float())
    finally:
        while open_regions():
            torch.autocast_decrement_nesting()


@pytest.mark.parametrize("use_reentrant", [True, False])
@pytest.mark.parametrize("region", ["none", "bfloat16", "off inside"])
def test_checkpointing_recomputes_as_it_computed(use_reentrant, region, operands):
    """Checkpointing recomputes in a region that repeats the state of the forward, disabled where there was none."""
    xpu_amp_dynamo.install(device_type="cpu")
    x, w = operands[0].requires_grad_(), operands[1].requires_grad_()
    counter, name = counting_backend("eager")
    compiled = compile_program(lambda x, w: torch.sin(x @ w), name)

    def inner(x, w):
        return REGIONS["off" if region == "off inside" else "none"](lambda: compiled(x, w))

    def gradients(run):
        y = REGIONS["none" if region == "off inside" else region](lambda: run(x, w))
        return torch.autograd.grad(y.float().sum(), (x, w)) if not use_reentrant else backward(y, x, w)

    expected = gradients(inner)
    compiled_graphs = counter.frame_count
    actual = gradients(lambda x, w: checkpoint(inner, x, w, use_reentrant=use_reentrant))
    assert [torch.equal(a, e) for a, e in zip(actual, expected, strict=True)] == [True, True]
    assert counter.frame_count <= compiled_graphs + use_reentrant, (
        "reentrant checkpointing runs without gradients first"
    )


def backward(y, *leaves):
    for leaf in leaves:
        leaf.grad = None
    y.float().sum().backward()
    return [leaf.grad for leaf in leaves]


def softmax_of_product(x, w):
    y = torch.softmax(x @ w, -1)
    return y, str(y.dtype)


def test_graphs_captured_in_a_region_are_captured_anew_under_another_policy(operands):
    """The policy that is installed decides the dtypes that Dynamo bakes in."""
    compiled = compile_program(softmax_of_product)
    float32_softmax = Policy.named("xpu").with_ops(float32=["softmax"])
    for policy in (None, "xpu", float32_softmax, "xpu"):
        xpu_amp_dynamo.uninstall("cpu") if policy is None else xpu_amp_dynamo.install(policy, "cpu")
        with torch.autocast("cpu", BFLOAT16):
            y, name = compiled(*operands)
            expected, expected_name = softmax_of_product(*operands)
        assert (y.dtype, name) == (expected.dtype, expected_name)
    with torch.compiler.set_stance("fail_on_recompile"), torch.autocast("cpu", BFLOAT16):
        compiled(*operands)


def test_graphs_captured_outside_regions_do_not_depend_on_the_installed_policy(operands):
    compiled = compile_program(softmax_of_product)
    compiled(*operands)
    xpu_amp_dynamo.install(device_type="cpu")
    with torch.compiler.set_stance("fail_on_recompile"):
        compiled(*operands)


def test_lowering_by_hand_inside_a_disabled_region():
    gm = torch.fx.symbolic_trace(product)
    with torch.autocast("cpu", enabled=False):
        xpu_amp_dynamo.lower(gm, [torch.randn(2, 2), torch.randn(2, 2)])
    assert gm(torch.eye(2), torch.eye(2)).dtype is FLOAT32
    assert "bfloat16" not in gm.code
