"""Programs without a region: what Python made of their dtypes at capture holds when listed ops run lower."""

from __future__ import annotations

import contextlib

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import xpu_amp_dynamo
from tests.support.captured_graphs import casts_in, lowered_graphs
from tests.support.comparison import compile_program
from xpu_amp_dynamo.errors import LoweringError

LOWER = (torch.bfloat16, torch.float16)


def matrices(*shapes):
    return [torch.randn(shape) for shape in shapes]


def assert_near(actual, expected, bound=0.02):
    """Check dtype, finiteness, and the relative error of the norm: a few roundings to bfloat16, 0.002 each."""
    assert actual.dtype is expected.dtype
    assert torch.equal(actual.isfinite(), expected.isfinite())
    assert (actual - expected).norm() <= bound * expected.norm()


MASKS = {
    "masked_fill": lambda s, m: s.masked_fill(m, torch.finfo(s.dtype).min),
    "masked_fill_": lambda s, m: s.masked_fill_(m, torch.finfo(s.dtype).min),
    "masked_fill_ of a view": lambda s, m: s.view(-1).masked_fill_(m.view(-1), torch.finfo(s.dtype).min).view_as(s),
    "where a number": lambda s, m: torch.where(m, torch.finfo(s.dtype).min, s),
    "where a tensor": lambda s, m: torch.where(m, torch.tensor(torch.finfo(s.dtype).min), s),
    "where full_like": lambda s, m: torch.where(m, torch.full_like(s, torch.finfo(s.dtype).min), s),
    "zeros_like filled": lambda s, m: s + torch.zeros_like(s).masked_fill_(m, torch.finfo(s.dtype).min),
    "setitem": lambda s, m: torch.Tensor.index_put_(s, (m,), torch.tensor(torch.finfo(s.dtype).min)),
    "additive": lambda s, m: s + m.to(s.dtype) * torch.finfo(s.dtype).min,
    "clamp": lambda s, m: s.clamp(min=torch.finfo(s.dtype).min).masked_fill(m, -1e9),
    "pad": lambda s, m: F.pad(s, (0, 1), value=torch.finfo(s.dtype).min)[:, :-1].masked_fill(m, -1e9),
    "small": lambda s, m: (s / (s.norm(dim=-1, keepdim=True) * 0 + 1e-8)).masked_fill(m, -1e9),
}


@pytest.mark.parametrize("dtype", LOWER, ids=str)
@pytest.mark.parametrize("kind", MASKS)
def test_constants_of_captured_dtypes_stay_finite(kind, dtype):
    def program(x, w, mask):
        return torch.softmax(MASKS[kind](x @ w, mask), -1) @ w

    x, w = matrices((6, 8), (8, 8))
    mask = torch.ones(6, 8, dtype=torch.bool).triu(3)
    mask[0] = True
    assert_near(compile_program(program, dtype=dtype)(x, w, mask), program(x, w, mask), 0.05)


@pytest.mark.parametrize(
    "op",
    [
        torch.linalg.svdvals,
        torch.linalg.inv,
        torch.linalg.slogdet,
        torch.matrix_exp,
        torch.det,
        lambda h: torch.linalg.qr(h)[1].abs(),
        lambda h: torch.linalg.eigvalsh(h + h.mT),
        lambda h: torch.linalg.solve(h, torch.ones(8)),
        lambda h: torch.linalg.matrix_norm(h, "nuc"),
        lambda h: torch.cdist(h, torch.ones(3, 8)),
        lambda h: torch.cdist(h, h, p=1.0),
        torch.pdist,
        lambda h: torch.quantile(h, 0.5),
        lambda h: torch.complex(h, h).abs(),
        lambda h: torch.special.bessel_j0(h),
        lambda h: F.avg_pool3d(h.view(1, 2, 4, 8), 2),
        lambda h: F.interpolate(h.view(1, 1, 8, 8), size=(4, 4), mode="bilinear", antialias=True),
        lambda h: torch.div(h, 0.3, rounding_mode="floor"),
    ],
)
def test_ops_without_low_kernels_run_as_captured(op):
    def program(x, w):
        return op(x @ w)

    x, w = torch.eye(8) + torch.arange(64).view(8, 8) / 64, torch.eye(8)
    product = (x.bfloat16() @ w.bfloat16()).float()
    for actual, expected in zip(
        torch.utils._pytree.tree_leaves(compile_program(program)(x, w)),
        torch.utils._pytree.tree_leaves(op(product)),
        strict=True,
    ):
        torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("generated", ["weight", "bias", "input", "input and weight"])
