"""The region of a simulated XPU: what it leaves behind (nothing), where it refuses to start, and its two modes."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from typing import Any
from unittest import mock

import pytest
import torch
import torch._inductor.config
from torch._dynamo.device_interface import XpuInterface

import xpu_amp_dynamo
from tests.simulator.zoo import ZOO, build
from xpu_amp_dynamo import simulated_xpu
from xpu_amp_dynamo.errors import SimulatorError
from xpu_amp_dynamo.simulator import device_library, refusal


def snapshot():
    """Return everything that a region might have changed, by name."""
    triton_run = torch._inductor.runtime.triton_heuristics.CachingAutotuner.run
    owners = {"torch._C": torch._C, "torch.xpu": torch.xpu, "XpuInterface": XpuInterface}
    values = {f"{name}.{key}": value for name, owner in owners.items() for key, value in vars(owner).items()}
    values["environment"] = dict(os.environ)
    values["config"] = torch._inductor.config.get_config_copy()
    values["lowerings"] = dict(torch._inductor.lowering.lowerings)
    values["fallbacks"] = set(torch._inductor.lowering.fallbacks)
    values["run"] = triton_run
    return values


@pytest.mark.parametrize("mode", ["run", "inspect"])
def test_leaving_restores_everything(mode):
    import torch._inductor.compile_fx

    with simulated_xpu():
        pass  # what imports and first uses change for good is no concern here
    before = snapshot()
    with simulated_xpu(mode=mode):
        model, x = build("mlp")
        torch.compile(model.to("xpu"), backend="xpu_amp")(x.to("xpu"))
    after = snapshot()
    assert [name for name in before.keys() | after.keys() if before.get(name) != after.get(name)] == []
    assert not torch.xpu.is_available()
    accelerator = torch.accelerator.current_accelerator()
    assert accelerator is None or accelerator.type != "xpu"


def test_weights_cast_while_kernels_were_left_out():
    """Those of the CPU are cast all the same; the casts of others hold nothing, and are not used later."""
    x = torch.randn(3, 4)
    models = {"cpu": torch.nn.Linear(4, 4, bias=False), "xpu": torch.nn.Linear(4, 4, bias=False)}

    @torch.no_grad()
    def run(device):
        torch._dynamo.reset()
        options: dict[str, Any] = {"inner_backend": "eager", "weights": "cached"}
        return torch.compile(models[device], backend="xpu_amp", options=options)(x.to(device)).cpu()

    expected = {d: (x.bfloat16() @ model.weight.detach().bfloat16().T).float() for d, model in models.items()}
    with simulated_xpu(mode="inspect"):
        models["xpu"].to("xpu")
        assert torch.equal(run("cpu"), expected["cpu"])
        run("xpu")
    assert torch.equal(run("cpu"), expected["cpu"])
    with simulated_xpu():
        assert torch.equal(run("xpu"), expected["xpu"])


def test_an_exception_leaves_the_region_clean():
    with pytest.raises(KeyError), simulated_xpu():
        raise KeyError
    assert not torch.xpu.is_available()
    with simulated_xpu():
        assert torch.xpu.is_available()


def test_no_new_tensors_outside_the_region_and_old_ones_stay_readable():
    with simulated_xpu():
        x = torch.ones(3, device="xpu")
    assert x.tolist() == [1, 1, 1]
    with pytest.raises((RuntimeError, AssertionError), match=r"simulated XPU is off|not compiled with XPU"):
        torch.empty(3, device="xpu")


def test_cpu_code_compiles_as_before_inside_and_after():
    model, x = build("mlp")
    expected = model(x)
    with simulated_xpu():
        torch.testing.assert_close(torch.compile(model)(x), expected)
    torch.testing.assert_close(torch.compile(model)(x), expected)


def test_regions_do_not_nest_nor_overlap():
    refused = []

    def other_thread():
        with pytest.raises(SimulatorError) as caught, simulated_xpu():
            pass
        refused.append(str(caught.value))

    with simulated_xpu():
        with pytest.raises(SimulatorError, match="on already"), simulated_xpu():
            pass
        thread = threading.Thread(target=other_thread)
        thread.start()
        thread.join()
    assert "on already" in refused[0]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"part": "max-1100"}, r"no part 'max-1100'.*'arc-a770', 'arc-b580'"),
        ({"mode": "fast"}, "'run', 'opencl', 'inspect'"),
    ],
)
def test_unknown_arguments_are_refused(arguments, message):
    with pytest.raises(SimulatorError, match=message), simulated_xpu(**arguments):
        pass


def test_refuses_on_an_xpu_build():
    with mock.patch.object(torch._C, "_has_xpu", True), pytest.raises(SimulatorError, match="built for real XPUs"):
        refusal.refuse_beside_real_xpu()


def test_refuses_on_a_cuda_build():
    cuda_build = mock.patch.object(torch.backends.cuda, "is_built", return_value=True)
    with cuda_build, pytest.raises(SimulatorError, match=r"is a CUDA build.*needs a CPU build"):
        refusal.refuse_beside_real_xpu()


def test_refuses_beside_another_xpu_implementation():
    answer = mock.patch.object(torch._C, "_dispatch_has_kernel_for_dispatch_key", return_value=True)
    with answer, pytest.raises(SimulatorError, match="another library already provides an XPU"):
        refusal.refuse_beside_real_xpu()


@pytest.mark.parametrize(
    ("vendor", "kind", "device", "refused"),
    [
        ("0x8086", "0x030000", "0xe20b", True),
        ("0x8086", "0x038000", "0x0bd5", True),
        ("0x8086", "0x030000", "0x56a0", True),
        ("0x8086", "0x030000", "0x9a49", False),  # graphics of a laptop processor
        ("0x8086", "0x040300", "0x56a0", False),
        ("0x10de", "0x030000", "0x56a0", False),
    ],
)
def test_refuses_beside_a_real_gpu(tmp_path, monkeypatch, vendor, kind, device, refused):
    folder = tmp_path / "0000:03:00.0"
    folder.mkdir()
    for name, text in (("vendor", vendor), ("class", kind), ("device", device)):
        (folder / name).write_text(text + "\n")
    monkeypatch.setattr(refusal, "PCI_DEVICES", tmp_path)
    assert refusal.intel_gpus() == (["0000:03:00.0"] if refused else [])
    monkeypatch.setattr(torch._C, "_dispatch_has_kernel_for_dispatch_key", lambda *_: False)
    if refused:
        with pytest.raises(SimulatorError, match=r"real Intel GPU \(PCI device 0000:03:00.0\).*XPU build"):
            refusal.refuse_beside_real_xpu()
    else:
        refusal.refuse_beside_real_xpu()


def run_python(program, **environment):
    given = {**os.environ, **environment}
    return subprocess.run([sys.executable, "-c", program], env=given, capture_output=True, text=True, check=False)


def test_a_missing_compiler_is_named(tmp_path):
    program = "import xpu_amp_dynamo\nwith xpu_amp_dynamo.simulated_xpu(): pass"
    done = run_python(program, CXX="/no/such/compiler", XDG_CACHE_HOME=str(tmp_path))
    assert done.returncode == 1
    assert "SimulatorError" in done.stderr
    assert "install g++, or name one in the environment variable CXX" in done.stderr
    assert not list(tmp_path.rglob("*.so"))


def test_the_library_is_built_once(tmp_path):
    program = (
        "import torch, xpu_amp_dynamo\n"
        "torch.ones(2, requires_grad=True).sum().backward()\n"  # autograd has started its threads by then
        "torch.accelerator.current_accelerator()\n"  # and PyTorch has asked for the hooks
        "with xpu_amp_dynamo.simulated_xpu():\n"
        "    x = torch.ones(2, device='xpu', requires_grad=True)\n"
        "    (x * 3).sum().backward()\n"
        "    print(x.grad.tolist())\n"
    )
    first = run_python(program, XDG_CACHE_HOME=str(tmp_path))
    assert first.stdout.strip() == "[3.0, 3.0]", first.stderr
    (library,) = tmp_path.rglob("*.so")
    built = library.stat().st_mtime_ns
    assert run_python(program, XDG_CACHE_HOME=str(tmp_path)).stdout == first.stdout
    assert library.stat().st_mtime_ns == built
    assert torch.__version__ in library.name
    assert library.is_relative_to(tmp_path / "xpu_amp_dynamo")
    assert device_library.cache_folder() != library.parent


def test_without_triton_eager_works_and_compiling_says_what_is_missing():
    program = (
        "import sys; sys.modules['triton'] = None\n"
        "import torch, xpu_amp_dynamo\n"
        "with xpu_amp_dynamo.simulated_xpu():\n"
        "    print(torch.ones(2, device='xpu').sum().item())\n"
        "    try: torch.compile(torch.sin, backend='xpu_amp')(torch.ones(2, device='xpu'))\n"
        "    except Exception as error: print(error)\n"
        "try: xpu_amp_dynamo.xpu_kernels(torch.nn.Linear(2, 2), torch.ones(2, 2))\n"
        "except Exception as error: print(error)\n"
    )
    done = run_python(program)
    assert done.stdout.startswith("2.0"), done.stderr
    missing = 'compiling for an XPU needs Triton, which is not installed: `pip install ".[simulator]"` in a clone'
    assert done.stdout.count(missing) == 2, done.stdout


@pytest.mark.parametrize("name", ZOO)
def test_inspected_code_returns_zeros_of_the_right_kind(name):
    model, x = build(name)
    expected = model(x)
    with simulated_xpu(mode="inspect"):
        model = model.to("xpu")
        statistics = {key: value.clone() for key, value in model.named_buffers()}
        output = torch.compile(model, backend="xpu_amp")(x.to("xpu"))
        output.backward(torch.ones_like(output))
        assert output.shape == expected.shape
        assert output.dtype is expected.dtype
        assert not output.any()
        gradients = {key: p.grad for key, p in model.named_parameters() if p.grad is not None}
        assert {key: g.shape for key, g in gradients.items()} == {key: p.shape for key, p in model.named_parameters()}
        assert not any(gradient.any() for gradient in gradients.values())
        assert all(torch.equal(value, statistics[key]) for key, value in model.named_buffers())


def test_dropout_draws_the_same_mask_forward_and_backward():
    with simulated_xpu():
        x = torch.ones(256, device="xpu", requires_grad=True)
        dropped = torch.compile(torch.nn.functional.dropout, backend="xpu_amp")(x, 0.25)
        dropped.sum().backward()
        kept = dropped != 0
        assert 0.5 < kept.float().mean() < 0.95
        assert x.grad is not None
        assert torch.equal(x.grad, kept.float() / 0.75)
        torch.manual_seed(7)
        one = torch.compile(torch.nn.functional.dropout, backend="xpu_amp")(x.detach(), 0.25)
        torch.manual_seed(7)
        assert torch.equal(one, torch.compile(torch.nn.functional.dropout, backend="xpu_amp")(x.detach(), 0.25))


def test_stock_autocast_compiles_and_runs():
    model, x = build("mlp")
    expected = model(x)
    with simulated_xpu(), torch.autocast("xpu", torch.bfloat16):
        output = torch.compile(model.to("xpu"))(x.to("xpu"))
        assert output.dtype is torch.bfloat16
        torch.testing.assert_close(output.cpu().float(), expected, rtol=0.05, atol=0.02)


def test_policy_installs_and_uninstalls_on_the_simulated_xpu():
    with simulated_xpu():
        x = torch.randn(4, 4, device="xpu")
        with xpu_amp_dynamo.autocast():
            assert torch.softmax(x @ x, -1).dtype is torch.bfloat16
        xpu_amp_dynamo.uninstall("xpu")
        with torch.autocast("xpu", torch.bfloat16):
            assert torch.softmax(x @ x, -1).dtype is torch.float32


@pytest.mark.parametrize("before", [None, "ipex"])
def test_the_policy_that_was_installed_is_again(before):
    if before is not None:
        xpu_amp_dynamo.install(before, "xpu")
    expected = xpu_amp_dynamo.installed_policy("xpu")
    with xpu_amp_dynamo.simulated_xpu():
        xpu_amp_dynamo.install("torch", "xpu")
    assert xpu_amp_dynamo.installed_policy("xpu") == expected
    xpu_amp_dynamo.uninstall("xpu")
