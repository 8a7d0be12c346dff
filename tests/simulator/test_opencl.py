"""Kernels run by Intel's OpenCL runtime: as the interpreter runs them, and what is said where there is no runtime."""

from __future__ import annotations

import copy
import importlib.metadata
from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

import xpu_amp_dynamo
from tests.simulator.test_compiled import largest_error, run
from tests.simulator.zoo import ZOO, build
from xpu_amp_dynamo.errors import SimulatorError
from xpu_amp_dynamo.simulator.intel_compiler import processes
from xpu_amp_dynamo.simulator.intel_compiler.compiled_kernel import FailedKernel
from xpu_amp_dynamo.simulator.opencl import device, run_kernels

# Sums in another order, and other functions of mathematics, are both of float32's precision; behind them some values
# round to the neighbour in bfloat16, of 8 bits.
BOUNDS = {torch.float32: 5e-6, torch.bfloat16: 2e-3}


def run_in(mode, model, x, **compile_options):
    with xpu_amp_dynamo.simulated_xpu(mode=mode):
        compiled = torch.compile(copy.deepcopy(model).to("xpu"), **compile_options)
        return run(compiled, x.to("xpu"))


CASES = [(name, dtype) for name in ZOO for dtype in BOUNDS if (name, dtype) != ("unet", torch.float32)]


# The U-Net alone takes a minute in the interpreter.
@pytest.mark.parametrize(
    ("name", "dtype"), [*CASES, pytest.param("unet", torch.float32, marks=pytest.mark.sweep)], ids=str
)
def test_it_agrees_with_the_interpreter(name, dtype, opencl):
    model, x = build(name)
    options = {} if dtype is torch.float32 else {"backend": "xpu_amp", "options": {"dtype": dtype}}
    expected = run_in("run", model, x, **options)
    assert largest_error(run_in("opencl", model, x, **options), expected) < BOUNDS[dtype]


def test_other_kernels_agree_with_the_interpreter(opencl):
    """Scans, sorts, indices, random numbers, a sum by atomic additions, long reductions, integers and booleans."""

    def program(x, indices):
        scattered = torch.zeros_like(x).index_add(0, indices, x)
        return (
            x.cumsum(0),
            x.sort(-1).values,
            x[indices],
            x.argmax(-1),
            scattered,
            torch.where(x > 0, x, x.exp()).sum(),
            x.repeat(1, 50).var(-1),
            (indices * 3) % 7,
            x.double().sin(),
            torch.nn.functional.max_pool2d(x[None], 3),
            torch.special.erfinv(x.tanh()),
        )

    def outcome(mode):
        with xpu_amp_dynamo.simulated_xpu(mode=mode):
            x = torch.linspace(-2, 2, 128).view(8, 16).to("xpu")
            indices = torch.tensor([3, 1, 3, 0, 7, 2, 2, 5], device="xpu")
            return [value.cpu() for value in torch.compile(program, backend="xpu_amp")(x, indices)]

    torch.testing.assert_close(outcome("opencl"), outcome("run"), rtol=1e-5, atol=1e-5)


def test_a_model_of_real_size_learns_as_eager_autocast_on_the_cpu(opencl):
    torch.manual_seed(0)
    model: Any = LlamaForCausalLM(
        LlamaConfig(hidden_size=512, intermediate_size=1024, num_hidden_layers=1, num_attention_heads=8, vocab_size=200)
    )
    tokens = torch.randint(0, 200, (1, 16))

    def curve(model, tokens, call):
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
        losses = []
        for _ in range(50):
            loss = call(tokens)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            losses.append(loss.item())
        return torch.tensor(losses)

    model_on_cpu = copy.deepcopy(model)

    def eager(tokens):
        with torch.autocast("cpu", torch.bfloat16):
            return model_on_cpu(tokens, labels=tokens).loss

    expected = curve(model_on_cpu, tokens, eager)
    with xpu_amp_dynamo.simulated_xpu(mode="opencl"):
        compiled = torch.compile(model.to("xpu"), backend="xpu_amp")
        actual = curve(model, tokens.to("xpu"), lambda tokens: compiled(tokens, labels=tokens).loss)
    assert actual[-1] < 0.1 * actual[0]
    # The curve falls by a factor of thousands; where it is steep, rounding shows as a step more or less.
    assert (actual - expected).abs().max() < 0.02 * expected[0]


