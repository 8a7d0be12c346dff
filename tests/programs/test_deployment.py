"""Programs that leave this process: traced, exported, compiled ahead of time, and run where the package is not."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch.utils import _pytree as pytree

import xpu_amp_dynamo
from tests.support.comparison import assert_same, relative_error
from xpu_amp_dynamo.errors import InvalidOptionError

# Inductor copies pytree's LeafSpec when it packages a program, torch 2.13.0.
PACKAGES = pytest.mark.filterwarnings("ignore:.*LeafSpec.*is deprecated:FutureWarning")
BFLOAT16, FLOAT32 = torch.bfloat16, torch.float32
REFUSE = """
import sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split('.')[0] == 'xpu_amp_dynamo':
            raise ImportError(name)
sys.meta_path.insert(0, Refuse())
import torch
"""


def run_elsewhere(directory: Path, program: str) -> torch.Tensor:
    """Run a program in a new process that cannot import the package; return the tensor ``y`` that it computes."""
    program = (
        f"{REFUSE}x = torch.load('x.pt')\n{program}\nassert 'xpu_amp_dynamo' not in sys.modules\ntorch.save(y, 'y.pt')"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=directory, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return torch.load(directory / "y.pt")


class Net(torch.nn.Module):
    """A small net; inside a region of its own if asked for, with a part of it in float32."""

    def __init__(self, region=False):
        super().__init__()
        torch.manual_seed(0)
        self.embedding = torch.nn.Embedding(16, 8)
        self.first, self.second = torch.nn.Linear(8, 32), torch.nn.Linear(32, 16)
        self.scale = torch.nn.Parameter(torch.ones(8))
        self.calls: torch.Tensor
        self.register_buffer("calls", torch.zeros(1))
        self.region = region

    def body(self, ids):
        x = self.embedding(ids) * self.scale
        y = F.gelu(self.first(x))
        with torch.autocast("cpu", enabled=False):
            norm = y.float().norm(dim=-1, keepdim=True) @ torch.ones(1, 32)
        self.calls.add_(1)
        return torch.log_softmax(self.second(y), -1), torch.cat([y, norm], -1)

    def forward(self, ids):
        if self.region:
            with torch.autocast("cpu", BFLOAT16):
                return self.body(ids)
        return self.body(ids)


IDS = torch.arange(12).view(3, 4)


def exported(region=False, strict=False, dynamic=False):
    shapes = {"ids": {0: torch.export.Dim("batch")}} if dynamic else None
    return torch.export.export(Net(region).eval(), (IDS,), dynamic_shapes=shapes, strict=strict)


@pytest.fixture(autouse=True)
def policy():
    xpu_amp_dynamo.install(device_type="cpu")


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize("dynamic", [False, True])
def test_exported_region(strict, dynamic):
    program = exported(region=True, strict=strict, dynamic=dynamic)
    text = str(program.graph)
    lowered = xpu_amp_dynamo.lower_exported(program)
    assert str(program.graph) == text
    assert "autocast" not in str(lowered.graph_module.code)
    with torch.no_grad():
        expected = Net(True)(IDS)
        # The lowered program needs neither the policy nor a region.
        xpu_amp_dynamo.uninstall("cpu")
        actual = lowered.module()(IDS)
        assert_same(actual, expected)
        if dynamic:
            assert lowered.module()(IDS[:2])[0].shape == (2, 4, 16)
    assert [t.dtype for t in actual] == [FLOAT32, FLOAT32]


def test_program_without_a_region_follows_the_options():
    lowered = xpu_amp_dynamo.lower_exported(exported(), dtype=torch.float16, preserve_output_dtype=False)
    with torch.no_grad():
        with torch.autocast("cpu", torch.float16):
            expected = Net()(IDS)
        actual = lowered.module()(IDS)
    assert_same(actual, expected)
    off = xpu_amp_dynamo.lower_exported(exported(), enabled=False)
    assert torch.equal(off.module()(IDS)[0], Net()(IDS)[0])


def test_weights_are_stored_in_the_lower_type():
    lowered = xpu_amp_dynamo.lower_exported(exported(), weights="cached")
    dtypes = {name: tensor.dtype for name, tensor in lowered.state_dict.items()}
    low = {name for name, dtype in dtypes.items() if dtype is BFLOAT16}
    assert low == {"first.weight", "first.bias", "second.weight", "second.bias"}
    plain = xpu_amp_dynamo.lower_exported(exported())
    assert {t.dtype for t in plain.state_dict.values()} == {FLOAT32}
    assert_same(lowered.module()(IDS), plain.module()(IDS))
    assert lowered.module()(IDS)[0].dtype is FLOAT32


def test_save_and_load(tmp_path):
    lowered = xpu_amp_dynamo.lower_exported(exported(), weights="cached")
    torch.export.save(lowered, tmp_path / "net.pt2")
    torch.save(IDS, tmp_path / "x.pt")
    y = run_elsewhere(tmp_path, "y = torch.export.load('net.pt2').module()(x)[0]")
    assert torch.equal(y, lowered.module()(IDS)[0])


@PACKAGES
def test_compiled_ahead_of_time(tmp_path):
    lowered = xpu_amp_dynamo.lower_exported(exported(dynamic=True), weights="cached")
    torch._inductor.aoti_compile_and_package(lowered, package_path=str(tmp_path / "net.pt2"))
    torch.save(IDS[:2], tmp_path / "x.pt")
    y = run_elsewhere(tmp_path, "y = torch._inductor.aoti_load_package('net.pt2')(x)[0]")
    assert y.dtype is FLOAT32
    assert relative_error(y, lowered.module()(IDS[:2])[0]) < 0.01
    assert not torch.equal(y, Net()(IDS[:2])[0])


@PACKAGES
def test_the_package_is_half_as_large(tmp_path):
    class Wide(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = torch.nn.Linear(512, 512)
            self.more = torch.nn.Parameter(torch.randn(512, 512))

        def forward(self, x):
            return self.linear(x) @ self.more.t()

    program, sizes = torch.export.export(Wide().eval(), (torch.randn(2, 512),)), {}
    for weights in ("recast", "cached"):
        path = tmp_path / f"{weights}.pt2"
        lowered = xpu_amp_dynamo.lower_exported(program, weights=weights)
        torch._inductor.aoti_compile_and_package(lowered, package_path=str(path))
        sizes[weights] = path.stat().st_size
    assert sizes["recast"] - sizes["cached"] > 0.9 * 2 * 512 * 512 * 2


def test_traced_and_frozen(tmp_path):
    model, x = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU()).eval(), torch.randn(1, 3, 8, 8)
    with torch.no_grad(), xpu_amp_dynamo.autocast("cpu"):
        traced = torch.jit.freeze(torch.jit.trace(model, x))
        expected = model(x)
    traced.save(tmp_path / "net.pt")
    torch.save(x, tmp_path / "x.pt")
    y = run_elsewhere(tmp_path, "import warnings; warnings.simplefilter('ignore'); y = torch.jit.load('net.pt')(x)")
    assert y.dtype is BFLOAT16
    assert torch.equal(y, expected)


# Their forward calls its argument `input`, which is the name of a builtin, or has many arguments.
MODULES = {
    "Sequential": lambda: (torch.nn.Sequential(torch.nn.Linear(8, 4), torch.nn.ReLU()), [torch.randn(2, 8)]),
    "Linear": lambda: (torch.nn.Linear(8, 4), [torch.randn(2, 8)]),
    "Conv2d": lambda: (torch.nn.Conv2d(3, 4, 3), [torch.randn(1, 3, 8, 8)]),
    "LayerNorm": lambda: (torch.nn.LayerNorm(8), [torch.randn(2, 8)]),
    "LSTM": lambda: (torch.nn.LSTM(8, 8), [torch.randn(3, 2, 8)]),
    "MultiheadAttention": lambda: (torch.nn.MultiheadAttention(8, 2), [torch.randn(3, 2, 8)] * 3),
}


# Export of an LSTM, torch 2.13.0.
@pytest.mark.filterwarnings("ignore:The tensor attributes self._flat_weights")
@pytest.mark.parametrize("weights", ["recast", "cached"])
@pytest.mark.parametrize("name", MODULES)
def test_modules_of_torch(name, weights, tmp_path):
    model, inputs = MODULES[name]()
    program = torch.export.export(model.eval(), tuple(inputs))
    lowered = xpu_amp_dynamo.lower_exported(program, weights=weights)
    assert lowered.graph_signature.user_inputs == program.graph_signature.user_inputs
    torch.export.save(lowered, tmp_path / "model.pt2")
    with xpu_amp_dynamo.autocast("cpu"), torch.no_grad():
        expected = pytree.tree_leaves(model(*inputs))
    for run in (lowered.module(), torch.export.load(tmp_path / "model.pt2").module()):
        actual = pytree.tree_leaves(run(*inputs))
        assert len(actual) == len(expected)
        for one, other in zip(actual, expected, strict=True):
            assert one.dtype is FLOAT32
            assert relative_error(one, other) <= 0.01


def test_refusals():
    program = exported()
    for options, message in (
        ({"inner_backend": "eager"}, "'inner_backend' is about compiled code"),
        ({"dtpe": BFLOAT16}, r"unknown options \['dtpe'\]"),
        ({"dtype": torch.float64}, "option 'dtype'"),
    ):
        with pytest.raises(InvalidOptionError, match=message):
            xpu_amp_dynamo.lower_exported(program, **options)
