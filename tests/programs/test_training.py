"""Thirty training steps of real models on data that can be learned: compiled beside eager autocast and float32."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import pytest
import torch
import transformers

import xpu_amp_dynamo
from benchmarks.models import MODELS, Size, build, loss_and_output
from tests.support.comparison import assert_same
from tests.support.versions import GRADIENTS_AS_EAGER

transformers.logging.set_verbosity_error()
pytestmark = pytest.mark.filterwarnings("ignore:float16 training needs loss scaling")

STEPS = 30
BFLOAT16, FLOAT16, FLOAT32 = torch.bfloat16, torch.float16, torch.float32
# How far a curve may be from that of float32, relative to its first loss. Runs of one dtype with other roundings
# differ by up to 0.03 in the middle of these curves, where they fall fastest.
CURVE_BOUND = 0.06
SIZE = Size(width=32, layers=1, heads=2, batch=4, length=16)


def learnable(name: str) -> tuple[torch.nn.Module, Callable[[int], dict[str, torch.Tensor]]]:
    """Return a model in training mode and what makes its batches: periodic tokens, or images with a visible label."""
    model, _ = build(name, SIZE)

    def batch(step: int) -> dict[str, torch.Tensor]:
        torch.manual_seed(step)
        inputs = MODELS[name][1](SIZE)
        if "input_ids" in inputs:
            starts = torch.randint(3, 60, (SIZE.batch, 1))
            inputs["input_ids"] = inputs["labels"] = starts + torch.arange(SIZE.length) % 4
        if name == "resnet":
            inputs["labels"] %= 2
            inputs["pixel_values"] += 2 * inputs["labels"][:, None, None, None]
        return inputs

    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0  # devices draw other random numbers
    return model.train(), batch


def curve(
    name: str,
    wrap: Callable[[torch.nn.Module], Any] = lambda model: model,
    region: Callable[[], Any] = contextlib.nullcontext,
    scaled: bool = False,
    device: str = "cpu",
    **settings: Any,
) -> tuple[list[float], torch.nn.Module]:
    """Train a model and return its losses and itself; ``settings`` are those of AdamW."""
    model, batch = learnable(name)
    model.to(device)
    call = wrap(model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, **settings)
    scaler = torch.amp.GradScaler(device, enabled=scaled, init_scale=2.0**10)
    losses = []
    for step in range(STEPS):
        inputs = {key: value.to(device) for key, value in batch(step).items()}
        with region():
            output = loss_and_output(call(**inputs))
            # The U-Net is to give back its input.
            loss = output[0] if "labels" in inputs else (output[1].float() - inputs["pixel_values"]).square().mean()
        optimizer.zero_grad(set_to_none=True)
        scaler.scale(loss).backward()
        scaler.unscale_(optimizer)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        scaler.step(optimizer)
        scaler.update()
        losses.append(loss.item())
    return losses, model


def gradients_of(model: torch.nn.Module) -> list[torch.Tensor]:
    """Return the gradients of a model's parameters."""
    return [p.grad for p in model.parameters() if p.grad is not None]


def compiler(inner_backend: str, dtype: torch.dtype) -> Callable[[torch.nn.Module], Any]:
    """Return what compiles a model for our backend."""
    options: dict[str, Any] = {"inner_backend": inner_backend, "dtype": dtype}
    return lambda model: torch.compile(model, backend="xpu_amp", options=options)


def assert_near(losses: list[float], reference: list[float]) -> None:
    """Check that a curve falls, and falls like the reference."""
    assert sum(losses[-5:]) < 0.8 * sum(losses[:5])
    worst = max(abs(one - other) for one, other in zip(losses, reference, strict=True))
    assert worst < CURVE_BOUND * reference[0], (losses, reference)


@pytest.mark.parametrize("dtype", [BFLOAT16, FLOAT16])
@pytest.mark.parametrize("name", [pytest.param("llama", marks=GRADIENTS_AS_EAGER), "resnet", "unet"])
def test_lowered_curve_is_that_of_eager_autocast(name, dtype):
    def region():
        return xpu_amp_dynamo.autocast("cpu", dtype)

    scaled = dtype is FLOAT16
    reference, _ = curve(name)
    eager, _ = curve(name, region=region, scaled=scaled)
    lowered, model = curve(name, compiler("eager", dtype), region, scaled)
    assert lowered == eager
    assert_near(lowered, reference)
    assert lowered != reference
    assert {p.dtype for p in model.parameters()} == {gradient.dtype for gradient in gradients_of(model)} == {FLOAT32}


