"""The store of casted weights: cast once, never stale but for the documented limit, freed with the weights."""

from __future__ import annotations

import copy
import gc
import subprocess
import sys
from typing import Any
from unittest import mock

import pytest
import torch
from torch._inductor.utils import run_and_get_code

import xpu_amp_dynamo
from tests.runtime.weight_updates import expected, load
from tests.support.versions import only_since
from xpu_amp_dynamo import cached_weight_bytes, refresh_weights
from xpu_amp_dynamo.runtime import weight_store
from xpu_amp_dynamo.runtime.weight_store import WEIGHTS

WIDTH = 8
pytestmark = pytest.mark.usefixtures("no_kept_casts")


def compiled(model, **options):
    options = {"weights": "cached", "inner_backend": "aot_eager", **options}
    return torch.compile(model, backend="xpu_amp", options=options)


@pytest.fixture
def casts():
    """Count the weights that are cast into new memory."""
    counter = mock.Mock(wraps=weight_store.cast_weight)
    with WEIGHTS.casting_by(counter):
        yield counter


def test_a_process_ends_without_a_word_about_weights_that_live_as_long():
    """Those of a model that a module holds."""
    program = """
import torch, xpu_amp_dynamo
import threading
threading.model = model = torch.nn.Linear(4, 4)
with torch.no_grad():
    torch.compile(model, backend="xpu_amp", options={"inner_backend": "eager"})(torch.randn(2, 4))
assert xpu_amp_dynamo.cached_weight_bytes(model) > 0
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=True)
    assert "Exception" not in done.stderr


@torch.no_grad()
def test_weights_are_cast_once(model, x, casts):
    program = compiled(model)
    for _ in range(3):
        assert torch.equal(program(x), expected(model, x))
    assert casts.call_count == len(WEIGHTS) == 4
    assert cached_weight_bytes() == 2 * sum(weight.numel() for weight in model.parameters())


@torch.no_grad()
@pytest.mark.parametrize("inner_backend", ["eager", "aot_eager", "inductor"])
@pytest.mark.parametrize("dynamic", [False, True])
def test_inner_backends_and_shapes(inner_backend, dynamic, model, x, device):
    if device == "xpu" and inner_backend == "inductor":
        pytest.skip("the second run of the tests is of the eager runtime; the simulator's tests compile")
    program = torch.compile(
        model, backend="xpu_amp", dynamic=dynamic, options={"weights": "cached", "inner_backend": inner_backend}
    )
    for rows in (3, 5, 7):
        more = x.repeat(3, 1)[:rows]
        torch.testing.assert_close(program(more), expected(model, more), rtol=1e-2, atol=1e-2)
    assert len(WEIGHTS) == 4


@torch.no_grad()
def test_a_weight_that_changes_beside_freezing(model, x, device):
    if device == "xpu":
        pytest.skip("the second run of the tests is of the eager runtime; the simulator's tests compile")
    program = compiled(model, inner_backend="inductor", inductor={"freezing": True})
    for factor in (1, 2):
        next(model.parameters()).mul_(factor)
        torch.testing.assert_close(program(x), expected(model, x), rtol=1e-2, atol=1e-2)


def test_an_update_inside_inference_mode(model, x):
    program = compiled(model)
    with torch.inference_mode():
        program(x)
        model[0].weight.mul_(3)
        after = program(x)
    assert torch.equal(after, expected(model, x))


@torch.no_grad()
def test_casts_keep_their_address(model, x):
    program = compiled(model)
    program(x)
    before = WEIGHTS.cast(model[0].weight, torch.bfloat16).tensor.data_ptr()
    load(model)
    program(x)
    assert WEIGHTS.cast(model[0].weight, torch.bfloat16).tensor.data_ptr() == before


@torch.no_grad()
def test_writes_through_arrays_that_are_gone_need_a_refresh(model, x):
    program = compiled(model)
    before = program(x)
    model[0].weight.detach().cpu().numpy()[:] += 1
    assert torch.equal(program(x), before)
    refresh_weights(model)
    assert torch.equal(program(x), expected(model, x))


def test_casts_are_freed_with_the_model(model, x):
    with torch.no_grad():
        compiled(model)(x)
        copied = copy.deepcopy(model)
        program = compiled(copied)
        program(x)
    assert len(WEIGHTS) == 8
    del copied, program
    torch._dynamo.reset()
    gc.collect()
    assert len(WEIGHTS) == 4


def test_a_graph_that_outlives_its_weights_holds_no_casts(x):
    weight = torch.nn.Parameter(torch.randn(WIDTH, WIDTH, device=x.device))
    program = compiled(torch.mm)
    with torch.no_grad():
        program(x, weight)
        assert cached_weight_bytes() == 2 * WIDTH * WIDTH
        del weight
        gc.collect()
        assert cached_weight_bytes() == 0
        again = torch.nn.Parameter(torch.randn(WIDTH, WIDTH, device=x.device))
        assert torch.equal(program(x, again), (x.bfloat16() @ again.bfloat16()).float())


@torch.no_grad()
def test_graphs_share_casts(model, x, casts):
    first, second = compiled(model), compiled(lambda x: model(x).relu())
    first(x)
    second(x)
    assert casts.call_count == len(WEIGHTS) == 4


def test_weights_of_convolutions_lie_as_inductor_wants_them_on_the_cpu(casts):
    """Kept in their own layout they would be copied into that one at each call."""
    model = torch.nn.Conv2d(8, 8, 3)
    x = torch.randn(2, 8, 16, 16)
    compiled = torch.compile(model, backend="xpu_amp", options={"weights": "cached"})
    with torch.no_grad():
        y, code = run_and_get_code(compiled, x)
        assert "empty_strided_cpu((8, 8, 3, 3)" not in code[0]
        torch.testing.assert_close(y, model(x), rtol=0.02, atol=0.02)
        # The same weights in eager code: their layout there is the parameter's own, as is that of the output.
        with xpu_amp_dynamo.autocast("cpu"):
            assert model(x).is_contiguous()
    assert {cast.args[2] for cast in casts.call_args_list} == {torch.channels_last, torch.preserve_format}


def test_eager_code_shares_casts(model, x, device):
    with torch.no_grad():
        compiled(model)(x)
        kept = {weight: WEIGHTS.cast(weight, torch.bfloat16).tensor for weight in model.parameters()}
    read: list[int] = []

    class Reads(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            read.extend(arg.data_ptr() for arg in args if isinstance(arg, torch.Tensor))
            return function(*args, **(kwargs or {}))

    with torch.no_grad(), xpu_amp_dynamo.autocast(device), Reads():
        out = model(x)
    assert torch.equal(out.float(), expected(model, x))
    assert {cast.data_ptr() for cast in kept.values()} <= set(read)
    with xpu_amp_dynamo.autocast(device):
        model(x).sum().backward()
    assert all(weight.grad is not None for weight in model.parameters())


@torch.no_grad()
def test_tied_weights_have_one_cast(x, casts):
    class Tied(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.first = torch.nn.Linear(WIDTH, WIDTH, bias=False)
            self.second = torch.nn.Linear(WIDTH, WIDTH, bias=False)
            self.second.weight = self.first.weight

        def forward(self, x):
            return self.second(self.first(x).relu())

    model = Tied().to(x.device)
    program = compiled(model)
    assert torch.equal(program(x), expected(model, x))
    assert casts.call_count == 1
    model.first.weight.mul_(2)
    assert torch.equal(program(x), expected(model, x))


def test_dtypes_are_kept_apart(model, x):
    with torch.no_grad():
        compiled(model)(x)
        torch._dynamo.reset()
        compiled(model, dtype=torch.float16)(x)
    assert len(WEIGHTS) == 8


def test_weights_of_inference_mode_are_cast_at_every_call(x):
    with torch.inference_mode():
        model = torch.nn.Linear(WIDTH, WIDTH).to(x.device)
        program = compiled(model)
        program(x)
        model.weight.mul_(2)
        after = program(x)
        lower = model.weight.bfloat16(), model.bias.bfloat16()
        assert torch.equal(after, torch.nn.functional.linear(x.bfloat16(), *lower).float())


@only_since("2.12", "Dynamo does not see that a parameter needs no gradient any more")
def test_training_graphs_cast_at_every_call(model, x):
    program = compiled(model)
    program(x).sum().backward()
    assert len(WEIGHTS) == 0
    assert all(weight.grad is not None for weight in model.parameters())
    model.requires_grad_(False)
    program(x)
    assert len(WEIGHTS) == 4


@torch.no_grad()
def test_a_weight_that_the_graph_writes_to_is_not_kept(x):
    weight = torch.nn.Parameter(torch.randn(WIDTH, WIDTH, device=x.device))

    def program(x, weight):
        y = x @ weight
        weight.mul_(2)
        return y

    before = weight.clone()
    assert torch.equal(compiled(program)(x, weight), (x.bfloat16() @ before.bfloat16()).float())
    assert len(WEIGHTS) == 0


@pytest.mark.parametrize(
    "program",
    [
        lambda x, w: x @ w.t(),
        lambda x, w: torch.nn.functional.linear(x, w[2:]) + x @ w.chunk(4)[0].t()[:, :1],
        lambda x, w: sum(x[:, i : i + 1] @ w[i : i + 1] for i in range(WIDTH)),
    ],
)
@torch.no_grad()
def test_views_of_a_weight_are_cast_with_it(program, x, casts):
    weight = torch.nn.Parameter(torch.randn(WIDTH, WIDTH, device=x.device))
    lowered = compiled(program)
    for _ in range(3):
        assert torch.equal(lowered(x, weight), program(x.bfloat16(), weight.bfloat16()).float())
        weight.add_(1)
    assert casts.call_count == len(WEIGHTS) == 1


@torch.no_grad()
def test_a_weight_with_a_use_in_float32_too(x):
    weight = torch.nn.Parameter(torch.randn(WIDTH, WIDTH, device=x.device))
    out = compiled(lambda x, weight: (x @ weight, weight.sum(), x.t()[:3] @ weight[:3]))(x, weight)
    assert torch.equal(out[0], (x.bfloat16() @ weight.bfloat16()).float())
    torch.testing.assert_close(out[1], weight.sum())


@pytest.mark.parametrize("moment", ["first cast", "renewal"])
@torch.no_grad()
def test_a_write_that_comes_while_a_weight_is_cast_is_seen(moment, device, monkeypatch):
    """Another thread may write between the cast and the look at the version."""
    weight, real = torch.nn.Parameter(torch.ones(WIDTH, device=device)), torch.Tensor.copy_

    def cast_and_write(weight, dtype, memory_format):
        cast = weight.to(dtype)
        weight.add_(1)
        return cast

    def copy_and_write(cast, source):
        real(cast, source)
        source.add_(1)
        return cast

    store = weight_store.WeightStore(cast_and_write if moment == "first cast" else weight_store.cast_weight)
    store.cast(weight, torch.bfloat16)
    if moment == "renewal":
        monkeypatch.setattr(torch.Tensor, "copy_", copy_and_write)
        weight.add_(1)
        store.cast(weight, torch.bfloat16)
    monkeypatch.undo()
    assert torch.equal(store.cast(weight, torch.bfloat16).tensor, weight.bfloat16())


@pytest.mark.skipif(not torch.cuda.is_available(), reason="CUDA graphs need a GPU of NVIDIA")
def test_cuda_graphs(casts):
    model = torch.nn.Linear(WIDTH, WIDTH).cuda()
    x = torch.randn(3, WIDTH, device="cuda")
    options: dict[str, Any] = {"weights": "cached", "inductor": {"triton.cudagraphs": True}}
    program = torch.compile(model, backend="xpu_amp", options=options)
    with torch.no_grad():
        for _ in range(4):
            program(x)
        model.weight.mul_(2)
        torch.testing.assert_close(program(x), expected(model, x), rtol=1e-2, atol=1e-2)
    assert casts.call_count == 2


def test_bad_values_are_refused():
    with pytest.raises(
        xpu_amp_dynamo.errors.InvalidOptionError, match=r"'weights' is 'frozen'.*\['recast', 'cached'\]"
    ):
        xpu_amp_dynamo.BackendOptions(weights="frozen")


@pytest.mark.parametrize("inner_backend", ["eager", "aot_eager"])
def test_graphs_that_differentiate_under_no_grad_get_gradients(inner_backend):
    layer, x = torch.nn.Linear(8, 8), torch.randn(4, 8)

    def enabling(x):
        with torch.enable_grad():
            return layer(x).square().sum()

    def transformed(weight, x):
        return torch.func.grad(lambda w: (x @ w).square().sum())(weight)

    options = {"inner_backend": inner_backend, "weights": "cached"}
    with torch.no_grad():
        torch.compile(enabling, backend="xpu_amp", options=options)(x).backward()
        gradient = torch.compile(transformed, backend="xpu_amp", options=options)(layer.weight, x)
        expected = transformed(layer.weight, x)
    assert (gradient - expected).norm() <= 0.02 * expected.norm() > 0
    assert layer.weight.grad is not None


def test_traces_read_weights_and_not_kept_casts():
    layer, x = torch.nn.Linear(8, 8).eval(), torch.randn(4, 8)
    with torch.no_grad():
        torch.compile(layer, backend="xpu_amp", options={"inner_backend": "eager", "weights": "cached"})(x)
        with xpu_amp_dynamo.autocast("cpu", cache_enabled=False):
            traced = torch.jit.trace(layer, x, check_trace=False)
        before = traced(x).float()
        traced.load_state_dict({name: value * 2 for name, value in traced.state_dict().items()})
        assert torch.equal(traced(x).float(), before * 2)
