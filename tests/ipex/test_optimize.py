"""``ipex.optimize``: which weights are stored lower, and what optimizers and state dicts make of them."""

from __future__ import annotations

import copy
import io
import pickle
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import nn

from xpu_amp_dynamo.errors import InvalidOptionError
from xpu_amp_dynamo.ipex.optimize import optimize

# The checker of types knows no names that are put in there.
XPU: Any = torch.xpu
BFLOAT16, FLOAT16, FLOAT32 = torch.bfloat16, torch.float16, torch.float32


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(6, 4)
        self.conv = nn.Conv1d(4, 4, 1)
        self.norm = nn.BatchNorm1d(4)
        self.fc = nn.Linear(4, 3)

    def forward(self, tokens):
        hidden = self.conv(self.embedding(tokens).transpose(1, 2))
        return self.fc(self.norm(hidden.float()).mean(2).to(self.fc.weight.dtype))


def tokens():
    return torch.randint(6, (8, 5))


def loss_of(model, x):
    return model(x).float().square().mean()


def dtypes(model):
    return {name: parameter.dtype for name, parameter in model.named_parameters()}


@pytest.mark.parametrize("dtype", [BFLOAT16, FLOAT16])
@pytest.mark.parametrize("level", ["O0", "O1"])
def test_inference_stores_what_ipex_stored(dtype, level):
    layers = [nn.Conv2d(2, 2, 1), nn.Conv3d(2, 2, 1), nn.ConvTranspose2d(2, 2, 1), nn.ConvTranspose3d(2, 2, 1)]
    lowered = nn.ModuleList([*layers, nn.Linear(2, 2), nn.Embedding(2, 2)])
    others = nn.ModuleList([nn.BatchNorm2d(2), nn.LayerNorm(2), nn.GRU(2, 2), nn.MultiheadAttention(2, 1)])
    lstm = nn.LSTM(2, 2)
    model = nn.ModuleList([lowered, others, lstm]).eval()
    assert optimize(model, dtype, level=level, inplace=True) is model
    assert set(dtypes(lowered).values()) == {dtype}
    assert set(dtypes(others).values()) == {FLOAT32}
    assert set(dtypes(lstm).values()) == {BFLOAT16 if dtype is BFLOAT16 else FLOAT32}
    assert all(value.dtype is FLOAT32 for value in model.state_dict().values() if value.is_floating_point())


@pytest.mark.parametrize("dtype", [None, FLOAT32, torch.float64])
def test_other_dtypes_leave_weights_alone(dtype):
    model = nn.Linear(2, 2).eval()
    assert dtypes(optimize(model, dtype)) == dtypes(model) == {"weight": FLOAT32, "bias": FLOAT32}
    optimizer = torch.optim.SGD(model.train().parameters(), 0.1)
    assert optimize(model, dtype, optimizer=optimizer) == (model, optimizer)


def test_on_xpus_the_model_itself_changes(xpu):
    model = nn.Linear(2, 2).to(xpu).eval()
    assert XPU.optimize(model, dtype=BFLOAT16) is model
    with XPU.amp.autocast():
        assert model(torch.randn(3, 2, device=xpu)).dtype is BFLOAT16


def test_elsewhere_copies_change_unless_in_place():
    model = Net()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    copied, copied_optimizer = optimize(model, BFLOAT16, optimizer)
    assert set(dtypes(model).values()) == {FLOAT32}
    assert dtypes(copied)["fc.weight"] is BFLOAT16
    assert copied_optimizer.param_groups[0]["params"] == list(copied.parameters())


OPTIMIZERS = {
    "sgd": lambda p: torch.optim.SGD(p, 0.1),
    "momentum": lambda p: torch.optim.SGD(p, 0.1, momentum=0.9, weight_decay=0.01, nesterov=True),
    "adam": lambda p: torch.optim.Adam(p, 1e-2),
    "adamw-amsgrad": lambda p: torch.optim.AdamW(p, 1e-2, amsgrad=True),
    "adam-foreach": lambda p: torch.optim.Adam(p, 1e-2, foreach=True),
    "adam-fused": lambda p: torch.optim.Adam(p, 1e-2, fused=True),
    "adagrad": lambda p: torch.optim.Adagrad(p, 1e-2),
    "rmsprop": lambda p: torch.optim.RMSprop(p, 1e-3),
    "lbfgs": lambda p: torch.optim.LBFGS(p, 0.1, max_iter=3),
}


