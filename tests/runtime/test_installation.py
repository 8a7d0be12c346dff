"""Installing and removing a policy."""

from __future__ import annotations

import warnings

import pytest
import torch

import xpu_amp_dynamo
from xpu_amp_dynamo import Policy, install, installed_policy, uninstall
from xpu_amp_dynamo.errors import UnsupportedDeviceError

BFLOAT16, FLOAT32 = torch.bfloat16, torch.float32


def dtype_of_exp_of_product(device):
    x = torch.randn(4, 4, device=device)
    with torch.autocast(device, BFLOAT16):
        return torch.logsumexp(x @ x, 0).dtype


def test_install_and_uninstall(device):
    stock = torch._C._dispatch_get_registrations_for_dispatch_key("AutocastXPU")
    assert installed_policy("xpu") is None
    install()
    assert installed_policy("xpu") == Policy.named("xpu")
    uninstall()
    assert installed_policy("xpu") is None
    assert sorted(torch._C._dispatch_get_registrations_for_dispatch_key("AutocastXPU")) == sorted(stock)


def test_stock_behaviour_comes_back():
    x = torch.randn(4, 4)
    with torch.autocast("cpu"):
        before = (torch.linalg.inv(x.bfloat16()).dtype, torch.mm(x, x))
    install(device_type="cpu")
    with torch.autocast("cpu"), pytest.raises(RuntimeError, match="BFloat16"):
        torch.linalg.inv(x.bfloat16())
    uninstall("cpu")
    with torch.autocast("cpu"):
        after = (torch.linalg.inv(x.bfloat16()).dtype, torch.mm(x, x))
    assert before[0] is after[0]
    assert torch.equal(before[1], after[1])


def test_install_replaces(device):
    install(Policy.named("torch"), device)
    assert dtype_of_exp_of_product(device) is FLOAT32
    install(Policy.named("xpu"), device)
    assert dtype_of_exp_of_product(device) is BFLOAT16
    install(Policy.named("xpu").with_ops(float32=["logsumexp"]), device)
    assert dtype_of_exp_of_product(device) is FLOAT32


def test_custom_ops_of_a_policy_are_cast(device):
    @torch.library.custom_op("xpu_amp_test::scale", mutates_args=())
    def scale(x: torch.Tensor) -> torch.Tensor:
        return x * 2

    x = torch.randn(4, device=device)
    install(Policy.named("xpu").with_ops(lower_precision=[scale]), device)
    with torch.autocast(device, BFLOAT16):
        assert scale(x).dtype is BFLOAT16
    uninstall(device)
    with torch.autocast(device, BFLOAT16):
        assert scale(x).dtype is FLOAT32


def test_native_state_stays_the_truth(device):
    with xpu_amp_dynamo.autocast(device):
        assert torch.is_autocast_enabled(device)
        assert torch.get_autocast_dtype(device) is BFLOAT16
    assert not torch.is_autocast_enabled(device)


def test_installing_warns_of_nothing():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for device_type in ("cpu", "cuda", "xpu"):
            install(device_type=device_type)


def test_xpu_kernels_run_on_fake_xpu_tensors():
    install()
    with torch._subclasses.fake_tensor.FakeTensorMode(), torch.autocast("xpu", BFLOAT16):
        x = torch.empty(4, 4, device="xpu")
        assert (x @ x).dtype is BFLOAT16
        assert torch.softmax(x @ x, -1).dtype is BFLOAT16
        assert torch.nn.functional.log_softmax(x @ x, -1).dtype is FLOAT32
        assert torch.cat([x, x @ x]).dtype is FLOAT32


def test_unsupported_device_type_is_refused():
    for function in (uninstall, installed_policy, lambda device_type: install(device_type=device_type)):
        with pytest.raises(UnsupportedDeviceError, match="'meta'"):
            function("meta")
