"""Modules kept in one precision in eager regions."""

from __future__ import annotations

import functools
import threading
from typing import Any

import pytest
import torch

import xpu_amp_dynamo
from tests.support.comparison import assert_same
from tests.support.kept_models import Model
from xpu_amp_dynamo.compat.regions_around import open_regions

# Models of these tests have no parameters, by which the device would be known.
keep_precision = functools.partial(xpu_amp_dynamo.keep_precision, device_type="cpu")
BFLOAT16, FLOAT16, FLOAT32, FLOAT64 = torch.bfloat16, torch.float16, torch.float32, torch.float64


class Witness(torch.nn.Module):
    """Notes the dtypes of its inputs and whether autocast is on, and calls what it is given."""

    def __init__(self, inner: torch.nn.Module | None = None) -> None:
        super().__init__()
        self.inner = inner
        self.seen: list[Any] = []

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        tensors = torch.utils._pytree.tree_leaves((args, kwargs))
        self.seen = [torch.is_autocast_enabled("cpu"), *(t.dtype for t in tensors if isinstance(t, torch.Tensor))]
        return args if self.inner is None else self.inner(*args, **kwargs)


def model_of(**modules: torch.nn.Module) -> torch.nn.ModuleDict:
    return torch.nn.ModuleDict(modules)


def test_nested_inputs_are_float32_and_others_stay():
    a = Witness()
    model = model_of(a=a)
    x = torch.ones(2, dtype=BFLOAT16)
    with keep_precision(model, keep_float32=["a"]), xpu_amp_dynamo.autocast("cpu"):
        out = a([x, {"y": x.half()}], 3, x.double(), z=(x.int(), x.to(torch.complex64)))
        assert torch.is_autocast_enabled("cpu")
    assert a.seen == [False, FLOAT32, FLOAT32, FLOAT64, torch.int32, torch.complex64]
    assert out[0][0].dtype is FLOAT32


def test_what_is_kept_lower_gets_and_gives_the_dtype_of_the_region():
    a = Witness()
    with keep_precision(model_of(a=a), keep_lower=["a"]), xpu_amp_dynamo.autocast("cpu", FLOAT16):
        out = a(torch.ones(2), {"y": torch.ones(2).bfloat16()})
    assert a.seen == [True, FLOAT16, FLOAT16]
    assert [out[0].dtype, out[1]["y"].dtype] == [FLOAT16, FLOAT16]


@pytest.mark.parametrize("option", ["keep_float32", "keep_lower"])
@pytest.mark.parametrize("enabled", [None, False])
def test_outside_of_enabled_regions_nothing_changes(option, enabled):
    a = Witness()
    x, y = torch.ones(2), torch.ones(2, dtype=BFLOAT16)
    region = torch.autocast("cpu", enabled=False) if enabled is False else torch.no_grad()
    kept: dict[str, Any] = {option: ["a"]}
    with keep_precision(model_of(a=a), **kept), region:
        a(x, y)
    assert a.seen == [False, FLOAT32, BFLOAT16]


def test_one_tensor_stays_one():
    """Attention looks whether query, key and value are the same."""
    seen: list[bool] = []

    class Comparing(torch.nn.Module):
        def forward(self, q, k):
            seen.append(q is k)

    a = Comparing()
    x = torch.ones(2, dtype=BFLOAT16)
    with keep_precision(model_of(a=a), keep_float32=["a"]), xpu_amp_dynamo.autocast("cpu"):
        a(x, x)
    assert seen == [True]


def test_a_module_kept_lower_inside_one_kept_in_float32():
    inner = Witness()
    outer = Witness(inner)
    x = torch.ones(2)
    with (
        keep_precision(model_of(a=outer), keep_float32=["a"], keep_lower=["a.inner"]),
        xpu_amp_dynamo.autocast("cpu"),
    ):
        (y,) = outer(x)
    assert outer.seen == [False, FLOAT32]
    assert inner.seen == [True, BFLOAT16]
    assert y.dtype is FLOAT32


def test_a_region_inside_decides_for_what_is_in_it():
    class Regional(torch.nn.Module):
        def __init__(self, inner):
            super().__init__()
            self.inner = inner

        def forward(self, x):
            with torch.autocast("cpu", enabled=False):
                return self.inner(x)

    inner = Witness()
    model = model_of(a=Regional(inner))
    with (
        keep_precision(model, keep_float32=["a"], keep_lower=["a.inner"]),
        xpu_amp_dynamo.autocast("cpu"),
    ):
        model["a"](torch.ones(2))
    assert inner.seen == [False, FLOAT32]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
@pytest.mark.parametrize("region_outside", [True, False])
def test_an_exception_leaves_neither_hooks_nor_regions(error, region_outside):
    class Raising(torch.nn.Module):
        def forward(self, x):
            raise error

    model = model_of(a=Witness(Raising()))
    keep = keep_precision(model, keep_float32=["a"], keep_lower=["a.inner"])
    contexts: list[Any] = [xpu_amp_dynamo.autocast("cpu"), keep]
    if not region_outside:
        contexts.reverse()
    with pytest.raises(error), contexts[0], contexts[1]:
        model["a"](torch.ones(2))
    assert not torch.is_autocast_enabled("cpu")
    assert open_regions() == 0
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_hooks_of_users_run_inside_and_are_kept():
    seen = []
    a = Witness()
    a.register_forward_hook(lambda module, args, output: seen.append((args[0].dtype, torch.is_autocast_enabled("cpu"))))
    x = torch.ones(2, dtype=BFLOAT16)
    with keep_precision(model_of(a=a), keep_float32=["a"]), xpu_amp_dynamo.autocast("cpu"):
        a(x)
    with xpu_amp_dynamo.autocast("cpu"):
        a(x)
    assert seen == [(FLOAT32, False), (BFLOAT16, True)]


def test_threads_keep_their_regions_apart():
    model = Model()
    x = torch.randn(4, 16)
    with keep_precision(model, keep_float32=["layers"]):
        with xpu_amp_dynamo.autocast("cpu"):
            expected = model(x)
        results: dict[int, torch.Tensor] = {}

        def run(number: int) -> None:
            with xpu_amp_dynamo.autocast("cpu"):
                results[number] = model(x)

        threads = [threading.Thread(target=run, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert_same([results[number] for number in range(4)], [expected] * 4)