def reference_step(masters, make):
    """Return a step on float32 tensors, written out: round, take gradients of the rounded, update what is not."""
    optimizer = make(list(masters.values()))

    def step(model, x):
        def closure():
            with torch.no_grad():
                for name, weight in model.named_parameters():
                    weight.copy_(masters[name])
            model.zero_grad()
            loss = loss_of(model, x)
            loss.backward()
            for name, weight in model.named_parameters():
                masters[name].grad = weight.grad.float()
            return loss

        optimizer.step(closure)

    return step


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_training_updates_float32_masters(name):
    """The state is that of float32 training whose gradients come from rounded weights, bit by bit."""
    make = OPTIMIZERS[name]
    model = Net()
    masters = {name: nn.Parameter(p.detach().clone()) for name, p in model.named_parameters()}
    model, optimizer = optimize(model, BFLOAT16, make(model.parameters()), inplace=True)
    twin = copy.deepcopy(model)
    expected_step = reference_step(masters, make)
    for _ in range(4):
        x = tokens()
        expected_step(twin, x)

        def closure(x=x):
            optimizer.zero_grad()
            loss = loss_of(model, x)
            loss.backward()
            return loss

        optimizer.step(closure)
    got = model.state_dict()
    torch.testing.assert_close(
        {n: got[n] for n in masters}, {n: m.detach() for n, m in masters.items()}, rtol=0, atol=0
    )
    weights = dict(model.named_parameters())
    assert weights["fc.weight"].dtype is BFLOAT16
    assert all(torch.equal(weight, got[name].to(weight.dtype)) for name, weight in weights.items())


def train(model, optimizer, steps=3, seed=1):
    generator = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        x = torch.randint(6, (8, 5), generator=generator)
        optimizer.zero_grad(set_to_none=True)
        loss_of(model, x).backward()
        optimizer.step()


def optimized(make=OPTIMIZERS["adam"], **options):
    model = Net()
    return optimize(model, BFLOAT16, make(model.parameters()), **options)


def same_state(one, other):
    torch.testing.assert_close(one.state_dict(), other.state_dict(), rtol=0, atol=0)


def test_small_updates_add_up():
    """What master weights are for: each update is less than half a step of bfloat16."""
    model = nn.Linear(1, 1, bias=False)
    nn.init.ones_(model.weight)
    model, optimizer = optimize(model, BFLOAT16, torch.optim.SGD(model.parameters(), 1e-3))
    for _ in range(20):
        optimizer.zero_grad()
        model(torch.ones(1, 1, dtype=BFLOAT16)).sum().backward()
        optimizer.step()
    # Twenty roundings to float32.
    torch.testing.assert_close(model.state_dict()["weight"].item(), 0.98, rtol=1e-6, atol=0)
    assert model.weight.item() == torch.tensor(0.98).bfloat16().item()


@pytest.mark.parametrize("order", [("model", "optimizer"), ("optimizer", "model")])
def test_saved_and_resumed_training_goes_on_alike(order):
    model, optimizer = optimized()
    train(model, optimizer)
    file = io.BytesIO()
    torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, file)
    file.seek(0)
    saved = torch.load(file, weights_only=True)
    fresh, fresh_optimizer = optimized()
    for which in order:
        {"model": fresh, "optimizer": fresh_optimizer}[which].load_state_dict(saved[which])
    same_state(fresh, model)
    same_state(fresh_optimizer, optimizer)
    for each in ((model, optimizer), (fresh, fresh_optimizer)):
        train(*each, seed=2)
    same_state(fresh, model)


def test_state_is_that_of_float32_training():
    """Checkpoints go both ways, as IPEX's did."""
    model, optimizer = optimized()
    train(model, optimizer)
    plain = Net()
    plain_optimizer = torch.optim.Adam(plain.parameters(), 1e-2)
    plain.load_state_dict(model.state_dict())
    plain_optimizer.load_state_dict(optimizer.state_dict())
    train(plain, plain_optimizer)
    model.load_state_dict(plain.state_dict())
    optimizer.load_state_dict(plain_optimizer.state_dict())
    same_state(model, plain)
    states = optimizer.state_dict()["state"].values()
    assert {value.dtype for state in states for value in state.values()} == {FLOAT32}


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda pair: pickle.loads(pickle.dumps(pair))])
def test_copies_train_on_by_themselves(copied):
    pair = optimized()
    train(*pair)
    twin = copied(pair)
    before = copy.deepcopy(pair[0].state_dict())
    train(*twin)
    torch.testing.assert_close(pair[0].state_dict(), before, rtol=0, atol=0)
    train(*pair)
    same_state(pair[0], twin[0])
    assert type(twin[1]) is type(pair[1])


