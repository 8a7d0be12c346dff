"""No cast of a weight is stale, whatever changed the weight; what cannot be seen needs a refresh."""

from __future__ import annotations

import functools

import pytest
import torch

import xpu_amp_dynamo
from tests.runtime.weight_changes import FEW, HOLDING, ON_CPU, SLOW_WAYS, WAYS, WIDTH, expected, forward, small_model

# "recast" keeps no casts: to see, by hand, that the tests themselves are right.
MODE = "cached"
GRAD_MODES = {"no_grad": torch.no_grad, "inference_mode": torch.inference_mode}


def at_each_moment(names, few=None, rest=None):
    """Parametrize by names of ways and by when they are prepared, before or after the first call.

    Marks may be given for a few of the ways, and for the others.
    """
    cases = [(name, "held before") for name in names] + [(name, "held after") for name in names if name in HOLDING]
    marked = [pytest.param(*case, marks=few or () if case[0] in FEW else rest or ()) for case in cases]
    return pytest.mark.parametrize(("name", "moment"), marked)


every_way = at_each_moment(WAYS)
a_few_ways_first = at_each_moment(WAYS, rest=pytest.mark.sweep)
a_few_ways_slowly = at_each_moment(WAYS, few=pytest.mark.slow, rest=pytest.mark.sweep)
a_few_ways = at_each_moment(FEW)


@pytest.fixture
def way(name, device):
    if device != "cpu" and (name in ON_CPU or name not in FEW):
        pytest.skip("a few ways are enough for another device, and arrays lie in the CPU's memory")
    return {**WAYS, **SLOW_WAYS}[name]


def compiled(**options):
    options = {"weights": MODE, "inner_backend": "aot_eager", **options}
    return torch.compile(forward, backend="xpu_amp", options=options)


def region(device):
    return xpu_amp_dynamo.autocast(device, cache_enabled=MODE == "cached")


def in_a_region(model, x):
    with region(x.device.type):
        return model(x).float()


def in_the_open_region(model, x):
    return model(x).float()


def with_gradients(call):
    """Return a call that gives its output and the gradients of all parameters, in one tensor."""

    def run(model, x):
        output = call(model, x)
        weights = [parameter for parameter in model.parameters() if parameter.requires_grad]
        gradients = torch.autograd.grad(output.square().sum(), weights)
        return torch.cat([each.detach().flatten() for each in (output, *gradients)])

    return run


def in_mode(mode, call):
    return GRAD_MODES[mode]()(call)


def assert_equal(actual, wanted):
    torch.testing.assert_close(actual, wanted, rtol=0, atol=0)


def check(way, call, reference, moment, device, assert_same=assert_equal):
    """Call before and after two changes; each result is the reference's, and differs from the one before."""
    model, x = small_model(device), torch.randn(16, WIDTH, device=device)
    change = way(model) if moment == "held before" else None
    before = call(model, x)
    assert_same(before, reference(model, x))
    change = change or way(model)
    for _ in range(2):
        change()
        after = call(model, x)
        wanted = reference(model, x)
        # Not `assert`, which would hide what is stale behind what did not change.
        assert_same(after, wanted)
        assert_same(call(model, x), wanted)
        with pytest.raises(AssertionError):
            assert_same(after, before)
        before = after


@every_way
def test_compiled(way, moment, device):
    check(way, in_mode("no_grad", compiled()), in_mode("no_grad", expected), moment, device)


@a_few_ways_first
def test_compiled_in_inference_mode(way, moment, device):
    check(way, in_mode("inference_mode", compiled()), in_mode("inference_mode", expected), moment, device)


@every_way
def test_eager_regions(way, moment, device):
    check(way, in_mode("no_grad", in_a_region), in_mode("no_grad", expected), moment, device)


@a_few_ways_first
def test_eager_regions_in_inference_mode(way, moment, device):
    check(way, in_mode("inference_mode", in_a_region), in_mode("inference_mode", expected), moment, device)


@every_way
def test_eager_regions_with_gradients(way, moment, device):
    check(way, with_gradients(in_a_region), with_gradients(expected), moment, device)


@a_few_ways_slowly
def test_inside_one_region(way, moment, device):
    with region(device):
        check(way, in_mode("no_grad", in_the_open_region), in_mode("no_grad", expected), moment, device)


@a_few_ways_slowly
def test_inside_one_region_with_gradients(way, moment, device):
    with region(device):
        check(way, with_gradients(in_the_open_region), with_gradients(expected), moment, device)


@a_few_ways
def test_compiled_with_gradients(way, moment, device):
    check(way, with_gradients(compiled()), with_gradients(expected), moment, device)


def by_inductor(device):
    if device == "xpu":
        pytest.skip("the second run of the tests is of the eager runtime; the simulator's tests compile")
    return in_mode("no_grad", compiled(inner_backend="inductor"))


NEAR = functools.partial(torch.testing.assert_close, rtol=0.02, atol=0.02)


@pytest.mark.parametrize("name", FEW)
def test_inductor(way, device):
    check(way, by_inductor(device), in_mode("no_grad", expected), "held before", device, NEAR)


@pytest.mark.sweep
@pytest.mark.parametrize("name", [name for name in WAYS if name not in FEW])
def test_inductor_by_every_way(way, device):
    check(way, by_inductor(device), in_mode("no_grad", expected), "held before", device, NEAR)


@pytest.mark.slow
@pytest.mark.parametrize("name", SLOW_WAYS)
@pytest.mark.parametrize("mode", GRAD_MODES)
def test_writes_that_inductor_compiled(way, mode, device):
    check(way, in_mode(mode, compiled()), in_mode(mode, expected), "held before", device)


def test_there_are_many_ways():
    assert len(WAYS) > 150
    assert set(FEW) <= set(WAYS) >= set(HOLDING)
