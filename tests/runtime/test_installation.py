"""Installing and removing a policy."""

from __future__ import annotations

import warnings

import pytest
import torch

import xpu_amp_dynamo
from xpu_amp_dynamo import Policy, install, installed_policy, uninstall
from xpu_amp_dynamo.errors import PolicyConflictError, UnknownOpError, UnknownPolicyError, UnsupportedDeviceError
from xpu_amp_dynamo.policy.devices import AUTOCAST_KEYS
from xpu_amp_dynamo.policy.foreign_autocast import has_foreign_autocast

BFLOAT16, FLOAT32 = torch.bfloat16, torch.float32


def dtype_of_exp_of_product(device):
    x = torch.randn(4, 4, device=device)
    with torch.autocast(device, BFLOAT16):
        return torch.logsumexp(x @ x, 0).dtype


def test_install_and_uninstall(device):
    stock = torch._C._dispatch_get_registrations_for_dispatch_key("AutocastXPU")
    assert installed_policy("xpu") is None
    install(device_type="xpu")
    assert installed_policy("xpu") == Policy.named("xpu")
    uninstall("xpu")
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


@pytest.mark.skipif(torch.cuda.is_available(), reason="builds of torch for CUDA make no fake tensors of XPUs")
def test_xpu_kernels_run_on_fake_xpu_tensors():
    install(device_type="xpu")
    with torch._subclasses.fake_tensor.FakeTensorMode(), torch.autocast("xpu", BFLOAT16):
        x = torch.empty(4, 4, device="xpu")
        assert (x @ x).dtype is BFLOAT16
        assert torch.softmax(x @ x, -1).dtype is BFLOAT16
        assert torch.nn.functional.log_softmax(x @ x, -1).dtype is FLOAT32
        assert torch.cat([x, x @ x]).dtype is FLOAT32


def test_the_default_device_is_that_of_autocast():
    install()
    device_type = xpu_amp_dynamo.default_device_type()
    assert installed_policy() == installed_policy(torch.device(device_type, 0)) == Policy.named("xpu")
    x = torch.randn(4, 4, device=device_type)
    with xpu_amp_dynamo.autocast(policy="xpu"):
        assert (x @ x).dtype is BFLOAT16
    uninstall(f"{device_type}:0")
    assert installed_policy(device_type) is None


def test_unsupported_device_type_is_refused():
    for function in (uninstall, installed_policy, lambda device_type: install(device_type=device_type)):
        with pytest.raises(UnsupportedDeviceError, match="'meta'"):
            function("meta")


@pytest.fixture
def library():
    """A library that tests define ops in, gone after them."""
    library = torch.library.Library("xpu_amp_test_other", "DEF")
    yield library
    library._destroy()


def float32_only(x):
    if x.dtype is not FLOAT32:
        raise RuntimeError(f"no kernel for {x.dtype}")
    return x + 1


@pytest.fixture
def foreign_op(library):
    """An op with a float32 kernel only, whose library casts for it in regions of the CPU, as torchvision does."""
    library.define("nms(Tensor x) -> Tensor")
    library.impl("nms", float32_only, "CPU")
    torch.library.register_autocast("xpu_amp_test_other::nms", "cpu", FLOAT32, lib=library)
    return torch.ops.xpu_amp_test_other.nms.default


def test_autocast_kernels_of_other_libraries_stay(foreign_op):
    x = torch.randn(4).bfloat16()
    install(device_type="cpu")
    with torch.autocast("cpu", BFLOAT16):
        assert foreign_op(x).dtype is FLOAT32
    assert has_foreign_autocast(foreign_op, "cpu")
    assert not has_foreign_autocast(foreign_op, "xpu")
    assert not has_foreign_autocast(torch.ops.aten.linear.default, "cpu")


def test_a_policy_may_list_an_op_of_which_another_library_casts_the_inputs(foreign_op):
    x = torch.randn(4)
    install(Policy.named("xpu").with_ops(lower_precision=[foreign_op]), "cpu")
    assert not has_foreign_autocast(foreign_op, "cpu")
    with torch.autocast("cpu", BFLOAT16), pytest.raises(RuntimeError, match="no kernel for"):
        foreign_op(x)
    install(device_type="cpu")
    assert has_foreign_autocast(foreign_op, "cpu")
    with torch.autocast("cpu", BFLOAT16):
        assert foreign_op(x.bfloat16()).dtype is FLOAT32


def test_an_op_that_only_a_policy_casts_is_not_foreign(library):
    library.define("scale(Tensor x) -> Tensor")
    library.impl("scale", lambda x: x * 2, "CPU")
    op = torch.ops.xpu_amp_test_other.scale.default
    install(Policy.named("xpu").with_ops(lower_precision=[op]), "cpu")
    assert not has_foreign_autocast(op, "cpu")
    uninstall("cpu")
    assert not has_foreign_autocast(op, "cpu")


def test_policies_go_by_name(device):
    install("ipex", device)
    assert installed_policy(device) == Policy.named("ipex")
    with xpu_amp_dynamo.autocast(device, policy="ipex"):
        pass
    with pytest.raises(PolicyConflictError, match="'torch' was asked for, but 'ipex' is installed"):
        xpu_amp_dynamo.autocast(device, policy="torch")


@pytest.mark.parametrize("wrong", [object(), "native", 3, Policy])
@pytest.mark.parametrize("before", [None, "ipex"])
def test_a_bad_policy_changes_nothing(device, wrong, before):
    if before:
        install(before, device)
    for use in (install, lambda policy, device: xpu_amp_dynamo.autocast(device, policy=policy)):
        with pytest.raises(UnknownPolicyError, match=r"\['ipex', 'torch', 'xpu'\]"):
            use(wrong, device)
        assert installed_policy(device) == (before and Policy.named(before))


def test_a_policy_whose_op_is_gone_changes_nothing(device):
    gone = torch.library.Library("xpu_amp_test_gone", "DEF")
    gone.define("op(Tensor x) -> Tensor")
    gone.impl("op", torch.clone, "CPU")
    policy = Policy.named("xpu").with_ops(lower_precision=["xpu_amp_test_gone::op"])
    gone._destroy()
    install("torch", device)
    with pytest.raises(UnknownOpError, match=r"lists 'xpu_amp_test_gone::op', which is registered no longer.*leave="):
        install(policy, device)
    assert installed_policy(device) == Policy.named("torch")
    assert dtype_of_exp_of_product(device) is FLOAT32


def test_an_installation_that_fails_half_way_is_taken_back(device, monkeypatch):
    install("torch", device)
    register, calls = torch.library.Library.impl, []

    def fail_at_last(library, *args, **kwargs):
        calls.append(args)
        if len(calls) == 20:
            raise MemoryError
        register(library, *args, **kwargs)

    monkeypatch.setattr(torch.library.Library, "impl", fail_at_last)
    with pytest.raises(MemoryError):
        install("xpu", device)
    assert installed_policy(device) == Policy.named("torch")
    assert dtype_of_exp_of_product(device) is FLOAT32


def test_policies_replace_each_other_without_a_trace(device):
    key = AUTOCAST_KEYS[device]
    stock = torch._C._dispatch_get_registrations_for_dispatch_key(key)
    for name in ("torch", "xpu", "ipex", "torch"):
        install(name, device)
    uninstall(device)
    assert sorted(torch._C._dispatch_get_registrations_for_dispatch_key(key)) == sorted(stock)
