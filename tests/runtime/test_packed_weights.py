"""Weights of linear layers that oneDNN packed, kept in the store: on the CPU, for code of Inductor."""

from __future__ import annotations

import gc
from unittest import mock

import pytest
import torch
import torch.nn.functional as F

import xpu_amp_dynamo
from tests.runtime.weight_updates import UPDATES, expected
from xpu_amp_dynamo import cached_weight_bytes
from xpu_amp_dynamo.lowering.weights import pack_linear as pack_linear_weights
from xpu_amp_dynamo.ops.packed_linear import PACKED, PACKED_LINEAR, can_pack, pack
from xpu_amp_dynamo.policy.cast_rule import LOWER_DTYPES
from xpu_amp_dynamo.runtime import weight_store

pytestmark = pytest.mark.skipif(not can_pack(torch.bfloat16), reason="oneDNN does not multiply in bfloat16 here")
WIDTH = 8
PLAIN = torch.preserve_format


@pytest.fixture(autouse=True)
def casts(monkeypatch):
    """Pack weights of any size; count the weights that are cast into new memory."""
    monkeypatch.setattr(pack_linear_weights, "SMALLEST", 0)
    torch._dynamo.reset()
    gc.collect()
    assert cached_weight_bytes() == 0
    counter = mock.Mock(wraps=weight_store.cast_weight)
    with weight_store.WEIGHTS.casting_by(counter):
        yield counter
    torch._dynamo.reset()


@pytest.fixture
def model():
    return torch.nn.Sequential(torch.nn.Linear(WIDTH, WIDTH), torch.nn.ReLU(), torch.nn.Linear(WIDTH, 2))


def layouts(casts):
    """List the layouts of what was cast into new memory."""
    return [call.args[2] for call in casts.call_args_list]


def compiled(model, **options):
    return torch.compile(model, backend="xpu_amp", options={"weights": "cached", **options})


def assert_as_expected(actual, model, x):
    """Check a result against the model with all its weights cast now; Inductor may round less often."""
    torch.testing.assert_close(actual, expected(model, x), rtol=0.02, atol=0.02)


@pytest.mark.parametrize("settings", [{}, {"cpp_wrapper": True}], ids=str)
@torch.no_grad()
def test_weights_are_packed_once(settings, model, casts):
    program = compiled(model, inductor=settings)
    for shape in [(3, WIDTH), (2, 3, WIDTH), (WIDTH,), (0, WIDTH)]:
        x = torch.randn(shape)
        assert_as_expected(program(x), model, x)
    assert sorted(map(str, layouts(casts))) == sorted(map(str, [PACKED, PACKED, PLAIN, PLAIN]))
    assert cached_weight_bytes() == 2 * sum(weight.numel() for weight in model.parameters())


@pytest.mark.parametrize("update", UPDATES.values(), ids=UPDATES.keys())
def test_updates_are_seen(update, model, casts):
    program, x = compiled(model), torch.randn(3, WIDTH)
    with torch.no_grad():
        before = program(x)
    update(model)
    with torch.no_grad():
        after = program(x)
    assert PACKED in layouts(casts)
    assert not torch.equal(before, after)
    assert_as_expected(after, model, x)


def test_packed_weights_are_freed_with_the_model(casts):
    model = torch.nn.Linear(WIDTH, WIDTH)
    with torch.no_grad():
        compiled(model)(torch.randn(3, WIDTH))
    assert cached_weight_bytes() > 0
    casts.reset_mock()
    del model
    torch._dynamo.reset()
    gc.collect()
    assert cached_weight_bytes() == 0


@torch.no_grad()
def test_eager_code_has_plain_casts_kept_too(model, casts):
    x = torch.randn(3, WIDTH)
    compiled(model)(x)
    casts.reset_mock()
    for _ in range(2):
        with xpu_amp_dynamo.autocast("cpu"):
            assert torch.equal(model(x).float(), expected(model, x))
    assert layouts(casts) == [PLAIN, PLAIN]


@pytest.mark.parametrize("options", [{"precision": "exact"}, {"inner_backend": "aot_eager"}], ids=str)
@torch.no_grad()
def test_not_packed_where_the_bits_of_eager_code_are_asked_for(options, model, casts):
    compiled(model, **options)(torch.randn(3, WIDTH))
    assert set(layouts(casts)) == {PLAIN}


@pytest.mark.parametrize("dtype", [dtype for dtype in LOWER_DTYPES if can_pack(dtype)])
@pytest.mark.parametrize("shape", [(1, 77), (5, 77), (2, 300, 77), (77,), (0, 77)])
@pytest.mark.parametrize("with_bias", [True, False])
def test_the_op(dtype, shape, with_bias):
    x, weight = torch.randn(shape).to(dtype), torch.randn(100, 77).to(dtype)
    bias = torch.randn(100).to(dtype) if with_bias else None
    packed = pack(weight)
    y = PACKED_LINEAR(x, packed, bias)
    reference = F.linear(x.double(), weight.double(), None if bias is None else bias.double())
    torch.testing.assert_close(y, reference.to(dtype), rtol=0.02, atol=0.1)
    apart = x.new_zeros(*x.shape, 2)[..., 0].copy_(x)
    assert torch.equal(PACKED_LINEAR(apart, packed, bias), y)
    declared = PACKED_LINEAR(x.to("meta"), packed.to("meta"), None)
    assert (declared.shape, declared.stride(), declared.dtype) == (y.shape, y.stride(), y.dtype)
