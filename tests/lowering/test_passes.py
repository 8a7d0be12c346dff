"""Single passes: what they find, what they refuse, and that a second run changes nothing."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import fx
from torch.amp import autocast_mode
from torch.utils.checkpoint import checkpoint

import xpu_amp_dynamo
from tests.support.captured_graphs import casts_in, lowered_graphs
from xpu_amp_dynamo.errors import BannedOpError, LoweringError
from xpu_amp_dynamo.lowering.captured.find_regions import find_regions
from xpu_amp_dynamo.lowering.graph.autocast_state import AutocastState
from xpu_amp_dynamo.lowering.graph.casting import Caster, insert_cast
from xpu_amp_dynamo.lowering.graph.values import set_value

OFF, LOW = AutocastState(False, torch.bfloat16), AutocastState(True, torch.bfloat16)


class Subclass(torch.autocast):
    """A subclass of autocast, which Dynamo inlines into calls that set the state."""


def state_at(graph, name, device_type="cpu"):
    regions = find_regions(graph, OFF, device_type)
    return next(state for node, state in regions.states.items() if node.name == name)


def test_find_regions_reads_pairs_and_lets_open_ones_run_on():
    graph = fx.Graph()
    x = graph.placeholder("x")
    graph.call_function(torch.relu, (x,)).name = "before"
    outer = graph.call_function(autocast_mode._enter_autocast, ("cpu", torch.float16, True, None))
    inner = graph.call_function(autocast_mode._enter_autocast, ("cpu", None, False, False))
    graph.call_function(torch.relu, (x,)).name = "inside"
    graph.call_function(autocast_mode._exit_autocast, (inner,))
    other = graph.call_function(autocast_mode._enter_autocast, ("cuda", torch.bfloat16, False, None))
    graph.call_function(torch.relu, (x,)).name = "open"
    assert state_at(graph, "before") == OFF
    assert state_at(graph, "inside") == AutocastState(False, torch.bfloat16, False, outermost=1, in_region=True)
    assert state_at(graph, "open") == AutocastState(True, torch.float16, outermost=1, in_region=True)
    assert {outer, inner, other} < set(find_regions(graph, OFF, "cpu").markers)


def test_regions_of_another_device_type_with_tensors_stay():
    graph = fx.Graph()
    x = graph.placeholder("x")
    x.meta["example_value"] = torch.empty(2, device="meta")
    graph.call_function(autocast_mode._enter_autocast, ("meta", torch.bfloat16, True, None))
    assert find_regions(graph, OFF, "cpu").markers == []


def test_inlined_subclass_is_lowered_and_its_calls_are_gone():
    def program(x):
        with Subclass("cpu", dtype=torch.float16):
            y = x @ x
        return y, x + x

    (gm,) = lowered_graphs(program, torch.randn(4, 4), enabled=False)
    assert casts_in(gm) == [torch.float16]
    assert [node.target for node in gm.graph.nodes if "autocast" in str(node.target)] == []


def test_ambient_region_wins_over_the_options():
    with torch.autocast("cpu", torch.float16):
        (gm,) = lowered_graphs(lambda x: x @ x, torch.randn(4, 4), dtype=torch.bfloat16, enabled=False)
    assert casts_in(gm)[0] is torch.float16


def test_disabled_lowering_changes_nothing():
    (gm,) = lowered_graphs(lambda x: F.log_softmax(x @ x, -1), torch.randn(4, 4), enabled=False)
    assert casts_in(gm) == []


def test_casts_carry_the_trace_and_module_of_the_op_they_serve():
    class Model(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.projection = torch.nn.Linear(4, 4)

        def forward(self, x):
            return self.projection(x)

    (gm,) = lowered_graphs(Model(), torch.randn(2, 4))
    cast = next(node for node in gm.graph.nodes if "xpu_amp_dynamo.cast_for" in node.meta)
    assert "return self.projection(x)" in cast.meta["stack_trace"]
    assert any("projection" in str(entry) for entry in cast.meta["nn_module_stack"].values())


def test_second_lowering_changes_nothing():
    model = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.LogSoftmax(-1))
    (gm,) = lowered_graphs(model, torch.randn(2, 4))
    before = gm.code
    xpu_amp_dynamo.lower(gm, [])
    assert gm.code == before


def test_caster_returns_the_source_of_its_own_widening():
    graph = fx.Graph()
    x, user = graph.placeholder("x"), None
    set_value(x, torch.zeros(2, dtype=torch.bfloat16))
    user = graph.output(x)
    caster = Caster()
    wide = caster.cast(x, torch.float32, user, LOW)
    assert caster.cast(wide, torch.bfloat16, user, LOW) is x
    assert caster.cast(wide, torch.float16, user, LOW) is not x
    caster.forget([x])
    assert caster.cast(wide, torch.bfloat16, user, LOW) is not x


def test_activations_on_the_tape_are_cast_for_each_use_and_weights_once():
    w = torch.randn(4, 4, requires_grad=True)

    def program(x, w):
        hidden = (x + w).exp()
        return F.linear(hidden, w) + F.linear(hidden, w)

    (gm,) = lowered_graphs(program, torch.randn(4, 4), w, preserve_output_dtype=False)
    assert len(casts_in(gm)) == 3
    with torch.no_grad():
        (gm,) = lowered_graphs(program, torch.randn(4, 4), w, preserve_output_dtype=False)
    assert len(casts_in(gm)) == 2


def test_views_of_a_written_value_are_cast_again():
    def program(x, w):
        view = x.view(4, 4)
        a = view @ w
        x.zero_()
        return a, view @ w

    x, w = torch.randn(16), torch.randn(4, 4)
    first, second = torch.compile(program, backend="xpu_amp", options={"inner_backend": "eager"})(x, w)
    assert first.abs().max() > 0
    assert second.abs().max() == 0


def test_checkpointed_subgraph_is_lowered():
    w = torch.randn(4, 4, requires_grad=True)

    def program(x, w):
        return checkpoint(lambda x: F.log_softmax(x @ w, -1), x @ w, use_reentrant=False)

    x = torch.randn(4, 4)
    compiled = torch.compile(program, backend="xpu_amp", fullgraph=True, options={"inner_backend": "aot_eager"})
    out = compiled(x, w)
    out.sum().backward()
    with xpu_amp_dynamo.autocast("cpu"):
        expected = program(x, w.detach())
    assert torch.equal(out, expected)
    assert w.grad is not None


def test_branches_of_cond_keep_their_dtypes():
    def program(x, w):
        return torch.cond(x.sum() > 0, lambda x, w: x @ w, lambda x, w: x + w, (x, w))

    x, w = torch.ones(4, 4), torch.randn(4, 4)
    compiled = torch.compile(program, backend="xpu_amp", fullgraph=True, options={"inner_backend": "eager"})
    assert torch.equal(compiled(x, w), (x.bfloat16() @ w.bfloat16()).float())
    assert torch.equal(compiled(-x, w), w - x)


def test_cache_write_in_float32_program_runs():
    def program(cache, x, w, index):
        cache.index_copy_(0, index, x @ w)
        cache.addmm_(x @ w, x @ w)
        return cache.sum()

    cache, x, w = torch.zeros(4, 4), torch.randn(4, 4), torch.randn(4, 4)
    compiled = torch.compile(program, backend="xpu_amp", options={"inner_backend": "eager"})
    assert compiled(cache, x, w, torch.arange(4)).dtype is torch.float32
    low = (x.bfloat16() @ w.bfloat16()).float()
    torch.testing.assert_close(cache, low + low @ low)


def test_write_into_a_lowered_value_runs():
    def program(x, w, index):
        y = x @ w
        y.index_copy_(0, index, x)
        y += x
        y[0] = 1
        return y.addmm_(x, w)

    x, w = torch.randn(4, 4), torch.randn(4, 4)
    compiled = torch.compile(program, backend="xpu_amp", options={"inner_backend": "eager"})
    out = compiled(x, w, torch.arange(4))
    torch.testing.assert_close(out, program(x, w, torch.arange(4)), rtol=0.05, atol=0.1)


def test_disabled_region_in_a_float32_program_gets_float32():
    def program(x, w):
        y = x @ w
        with torch.autocast("cpu", enabled=False):
            return y @ w

    x, w = torch.randn(4, 4), torch.randn(4, 4)
    compiled = torch.compile(program, backend="xpu_amp", options={"inner_backend": "eager"})
    assert torch.equal(compiled(x, w), (x.bfloat16() @ w.bfloat16()).float() @ w)


def test_data_dependent_sizes_survive():
    def program(x, w):
        y = x @ w
        return torch.masked_select(y, y > 0) * 2, y[y > 0].sum()

    x, w = torch.randn(4, 4), torch.randn(4, 4)
    with torch._dynamo.config.patch(capture_dynamic_output_shape_ops=True):
        compiled = torch.compile(program, backend="xpu_amp", fullgraph=True, options={"inner_backend": "eager"})
        selected, total = compiled(x, w)
    low = x.bfloat16() @ w.bfloat16()
    assert torch.equal(selected, (low[low > 0] * 2).float())
    assert torch.equal(total, low[low > 0].float().sum())


def test_symbolically_traced_graph():
    gm = fx.symbolic_trace(lambda x, w: torch.relu(x @ w))
    x, w = torch.randn(2, 3), torch.randn(3, 4)
    assert xpu_amp_dynamo.lower(gm, [x, w]) is gm
    assert torch.equal(gm(x, w), torch.relu(x.bfloat16() @ w.bfloat16()).float())


def test_wrong_number_of_example_inputs_is_refused():
    gm = fx.symbolic_trace(lambda x, w: x @ w)
    before = gm.code
    with pytest.raises(LoweringError, match="2 placeholders and 1 example inputs"):
        xpu_amp_dynamo.lower(gm, [torch.randn(2, 2)])
    assert gm.code == before


def test_module_calls_are_refused():
    gm = fx.symbolic_trace(torch.nn.Sequential(torch.nn.Linear(2, 2)))
    with pytest.raises(LoweringError, match="calls the module '0'"):
        xpu_amp_dynamo.lower(gm, [torch.randn(2, 2)])


def test_banned_op_names_its_place():
    def program(x, t):
        return F.binary_cross_entropy(x, t)

    with pytest.raises(torch._dynamo.exc.BackendCompilerFailed) as caught:
        lowered_graphs(program, torch.rand(2), torch.rand(2), policy="torch")
    assert isinstance(caught.value.inner_exception, BannedOpError)
    assert "return F.binary_cross_entropy(x, t)" in str(caught.value.inner_exception)


def test_the_advice_fits_the_banned_op():
    gm = fx.symbolic_trace(lambda x: torch.exp(x))
    with pytest.raises(BannedOpError, match=r"exp is unsafe.*bans it; run it on float32.*leave=\['exp'\]") as caught:
        xpu_amp_dynamo.lower(gm, [torch.ones(2)], policy=xpu_amp_dynamo.Policy("mine", banned=["exp"]))
    assert "binary_cross_entropy" not in str(caught.value)


def test_verification_catches_a_broken_graph():
    from xpu_amp_dynamo.lowering.captured.verify import verify
    from xpu_amp_dynamo.lowering.graph.context import LoweringContext
    from xpu_amp_dynamo.lowering.report import LoweringReport

    graph = fx.Graph()
    x = graph.placeholder("x")
    set_value(x, torch.zeros(2, 2))
    y = graph.call_function(torch.mm, (x, x))
    set_value(y, torch.zeros(2, 2))
    graph.output(y)
    gm = fx.GraphModule({}, graph)
    mode = torch._subclasses.fake_tensor.FakeTensorMode()
    context = LoweringContext(xpu_amp_dynamo.Policy.named("xpu"), "cpu", LOW, mode, True, LoweringReport(), verify)
    context.states.update(dict.fromkeys(graph.nodes, LOW))
    with pytest.raises(LoweringError, match=r"mm wants torch.bfloat16 and has \[torch.float32"):
        verify(gm, context)
    context.states.clear()
    insert_cast(x, torch.float32, y)
    with pytest.raises(LoweringError, match="cast to the dtype it comes from"):
        verify(gm, context)
    graph.erase_node(next(node for node in graph.nodes if node.op == "call_method"))
    context.recorded[y] = torch.zeros(2, 2, dtype=torch.float64)
    with pytest.raises(LoweringError, match="was recorded as"):
        verify(gm, context)


@pytest.mark.parametrize("inner_backend", ["eager", "aot_eager"])
def test_what_backward_needs_is_kept_from_later_writes(inner_backend):
    """Eager code multiplies a cast copy of ``v``; lowered, ``v`` itself has the wanted dtype already."""

    def program(x, w):
        v = x @ x
        with torch.autocast("cpu", torch.bfloat16):
            y = w @ v
        v.add_(1)
        return y, v

    x, w = torch.randn(4, 4), torch.randn(4, 4, requires_grad=True)
    y, _ = torch.compile(program, backend="xpu_amp", options={"inner_backend": inner_backend})(x, w)
    y.float().sum().backward()
    expected = (x.bfloat16() @ x.bfloat16()).sum(1).float().expand(4, 4)
    torch.testing.assert_close(w.grad, expected, rtol=0.02, atol=0.02)


def test_a_cast_is_shared_with_a_conversion_that_does_nothing():
    def program(x, w):
        return x @ w.float(), x @ w

    (gm,) = lowered_graphs(program, torch.ones(2, 2), torch.ones(2, 2, requires_grad=True))
    assert casts_in(gm).count(torch.bfloat16) == 2


def test_an_activation_used_twice_by_one_op_is_cast_twice():
    """Eager autocast does, and so adds up its gradient in float32."""

    def program(x, w):
        y = x * w
        return y @ y

    (gm,) = lowered_graphs(program, torch.ones(2, 2), torch.ones(2, 2, requires_grad=True))
    assert casts_in(gm).count(torch.bfloat16) == 2
    (gm,) = lowered_graphs(program, torch.ones(2, 2), torch.ones(2, 2))
    assert casts_in(gm).count(torch.bfloat16) == 1


def test_views_whose_base_is_written_to_later_are_lowered():
    """Autograd refuses the halves that capture has recorded, since by now it has run the write too."""

    def program(x, w):
        y = torch.sin(w)
        halves = torch.cat(y.chunk(2, -1), -1) @ x
        y.add_(1)
        return halves

    with torch.autocast("cpu", torch.bfloat16):
        (gm,) = lowered_graphs(program, torch.ones(4, 4), torch.ones(4, 4, requires_grad=True))
    assert torch.bfloat16 in casts_in(gm)


def test_an_op_that_another_policy_cast_at_capture_keeps_its_recorded_dtype_at_the_edge():
    """Captured under stock kernels, tensordot of float32 gives bfloat16; ours promotes, and casts the output back."""

    def program(x, w):
        return torch.tensordot(x, w, 1)

    with torch.autocast("cpu", torch.bfloat16):
        (gm,) = lowered_graphs(program, torch.ones(2, 2), torch.ones(2, 2))
    assert casts_in(gm) == [torch.bfloat16]


def test_what_backward_needs_is_kept_where_capture_cast_it():
    """Eager autocast multiplies a copy of the float32 ``v`` that stock kernels give; lowered, ``v`` is bfloat16."""

    def program(x, w):
        with torch.autocast("cpu", torch.bfloat16):
            v = torch.sin(x)
            y = w @ v
            v.mul_(0)
        return y

    x, w = torch.randn(4, 4), torch.randn(4, 4, requires_grad=True)
    policy = xpu_amp_dynamo.Policy.named("xpu").with_ops(lower_precision=["sin"])
    options = {"inner_backend": "eager", "policy": policy}
    torch.compile(program, backend="xpu_amp", options=options)(x, w).float().sum().backward()
    expected = x.bfloat16().sin().float().sum(1).expand(4, 4)
    torch.testing.assert_close(w.grad, expected, rtol=0.02, atol=0.02)