@pytest.mark.parametrize("norm", ["instance_norm", "batch_norm"])
def test_norms_with_generated_parameters_read_them_as_captured(norm, generated):
    def program(x, z, w, b):
        scale = z @ w if "weight" in generated else b
        shift = z @ w if generated == "bias" else b
        x = x @ x.mT if "input" in generated else x
        if norm == "instance_norm":
            return F.instance_norm(x, weight=scale, bias=shift)
        mean, variance = torch.zeros(5), torch.ones(5)
        return F.batch_norm(x, mean, variance, scale, shift, training=True), mean, variance

    args = matrices((3, 5, 5), (7,), (7, 5), (5,))
    expected = torch.utils._pytree.tree_leaves(program(*args))
    for actual, want in zip(torch.utils._pytree.tree_leaves(compile_program(program)(*args)), expected, strict=True):
        assert_near(actual, want)


@pytest.mark.parametrize("region", [True, False])
def test_a_renormalised_table_beside_narrow_weights(region):
    def program(x, w, table):
        index = torch.arange(8).view(2, 4) % 5
        return F.embedding_bag(index, table, mode="sum", max_norm=1.0, per_sample_weights=x @ w), table

    x, w, table = matrices((2, 4), (4, 4), (5, 8))
    xpu_amp_dynamo.install(device_type="cpu")
    with torch.autocast("cpu", torch.bfloat16) if region else contextlib.nullcontext():
        expected = program(x, w, table.clone())
        actual = compile_program(program)(x, w, table.clone())
    for got, want in zip(actual, expected, strict=True):
        assert_near(got, want)


def test_python_branches_on_captured_dtypes():
    def program(x, w):
        h = x @ w
        buffer = torch.zeros(h.shape, dtype=h.dtype)
        buffer[torch.tensor([1, 0])] = h[:2].sum(0, dtype=h.dtype).expand(2, -1)
        return buffer + h if h.dtype is torch.float32 else buffer

    assert_near(compile_program(program)(*(args := matrices((4, 8), (8, 8)))), program(*args))


OUTPUTS = {
    "row and whole": lambda h: (h[0], h),
    "flat and whole": lambda h: (h, h.view(-1)),
    "overlapping rows": lambda h: (h[:3], h[1:]),
    "float is the tensor itself": lambda h: (h, h.float()),
    "transposed": lambda h: (h.t(), h.unbind()[1]),
    "detached": lambda h: (h.detach(), h),
}


@pytest.mark.parametrize("kind", OUTPUTS)
@pytest.mark.parametrize("inner_backend", ["eager", "aot_eager"])
def test_outputs_share_memory_as_captured(kind, inner_backend):
    def program(x, w):
        return OUTPUTS[kind](x @ w)

    results = []
    for call in (program, compile_program(program, inner_backend)):
        first, second = call(*[m.clone() for m in matrices((4, 8), (8, 8))])
        before = second.clone()
        first.add_(100.0)
        results.append((second - before, first.stride(), second.stride()))
    expected, actual = results
    assert torch.equal(actual[0].round(), expected[0].round())
    assert actual[0].abs().sum() > 0
    assert actual[1:] == expected[1:]


@pytest.mark.parametrize(
    "view", [lambda h: h[:, ::2], lambda h: h[:, :1].expand(4, 3), lambda h: h.diagonal(), lambda h: h.unfold(1, 3, 1)]
)
def test_outputs_keep_strides(view):
    def program(x, w):
        return view(x @ w)

    args = matrices((4, 8), (8, 8))
    assert compile_program(program)(*args).stride() == program(*args).stride()


