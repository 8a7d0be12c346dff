"""Threads that call compiled and eager code while one changes the weights."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

import xpu_amp_dynamo
from tests.runtime.weight_changes import WIDTH, expected, forward, small_model

# "recast" keeps no casts: to see, by hand, that the tests themselves are right.
MODE = "cached"
READERS, ROUNDS, SECONDS = 8, 20, 60


def eager(model, x):
    with xpu_amp_dynamo.autocast("cpu", cache_enabled=MODE == "cached"):
        return model(x).float()


def calls(model, x):
    """Return a compiled and an eager call, both called once before other threads do."""
    compiled = torch.compile(forward, backend="xpu_amp", options={"weights": MODE, "inner_backend": "aot_eager"})
    with torch.no_grad():
        for call in (compiled, eager):
            assert torch.equal(call(model, x), expected(model, x))
    return compiled, eager


def in_place(model, round):
    with torch.no_grad():
        model[0].weight.fill_(round + 1)


def through_data(model, round):
    model[0].weight.data.fill_(round + 1)


def new_storage(model, round):
    model[0].weight.data = torch.full((WIDTH, WIDTH), round + 1.0)


def load(model, round):
    model.load_state_dict({"0.weight": torch.full((WIDTH, WIDTH), round + 1.0)}, strict=False)


WRITES = {"in place": in_place, ".data": through_data, "new storage": new_storage, "load_state_dict": load}
writes = pytest.mark.parametrize("write", WRITES.values(), ids=WRITES)
modes = pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode, torch.enable_grad])


@pytest.fixture
def model():
    return small_model()


@pytest.fixture
def x():
    return torch.randn(16, WIDTH)


@writes
@modes
def test_changes_between_calls(write, mode, model, x):
    """All threads wait for the write, then call at once; each sees the new weights."""
    programs, barrier = calls(model, x), threading.Barrier(READERS + 1)

    def read(index):
        results = []
        for _ in range(ROUNDS):
            barrier.wait(SECONDS)
            with mode():
                results.append(programs[index % 2](model, x).detach())
            barrier.wait(SECONDS)
        return results

    with ThreadPoolExecutor(READERS) as pool:
        results, wanted = [pool.submit(read, index) for index in range(READERS)], []
        for round in range(ROUNDS):
            write(model, round)
            wanted.append(expected(model, x).detach())
            barrier.wait(SECONDS)
            barrier.wait(SECONDS)
    for result in results:
        torch.testing.assert_close(result.result(), wanted, rtol=0, atol=0)
    assert not torch.equal(wanted[0], wanted[-1])


@writes
@modes
def test_changes_during_calls(write, mode, model, x):
    """Any weights of the time of a call may be read, by parts; behind the last write only the last are."""
    programs, done = calls(model, x), threading.Event()

    def read(index):
        count = 0
        while not done.is_set() or count < 3:
            with mode():
                assert programs[index % 2](model, x).isfinite().all()
            count += 1

    with ThreadPoolExecutor(READERS) as pool:
        readers = [pool.submit(read, index) for index in range(READERS)]
        for round in range(10 * ROUNDS):
            write(model, round)
        done.set()
    for reader in readers:
        reader.result()
    for _ in range(2):
        for call in programs:
            with mode():
                assert torch.equal(call(model, x), expected(model, x))
