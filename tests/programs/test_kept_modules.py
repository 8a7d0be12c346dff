"""Modules kept in one precision: compiled code against eager code under hooks, and against float32."""

from __future__ import annotations

import contextlib
import operator
from typing import Any

import pytest
import torch
import transformers

import xpu_amp_dynamo
from tests.support.comparison import assert_same, compile_program, relative_error
from tests.support.kept_models import Model, compiled_step, step

BFLOAT16, FLOAT32 = torch.bfloat16, torch.float32
# Dynamo looks at `.grad` of a non-leaf input behind a graph break, torch 2.13.0.
pytestmark = pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")
KEPT = [
    {"keep_float32": ["head"]},
    {"keep_float32": ["layers"]},
    {"keep_float32": ["layers.*.norm"]},
    {"keep_float32": ["layers.1"], "keep_lower": ["layers.1.up"]},
    {"keep_float32": ["layers.1"], "keep_lower": ["layers.1.down"]},
    {"keep_lower": ["layers.0"], "keep_float32": ["layers.0.up"]},
    {"keep_lower": ["layers.0.*"]},
    {"keep_float32": ["*"]},
]


def check(model: torch.nn.Module, *inputs: torch.Tensor, changes: bool = True, fullgraph: bool = True, **kept: Any):
    """Check that a step in a region gives the same bits compiled as under hooks; return the reports."""
    plain = step(model, model, *inputs)
    with xpu_amp_dynamo.keep_precision(model, **kept):
        expected = step(model, model, *inputs)
    with xpu_amp_dynamo.record_lowerings() as reports:
        options = {"preserve_output_dtype": False, **kept}
        actual = compiled_step(model, *inputs, fullgraph=fullgraph, **options)
    assert_same(actual, expected)
    same = all(one.dtype is other.dtype and torch.equal(one, other) for one, other in zip(plain, expected, strict=True))
    assert same is not changes
    return reports


@pytest.mark.parametrize("checkpointed", [False, True])
@pytest.mark.parametrize("kept", KEPT, ids=str)
def test_in_a_region_compiled_code_gives_what_hooks_give(kept, checkpointed):
    lower_only = not kept.get("keep_float32")
    model = Model(checkpointed=checkpointed)
    (report,) = check(model, torch.randn(4, 16), changes=not lower_only, **kept)
    assert set(report.kept) == {pattern for patterns in kept.values() for pattern in patterns}


@pytest.mark.parametrize("kept", KEPT, ids=str)
def test_without_a_region_outputs_and_gradients_are_those_of_float32(kept):
    model, x = Model(), torch.randn(4, 16)
    reference = step(model, model, x, region=False)
    for actual, expected in zip(compiled_step(model, x, region=False, **kept), reference, strict=True):
        assert actual.dtype is FLOAT32
        assert relative_error(actual, expected) < 0.03


def test_a_model_kept_in_float32_is_float32_bit_for_bit():
    model, x = Model(), torch.randn(4, 16)
    reference = step(model, model, x, region=False)
    for inner_backend in ("eager", "aot_eager"):
        actual = compiled_step(model, x, region=False, keep_float32=["*"], inner_backend=inner_backend)
        assert_same(actual, reference)


def test_what_inductor_compiles_keeps_the_precision_of_a_module():
    model, x = Model(), torch.randn(4, 16)
    reference = step(model, model, x, region=False)
    torch._dynamo.reset()
    kept: list[dict[str, Any]] = [{}, {"keep_float32": ["*"]}]
    outputs = [compiled_step(model, x, region=False, inner_backend="inductor", **options)[0] for options in kept]
    errors = [relative_error(output, reference[0]) for output in outputs]
    assert errors[1] < 1e-5 < errors[0]


class Dtypes(torch.nn.Module):
    """Adds numbers to a value in ways that no list names."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.arange(3.0) + x * 1.0001


def test_unlisted_ops_run_lower_in_what_is_kept_lower_though_they_are_not_known_to_be_safe():
    """Without a region 1.0001, which bfloat16 rounds to 1, has a product run in float32."""
    layer, unlisted, x = torch.nn.Linear(3, 3), Dtypes(), torch.randn(2, 3)
    kept = compile_program(torch.nn.Sequential(layer, unlisted), keep_lower=["1"])(x)
    narrow = torch.nn.functional.linear(x.bfloat16(), layer.weight.bfloat16(), layer.bias.bfloat16())
    assert_same([kept], [unlisted(narrow).bfloat16().float()])


class Broken(torch.nn.Module):
    """Breaks the graph in the midst of a submodule."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = torch.nn.Linear(16, 16), torch.nn.Linear(16, 16)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.first(x)
        torch._dynamo.graph_break()
        return torch.sigmoid(self.second(x) * 1.01)


