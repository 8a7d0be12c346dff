"""Compiled code on the simulated XPU: Inductor's Triton kernels run by the interpreter, compared with the CPU."""

from __future__ import annotations

import copy

import pytest
import torch

from tests.simulator.zoo import ZOO, build

# Norm of the difference, relative to the reference's. float32 differs by the order of sums alone. Of the lower
# precisions' 8 and 11 bits, about one is lost between matrix products of a handful of layers.
BOUNDS = {torch.float32: 1e-5, torch.bfloat16: 1e-2, torch.float16: 2e-3}
# Rounding turns some maxima of its pooling, so that their gradients go elsewhere; with averages it is 0.0064.
LOOSER = {("unet", torch.bfloat16): 0.1}


def run(model, x):
    """Return the output and all gradients, on the CPU and in float64 where they are floating."""
    model.zero_grad()
    if x.is_floating_point():
        x = x.detach().clone().requires_grad_()
    output = model(x)
    # Weighted, or the gradient of a normalisation's sum would be zero.
    weights = torch.linspace(0.5, 1.5, output.numel()).view(output.shape).to(output.device)
    (output.float() * weights).sum().backward()
    values = {"output": output, **{name: p.grad for name, p in model.named_parameters()}}
    if x.grad is not None:
        values["input"] = x.grad
    return {name: value.detach().cpu().double() for name, value in values.items()}


def largest_error(actual, reference):
    return max(float((actual[n] - r).norm() / r.norm().clamp_min(1e-3)) for n, r in reference.items())


def marked(dtype):
    """Return a parameter: float16 takes the ways of bfloat16, so that the larger sweeps are enough for it."""
    return pytest.param(dtype, marks=pytest.mark.sweep if dtype is torch.float16 else (), id=str(dtype))


def compile_for(dtype):
    return {"backend": "xpu_amp", "options": {"dtype": dtype}} if dtype is not torch.float32 else {}


@pytest.mark.filterwarnings("ignore:float16 training needs loss scaling")
@pytest.mark.parametrize("dtype", [marked(dtype) for dtype in BOUNDS])
@pytest.mark.parametrize("name", ZOO)
def test_zoo_runs_like_the_cpu(name, dtype, simulated_xpu):
    model, x = build(name)
    reference = run(copy.deepcopy(model), x)
    model = model.to("xpu")
    compiled = torch.compile(model, **compile_for(dtype), fullgraph=True)
    actual = run(compiled, x.to("xpu"))
    actual = {key.removeprefix("_orig_mod."): value for key, value in actual.items()}
    assert largest_error(actual, reference) < LOOSER.get((name, dtype), BOUNDS[dtype])


def test_a_compiled_optimizer_steps_like_that_of_the_cpu(simulated_xpu):
    """Its kernel multiplies by a function of the device library that rounds by itself."""
    on_cpu = torch.randn(9)
    on_xpu = on_cpu.to("xpu")
    for parameter, compile_step in ((on_cpu, lambda step: step), (on_xpu, torch.compile)):
        optimizer = torch.optim.AdamW([parameter], lr=0.1)
        parameter.grad = parameter * 0.5
        step = compile_step(optimizer.step)
        step()
        step()
    torch.testing.assert_close(on_xpu.cpu(), on_cpu)
    compiled = torch.compile(lambda x: torch.addcmul(x, x, x, value=0.5))
    torch.testing.assert_close(compiled(on_xpu).cpu(), torch.addcmul(on_cpu, on_cpu, on_cpu, value=0.5))
