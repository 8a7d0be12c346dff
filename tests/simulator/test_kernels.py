"""Reports of what an XPU would run, and that what they describe is what runs."""

from __future__ import annotations

import subprocess
import sys
from unittest import mock

import pytest
import torch
import transformers
from expecttest import assert_expected_inline
from torch._inductor.runtime.triton_heuristics import CachingAutotuner

import xpu_amp_dynamo
from benchmarks.models import Size
from benchmarks.models import build as build_model
from tests.simulator.zoo import build
from tests.support.memory import STATISTICS, resident_bytes
from xpu_amp_dynamo.errors import InvalidOptionError
from xpu_amp_dynamo.lowering.aten import library_calls
from xpu_amp_dynamo.simulator.xpu_kernels import copy_to_xpu


def lines(report):
    """Return a report's launches in one line each."""

    def dtypes(found):
        return "/".join(str(dtype).removeprefix("torch.") for dtype in found)

    return "\n".join(
        f"{'triton' if launch.is_triton else launch.name}: {'+'.join(launch.ops)} "
        f"{dtypes(launch.input_dtypes)}->{dtypes(launch.output_dtypes)} "
        f"{launch.bytes_read}+{launch.bytes_written}{' cast' if launch.only_casts else ''}"
        for launch in report.launches
    )


def test_kernels_of_a_linear_layer():
    model = torch.nn.Linear(64, 32)
    x, recast = torch.randn(8, 64), {"weights": "recast"}
    assert_expected_inline(
        lines(xpu_amp_dynamo.xpu_kernels(model, x)),
        """\
triton: _to_copy float32->bfloat16 2048+1024 cast
aten.addmm.dtype: addmm+_to_copy bfloat16->float32 5184+1024""",
    )
    report = xpu_amp_dynamo.xpu_kernels(model, x, beside=["stock autocast", "float32"], options=recast)
    assert_expected_inline(
        lines(report),
        """\
triton: _foreach_copy float32->bfloat16 10240+5120 cast
aten.mm.out: addmm bfloat16->bfloat16 5120+512
triton: _to_copy+addmm float32/bfloat16->float32 640+1024""",
    )
    assert_expected_inline(
        lines(report.beside["stock autocast"]),
        """\
triton: _to_copy float32->bfloat16 2048+1024 cast
triton: _to_copy float32->bfloat16 8192+4096 cast
triton: _to_copy float32->bfloat16 128+64 cast
aten.addmm.out: addmm+_to_copy bfloat16->bfloat16 5184+512""",
    )
    assert_expected_inline(lines(report.beside["float32"]), """aten.addmm.out: addmm float32->float32 10368+1024""")


def test_kernels_of_a_normalised_layer_and_its_backward():
    report = xpu_amp_dynamo.xpu_kernels(*build("layer_norm"), train=True)
    assert_expected_inline(
        lines(report.of_graphs("forward")),
        """\
triton: _to_copy float32->bfloat16 1536+768 cast
aten.addmm.out: addmm+_to_copy bfloat16->bfloat16 2880+768
triton: native_layer_norm+_to_copy+silu bfloat16/float32->float32 1024+1632""",
    )
    assert_expected_inline(
        lines(report.of_graphs("backward")),
        """\
triton: native_layer_norm+_to_copy+native_layer_norm_backward+silu_backward bfloat16/float32->float32/bfloat16 2656+2304
triton: native_layer_norm_backward+silu_backward+native_layer_norm+_to_copy bfloat16/float32->float32 3936+256
aten.mm.dtype_out: mm+_to_copy+native_layer_norm_backward+silu_backward+native_layer_norm bfloat16->float32 1536+4096
triton: sum+_to_copy+native_layer_norm_backward+silu_backward+native_layer_norm bfloat16->bfloat16/float32 768+128""",
    )


def test_kernels_of_attention():
    assert_expected_inline(
        lines(xpu_amp_dynamo.xpu_kernels(*build("causal_attention"))),
        """\
triton: _to_copy float32->bfloat16 1536+768 cast
aten.addmm.out: addmm+_to_copy bfloat16->bfloat16 7104+2304
aten._scaled_dot_product_fused_attention_overrideable.default: _scaled_dot_product_fused_attention_overrideable bfloat16->bfloat16 2304+768
aten.addmm.dtype: addmm bfloat16->float32 2880+1536""",
    )


