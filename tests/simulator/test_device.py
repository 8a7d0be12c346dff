"""The simulated device in eager code: memory, views, random numbers, streams, and what PyTorch says of it."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F

import xpu_amp_dynamo
from xpu_amp_dynamo.simulator.parts import PARTS

pytestmark = pytest.mark.usefixtures("simulated_xpu")


def test_pytorch_sees_an_xpu():
    assert torch.xpu.is_available()
    assert torch.xpu.device_count() == 1
    assert torch.xpu.current_device() == 0
    assert torch.accelerator.current_accelerator() == torch.device("xpu")
    assert xpu_amp_dynamo.default_device_type() == "xpu"
    assert torch.empty(2, device="xpu").device == torch.device("xpu", 0)
    with torch.xpu.device(0):
        torch.xpu.synchronize()
    torch.accelerator.synchronize()


@pytest.mark.parametrize("simulated_xpu", [{"part": part} for part in PARTS], indirect=True, ids=list(PARTS))
def test_properties_of_parts(simulated_xpu):
    properties = torch.xpu.get_device_properties()
    assert properties == simulated_xpu
    assert torch.xpu.get_device_name() == properties.name
    capability = torch.xpu.get_device_capability()
    assert capability["has_fp64"] is properties.has_fp64
    assert properties.has_fp64 is ("A770" not in properties.name)
    assert torch.xpu.mem_get_info()[1] == properties.total_memory


def test_no_second_device():
    with pytest.raises(RuntimeError, match="xpu:1 does not exist"):
        torch.empty(2, device="xpu:1")
    with pytest.raises(RuntimeError, match="no xpu:1"), torch.xpu.device(1):
        pass


def test_views_share_memory_and_see_writes():
    x = torch.arange(12.0).view(3, 4).to("xpu")
    for view in (x[1], x.t(), x.unfold(0, 2, 1), x.view(torch.int32), x.diagonal(), x.as_strided((2,), (5,))):
        assert view.untyped_storage().data_ptr() == x.untyped_storage().data_ptr()
    x[1].zero_()
    x.t()[0].fill_(9.0)
    assert x.cpu().tolist() == [[9, 1, 2, 3], [9, 0, 0, 0], [9, 9, 10, 11]]
    assert torch.view_as_real(x.cfloat()).shape == (3, 4, 2)  # type: ignore[attr-defined]


def test_results_resize_and_share_as_on_other_devices():
    x = torch.ones(3, device="xpu")
    out = torch.empty(0, device="xpu")
    torch.add(x, 1, out=out)
    assert out.tolist() == [2, 2, 2]
    assert x.resize_(5)[:3].tolist() == [1, 1, 1]
    other = torch.zeros(4, device="xpu")
    x.set_(other)  # type: ignore[call-overload]
    x.add_(1)
    assert other.tolist() == [1, 1, 1, 1]
    assert x.relu_() is x
    assert other.data.data_ptr() == other.data_ptr()


def test_mixed_devices_are_refused_as_on_a_gpu():
    x = torch.ones(3, device="xpu")
    with pytest.raises(RuntimeError, match="all tensors to be on the same device"):
        x + torch.ones(3)
    with pytest.raises(
        RuntimeError, match=r"same device, but aten::bincount got tensors of xpu:0 and of cpu.*\.to\(\)"
    ):
        torch.bincount(x.long(), torch.ones(3))
    assert (x + torch.tensor(1.0)).tolist() == [2, 2, 2]
    assert x[torch.tensor([0, 2])].shape == (2,)


def test_random_numbers_follow_the_seed_and_leave_the_cpu_alone():
    torch.manual_seed(3)
    first, cpu_first = torch.randn(4, device="xpu"), torch.rand(1)
    torch.manual_seed(3)
    cpu_again, again = torch.rand(1), torch.randn(4, device="xpu")
    assert torch.equal(first, again)
    assert torch.equal(cpu_first, cpu_again)
    state = torch.xpu.get_rng_state()
    one = F.dropout(torch.ones(64, device="xpu"))
    torch.xpu.set_rng_state(state)
    assert torch.equal(one, F.dropout(torch.ones(64, device="xpu")))
    assert not torch.equal(one, F.dropout(torch.ones(64, device="xpu")))
    own = torch.Generator(device="xpu").manual_seed(5)
    expected = torch.rand(3, generator=torch.Generator().manual_seed(5))
    assert torch.rand(3, device="xpu", generator=own).tolist() == expected.tolist()
    assert own.device == torch.device("xpu", 0)


def test_memory_is_counted():
    before = torch.xpu.memory_allocated()
    torch.xpu.reset_peak_memory_stats()
    x = torch.empty(1000, device="xpu")
    y = x + 1
    assert torch.xpu.memory_allocated() - before == 8000
    del x, y
    assert torch.xpu.memory_allocated() == before
    assert torch.xpu.max_memory_allocated() - before == 8000


def test_streams_and_events():
    start, end = torch.xpu.Event(enable_timing=True), torch.xpu.Event(enable_timing=True)
    start.record()
    torch.xpu.current_stream().synchronize()
    end.record()
    end.synchronize()
    assert 0 <= start.elapsed_time(end) < 60_000


def test_a_region_of_another_stream():
    stream, x = torch.xpu.Stream(), torch.ones(2, device="xpu")
    with torch.xpu.stream(stream):
        assert torch.xpu.current_stream() == stream
        y = x + 1
    torch.xpu.set_stream(stream)
    y.record_stream(torch.xpu.current_stream())
    torch.xpu.current_stream().wait_stream(stream)
    assert y.tolist() == [2, 2]


@pytest.mark.parametrize("optimizer", [torch.optim.SGD, torch.optim.AdamW])
@pytest.mark.parametrize("how", [{"foreach": True}, {"fused": True}, {}])
def test_training_equals_the_cpu(optimizer, how):
    model = torch.nn.Sequential(torch.nn.Conv2d(2, 4, 3), torch.nn.Flatten(), torch.nn.Linear(64, 5))
    images, labels = torch.randn(3, 2, 6, 6), torch.tensor([0, 1, 4])
    results = {}
    for device in ("cpu", "xpu"):
        copied = copy.deepcopy(model).to(device)
        step = optimizer(copied.parameters(), lr=0.1, **how)
        for _ in range(3):
            step.zero_grad()
            F.cross_entropy(copied(images.to(device)), labels.to(device)).backward()
            torch.nn.utils.clip_grad_norm_(copied.parameters(), 1.0)
            step.step()
        results[device] = [p.detach().cpu() for p in copied.parameters()]
    for cpu, xpu in zip(results["cpu"], results["xpu"], strict=True):
        torch.testing.assert_close(xpu, cpu, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("cell", [torch.nn.LSTM, torch.nn.GRU, torch.nn.RNN])
@pytest.mark.parametrize("bias", [True, False])
def test_recurrent_layers_equal_the_cpu(cell, bias):
    layer = cell(3, 4, num_layers=2, bias=bias, bidirectional=True)
    sequence = torch.randn(5, 2, 3)
    results = {}
    for device in ("cpu", "xpu"):
        copied = copy.deepcopy(layer).to(device)
        x = sequence.to(device, copy=True).requires_grad_()
        output, _ = copied(x)
        output.square().sum().backward()
        results[device] = [t.detach().cpu() for t in (output, x.grad, *(p.grad for p in copied.parameters()))]
    for cpu, xpu in zip(results["cpu"], results["xpu"], strict=True):
        torch.testing.assert_close(xpu, cpu, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("key_heads", [4, 2])
@pytest.mark.parametrize("mask", [None, "bool", "float", "causal"])
@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_attention_equals_the_cpu(key_heads, mask, dropout):
    def attention(device):
        query = torch.randn(2, 4, 5, 8, generator=torch.Generator().manual_seed(1)).to(device).requires_grad_()
        key, value = torch.randn(2, 2, key_heads, 6, 8, generator=torch.Generator().manual_seed(2)).to(device)
        key, value = key.detach().requires_grad_(), value.detach().requires_grad_()
        bias = torch.randn(5, 6, generator=torch.Generator().manual_seed(3)).to(device)
        given = {"bool": bias > -1, "float": bias}.get(mask)
        torch.manual_seed(0)
        grouped = {"enable_gqa": True} if key_heads != 4 else {}
        causal = mask == "causal"
        out = F.scaled_dot_product_attention(query, key, value, given, dropout, causal, **grouped)
        if dropout == 0:
            out.square().sum().backward()
        return [t.detach().cpu() for t in (out, query.grad, key.grad, value.grad) if t is not None]

    ours, reference = attention("xpu"), attention("cpu")
    if dropout:
        assert ours[0].shape == reference[0].shape
        assert not torch.equal(ours[0], attention("xpu")[0] * 0)
    else:
        for actual, expected in zip(ours, reference, strict=True):
            torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-5)


def test_attention_runs_fused_where_an_xpu_would_fuse_it():
    def ops_of(query, key):
        with torch.profiler.profile() as profile, torch.no_grad():
            F.scaled_dot_product_attention(query, key, key, enable_gqa=query.shape[1] != key.shape[1])
        return {event.name for event in profile.events()}

    fused = "aten::_scaled_dot_product_fused_attention_overrideable"
    query = torch.randn(1, 4, 3, 8, device="xpu")
    assert fused in ops_of(query, query)
    assert fused in ops_of(query, query[:, :2])
    assert fused not in ops_of(query.double(), query.double())
    assert fused not in ops_of(query[0], query[0])
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        assert fused not in ops_of(query, query)


def test_autocast_regions_of_cpu_and_xpu_do_not_mix():
    x = torch.randn(2, 2, device="xpu")
    with torch.autocast("cpu", torch.bfloat16):
        assert (x @ x).dtype is torch.float32
    with torch.autocast("xpu", torch.float16):
        assert (x @ x).dtype is torch.float16
        assert torch.softmax(x @ x, -1).dtype is torch.float32
    with xpu_amp_dynamo.autocast():
        assert torch.softmax(x @ x, -1).dtype is torch.bfloat16


@pytest.mark.parametrize("lower", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", ["_softmax", "_log_softmax"])
def test_softmax_of_lower_precision_writes_float32(name, lower):
    x, gradient = torch.randn(3, 5, dtype=lower), torch.randn(3, 5)
    on_xpu = x.to("xpu").requires_grad_()
    result = getattr(torch.ops.aten, name)(on_xpu, -1, True)
    (along_x,) = torch.autograd.grad(result, on_xpu, gradient.to("xpu"))
    x.requires_grad_()
    expected = getattr(torch.ops.aten, name)(x.float(), -1, False)
    torch.testing.assert_close(result.cpu(), expected, rtol=0, atol=0)
    torch.testing.assert_close(along_x.cpu(), *torch.autograd.grad(expected, x, gradient), rtol=0, atol=0)


def test_sparse_tensors_are_refused():
    with pytest.raises((RuntimeError, NotImplementedError)):
        torch.eye(2).to_sparse().to("xpu")


def test_views_in_inference_mode_count_as_those_of_their_base(simulated_xpu):
    x = torch.randn(2, 3, device="xpu")
    with torch.inference_mode():
        view = x.t()
        assert not view.is_inference()
        view.mul_(2)
        assert (x * 2).is_inference()
    assert x._version == view._version == 1
    assert view.data_ptr() == x.data_ptr()