@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        pytest.param("bert", BFLOAT16, marks=pytest.mark.slow),
        # A minute each.
        pytest.param("llama", BFLOAT16, marks=pytest.mark.sweep),
        pytest.param("resnet", BFLOAT16, marks=pytest.mark.sweep),
        pytest.param("unet", BFLOAT16, marks=pytest.mark.slow),
        pytest.param("unet", FLOAT16, marks=pytest.mark.sweep),
    ],
    ids=lambda value: str(value).removeprefix("torch."),
)
def test_inductor_s_curve(name, dtype, device):
    reference, _ = curve(name)
    losses, model = curve(name, compiler("inductor", dtype), scaled=dtype is FLOAT16, device=device)
    assert_near(losses, reference)
    assert {p.dtype for p in model.parameters()} == {gradient.dtype for gradient in gradients_of(model)} == {FLOAT32}


@pytest.mark.parametrize("settings", [{"foreach": True}, {"fused": True}], ids=str)
def test_optimizers(settings):
    def region():
        return xpu_amp_dynamo.autocast("cpu")

    eager, _ = curve("unet", region=region, **settings)
    lowered, model = curve("unet", compiler("eager", BFLOAT16), region, **settings)
    assert lowered == eager
    assert {p.dtype for p in model.parameters()} == {FLOAT32}


def accumulate(call: Any, model: torch.nn.Module, batches: list[torch.Tensor]) -> list[torch.Tensor]:
    """Return clipped gradients of several batches together."""
    model.zero_grad(set_to_none=True)
    for batch in batches:
        (call(batch).float().square().mean() / len(batches)).backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 0.01)
    return [gradient.clone() for gradient in gradients_of(model)]


@pytest.mark.parametrize("inner_backend", ["eager", "aot_eager", "inductor"])
def test_gradient_accumulation(inner_backend):
    model = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.GELU(), torch.nn.Linear(16, 8))
    batches = [torch.randn(4, 8) for _ in range(4)]
    reference = accumulate(model, model, batches)
    with xpu_amp_dynamo.autocast("cpu"):
        eager = accumulate(model, model, batches)
    gradients = accumulate(compiler(inner_backend, BFLOAT16)(model), model, batches)
    assert {g.dtype for g in gradients} == {FLOAT32}
    if inner_backend == "inductor":
        for one, other in zip(gradients, reference, strict=True):
            assert (one - other).norm() < 0.02 * other.norm()
    else:
        assert_same(gradients, eager)


@pytest.mark.parametrize("inner_backend", ["eager", "inductor"])
def test_optimizer_step_inside_a_compiled_function(inner_backend):
    """Update of float32 weights by ops in the graph: they stay float32, and casts of them are not used again."""

    def train(wrap):
        torch.manual_seed(0)
        model = torch.nn.Linear(8, 8)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

        def forward(x):
            with xpu_amp_dynamo.autocast("cpu"):
                return model(x).float().square().mean()

        @wrap
        def step():
            optimizer.step()

        call, losses = wrap(forward), []
        for _ in range(8):
            optimizer.zero_grad()
            loss = call(torch.ones(2, 8))
            loss.backward()
            step()
            losses.append(loss.item())
        return losses, model.weight

    options = {"inner_backend": inner_backend}
    eager, _ = train(lambda function: function)
    losses, weight = train(lambda function: torch.compile(function, backend="xpu_amp", options=options))
    assert weight.dtype is FLOAT32
    assert losses == pytest.approx(eager, rel=0 if inner_backend == "eager" else 0.02)
    assert losses[-1] < losses[0] / 2


def test_update_between_two_uses_of_a_weight_in_one_graph():
    def program(x, w):
        with xpu_amp_dynamo.autocast("cpu"):
            before = x @ w
            with torch.no_grad():
                w.sub_(0.1 * w.sign())
            return before, x @ w

    x = torch.randn(4, 4)
    weights = [torch.nn.Parameter(torch.ones(4, 4)) for _ in range(2)]
    expected = program(x, weights[0])
    actual = torch.compile(program, backend="xpu_amp", options={"inner_backend": "eager"})(x, weights[1])
    assert_same(actual, expected)
    assert not torch.equal(*actual)
    assert torch.equal(*weights)
    assert weights[1].dtype is FLOAT32