def test_a_view_follows_its_base_across_a_graph_break():
    def program(x, w):
        h = x @ w
        row = h[0]
        torch._dynamo.graph_break()
        h.add_(100.0)
        return row

    args = matrices((4, 8), (8, 8))
    assert_near(compile_program(program, fullgraph=False)(*args), program(*args))


def test_in_place_calls_on_values_of_its_own_stay_narrow():
    def program(x, w):
        h = x @ w
        h.mul_(2.0)
        h += 1.0
        h = F.relu(h, inplace=True)
        return h @ w

    args = matrices((4, 8), (8, 8))
    (gm,) = lowered_graphs(program, *args)
    assert casts_in(gm) == [torch.bfloat16, torch.bfloat16, torch.float32]
    assert_near(compile_program(program)(*args), program(*args))


def test_in_place_calls_that_views_see_keep_the_captured_dtype():
    def program(x, w):
        h = x @ w
        row = h[0]
        h.mul_(2.0)
        return row + h

    args = matrices((4, 8), (8, 8))
    (gm,) = lowered_graphs(program, *args)
    assert casts_in(gm) == [torch.bfloat16, torch.bfloat16, torch.float32]
    assert_near(compile_program(program)(*args), program(*args))


def test_in_place_call_reads_what_was_made_of_what_it_writes():
    def program(x, w):
        h = x @ w
        h.add_(h.t().contiguous())
        return h

    args = matrices((8, 8), (8, 8))
    assert_near(compile_program(program)(*args), program(*args))


@pytest.mark.parametrize("form", ["add_", "copy_", "index_put_", "out", "as_strided"])
def test_mutations_read_and_write_captured_dtypes(form):
    def program(x, w):
        h, kept = x @ w, torch.zeros(4, 8)
        if form == "add_":
            kept.add_(h)
        elif form == "copy_":
            kept[:, ::2].copy_(h[:, ::2])
        elif form == "index_put_":
            kept[torch.tensor([2, 0])] = h[:2]
        elif form == "out":
            torch.add(h, 1.0, out=kept)
        else:
            kept = h[:, :3].as_strided((4, 8), (8, 1)) * 1
        return kept

    args = matrices((4, 8), (8, 8))
    assert_near(compile_program(program)(*args), program(*args))


def test_float16_values_take_no_arithmetic_without_the_range_of_float32():
    def program(x, w):
        h = x @ w * 100
        return h * torch.rsqrt((h * h).mean(-1, keepdim=True))

    args = matrices((4, 64), (64, 64))
    assert_near(compile_program(program, dtype=torch.float16)(*args), program(*args))


def test_a_disabled_region_reads_captured_dtypes():
    def program(x, w):
        h = x @ w
        with torch.autocast("cpu", enabled=False):
            return h * 3 @ w

    (gm,) = lowered_graphs(program, *(args := matrices((4, 8), (8, 8))))
    assert casts_in(gm) == [torch.bfloat16, torch.bfloat16, torch.float32]
    assert_near(compile_program(program)(*args), program(*args))


def test_calls_behind_a_region_read_what_it_made():
    """Inside, capture recorded bfloat16; what is outside may rely on that, and not on float32."""

    def program(x, w):
        with torch.autocast("cpu", torch.bfloat16):
            h = x @ w
        return h.dtype, torch.where(h > 0, torch.finfo(h.dtype).min, h)

    dtype, y = compile_program(program)(*(args := matrices((4, 8), (8, 8))))
    assert dtype is y.dtype is torch.bfloat16
    assert torch.equal(y, program(*args)[1])


@pytest.mark.parametrize("policy", ["torch", "ipex"])
@pytest.mark.parametrize(
    "program", [lambda x: 1 / x, lambda x: 2 - x, lambda x: x / 3, lambda x: 2**x, lambda x: x % 2]
)
def test_operators_are_lowered_as_the_ops_that_they_call(program, policy):
    x = torch.rand(8, dtype=torch.bfloat16) + 0.5
    policy = xpu_amp_dynamo.Policy.named(policy)
    xpu_amp_dynamo.install(policy, "cpu")
    with torch.autocast("cpu", torch.bfloat16):
        expected, actual = program(x), compile_program(program, policy=policy)(x)
    assert actual.dtype is expected.dtype
    assert torch.equal(actual, expected)