def test_writes_to_weights_are_not_undone():
    model, optimizer = optimized(OPTIMIZERS["sgd"])
    train(model, optimizer)
    full = model.state_dict()["fc.weight"]
    with torch.no_grad():
        model.fc.weight[0] = 2.0
    expected = full.clone()
    expected[0] = 2.0
    torch.testing.assert_close(model.state_dict()["fc.weight"], expected, rtol=0, atol=0)
    optimizer.param_groups[0]["lr"] = 0.0
    train(model, optimizer, 1)
    torch.testing.assert_close(model.state_dict()["fc.weight"], expected, rtol=0, atol=0)


def test_tied_weights_are_one_weight():
    model = nn.ModuleDict({"embedding": nn.Embedding(5, 4), "head": nn.Linear(4, 5, bias=False)})
    model["head"].weight = model["embedding"].weight
    model, optimizer = optimize(model, BFLOAT16, torch.optim.SGD(model.parameters(), 0.5))
    assert model["head"].weight is model["embedding"].weight
    model["head"](model["embedding"](torch.tensor([1]))).sum().backward()
    optimizer.step()
    state = model.state_dict()
    assert state["head.weight"] is state["embedding.weight"]
    assert len(optimizer.param_groups[0]["params"]) == 1
    with torch.no_grad():
        model["head"].weight.mul_(2)
    again = model.state_dict()
    assert again["head.weight"] is again["embedding.weight"]
    torch.testing.assert_close(again["head.weight"], 2 * state["head.weight"].bfloat16().float(), rtol=0, atol=0)


@pytest.mark.parametrize("training", [False, True])
def test_tied_weights_are_saved_once(training, tmp_path):
    model = nn.ModuleDict({"embedding": nn.Embedding(5, 4), "head": nn.Linear(4, 5, bias=False)})
    model["head"].weight = model["embedding"].weight
    plain = copy.deepcopy(model)
    if training:
        model, _ = optimize(model, BFLOAT16, torch.optim.SGD(model.parameters(), 0.5), inplace=True)
    else:
        model = optimize(model.eval(), BFLOAT16)
    safetensors.torch.save_model(model, str(tmp_path / "model.safetensors"))
    safetensors.torch.load_model(plain, str(tmp_path / "model.safetensors"))
    assert torch.equal(plain.state_dict()["head.weight"], model.state_dict()["head.weight"])


def test_what_is_tied_to_float32_stays_float32():
    """With the bias beside it, and what is tied to that."""

    class Own(nn.Module):
        def __init__(self, weight):
            super().__init__()
            self.weight = weight

    first, second, third = nn.Linear(3, 3), nn.Linear(3, 3), nn.Linear(3, 3)
    second.bias = first.bias
    model = nn.ModuleList([Own(first.weight), first, second, third]).eval()
    found = dtypes(optimize(model, BFLOAT16))
    assert [name for name, dtype in found.items() if dtype is BFLOAT16] == ["3.weight", "3.bias"]


def test_frozen_parameters_thaw():
    model = Net()
    model.conv.requires_grad_(False)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    frozen = copy.deepcopy(model.conv.state_dict())
    model, optimizer = optimize(model, BFLOAT16, torch.optim.Adam(trained, 1e-2), inplace=True)
    train(model, optimizer)
    torch.testing.assert_close(model.conv.state_dict(), frozen, rtol=0, atol=0)
    assert model.conv.weight.dtype is BFLOAT16
    assert not model.conv.weight.requires_grad
    model.conv.requires_grad_(True)
    optimizer.add_param_group({"params": list(model.conv.parameters()), "lr": 1e-5})
    train(model, optimizer, 1)
    moved = (model.conv.state_dict()["weight"] - frozen["weight"]).abs()
    torch.testing.assert_close(moved.max().item(), 1e-5, rtol=0.1, atol=0)