PRODUCTS = ("aten.mm.out", "aten.addmm.out", "aten.convolution.default")


@pytest.mark.parametrize("name", ["mlp", "unet", "classifier"])
def test_both_ways_of_autocast_are_counted_in_one_run(name):
    ways, recast = ["stock autocast", "float32"], {"weights": "recast"}
    report = xpu_amp_dynamo.xpu_kernels(*build(name), train=True, beside=ways, options=recast)
    stock, float32 = report.beside["stock autocast"], report.beside["float32"]
    assert report.way == "xpu_amp"
    assert float32.cast_launches == 0
    assert min(report.cast_launches, stock.cast_launches) > 0
    assert len({each.extern_calls for each in (report, stock, float32)}) == 1
    for each in (report, stock, float32):
        assert {launch.graph for launch in each.launches} == {"forward 0", "backward 0"}
        products = [launch for launch in each.launches if launch.name in PRODUCTS]
        wanted = torch.float32 if each is float32 else torch.bfloat16
        assert {launch.output_dtypes for launch in products} == {(wanted,)}


def test_extern_calls_name_the_dtypes_of_several_results():
    report = xpu_amp_dynamo.xpu_kernels(*build("attention"))
    (attention,) = [launch for launch in report.launches if "attention" in launch.name]
    assert attention.input_dtypes == attention.output_dtypes == (torch.bfloat16,)
    assert any("scaled_dot_product_attention" in source for source in attention.sources)
    assert all("zoo.py:" in source or "linear.py:" in source for source in attention.sources)


@pytest.mark.parametrize("name", ["mlp", "unet", "classifier"])
def test_the_report_lists_what_runs(name):
    """The same model in run mode: as many Triton launches, of the same kernels, in the same order."""
    model, x = build(name)
    expected = xpu_amp_dynamo.xpu_kernels(model, x, train=True)
    launched = []
    run = CachingAutotuner.run

    def recorded(kernel, *args, **kwargs):
        launched.append(kernel.fn.__name__)
        return run(kernel, *args, **kwargs)

    with mock.patch.object(CachingAutotuner, "run", recorded), xpu_amp_dynamo.simulated_xpu():
        output = torch.compile(model.to("xpu"), backend="xpu_amp")(x.to("xpu"))
        output.backward(torch.ones_like(output))
    assert launched == [launch.name for launch in expected.launches if launch.is_triton]


def test_bytes_are_those_of_inductor():
    totals = []
    codegen = torch._inductor.scheduler.Scheduler.codegen

    def counted(scheduler):
        totals.append(torch._inductor.virtualized.V.graph.count_bytes()[0])
        return codegen(scheduler)

    with mock.patch.object(torch._inductor.scheduler.Scheduler, "codegen", counted):
        report = xpu_amp_dynamo.xpu_kernels(*build("unet"), train=True)
    assert len(totals) == 2
    assert report.bytes_moved == sum(totals)


@pytest.mark.parametrize("train", [False, True])
def test_the_model_stays_as_it_is(train):
    model, inputs = build_model("llama", Size(layers=1), "cpu")
    before = {name: value.clone() for name, value in model.state_dict().items()}
    memory = {name: p.data_ptr() for name, p in model.named_parameters()}
    xpu_amp_dynamo.xpu_kernels(model, kwargs=inputs, train=train)
    assert {name: p.data_ptr() for name, p in model.named_parameters()} == memory
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(p.grad is None and p.device.type == "cpu" for p in model.parameters())


@pytest.mark.skipif(not STATISTICS.exists(), reason="only Linux tells resident memory this way")
def test_weights_take_no_memory():
    model = torch.nn.Linear(8, 8)
    model.weight = torch.nn.Parameter(torch.empty(20_000, 20_000))
    with xpu_amp_dynamo.simulated_xpu(mode="inspect"):
        before = resident_bytes()
        copied = copy_to_xpu(model)
        assert torch.xpu.memory_allocated() >= 1_600_000_000
        assert resident_bytes() - before < 100_000_000
        del copied


def test_tied_weights_stay_tied():
    model, inputs = build_model("gpt2", Size(layers=1), "cpu")
    assert isinstance(model, transformers.GPT2LMHeadModel)
    assert model.lm_head.weight is model.transformer.wte.weight
    report = xpu_amp_dynamo.xpu_kernels(model, kwargs=inputs)
    assert report.triton_launches
    with xpu_amp_dynamo.simulated_xpu(mode="inspect"):
        copied = copy_to_xpu(model)
        assert isinstance(copied, transformers.GPT2LMHeadModel)
        assert copied.lm_head.weight is copied.transformer.wte.weight
        assert copied.lm_head.weight.is_xpu


