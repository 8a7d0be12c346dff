"""What the store of casted weights cannot see, and copies of models, whose weights it keeps apart."""

from __future__ import annotations

import copy
import io
import pickle
from typing import Any

import pytest
import torch
import torch.distributed as dist

import xpu_amp_dynamo
from tests.runtime.weight_changes import LIMITS, WIDTH, expected, forward, small_model, weight
from tests.support.versions import only_since
from xpu_amp_dynamo import refresh_weights

# "recast" keeps no casts: to see, by hand, that the tests themselves are right.
MODE = "cached"
OPTIONS: dict[str, Any] = {"weights": MODE, "inner_backend": "aot_eager"}


@pytest.fixture
def process_group(tmp_path):
    if not dist.is_available():
        pytest.skip("this build of torch has no torch.distributed")
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.fixture
def x():
    return torch.randn(16, WIDTH)


ALIASES = {"itself": lambda weight: weight, "detached": torch.Tensor.detach, ".data": lambda weight: weight.data}


def compiled(function=forward, mode=torch.no_grad):
    return mode()(torch.compile(function, backend="xpu_amp", options=OPTIONS))


@torch.no_grad()
def eager(model, x):
    with xpu_amp_dynamo.autocast("cpu", cache_enabled=MODE == "cached"):
        return model(x).float()


def assert_needs_a_refresh(way, call, x):
    """Check that a write stays unseen until a refresh; one that is seen is to leave the list of limits."""
    model = small_model()
    write = way(model)
    before = call(model, x)
    for _ in range(2):
        write()
        now = expected(model, x)
        assert not torch.equal(now, before)
        assert torch.equal(call(model, x), before)
        refresh_weights(model)
        assert torch.equal(call(model, x), now)
        before = now


@pytest.mark.parametrize("name", LIMITS)
@pytest.mark.parametrize("call", ["compiled", "eager"])
def test_a_write_past_pytorch_needs_a_refresh(name, call, x):
    assert_needs_a_refresh(LIMITS[name], compiled() if call == "compiled" else eager, x)


def values():
    return torch.randn(WIDTH, WIDTH)


# Here of one process. PyTorch versions only what it gathers.
COLLECTIVES = {
    "scatter": lambda tensor: dist.scatter(tensor, [values()], src=0),
    "all_to_all_single": lambda tensor: dist.all_to_all_single(tensor, values()),
    "all_gather": lambda tensor: dist.all_gather([tensor], values()),
    "broadcast, coalesced": lambda tensor: coalesced(tensor.copy_(values())),
}


def coalesced(tensor):
    group = dist.distributed_c10d._get_default_group()
    dist._broadcast_coalesced(group, [tensor], 1 << 20, 0)  # type: ignore[attr-defined]


@pytest.mark.parametrize("alias_of", ALIASES.values(), ids=ALIASES)
@pytest.mark.parametrize("call", ["compiled", "eager"])
@pytest.mark.parametrize("collective", COLLECTIVES.values(), ids=COLLECTIVES)
@pytest.mark.usefixtures("process_group")
@torch.no_grad()
def test_collectives_are_seen(call, alias_of, collective, x):
    model, call = small_model(), compiled() if call == "compiled" else eager
    tensor = alias_of(model[0].weight)
    before = call(model, x)
    for _ in range(3):
        collective(tensor)
        after = call(model, x)
        assert torch.equal(after, expected(model, x))
        assert not torch.equal(after, before)
        before = after


def saved(model):
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


COPIES = {"deepcopy": copy.deepcopy, "pickle": lambda model: pickle.loads(pickle.dumps(model)), "saved": saved}


@pytest.mark.parametrize("copied", COPIES.values(), ids=COPIES)
@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_copies_have_casts_of_their_own(copied, mode, x):
    model, call = small_model(), compiled(mode=mode)
    assert torch.equal(call(model, x), eager(model, x))
    other = copied(model)
    assert torch.equal(call(other, x), expected(model, x))
    weight(other).data.mul_(2)
    assert not torch.equal(expected(other, x), expected(model, x))
    for each in (other, model, other):
        assert torch.equal(call(each, x), expected(each, x))
        assert torch.equal(eager(each, x), expected(each, x))
    weight(model).data.mul_(3)
    for each in (other, model):
        assert torch.equal(call(each, x), expected(each, x))
        assert torch.equal(eager(each, x), expected(each, x))


def call_with(weights, model, x):
    return torch.func.functional_call(model, weights, (x,))


