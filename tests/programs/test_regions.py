"""Regions of every form and nesting: compiled code gives what eager autocast gives."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import transformers

import xpu_amp_dynamo
from tests.support.comparison import assert_compiled_equals_eager, compile_program
from tests.support.versions import only_since

BFLOAT16, FLOAT16, FLOAT32 = torch.bfloat16, torch.float16, torch.float32
OFF: dict[str, Any] = {"enabled": False}
pytestmark = [
    # Dynamo looks at `.grad` of a non-leaf input behind a graph break, torch 2.13.0.
    pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf"),
    pytest.mark.filterwarnings("ignore:float16 training needs loss scaling"),
    # Inductor's C++ backend, of its own fusion; only so many programs mix both.
    pytest.mark.filterwarnings("ignore:bf16 and fp16 are mixed in the scheduler node"),
]


def tensors():
    return torch.randn(8, 8, requires_grad=True), torch.randn(8, 8, requires_grad=True)


def dtypes_of(outcome, number):
    return [t.dtype for t in outcome[:number]]


def region(*args, **kwargs):
    return torch.autocast("cpu", *args, **kwargs)


class OurRegion(torch.autocast):
    """A subclass, whose methods Dynamo inlines into calls that set the state."""

    def __init__(self):
        super().__init__("cpu", BFLOAT16)


def test_nested_regions_of_all_kinds():
    def program(x, w):
        with region(BFLOAT16):
            a = x @ w
            with region(enabled=False):
                b = x @ w
                with region(FLOAT16):
                    c = x @ w
                d = x @ w
            e = a @ w
        return a, b, c, d, e, x @ w

    outcome = assert_compiled_equals_eager(program, tensors(), **OFF)
    assert dtypes_of(outcome, 6) == [BFLOAT16, FLOAT32, FLOAT16, FLOAT32, BFLOAT16, FLOAT32]


def test_float16_inside_bfloat16():
    def program(x, w):
        with region(FLOAT16):
            y = x @ w
        return y, y @ w

    outcome = assert_compiled_equals_eager(program, tensors(), region=lambda: region(BFLOAT16))
    assert dtypes_of(outcome, 2) == [FLOAT16, BFLOAT16]


@pytest.mark.parametrize(
    ("inside", "around", "options", "dtypes"),
    [
        ({"dtype": BFLOAT16}, {"enabled": False}, OFF, [BFLOAT16, FLOAT32]),
        ({"enabled": False}, {"dtype": BFLOAT16}, {}, [FLOAT32, BFLOAT16]),
    ],
)
def test_enabled_false_around_and_inside(inside, around, options, dtypes):
    def program(x, w):
        with region(**inside):
            y = x @ w
        return y, x @ w

    outcome = assert_compiled_equals_eager(program, tensors(), region=lambda: region(**around), **options)
    assert dtypes_of(outcome, 2) == dtypes


def test_a_weight_is_cast_anew_in_each_outermost_region():
    """Eager code adds up the gradients of one region in bfloat16, and those of several in float32."""

    def program(x, w):
        with region(BFLOAT16):
            y = (x @ w) @ w
        with region(BFLOAT16):
            z = (x @ w) @ w
        return y, z

    assert_compiled_equals_eager(program, tensors(), **OFF)
    assert_compiled_equals_eager(program, tensors(), region=lambda: region(BFLOAT16))


def test_cache_enabled_false():
    def program(x, w):
        with region(BFLOAT16, cache_enabled=False):
            return (x @ w) @ w

    assert_compiled_equals_eager(program, tensors(), **OFF)


SUBCLASS = pytest.param("subclass", marks=only_since("2.12", "Dynamo inlines no subclass of autocast"))


@pytest.mark.parametrize("shape", ["decorator", "method", SUBCLASS, "ours"])
def test_forms_of_a_region(shape):
    class Module(torch.nn.Module):
        @region(BFLOAT16)
        def forward(self, x, w):
            return x @ w

    def by_subclass(x, w):
        with OurRegion():
            return x @ w

    def by_ours(x, w):
        with xpu_amp_dynamo.autocast("cpu"):
            return x @ w

    @region(BFLOAT16)
    def decorated(x, w):
        return x @ w

    program = {"decorator": decorated, "method": Module(), "subclass": by_subclass, "ours": by_ours}[shape]
    outcome = assert_compiled_equals_eager(lambda x, w: (program(x, w), x @ w), tensors(), **OFF)
    assert dtypes_of(outcome, 2) == [BFLOAT16, FLOAT32]


@pytest.mark.filterwarnings("ignore:.*device_type of '(cuda|xpu)'")  # there is none here, so PyTorch turns it off
@pytest.mark.parametrize("other", ["cuda", "xpu"])
def test_regions_of_other_device_types_change_nothing(other):
    def program(x, w):
        with torch.autocast(other, BFLOAT16, enabled=False):
            y = x @ w
            with region(BFLOAT16):
                z = y @ w
        return y, z

    outcome = assert_compiled_equals_eager(program, tensors(), **OFF)
    assert dtypes_of(outcome, 2) == [FLOAT32, BFLOAT16]


def test_region_around_a_graph_break():
    def program(x, w):
        with region(BFLOAT16):
            y = x @ w
            torch._dynamo.graph_break()
            z = y @ w.mT
        return y, z, z.float() @ w

    outcome = assert_compiled_equals_eager(program, tensors(), fullgraph=False, **OFF)
    assert dtypes_of(outcome, 3) == [BFLOAT16, BFLOAT16, FLOAT32]


def test_region_that_opens_in_one_function_and_holds_in_others():
    def inner(x, w):
        y = x @ w
        torch._dynamo.graph_break()
        return y @ w

    def program(x, w):
        with region(BFLOAT16):
            y = inner(x, w)
        return y, inner(x, w)

    # The weight's two uses in a region end up in two graphs, whose casts cannot be one, so gradients are added up
    # in float32 where eager adds them up in bfloat16: compare without.
    x, w = (t.detach() for t in tensors())
    outcome = assert_compiled_equals_eager(program, (x, w), fullgraph=False, **OFF)
    assert dtypes_of(outcome, 2) == [BFLOAT16, FLOAT32]


def test_region_in_the_forward_of_a_submodule():
    class Block(torch.nn.Module):
        def __init__(self, dtype):
            super().__init__()
            self.dtype, self.linear = dtype, torch.nn.Linear(8, 8)

        def forward(self, x):
            with region(self.dtype, enabled=self.dtype is not None):
                return self.linear(x.float())

    model = torch.nn.Sequential(Block(BFLOAT16), Block(None), Block(FLOAT16))
    for around in (lambda: region(BFLOAT16), lambda: region(FLOAT16)):
        outcome = assert_compiled_equals_eager(model, [tensors()[0]], region=around, weights=model.parameters())
        assert dtypes_of(outcome, 1) == [FLOAT16]


def test_region_of_a_rotary_embedding():
    """Hugging Face turns autocast off where angles are computed, by a helper of its own."""
    config = transformers.LlamaConfig(hidden_size=32, num_attention_heads=4, num_hidden_layers=1)
    rotary = transformers.models.llama.modeling_llama.LlamaRotaryEmbedding(config)
    positions = torch.arange(300)[None]

    def program(x, w):
        return rotary(x @ w, positions)

    x, w = torch.randn(1, 300, 32), torch.randn(32, 32)
    cos, sin, *_ = assert_compiled_equals_eager(program, (x, w), region=lambda: region(BFLOAT16))
    exact = rotary(x, positions)
    # Angles of 300 positions in bfloat16 would be off by more than a radian; rounded after cos they differ by 2**-9.
    for actual, expected in zip((cos, sin), exact, strict=True):
        assert actual.dtype is BFLOAT16
        assert (actual.float() - expected).abs().max() < 2**-8


def test_early_return_from_a_region():
    def program(x, w, early):
        with region(BFLOAT16):
            y = x @ w
            if early:
                return y
        return x @ w

    for early, dtype in ((True, BFLOAT16), (False, FLOAT32)):
        outcome = assert_compiled_equals_eager(program, (*tensors(), early), **OFF)
        assert dtypes_of(outcome, 1) == [dtype]
        assert not torch.is_autocast_enabled("cpu")


@pytest.mark.parametrize("inner_backend", ["eager", "inductor"])
def test_exception_that_leaves_a_region(inner_backend):
    def program(x, w):
        with region(BFLOAT16):
            y = x @ w
            if y.dtype is BFLOAT16:
                raise ValueError("inside")
        return y

    compiled = compile_program(program, inner_backend, fullgraph=False, **OFF)
    with pytest.raises(ValueError, match="inside"):
        compiled(*tensors())
    assert not torch.is_autocast_enabled("cpu")


def test_exception_caught_inside_a_region():
    def program(x, w):
        with region(BFLOAT16):
            try:
                y = x @ w
                raise ValueError("inside")
            except ValueError:
                y = x @ w
        return y, x @ w

    outcome = assert_compiled_equals_eager(program, tensors(), **OFF)
    assert dtypes_of(outcome, 2) == [BFLOAT16, FLOAT32]