@pytest.mark.parametrize("refused", ["first", "for the processor", "all"])
def test_kernels_that_cannot_be_built(refused, opencl, monkeypatch, caplog):
    """The runtime's compiler crashes on some, in one configuration or in all of them (intel-opencl-rt 2026.2)."""
    of = {"first": lambda s: s.configuration == 0, "for the processor": lambda s: s.for_cpu, "all": lambda s: True}

    def compile_kernels(sources):
        pairs = zip(sources, processes.compile_kernels(sources), strict=True)
        return [FailedKernel(s.name, "it ended") if of[refused](s) else made for s, made in pairs]

    monkeypatch.setattr(run_kernels, "compile_kernels", compile_kernels)
    x = torch.linspace(-1, 1, 4096).view(64, 64)
    with xpu_amp_dynamo.simulated_xpu(mode="opencl"):
        compiled = torch.compile(lambda x: x.relu() * 2)
        if refused == "all":
            with pytest.raises(torch._inductor.exc.InductorError, match=r"(?s)refuses the kernel triton_poi.*it ended"):
                compiled(x.to("xpu"))
        else:
            assert torch.equal(compiled(x.to("xpu")).cpu(), x.relu() * 2)
    assert ("Triton's interpreter runs" in caplog.text) == (refused == "for the processor")


DIVISIONS: dict[str, Any] = {
    "remainder": torch.remainder,
    "fmod": torch.fmod,
    "truncated": lambda a, b: torch.div(a, b, rounding_mode="trunc"),
    "floored": lambda a, b: a // b,
    "of less": lambda a, b: a % (b - 1),
}


@pytest.mark.parametrize("dtype", [torch.int16, torch.int32, torch.int64], ids=str)
@pytest.mark.parametrize("name", DIVISIONS)
def test_divisions_write_to_their_output_alone(name, dtype, opencl):
    """The runtime's compiler takes divisions by zero, such as behind the end of a tensor, for impossible."""
    count, divide = 129, DIVISIONS[name]
    left, right = torch.randint(-3000, 3000, (count,), dtype=dtype), torch.randint(2, 200, (count,), dtype=dtype)
    with xpu_amp_dynamo.simulated_xpu(mode="opencl"):
        memory = torch.full((3 * count,), -77, dtype=dtype, device="xpu")
        compiled = torch.compile(lambda a, b, out: out.copy_(divide(a, b)))
        compiled(left.to("xpu"), right.to("xpu"), memory[count : 2 * count])
        before, result, behind = memory.cpu().chunk(3)
    assert torch.equal(result, divide(left, right))
    assert before.eq(-77).all()
    assert behind.eq(-77).all()


def test_a_bad_index_raises_in_the_interpreter():
    from triton.runtime.errors import InterpreterError

    check_bad_indices("run", InterpreterError)


def test_a_bad_index_raises(opencl):
    check_bad_indices("opencl", AssertionError)


def check_bad_indices(mode, kind):
    """Check that a bad index is an exception, which leaves the inputs, and the compiled program, as they were."""

    def pick(x, first, second):
        return x[first] * 2, x[:, second].sum(), torch.nn.functional.embedding(first, x)

    with xpu_amp_dynamo.simulated_xpu(mode=mode):
        compiled = torch.compile(pick, backend="xpu_amp")
        x = torch.arange(80.0).view(10, 8).to("xpu")
        good, bad, far = (torch.tensor(indices, device="xpu") for indices in ([1, 7], [1, 9], [1 << 40, 0]))
        expected = [value.cpu() for value in pick(x, good, good)]
        for first, second, size in ((good, bad, 8), (far, good, 10)):
            with pytest.raises(kind, match=rf"index out of bounds: (0 <= )?tmp\d+ < {size}"):
                compiled(x, first, second)
            assert x.sum() == 79 * 40
            for value, other in zip(compiled(x, good, good), expected, strict=True):
                assert torch.equal(value.cpu(), other)


@pytest.fixture
def forgotten_runtime():
    """Have the runtime looked for anew, and once more behind the test."""
    caches = (device.pyopencl, device.context, device.queue)
    for cache in caches:
        cache.cache_clear()
    yield
    for cache in caches:
        cache.cache_clear()


@pytest.mark.parametrize("package", ["intel-opencl-rt", "intel-cmplr-lib-rt"])
def test_a_missing_runtime_is_named(package, forgotten_runtime, monkeypatch):
    files = importlib.metadata.files

    def without(name):
        if name == package:
            raise importlib.metadata.PackageNotFoundError(name)
        return files(name)

    monkeypatch.setattr(importlib.metadata, "files", without)
    if package != "intel-opencl-rt":
        monkeypatch.setattr(device, "RUNTIME", "torch")
        monkeypatch.setattr(device, "DRIVER", "version.py")
    with (
        pytest.raises(SimulatorError, match=f"needs {package}, which is not installed: .*opencl"),
        xpu_amp_dynamo.simulated_xpu(mode="opencl"),
    ):
        pass
    with xpu_amp_dynamo.simulated_xpu():
        assert torch.ones(2, device="xpu").sum() == 2


def test_a_missing_compiler_is_named_before_anything_starts(opencl, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with (
        pytest.raises(SimulatorError, match="install-compiler"),
        xpu_amp_dynamo.simulated_xpu(mode="opencl"),
    ):
        pass