@pytest.mark.parametrize("kind", [torch.nn.Parameter, torch.Tensor.clone])
def test_functional_calls_with_other_weights(kind, x):
    model, call = small_model(), compiled(call_with)
    with torch.no_grad():
        other = {name: kind(value.detach() * 2) for name, value in model.named_parameters()}
    reference = copy.deepcopy(model)
    for _ in range(3):
        reference.load_state_dict(other)
        wanted = expected(reference, x)
        assert torch.equal(call(other, model, x), wanted)
        assert torch.equal(eager(lambda x: call_with(other, model, x), x), wanted)
        assert torch.equal(compiled()(model, x), expected(model, x))
        assert torch.equal(eager(model, x), expected(model, x))
        other["0.weight"].data.mul_(2)
        weight(model).data.mul_(3)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_weights_of_inference_mode(mode, x):
    """PyTorch versions no inference tensor."""
    with torch.inference_mode():
        model = small_model()
    call = compiled(mode=mode)
    for write in (torch.Tensor.mul_, torch.Tensor.add_):
        assert torch.equal(call(model, x), expected(model, x))
        assert torch.equal(eager(model, x), expected(model, x))
        with torch.inference_mode():
            write(weight(model), 2)
    alias = weight(model).data
    with torch.inference_mode():
        alias.mul_(2)
    assert torch.equal(call(model, x), expected(model, x))
    assert torch.equal(eager(model, x), expected(model, x))


@only_since("2.12", "Dynamo does not see that a parameter needs a gradient now")
def test_frozen_weights_where_gradients_are_enabled(x):
    """Graphs that nothing differentiates keep casts in grad mode too."""
    model, call = small_model().requires_grad_(False), compiled(mode=torch.enable_grad)
    alias = weight(model).data
    for write in (lambda: weight(model).mul_(2), lambda: alias.mul_(2), lambda: weight(model).data.mul_(2)):
        assert torch.equal(call(model, x), expected(model, x))
        write()
        assert torch.equal(call(model, x), expected(model, x))
    model.requires_grad_(True)
    assert call(model, x).requires_grad
    alias.mul_(2)
    assert torch.equal(call(model, x), expected(model, x))


def hook(module, inputs):
    module.weight.data.mul_(2)


def test_a_hook_that_writes_before_each_call(x):
    model = small_model()
    model[0].register_forward_pre_hook(hook)
    for call in (eager, compiled(), eager):
        wanted = copy.deepcopy(model)
        for _ in range(2):
            weight(wanted).data.mul_(2)
            assert torch.equal(call(model, x), expected(wanted, x))


def train_step(call, model, optimizer, x):
    optimizer.zero_grad()
    with torch.enable_grad():
        call(x).float().square().mean().backward()
    optimizer.step()


def test_data_parallel_steps(x, process_group):
    model = small_model()
    parallel = torch.nn.parallel.DistributedDataParallel(model)
    optimizer, call = torch.optim.AdamW(model.parameters(), lr=0.1), compiled()
    for _ in range(3):
        before = expected(model, x)
        assert torch.equal(call(model, x), before)
        assert torch.equal(eager(parallel, x), before)
        train_step(parallel, model, optimizer, x)
        assert not torch.equal(expected(model, x), before)


def gathered(model):
    """Return a plain model with the values of a sharded one."""
    plain = small_model()
    plain.load_state_dict({name: value.full_tensor() for name, value in model.state_dict().items()})
    return plain


class Block(torch.nn.Linear):
    """Code of a user, so that Dynamo compiles it where it is sharded."""

    def forward(self, x):
        return torch.nn.functional.linear(x, self.weight, self.bias)


def sharded(kind, **settings):
    """Return a model of blocks that are compiled, or not, and sharded one by one."""
    from torch.distributed.fsdp import fully_shard

    settings["mesh"] = dist.device_mesh.init_device_mesh("cpu", (1,))
    model = torch.nn.Sequential(Block(WIDTH, WIDTH), torch.nn.ReLU(), Block(WIDTH, WIDTH))
    for block in (model[0], model[2]):
        if kind == "compiled":
            block.compile(backend="xpu_amp", options=OPTIONS)
        fully_shard(block, **settings)
    return fully_shard(model, **settings)


# Dynamo's own, of torch 2.13.0: it looks for gradients of gathered parameters.
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")
@pytest.mark.parametrize("kind", ["compiled", "eager"])
@pytest.mark.parametrize("reshard", [False, True])
def test_fully_sharded_steps(kind, reshard, x, process_group):
    model = sharded(kind, reshard_after_forward=reshard)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    call = eager if kind == "eager" else torch.no_grad()(forward)
    for _ in range(3):
        before = expected(gathered(model), x)
        for _ in range(2):
            assert torch.equal(call(model, x), before)
        train_step(model, model, optimizer, x)
        assert not torch.equal(expected(gathered(model), x), before)
