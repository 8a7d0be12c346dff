"""Which ops an XPU has kernels for: the table, the report, and the ops of the models' graphs."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
import torchgen  # type: ignore[import-untyped]

import xpu_amp_dynamo
from benchmarks.models import MODELS, Size, build
from tests.support.marks import slow_or_sweep
from xpu_amp_dynamo.simulator.xpu_ops import XpuSupport, ops_with_xpu_kernels, xpu_support

# Those of a custom op of transformers, which calls products for which XPUs have kernels.
OF_OTHER_LIBRARIES = {
    "transformers.grouped_mm_fallback.default",
    "transformers.grouped_mm_fallback_backward.default",
}
# The others take up to a minute: those with ops that no other has are left to the slow tests, the rest to the sweeps.
FEW = ("bert", "unet")
NAMES = [*FEW, *slow_or_sweep(sorted(MODELS.keys() - {*FEW}), "mixtral")]


@pytest.mark.parametrize(
    ("op", "support"),
    [
        ("aten.addmm.out", XpuSupport.KERNEL),
        ("aten.mm.dtype_out", XpuSupport.KERNEL),
        ("aten._scaled_dot_product_fused_attention_overrideable.default", XpuSupport.KERNEL),
        ("aten.convolution.default", XpuSupport.COMPOSITE),
        ("aten.linalg_lu.default", XpuSupport.HOST_FALLBACK),
        ("aten._linalg_eigh.default", XpuSupport.HOST_FALLBACK),
        ("aten._flash_attention_forward.default", XpuSupport.NONE),
        ("mylib.twice.default", XpuSupport.UNKNOWN),
    ],
)
def test_support(op, support):
    assert xpu_support(op) is support


def test_the_table_is_what_torch_says():
    """From torch 2.14 on, native_functions.yaml, which comes with every build, names the XPU's kernels."""
    text = (Path(torchgen.__file__).parent / "packaged/ATen/native/native_functions.yaml").read_text()
    entries = {entry.split("(", 1)[0]: entry for entry in re.split(r"^- func: ", text, flags=re.MULTILINE)[1:]}
    assert len(entries) > 2000
    kernels = {name for name, entry in entries.items() if re.search(r"^    [^:#]*\bXPU\b[^:]*:", entry, re.MULTILINE)}
    delegated = {
        name: re.search(r"^  structured_delegate: (\S+)", entry, re.MULTILINE) for name, entry in entries.items()
    }
    named = kernels | {name for name, found in delegated.items() if found and found[1] in kernels}
    table = ops_with_xpu_kernels()
    if torch.__version__ >= "2.14":
        assert len(named) > 1000
    # Ops come with each version, so that others may lack some.
    assert named - table == set()
    if torch.__version__.startswith("2.15"):
        assert table - named == set()


def test_an_op_that_the_host_runs_is_marked():
    report = xpu_amp_dynamo.xpu_kernels(Solver(), torch.randn(4, 4))
    assert [launch.name for launch in report.host_fallbacks] == ["aten.linalg_ldl_factor_ex.default"]
    assert "(host fallback)" in str(report)
    assert "of these not on the XPU" in str(report)


class Solver(torch.nn.Module):
    def forward(self, x):
        return torch.linalg.ldl_factor_ex(x @ x.T).LD.relu()


# Dynamo looks at the gradients of tensors that cross a graph break, on every device (torch 2.13.0).
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")
@pytest.mark.parametrize("name", NAMES)
def test_every_op_of_a_model_has_a_kernel(name):
    check_ops(name, train=True, beside=["stock autocast"])


OPTIONS: list[dict[str, Any]] = [
    {"precision": "exact"},
    {"dtype": torch.float16},
    {"weights": "recast"},
    {"weights": "cached"},
    {"preserve_output_dtype": False},
    *({"policy": name} for name in ("ipex", "torch")),
]


@pytest.mark.sweep
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")  # as above
@pytest.mark.filterwarnings("ignore:float16 training needs loss scaling")
@pytest.mark.parametrize("train", [False, True], ids=["inference", "training"])
@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("name", sorted(MODELS))
def test_every_op_has_a_kernel_with_all_options(name, options, train):
    check_ops(name, train=train, options=options)


def check_ops(name: str, **settings: Any) -> None:
    """Check that an XPU runs every op of a model that is no Triton kernel."""
    model, inputs = build(name, Size(layers=1), "cpu")
    report = xpu_amp_dynamo.xpu_kernels(model, kwargs=inputs, **settings)
    called = [launch for launch in report.launches if not launch.is_triton]
    assert called
    assert report.host_fallbacks == []
    assert {launch.name for launch in called if launch.support is XpuSupport.UNKNOWN} <= OF_OTHER_LIBRARIES
