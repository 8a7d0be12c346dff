"""Several threads at once."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
import torch.nn.functional as F

import xpu_amp_dynamo
from tests.support.comparison import assert_same

THREADS = 8


def together(work):
    """Run ``work(index)`` in all threads, started at the same moment; return the results."""
    barrier = threading.Barrier(THREADS)

    def started(index):
        barrier.wait()
        return work(index)

    with ThreadPoolExecutor(THREADS) as pool:
        return list(pool.map(started, range(THREADS)))


def test_eager_regions_of_different_dtypes():
    model = torch.nn.Sequential(torch.nn.Linear(16, 16), torch.nn.ReLU(), torch.nn.Linear(16, 4))
    x = torch.randn(8, 16)
    regions = [(torch.bfloat16, True), (torch.float16, True), (torch.bfloat16, False), (torch.float16, True)]

    def step(dtype, enabled):
        with xpu_amp_dynamo.autocast("cpu", dtype, enabled=enabled):
            y = model(x)
            loss = F.cross_entropy(y, torch.zeros(8, dtype=torch.long))
            return y, torch.autograd.grad(loss, model.get_parameter("0.weight"))[0]

    expected = [step(*settings) for settings in regions]

    def work(index):
        return [step(*regions[index % 4]) for _ in range(30)]

    for index, results in enumerate(together(work)):
        for actual in results:
            assert_same(actual, expected[index % 4])


@pytest.mark.parametrize("weights", ["recast", "cached"])
@pytest.mark.parametrize("inner_backend", ["eager", "inductor"])
def test_a_compiled_model_called_from_all_threads(inner_backend, weights):
    model = torch.nn.Sequential(torch.nn.Linear(16, 16), torch.nn.ReLU(), torch.nn.Linear(16, 4))
    options = {"inner_backend": inner_backend, "weights": weights}
    compiled = torch.compile(model, backend="xpu_amp", dynamic=False, options=options)
    x = torch.randn(8, 16)
    with torch.no_grad():
        expected = compiled(x)

    def work(_):
        with torch.no_grad():
            return [compiled(x) for _ in range(30)]

    for results in together(work):
        assert all(torch.equal(y, expected) for y in results)


def test_threads_that_compile():
    """Each thread compiles a function of its own, in its own region."""

    def work(index):
        dtype = (torch.bfloat16, torch.float16)[index % 2]
        function = torch.compile(lambda x: x @ x + index, backend="xpu_amp", options={"inner_backend": "eager"})
        x = torch.full((4, 4), 1 / 3)
        with torch.autocast("cpu", dtype):
            return function(x), x.to(dtype) @ x.to(dtype) + index

    for actual, expected in together(work):
        assert actual.dtype is expected.dtype
        assert torch.equal(actual, expected)


def test_weights_updated_by_one_thread_while_others_read():
    """Whatever the others read meanwhile, all updates show once they have ended."""
    model = torch.nn.Linear(64, 64, bias=False)
    torch.nn.init.ones_(model.weight)
    compiled = torch.compile(model, backend="xpu_amp", options={"inner_backend": "eager", "weights": "cached"})
    x = torch.ones(1, 64)
    with torch.no_grad():
        compiled(x)

    def work(index):
        with torch.no_grad():
            for number in range(50):
                if index == 0:
                    model.weight.fill_(float(number % 2 + 1))
                else:
                    compiled(x)

    together(work)
    with torch.no_grad():
        assert torch.equal(compiled(x), torch.full((1, 64), 128.0))