# Dynamo looks at the gradient of the tensor that crosses the break, on every device (torch 2.13.0).
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")
def test_graph_breaks_give_several_graphs():
    class Broken(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = torch.nn.Linear(4, 4), torch.nn.Linear(4, 4)

        def forward(self, x):
            hidden = self.first(x)
            torch._dynamo.graph_break()
            return self.second(hidden)

    report = xpu_amp_dynamo.xpu_kernels(Broken(), torch.randn(2, 4), train=True)
    graphs = list(dict.fromkeys(launch.graph for launch in report.launches))
    assert sorted(graphs) == ["backward 0", "backward 1", "forward 0", "forward 1"]


def test_sources_are_written(tmp_path):
    report = xpu_amp_dynamo.xpu_kernels(*build("mlp"), beside=["float32"])
    paths = report.write_sources(tmp_path / "new" / "folder")
    assert [path.name for path in paths] == ["xpu_amp_forward_0.py", "float32_forward_0.py"]
    assert all("async_compile.triton(" in path.read_text() for path in paths)
    assert "device='xpu'" in paths[0].read_text() or "empty_strided_xpu" in paths[0].read_text()


def test_printed_tables():
    text = str(xpu_amp_dynamo.xpu_kernels(*build("mlp"), beside=["float32"]))
    for expected in ("xpu_amp: launches in order", "Triton kernels", "of these only casts", "bytes moved", "mm.out"):
        assert expected in text


def test_bad_arguments_are_refused():
    model, x = build("mlp")
    with pytest.raises(InvalidOptionError, match="unknown options"):
        xpu_amp_dynamo.xpu_kernels(model, x, options={"dtpe": torch.float16})
    with pytest.raises(TypeError, match=r"takes a model, a torch.nn.Module, and got int"):
        xpu_amp_dynamo.xpu_kernels(5, torch.ones(2))  # type: ignore[arg-type]
    with pytest.raises(InvalidOptionError, match=r"beside names \['ipex'\]; the ways are"):
        xpu_amp_dynamo.xpu_kernels(model, x, beside=["ipex"])
    assert not torch.xpu.is_available()


@pytest.mark.parametrize("part", ["max-1550", "arc-b580", "arc-a770"])
def test_every_part_gets_kernels(part):
    report = xpu_amp_dynamo.xpu_kernels(*build("mlp"), part=part)
    assert report.triton_launches > 0


def test_command_line(tmp_path):
    (tmp_path / "my_models.py").write_text(
        "import torch\ndef make():\n    return torch.nn.Linear(8, 8), (torch.randn(2, 8),)\n"
    )
    words = ["kernels", "my_models:make", "--train", "--beside", "float32", "--sources", "out"]
    command = [sys.executable, "-m", "xpu_amp_dynamo", *words]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "Triton kernels" in done.stdout
    assert (tmp_path / "out" / "xpu_amp_backward_0.py").exists()


def test_inside_a_region_outputs_stay_in_lower_precision():
    dtypes = {}
    for region in (False, True):
        report = xpu_amp_dynamo.xpu_kernels(torch.nn.Linear(64, 32), torch.randn(8, 64), region=region)
        dtypes[region] = report.launches[-1].output_dtypes
    assert dtypes == {False: (torch.float32,), True: (torch.bfloat16,)}


def test_weights_of_all_shapes_share_a_kernel():
    layers = [torch.nn.Conv2d(a, b, size, bias=False) for a, b, size in ((3, 8, 3), (8, 4, 5), (4, 8, 1), (8, 8, 3))]
    image = torch.randn(1, 3, 16, 16)
    model, options = torch.nn.Sequential(*layers), {"weights": "recast"}
    report = xpu_amp_dynamo.xpu_kernels(model, image, region=True, beside=["stock autocast"], options=options)
    # One for those whose layout the convolutions change, one for that of size 1, which has none to change.
    shared = 2 if library_calls.LAYOUTS_SHARE_KERNELS else len(layers) + 1
    assert report.cast_launches == shared
    assert report.beside["stock autocast"].cast_launches == len(layers) + 1