def test_groups_have_learning_rates_of_their_own():
    model = Net()
    before = copy.deepcopy(model.state_dict())
    others = [*model.embedding.parameters(), *model.norm.parameters(), *model.conv.parameters()]
    groups: Any = [{"params": model.fc.parameters(), "lr": 0.0}, {"params": others}]
    model, optimizer = optimize(model, BFLOAT16, torch.optim.SGD(groups, 0.1), inplace=True)
    train(model, optimizer)
    state = model.state_dict()
    assert torch.equal(state["fc.weight"], before["fc.weight"])
    assert not torch.equal(state["conv.weight"], before["conv.weight"])


def test_weights_of_another_optimizer_stay_float32_until_it_comes():
    """Its updates of stored weights would be rounded away."""
    model: Any = nn.Sequential(nn.Linear(16, 16), nn.Linear(16, 16), nn.Linear(16, 16).requires_grad_(False))
    first, second = (torch.optim.SGD(model[i].parameters(), 1e-4) for i in (0, 1))
    optimize(model, BFLOAT16, first, inplace=True)
    assert [layer.weight.dtype for layer in model] == [BFLOAT16, FLOAT32, BFLOAT16]
    with torch.autocast("cpu", BFLOAT16):
        loss = model(torch.randn(8, 16)).float().square().mean()
    loss.backward()
    before = copy.deepcopy(model.state_dict())
    for optimizer in (first, second):
        optimizer.step()
    for index in (0, 1):
        moved = model.state_dict()[f"{index}.weight"] - before[f"{index}.weight"]
        assert torch.allclose(moved, -1e-4 * model[index].weight.grad.float(), rtol=1e-3, atol=1e-8)
    optimize(model, BFLOAT16, second, inplace=True)
    assert [layer.weight.dtype for layer in model] == [BFLOAT16] * 3
    with pytest.raises(InvalidOptionError, match="holds no parameter of the model"):
        optimize(model, BFLOAT16, torch.optim.SGD(nn.Linear(2, 2).parameters()), inplace=True)


# A warning of theirs, that steps come in the wrong order, would be an error here.
@pytest.mark.parametrize("early", [True, False])
def test_schedulers_follow(early):
    model = Net()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.0) if early else None
    model, optimizer = optimize(model, BFLOAT16, optimizer, inplace=True)
    scheduler = scheduler or torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.0)
    before = copy.deepcopy(model.state_dict())
    train(model, optimizer, 1)
    after = copy.deepcopy(model.state_dict())
    scheduler.step()
    train(model, optimizer, 1)
    assert not torch.equal(before["fc.weight"], after["fc.weight"])
    assert torch.equal(model.state_dict()["fc.weight"], after["fc.weight"])


def test_clipping_and_scaling(xpu):
    model = nn.Linear(4, 1, bias=False).to(xpu)
    start = model.weight.detach().clone()
    model, optimizer = XPU.optimize(model, BFLOAT16, torch.optim.SGD(model.parameters(), 1.0))
    scaler = XPU.amp.GradScaler(init_scale=1024.0)
    with XPU.amp.autocast():
        loss = model(torch.full((1, 4), 3.0, device=xpu)).sum()
    scaler.scale(loss).backward()
    scaler.unscale_(optimizer)
    norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    assert norm.item() == 6.0
    scaler.step(optimizer)
    scaler.update()
    torch.testing.assert_close(start - model.state_dict()["weight"], torch.full((1, 4), 0.5, device=xpu))
    held = model.state_dict()["weight"]
    scaler.scale(model(torch.full((1, 4), torch.inf, device=xpu, dtype=BFLOAT16)).sum()).backward()
    scaler.step(optimizer)
    scaler.update()
    assert torch.equal(model.state_dict()["weight"], held)
    assert scaler.get_scale() == 512.0


def test_calling_it_again_changes_nothing():
    model, optimizer = optimized()
    for _ in range(3):
        again, same = optimize(model, BFLOAT16, optimizer, inplace=True)
        assert (again, same) == (model, optimizer)
        train(model, optimizer, 1)
    reference, reference_optimizer = optimized()
    assert type(optimizer) is type(reference_optimizer)
    assert model.state_dict().keys() == reference.state_dict().keys()


def test_a_step_that_raises_leaves_the_optimizer_usable():
    model, optimizer = optimized()
    held = list(optimizer.param_groups[0]["params"])

    def closure():
        raise KeyError("the data ended")

    with pytest.raises(KeyError, match="the data ended"):
        optimizer.step(closure)
    assert optimizer.param_groups[0]["params"] == held
    train(model, optimizer)