def test_bitwise_operators_write_to_nothing():
    def program(x, w):
        mask = x > 0
        return torch.where(mask & (w > 0) | ~mask, x @ w, w @ x)

    assert_near(compile_program(program)(*(args := matrices((8, 8), (8, 8)))), program(*args))


MODULES = {
    "attention": (lambda: nn.MultiheadAttention(8, 2, batch_first=True), lambda m, x: m(x, x, x)),
    "attention without weights": (
        lambda: nn.MultiheadAttention(8, 2, batch_first=True),
        lambda m, x: m(x, x, x, need_weights=False)[0],
    ),
    "encoder": (lambda: nn.TransformerEncoderLayer(8, 2, 16, 0.0, batch_first=True), lambda m, x: m(x)),
    "transformer": (lambda: nn.Transformer(8, 2, 1, 1, 16, 0.0, batch_first=True), lambda m, x: m(x, x)),
    "LSTM cell": (lambda: nn.LSTMCell(8, 8), lambda m, x: m(x[0], m(x[0]))),
    "GRU cell": (lambda: nn.GRUCell(8, 8), lambda m, x: m(x[0], m(x[0]))),
}


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("name", MODULES)
def test_modules_whose_composites_return_several_tensors(name, training):
    make, call = MODULES[name]
    module, x = make().train(training), torch.randn(2, 3, 8)
    with xpu_amp_dynamo.record_lowerings() as reports:
        actual = torch.compile(lambda x: call(module, x), backend="xpu_amp", options={"inner_backend": "eager"})(x)
    expected = call(module, x)
    for got, want in zip(
        torch.utils._pytree.tree_leaves(actual), torch.utils._pytree.tree_leaves(expected), strict=True
    ):
        assert_near(got, want)
    assert sum(report.casts for report in reports) > 0


def test_cells_in_a_region_equal_eager_ones_with_gradients():
    """A cell's result that is read twice gets its gradient added up in float32, as in eager code."""
    gru, rnn, x = nn.GRUCell(8, 8), nn.RNNCell(8, 8), torch.randn(4, 3, 8)

    def program(x):
        state = other = x.new_zeros(4, 8)
        for step in range(3):
            state = gru(x[:, step], state)
            other = rnn(state, other)
        return other

    gradients = []
    xpu_amp_dynamo.install(device_type="cpu")
    for call in (program, compile_program(program)):
        with torch.autocast("cpu", torch.bfloat16):
            y = call(x)
        (y.float() * torch.linspace(0.5, 1.5, 8)).sum().backward()
        gradients.append([p.grad.clone() for p in (*gru.parameters(), *rnn.parameters())])
        gru.zero_grad()
        rnn.zero_grad()
    assert all(map(torch.equal, *gradients))


def test_a_lowering_that_raises_leaves_the_graph_as_it_was():
    def program(x, w):
        h = torch.relu(x @ w).add_(1)
        return F.binary_cross_entropy(torch.sigmoid(h), w)

    kept = []

    def backend(gm, example_inputs):
        before = gm.code, [dict(node.meta) for node in gm.graph.nodes], list(vars(gm))
        with pytest.raises(xpu_amp_dynamo.errors.BannedOpError):
            xpu_amp_dynamo.lower(gm, example_inputs, policy="torch")
        gm.recompile()
        kept.append(before == (gm.code, [dict(node.meta) for node in gm.graph.nodes], list(vars(gm))))
        return gm

    torch.compile(program, backend=backend)(torch.rand(4, 4), torch.rand(4, 4))
    assert kept == [True]


