"""What the store of casted weights costs and leaves: memory, graphs of autograd, and a watch while it is needed."""

from __future__ import annotations

import gc
import logging
import weakref
from typing import Any

import pytest
import torch
from torch.overrides import TorchFunctionMode

import xpu_amp_dynamo
from tests.runtime.weight_changes import expected
from xpu_amp_dynamo import cached_weight_bytes, release_weights
from xpu_amp_dynamo.runtime import graph_wrappers, out_of_memory
from xpu_amp_dynamo.runtime.weight_store import WEIGHTS

WIDTH = 8
pytestmark = pytest.mark.usefixtures("no_kept_casts")


def compiled(model, **options):
    return torch.compile(model, backend="xpu_amp", options={"inner_backend": "aot_eager", **options})


def is_watched():
    return "data" in vars(torch.Tensor)


def test_the_default_keeps_casts_of_graphs_that_nothing_differentiates(model, x):
    program = compiled(model)
    program(x).sum().backward()
    assert len(WEIGHTS) == 0
    with torch.no_grad():
        program(x)
    assert len(WEIGHTS) == 4
    torch._dynamo.reset()
    release_weights()
    with torch.no_grad():
        compiled(model, weights="recast")(x)
    assert len(WEIGHTS) == 0


@pytest.mark.parametrize("kind", ["compiled", "eager"])
@torch.no_grad()
def test_tensors_are_watched_while_casts_are_kept(kind, model, x, device):
    swap = torch.utils.swap_tensors
    assert not is_watched()
    if kind == "compiled":
        compiled(model)(x)
    else:
        with xpu_amp_dynamo.autocast(device):
            model(x)
    assert is_watched()
    assert torch.utils.swap_tensors is not swap
    release_weights()
    assert not is_watched()
    assert torch.utils.swap_tensors is swap
    with xpu_amp_dynamo.autocast(device):
        model(x)
    assert is_watched()
    del model[0], model[1]
    torch._dynamo.reset()
    gc.collect()
    assert not is_watched()