class Around(torch.nn.Module):
    """Calls a module that breaks the graph, twice."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.last = torch.nn.ModuleDict({"a": Broken()}), torch.nn.Linear(16, 16)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(self.inner["a"](self.inner["a"](x)))


@pytest.mark.parametrize("pattern", ["inner", "inner.a", "inner.a.second", "last"])
def test_names_behind_a_graph_break_are_those_of_the_model(pattern):
    model, x = Around(), torch.randn(4, 16)
    with xpu_amp_dynamo.keep_precision(model, keep_float32=[pattern]):
        expected = step(model, model, x)
    with xpu_amp_dynamo.record_lowerings() as reports:
        options: dict[str, Any] = {"preserve_output_dtype": False, "keep_float32": [pattern]}
        actual = compiled_step(model, x, fullgraph=False, **options)
    # Gradients of a weight that several graphs share are added up in float32, whatever is kept.
    assert_same(actual[:1], expected[:1])
    assert len(reports) > 2
    assert {name for report in reports for name in report.kept.get(pattern, [])} == {pattern}


@pytest.mark.parametrize("fullgraph", [True, False])
def test_in_a_function_names_are_those_of_the_model_that_it_calls(fullgraph):
    model, x = Model(), torch.randn(4, 16)
    with xpu_amp_dynamo.keep_precision(model, keep_float32=["layers.1"]):
        expected = step(lambda x: model(x) * 1.5, model, x)

    def by_argument(called: torch.nn.Module, x: torch.Tensor) -> torch.Tensor:
        return called(x) * 1.5

    options: dict[str, Any] = {"preserve_output_dtype": False, "keep_float32": ["layers.1"]}
    for program in (lambda x: model(x) * 1.5, by_argument):
        torch._dynamo.reset()
        compiled = compile_program(program, fullgraph=fullgraph, **options)
        arguments = (model,) if program is by_argument else ()
        assert_same(step(lambda x, c=compiled, a=arguments: c(*a, x), model, x), expected)


def test_a_model_compiled_in_place():
    model, x = Model(), torch.randn(4, 16)
    with xpu_amp_dynamo.keep_precision(model, keep_float32=["head"]):
        expected = step(model, model, x)
    options: dict[str, Any] = {"inner_backend": "eager", "preserve_output_dtype": False, "keep_float32": ["head"]}
    model.compile(backend="xpu_amp", options=options)
    assert_same(step(model, model, x), expected)


def test_options_are_those_of_each_call_of_compile():
    """A submodule that is compiled by itself has names of its own, whatever was compiled before."""
    model, x = Model(), torch.randn(4, 16)
    with xpu_amp_dynamo.record_lowerings() as reports:
        compile_program(model, keep_float32=["layers.0.up"])(x)
        compile_program(model.layers[0], keep_float32=["up"])(x)
    assert [report.kept for report in reports] == [{"layers.0.up": ["layers.0.up"]}, {"up": ["up"]}]


class Shared(torch.nn.Module):
    """Calls one module by two names, and twice by one; two layers share a weight."""

    def __init__(self) -> None:
        super().__init__()
        self.a = self.b = torch.nn.Linear(16, 16)
        self.c, self.d = torch.nn.Linear(16, 16), torch.nn.Linear(16, 16)
        self.d.weight = self.c.weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.d(torch.tanh(self.c(self.a(torch.sigmoid(self.b(self.a(x)) * 1.1)))))


@pytest.mark.parametrize(
    "kept", [{"keep_float32": ["b"]}, {"keep_float32": ["c"]}, {"keep_float32": ["c", "d"]}], ids=str
)
def test_shared_modules_and_weights(kept):
    check(Shared(), torch.randn(4, 16), **kept)


class Nested(torch.nn.Module):
    """Takes and returns nested values, and has a region of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(16, 16)

    def forward(self, values: dict[str, Any], *, scale: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor]]:
        x, y = values["pair"]
        with torch.autocast("cpu", torch.bfloat16):
            inside = self.layer(x)
        return inside * scale, [self.layer(y) * values["double"]]


