"""Training over micro-batches: a weight is cast once a step, and gradients are those of casting at every call."""

from __future__ import annotations

import copy

import pytest
import torch
import torch._functorch.config
import torch._inductor.config
from torch.utils.checkpoint import checkpoint

from xpu_amp_dynamo.lowering.run_passes import record_passes
from xpu_amp_dynamo.runtime import renewal, weight_store
from xpu_amp_dynamo.runtime.weight_store import WEIGHTS

WIDTH, BATCHES, STEPS = 16, 3, 2


@pytest.fixture(autouse=True)
def fresh():
    """Compile anew, since code from a cache runs no passes."""
    autograd_cache = torch._functorch.config.patch(enable_autograd_cache=False)
    with autograd_cache, torch._inductor.config.patch(fx_graph_cache=False):
        yield


class Block(torch.nn.Module):
    """Two layers, of which the caller may checkpoint what lies between."""

    def __init__(self, checkpointed=False):
        super().__init__()
        self.up, self.down = torch.nn.Linear(WIDTH, WIDTH), torch.nn.Linear(WIDTH, WIDTH, bias=False)
        self.checkpointed = checkpointed

    def inner(self, x):
        return self.down(self.up(x).relu())

    def forward(self, x):
        return x + (checkpoint(self.inner, x, use_reentrant=False) if self.checkpointed else self.inner(x))


class Tied(torch.nn.Module):
    """One weight in two products."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.randn(WIDTH, WIDTH) / 4)

    def forward(self, x):
        return torch.nn.functional.linear(torch.nn.functional.linear(x, self.weight).relu(), self.weight)


MODELS = {
    "layers": lambda: torch.nn.Sequential(Block(), Block()),
    "checkpointed": lambda: torch.nn.Sequential(Block(checkpointed=True), Block(checkpointed=True)),
    "tied": Tied,
    "convolution": lambda: torch.nn.Sequential(
        torch.nn.Unflatten(1, (4, 2, 2)), torch.nn.Conv2d(4, 4, 2), torch.nn.Flatten()
    ),
}


def train(model, **options):
    """Train for a few steps; return all losses and gradients."""
    torch.manual_seed(0)
    seen = []
    program = torch.compile(model, backend="xpu_amp", options=options)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    for _ in range(STEPS):
        for _ in range(BATCHES):
            loss = program(torch.randn(4, WIDTH)).square().mean()
            loss.backward()
            seen.append(loss.detach())
        seen.extend(weight.grad.clone() for weight in model.parameters())
        optimizer.step()
        optimizer.zero_grad()
    return seen


@pytest.fixture
def renewals(monkeypatch):
    """Collect the weights that are cast, each time."""
    written = []

    def collect(casts, weights):
        written.extend(weights)
        renewal.renew(casts, weights)

    def cast(weight, dtype, layout):
        written.append(weight)
        return weight_store.cast_weight(weight, dtype, layout)

    monkeypatch.setattr(weight_store, "renew", collect)
    with WEIGHTS.casting_by(cast):
        yield written


@pytest.mark.parametrize("make", MODELS.values(), ids=MODELS)
def test_weights_are_cast_once_a_step(make, renewals):
    model = make()
    reference = copy.deepcopy(model)
    with record_passes() as runs:
        trained = train(model)
    changed = {run.name for run in runs if run.changed}
    assert {"add_kept_inputs", "read_kept_casts"} <= changed
    assert len(renewals) == STEPS * len(list(model.parameters()))
    renewals.clear()
    wanted = train(reference, weights="recast")
    assert renewals == []
    assert all(map(torch.equal, trained, wanted))
    assert all(map(torch.equal, model.parameters(), reference.parameters()))


def test_a_step_between_forward_and_backward_changes_no_gradient():
    model = torch.nn.Linear(WIDTH, WIDTH)
    program, x = torch.compile(model, backend="xpu_amp"), torch.randn(4, WIDTH, requires_grad=True)
    weight = model.weight.detach().bfloat16()
    first = program(x)
    with torch.no_grad():
        model.weight.mul_(2)
    program(x.detach())
    (gradient,) = torch.autograd.grad(first.sum(), x)
    torch.testing.assert_close(gradient, (torch.ones(4, WIDTH).bfloat16() @ weight).float())


def test_a_cast_that_the_program_returns_is_its_own():
    """Whoever writes to it must not write to the store's."""
    weight = torch.nn.Parameter(torch.randn(WIDTH, WIDTH))

    def program(x):
        return x @ weight, weight.to(torch.bfloat16), weight.to(torch.bfloat16).t()

    compiled, x = torch.compile(program, backend="xpu_amp"), torch.randn(4, WIDTH)
    for _ in range(2):
        out, cast, transposed = compiled(x)
        assert torch.equal(out, (x.bfloat16() @ weight.bfloat16()).float())
        with torch.no_grad():
            cast.zero_()
            transposed.zero_()


def test_weights_that_the_graph_writes_to_are_cast_in_it():
    model = torch.nn.Linear(WIDTH, WIDTH)

    def program(x):
        out = model(x)
        model.weight.data.mul_(0.5)
        return out

    compiled, x = torch.compile(program, backend="xpu_amp"), torch.randn(4, WIDTH)
    for _ in range(2):
        weight = model.weight.detach().bfloat16()
        out = compiled(x)
        wanted = torch.nn.functional.linear(x.bfloat16(), weight, model.bias.detach().bfloat16()).float()
        torch.testing.assert_close(out.detach(), wanted, rtol=1e-2, atol=1e-2)
        out.sum().backward()
    assert WEIGHTS.find(model.weight, torch.bfloat16) is None


def test_training_and_inference_share_casts():
    model = torch.nn.Linear(WIDTH, WIDTH)
    program, x = torch.compile(model, backend="xpu_amp"), torch.randn(4, WIDTH)
    for _ in range(2):
        program(x).sum().backward()
        kept = WEIGHTS.cast(model.weight, torch.bfloat16).tensor
        with torch.no_grad():
            evaluated = program(x)
        assert WEIGHTS.cast(model.weight, torch.bfloat16).tensor is kept
        wanted = [x.bfloat16(), model.weight.detach().bfloat16(), model.bias.detach().bfloat16()]
        torch.testing.assert_close(evaluated, torch.nn.functional.linear(*wanted).float(), rtol=1e-2, atol=1e-2)
        torch.optim.SGD(model.parameters(), lr=0.1).step()


@pytest.mark.parametrize("name", ["add_kept_inputs", "read_kept_casts"])
def test_without_either_pass_weights_are_cast_in_the_graph(name):
    model = Block()
    reference = copy.deepcopy(model)
    with record_passes() as runs:
        trained = train(model, skip_passes=[name])
    assert name not in {run.name for run in runs}
    assert all(map(torch.equal, trained, train(reference, weights="recast")))