class Recorder(TorchFunctionMode):
    """Collects the functions that it sees."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def __torch_function__(self, function, types, args=(), kwargs=None):
        self.seen.append(function)
        return function(*args, **(kwargs or {}))


@torch.no_grad()
def test_modes_of_the_program_see_the_access_alone(model, x, device):
    with xpu_amp_dynamo.autocast(device):
        model(x)
    assert is_watched()
    with Recorder() as recorder:
        x.data.add_(0)
    assert recorder.seen == [torch.Tensor.data.__get__, torch.Tensor.add_]  # type: ignore[attr-defined]


@torch.no_grad()
def test_a_watch_of_somebody_else_stays(model, x, monkeypatch):
    seen = []

    stock: Any = torch.Tensor.data

    def read(tensor):
        seen.append(tensor)
        return stock.__get__(tensor)

    monkeypatch.setattr(torch.Tensor, "data", property(read, stock.__set__), raising=False)
    theirs = vars(torch.Tensor)["data"]
    compiled(model)(x)
    model[0].weight.data.mul_(2)
    assert len(seen) == 1
    assert torch.equal(compiled(model)(x), expected(model, x))
    release_weights()
    assert vars(torch.Tensor)["data"] is theirs


@torch.no_grad()
def test_bytes_of_a_model_and_their_release(model, x):
    other = torch.nn.Linear(WIDTH, WIDTH).to(x.device)
    compiled(model)(x)
    compiled(other)(x)
    both = [2 * sum(weight.numel() for weight in each.parameters()) for each in (model, other)]
    assert [cached_weight_bytes(model), cached_weight_bytes(other)] == both
    assert cached_weight_bytes() == sum(both)
    cast = weakref.ref(WEIGHTS.cast(model[0].weight, torch.bfloat16).tensor)
    release_weights(model)
    assert cast() is None
    assert [cached_weight_bytes(model), cached_weight_bytes(other)] == [0, both[1]]
    assert torch.equal(compiled(model)(x), expected(model, x))
    assert cached_weight_bytes(model) == both[0]
    release_weights()
    assert cached_weight_bytes() == 0


@torch.no_grad()
def test_the_first_graph_says_how_many_bytes_it_keeps(model, x, caplog):
    graph_wrappers._say_what_is_kept.cache_clear()
    with caplog.at_level(logging.INFO, logger="xpu_amp_dynamo"):
        for _ in range(2):
            compiled(model)(x)
    said = [record.getMessage() for record in caplog.records if "keeps casted weights" in record.getMessage()]
    assert len(said) == 1
    assert f"4 of {cached_weight_bytes()} bytes" in said[0]


@pytest.fixture(params=[torch.OutOfMemoryError("no memory"), RuntimeError("DefaultCPUAllocator: can't allocate")])
def memory_runs_out(request):
    """Let the third cast into new memory fail."""
    made = []

    def cast(weight, dtype, layout):
        made.append(weight)
        if len(made) % 3 == 0:
            raise request.param
        return weight.to(dtype)

    out_of_memory._warn.cache_clear()
    with WEIGHTS.casting_by(cast):
        yield


@pytest.mark.usefixtures("memory_runs_out")
@torch.no_grad()
def test_calls_go_on_when_memory_runs_out(model, x, device):
    program = compiled(model)
    with pytest.warns(UserWarning, match=r"no memory to keep casted weights.*'recast'"):
        first = program(x)
    assert torch.equal(first, expected(model, x))
    assert cached_weight_bytes() == 0
    with xpu_amp_dynamo.autocast(device):
        assert torch.equal(model(x).float(), expected(model, x))
    assert torch.equal(program(x), expected(model, x))


def test_regions_with_gradients_go_on_when_memory_runs_out(model, x, device, monkeypatch):
    other = torch.nn.Linear(WIDTH, WIDTH, device=device)
    with torch.no_grad(), xpu_amp_dynamo.autocast(device):
        other(x)
    assert cached_weight_bytes(other)
    to, errors = torch.Tensor.to, iter([torch.OutOfMemoryError("there is no room")])

    def scarce(tensor, *args, **kwargs):
        for error in errors if isinstance(tensor, torch.nn.Parameter) else ():
            raise error
        return to(tensor, *args, **kwargs)

    monkeypatch.setattr(torch.Tensor, "to", scarce)
    out_of_memory._warn.cache_clear()
    with xpu_amp_dynamo.autocast(device), pytest.warns(UserWarning, match="no memory to keep casted weights"):
        out = model(x).float()
    assert cached_weight_bytes(other) == 0
    assert torch.equal(out, expected(model, x))
    weights = [*model.parameters()]
    wanted = torch.autograd.grad(expected(model, x).sum(), weights)
    assert all(map(torch.equal, torch.autograd.grad(out.sum(), weights), wanted))


REFUSED = {"an object of type int": 3, "an object of type list": [], "the class Linear": torch.nn.Linear}


@pytest.mark.parametrize("function", [cached_weight_bytes, release_weights, xpu_amp_dynamo.refresh_weights])
@pytest.mark.parametrize("said", REFUSED)
def test_what_is_no_module_is_refused(function, said):
    with pytest.raises(TypeError, match=f"a torch.nn.Module is needed, not {said}"):
        function(REFUSED[said])


@torch.no_grad()
def test_all_weights_are_refreshed_without_an_argument(model, x, device):
    with xpu_amp_dynamo.autocast(device):
        model(x)
        for weight in model.parameters():
            alias = torch.empty(0, device=device).set_(weight.detach())
            alias.mul_(2)
            del alias
        xpu_amp_dynamo.refresh_weights()
        assert torch.equal(model(x).float(), expected(model, x))


@torch.no_grad()
def test_other_errors_are_raised(model, x, device):
    def cast(weight, dtype, layout):
        raise RuntimeError("something else")

    with WEIGHTS.casting_by(cast), xpu_amp_dynamo.autocast(device):
        with pytest.raises(RuntimeError, match="something else"):
            model(x)
        with pytest.raises(RuntimeError, match="something else"):
            compiled(model)(x)


def test_micro_batches_share_the_data_of_a_cast_and_have_nodes_of_their_own(model, x, device):
    model, casts, nodes = model[0], set(), set()
    for _ in range(3):
        with xpu_amp_dynamo.autocast(device):
            out = model(x)
        out.float().sum().backward()
        casts.add(WEIGHTS.cast(model.weight, torch.bfloat16).tensor.data_ptr())
        nodes.add(out.grad_fn)
    assert len(casts) == 1
    assert len(nodes) == 3
    thrice = model.weight.grad.clone()
    model.zero_grad()
    with xpu_amp_dynamo.autocast(device):
        model(x).float().sum().backward()
    assert torch.equal(thrice, 3 * model.weight.grad)


def assert_gradient_is_of(weight, out, x):
    """Check that the gradient of a layer's input is what a weight gives."""
    (gradient,) = torch.autograd.grad(out.float().sum(), x)
    assert torch.equal(gradient, (torch.ones_like(out) @ weight).float())