class Nesting(torch.nn.Module):
    """Calls such a module."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.inner = torch.nn.Linear(16, 16), Nested()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.first(x)
        values = {"pair": (x, torch.tanh(x)), "double": torch.ones(16, dtype=torch.float64)}
        one, (two,) = self.inner(values, scale=x)
        return one + two


@pytest.mark.parametrize("option", ["keep_float32", "keep_lower"])
def test_regions_inside_a_kept_module_count_for_what_is_in_them(option):
    kept: dict[str, Any] = {option: ["inner"]}
    check(Nesting(), torch.randn(4, 16), changes=option == "keep_float32", **kept)


def test_a_disabled_region_around_a_kept_module_holds():
    model, x = Model(), torch.randn(4, 16)

    def call(x: torch.Tensor) -> torch.Tensor:
        with torch.autocast("cpu", enabled=False):
            return model(x)

    torch._dynamo.reset()
    compiled = compile_program(call, keep_lower=["layers"])
    with xpu_amp_dynamo.keep_precision(model, keep_lower=["layers"]):
        expected = step(call, model, x)
    assert_same(step(compiled, model, x), expected)
    assert_same(expected, step(model, model, x, region=False))


class Cached(torch.nn.Module):
    """Writes what it is given into memory that it is given."""

    def forward(self, memory: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        memory[0].copy_(x)
        return memory * 2


@pytest.mark.parametrize("region", [False, True])
@pytest.mark.parametrize("name", ["", "inner"])
@pytest.mark.parametrize("write", [operator.iadd, operator.imul, torch.Tensor.add_], ids=lambda write: write.__name__)
def test_a_buffer_that_a_kept_module_updates_stays_the_module_s(write, name, region):
    class Counting(torch.nn.Module):
        count: torch.Tensor

        def __init__(self):
            super().__init__()
            self.register_buffer("count", torch.full((), 100.0))

        def forward(self, x):
            self.count = write(self.count, 1.001)
            return x * 2

    class Around(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = Counting()

        def forward(self, x):
            return self.inner(x) + 1

    model, expected = Around(), Around()
    buffer = model.inner.count
    options: dict[str, Any] = {"inner_backend": "eager", "keep_lower": [name]}
    compiled = torch.compile(model, backend="xpu_amp", options=options)
    for _ in range(3):
        with xpu_amp_dynamo.autocast("cpu") if region else contextlib.nullcontext():
            compiled(torch.ones(2))
        expected(torch.ones(2))
    assert model.inner.count is buffer
    assert torch.equal(buffer, expected.inner.count)


def test_memory_that_a_kept_module_writes_to_keeps_its_dtype():
    model = torch.nn.ModuleDict({"cached": Cached()})
    memory, x = torch.zeros(2, 3, dtype=BFLOAT16), torch.randn(3)
    call = compile_program(lambda memory, x: model["cached"](memory, x), keep_float32=["cached"])
    with xpu_amp_dynamo.autocast("cpu"):
        call(memory, x)
    assert_same([memory[0]], [x.bfloat16()])


@pytest.mark.parametrize(
    "kept",
    [
        {"keep_float32": ["layers.0.self_attn"]},
        {"keep_float32": ["layers.1"]},
        {"keep_float32": ["layers.*.linear1"], "keep_lower": ["layers.*.norm1"]},
    ],
    ids=str,
)
def test_transformer_encoder(kept):
    layer = torch.nn.TransformerEncoderLayer(16, 2, 32, dropout=0, batch_first=True)
    check(torch.nn.TransformerEncoder(layer, 2, enable_nested_tensor=False), torch.randn(2, 5, 16), **kept)


class Logits(torch.nn.Module):
    """Gives the logits of a model of transformers, of embeddings."""

    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.model(inputs_embeds=x, use_cache=False).logits


SIZES: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "vocab_size": 50,
}


@pytest.mark.parametrize(
    "kept",
    [
        {"keep_float32": ["model.lm_head"]},
        {"keep_float32": ["*.mlp"]},
        {"keep_float32": ["model.model.layers.1.self_attn"], "keep_lower": ["model.model.layers.1.self_attn.o_proj"]},
    ],
    ids=str,
)
def test_llama(kept):
    config = transformers.LlamaConfig(**SIZES, num_key_value_heads=2)
    check(Logits(transformers.LlamaForCausalLM(config)), torch.randn(2, 5, 32), **kept)


@pytest.mark.parametrize("kept", [{"keep_float32": ["*.attention"]}, {"keep_float32": ["model.cls"]}], ids=str)
def test_bert(kept):
    config = transformers.BertConfig(**SIZES, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    check(Logits(transformers.BertForMaskedLM(config)), torch.randn(2, 5, 32), **kept)