def test_hooks_run_once():
    model, optimizer = optimized()
    seen = []
    optimizer.register_step_post_hook(lambda *_: seen.append("hook"))
    train(model, optimizer, 2)
    assert seen == ["hook", "hook"]
    copied_model, copied = copy.deepcopy((model, optimizer))
    copied.register_step_post_hook(lambda *_: seen.append("copy"))
    train(copied_model, copied, 1)
    assert seen == ["hook", "hook", "copy"]


def test_sparse_gradients():
    model = nn.Embedding(6, 4, sparse=True)
    start = model.weight.detach().clone()
    model, optimizer = optimize(model, BFLOAT16, torch.optim.SGD(model.parameters(), 0.25))
    model(torch.tensor([2])).sum().backward()
    optimizer.step()
    expected = start.clone()
    expected[2] -= 0.25
    torch.testing.assert_close(model.state_dict()["weight"], expected, rtol=0, atol=0)


def evaluated():
    return nn.Linear(2, 2).eval()


def trained():
    model = nn.Linear(2, 2)
    return model, torch.optim.SGD(model.parameters(), 0.1)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (lambda: {"model": nn.Linear(2, 2), "dtype": BFLOAT16}, "call model.eval"),
        (lambda: {"model": evaluated(), "optimizer": trained()[1]}, "leave optimizer out"),
        (lambda: dict(zip(("model", "optimizer"), trained(), strict=True), dtype=FLOAT16), "GradScaler"),
        (lambda: {"model": evaluated(), "dtype": torch.int8}, "use torch.bfloat16 or torch.float16"),
        (lambda: {"model": evaluated(), "level": "O2"}, "none of O0, O1"),
        (lambda: {"model": evaluated(), "inplace": "yes"}, "inplace is 'yes'; it must be True or False"),
        (lambda: {"model": evaluated(), "graph_mode": True}, "torch.compile"),
        (lambda: {"model": len}, "takes a torch.nn.Module"),
        (lambda: {"model": nn.Linear(2, 2), "optimizer": "sgd"}, "must be a torch.optim.Optimizer"),
        (lambda: {"model": nn.ModuleList([evaluated(), evaluated().to("meta")]).eval()}, "are on cpu and meta"),
        (lambda: {"model": optimize(evaluated(), FLOAT16), "dtype": BFLOAT16}, "stored in torch.float16 before"),
    ],
)
def test_refusals(given, said):
    options = given()
    with pytest.raises(InvalidOptionError, match=said):
        optimize(**options)


@pytest.mark.parametrize("lost", ["step", "_params"])
def test_copies_that_would_lack_something_are_refused(lost):
    model = nn.Linear(2, 2)
    optimizer = (torch.optim.SGD if lost == "step" else torch.optim.LBFGS)(model.parameters(), 0.1)
    if lost == "step":
        torch.optim.lr_scheduler.StepLR(optimizer, 1)
    with pytest.raises(InvalidOptionError, match=f"lacks .*{lost}.*; pass inplace=True"):
        optimize(model, BFLOAT16, optimizer)
    assert model.weight.dtype is FLOAT32


def test_inference_weights_cannot_be_trained():
    model = optimize(evaluated(), BFLOAT16).train()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    with pytest.raises(InvalidOptionError, match="rounded for inference"):
        optimize(model, BFLOAT16, optimizer)
    assert type(optimizer) is torch.optim.SGD


@pytest.mark.parametrize("assign", [False, True])
def test_inference_weights_load_float32(assign):
    model, other = optimize(evaluated(), BFLOAT16), nn.Linear(2, 2)
    model.load_state_dict(other.state_dict(), assign=assign)
    assert torch.equal(model.weight, other.weight.bfloat16())
    assert model.state_dict()["weight"].dtype is FLOAT32


def test_arguments_about_speed_do_nothing():
    names = (
        "conv_bn_folding linear_bn_folding weights_prepack replace_dropout_with_identity optimize_lstm concat_linear"
    )
    options: dict[str, Any] = dict.fromkeys([*names.split(), "auto_kernel_selection", "fuse_update_step"], True)
    model = nn.Sequential(nn.Conv2d(2, 2, 1), nn.BatchNorm2d(2), nn.Dropout()).eval()
    optimize(model, BFLOAT16, inplace=True, sample_input=torch.randn(1, 2, 4, 4), **options)
    assert [type(layer) for layer in model] == [nn.Conv2d, nn.BatchNorm2d, nn.Dropout]