def test_a_graph_keeps_the_cast_that_it_saved_when_the_weight_changes(model, x, device):
    """Eager autocast of PyTorch saves a copy, so that a step between forward and backward changes no gradient."""
    layer, x = model[0], x.requires_grad_()
    weight = layer.weight.detach().bfloat16()
    for _ in range(2):
        with xpu_amp_dynamo.autocast(device):
            out = layer(x)
    with torch.no_grad():
        layer.weight.mul_(2)
        with xpu_amp_dynamo.autocast(device):
            layer(x)
        compiled(layer)(x)
    assert_gradient_is_of(weight, out, x)


@pytest.mark.parametrize("frozen", [False, True])
def test_frozen_weights_that_a_graph_saved_stay(frozen, model, x, device):
    layer, x = model[0].requires_grad_(not frozen), x.requires_grad_()
    weight = layer.weight.detach().bfloat16()
    with xpu_amp_dynamo.autocast(device):
        out = layer(x)
    with torch.no_grad():
        layer.weight.mul_(2)
    with xpu_amp_dynamo.autocast(device):
        layer(x)
    assert_gradient_is_of(weight, out, x)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.enable_grad])
def test_many_regions_hold_no_more_memory_than_few(mode, model, x, device):
    def regions(count):
        for _ in range(count):
            with mode(), xpu_amp_dynamo.autocast(device):
                model(x)
        gc.collect()
        return sum(issubclass(type(o), torch.Tensor) for o in gc.get_objects()), cached_weight_bytes()

    few = regions(10)
    assert regions(2000) == few


@torch.no_grad()
def test_a_weight_whose_memory_somebody_holds_is_kept_once_it_is_let_go(model, x, device):
    program, held = compiled(model), [weight.data for weight in model.parameters()]
    program(x)
    states = [WEIGHTS.cast(weight, torch.bfloat16).state for weight in model.parameters()]
    assert states == [None] * 4
    held[0].mul_(2)
    assert torch.equal(program(x), expected(model, x))
    held.clear()
    program(x)
    assert None not in [WEIGHTS.cast(weight, torch.bfloat16).state for weight in model.parameters()]
    program(x)
    before = WEIGHTS.cast(model[0].weight, torch.bfloat16)
    program(x)
    assert WEIGHTS.cast(model[0].weight, torch.bfloat16) is before


@torch.no_grad()
def test_buffers_and_plain_tensors_are_not_kept(x):
    class Buffered(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("matrix", torch.randn(WIDTH, WIDTH))

        def forward(self, x):
            return x @ self.matrix

    model: Any = Buffered().to(x.device)
    program = compiled(model)
    program(x)
    with xpu_amp_dynamo.autocast(x.device.type):
        model(x)
    assert len(WEIGHTS) == 0
    model.matrix.data.mul_(2)
    assert torch.equal(program(x), (x.bfloat16() @ model.matrix.bfloat16()).float())


@pytest.mark.parametrize("inner_backend", ["eager", "aot_eager"])
def test_a_graph_tells_that_it_wrote_to_a_weight(inner_backend, x):
    """Backend "eager" runs writes through ``.data`` as they are, which no version counter tells of."""
    layer = torch.nn.Linear(WIDTH, WIDTH).to(x.device)
    read = compiled(layer)

    def write(weight):
        weight.data.mul_(2)

    with torch.no_grad():
        before = read(x)
        torch.compile(write, backend="xpu_amp", options={"inner_backend": inner_backend})(layer.weight)
        after = read(x)
        wanted = torch.nn.functional.linear(x.bfloat16(), layer.weight.bfloat16(), layer.bias.bfloat16()).float()
    assert torch.equal(after, wanted)
    assert not torch.equal(after, before)