def test_a_function_whose_contents_change_is_looked_into_again():
    multiply = False

    @torch.compiler.allow_in_graph
    def function(x, w):
        return x @ w if multiply else x + w

    args, casts = matrices((4, 4), (4, 4)), []
    for multiply in (False, True, False):  # noqa: B007, the closure reads it
        (gm,) = lowered_graphs(lambda x, w: function(x, w), *args)
        casts.append(len(casts_in(gm)))
    assert casts == [0, 3, 0]


def test_a_call_that_cannot_be_traced_runs_as_captured():
    def program(x, w):
        return torch.istft(torch.stft(x @ w, 8, return_complex=True, window=torch.ones(8)), 8, window=torch.ones(8))

    args = matrices((2, 16), (16, 16))
    assert_near(compile_program(program, fullgraph=False)(*args), program(*args), 0.03)


def test_graphs_that_cannot_run_at_all_are_refused():
    gm = torch.fx.symbolic_trace(lambda x, w: x @ w @ x)
    with pytest.raises(LoweringError, match="cannot lower"):
        xpu_amp_dynamo.lower(gm, [torch.randn(2, 3), torch.randn(3, 4)])


SATURATING = {
    "binary cross entropy": lambda h: F.binary_cross_entropy(torch.sigmoid(h), torch.zeros_like(h), reduction="none"),
    "one minus tanh squared": lambda h: torch.log(1 - torch.tanh(h / 2) ** 2 + 1e-6),
    "clamped cosine": lambda h: torch.acos((h / 12).clamp(-1 + 1e-4, 1 - 1e-4)),
    "clamped probability": lambda h: torch.log(1 - torch.sigmoid(h).clip(1e-6, 1 - 1e-6)),
    "hardtanh": lambda h: torch.atanh(F.hardtanh(h / 12, -1 + 1e-4, 1 - 1e-4)),
    "just below one": lambda h: torch.atanh(torch.tanh(h) * (1 - 1e-4)),
    "linear attention": lambda h: torch.log(F.elu(h) + 1),
}


@pytest.mark.filterwarnings("ignore:float16 training needs loss scaling")
@pytest.mark.parametrize("dtype", LOWER, ids=str)
@pytest.mark.parametrize("kind", SATURATING)
def test_distances_to_one_survive(kind, dtype):
    """The product is exact in both dtypes; of what saturates behind it, float32 programs take the distance to 1."""

    def program(x):
        return SATURATING[kind](x @ torch.eye(8))

    x = torch.tensor([[-12.0, -8, -6, -1, 1, 6, 8, 12]], requires_grad=True)
    expected, actual = program(x), compile_program(program, dtype=dtype)(x)
    assert_near(actual, expected)
    assert_near(torch.autograd.grad(actual.sum(), x)[0], torch.autograd.grad(expected.sum(), x)[0])


@pytest.fixture
def library():
    """Make a library with two ops: one has an autocast kernel of its own that wants float32, one that wants float16."""
    with torch.library._scoped_library("foreign_ops", "DEF") as made:
        for name, wanted in (("wide", torch.float32), ("half", torch.float16)):
            made.define(f"{name}(Tensor x) -> Tensor")

            def kernel(x, wanted=wanted):
                assert x.dtype is wanted
                return x + 1

            torch.library.impl(f"foreign_ops::{name}", "CPU", kernel, lib=made)
            torch.library.register_fake(f"foreign_ops::{name}", torch.empty_like, lib=made)
            torch.library.register_autocast(f"foreign_ops::{name}", "cpu", wanted, lib=made)
        yield torch.ops.foreign_ops


def test_autocast_kernels_of_other_libraries_are_honoured_in_compiled_code(library):
    def program(x, w):
        h = x @ w
        return library.wide(h) + 1, library.half(x), library.wide.default(h)

    args = matrices((4, 8), (8, 8))
    xpu_amp_dynamo.install(device_type="cpu")
    with torch.autocast("cpu", torch.bfloat16):
        expected, actual = program(*args), compile_program(program)(*args)
    assert [t.dtype for t in actual] == [torch.float32, torch.float16, torch.float32]
    assert all(map(torch.equal, actual, expected))
    assert {t.dtype for t in compile_program(program)(*args)} == {torch.float32}
