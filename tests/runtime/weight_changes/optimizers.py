"""Steps of optimizers, by hand too."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch.optim.sgd import sgd
from torch.utils.checkpoint import checkpoint

from tests.runtime.weight_changes.small_model import WIDTH, Model, Way, at_once, weight

Weights = Iterator[torch.nn.Parameter]


def loss(model: Model) -> torch.Tensor:
    """Return a loss of the model for new inputs."""
    x = torch.randn(4, WIDTH, device=weight(model).device)
    return model(x).float().square().sum()


def step(make: Callable[[Weights], torch.optim.Optimizer]) -> Way:
    """Return steps of one optimizer, with gradients of ones."""

    def prepare(model: Model) -> Callable[[], object]:
        optimizer = make(model.parameters())

        def change() -> None:
            for parameter in model.parameters():
                parameter.grad = torch.ones_like(parameter)
            optimizer.step()
            optimizer.zero_grad()

        return change

    return prepare


def optimizer(name: str, **settings: Any) -> Way:
    """Return steps of an optimizer of ``torch.optim``."""
    return step(lambda weights: getattr(torch.optim, name)(weights, lr=1.0, **settings))


def compiled_step(backend: str) -> Way:
    """Return steps of an optimizer that are compiled."""

    def prepare(model: Model) -> Callable[[], object]:
        optimizer = torch.optim.AdamW(model.parameters(), lr=1.0)
        for parameter in model.parameters():
            parameter.grad = torch.ones_like(parameter)
        return torch.compile(optimizer.step, backend=backend)

    return prepare


def by_its_function(model: Model) -> None:
    """Take a fused step without an optimizer."""
    weights: list[torch.Tensor] = [*model.parameters()]
    settings: dict[str, Any] = {"weight_decay": 0, "momentum": 0, "dampening": 0, "nesterov": False, "maximize": False}
    with torch.no_grad():
        sgd(weights, [torch.ones_like(w) for w in weights], [None] * len(weights), fused=True, lr=1.0, **settings)


def muon(model: Model) -> Callable[[], object]:
    """Return steps of Muon, which takes matrices only."""
    optimizer = torch.optim.Muon([weight(model)], lr=1.0)

    def change() -> None:
        weight(model).grad = torch.randn_like(weight(model))
        optimizer.step()

    return change


def lbfgs(model: Model) -> Callable[[], object]:
    """Return steps of LBFGS, which calls the model itself."""
    optimizer = torch.optim.LBFGS(model.parameters(), lr=0.1, max_iter=3)
    x = torch.randn(4, WIDTH, device=weight(model).device)

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        value = model(x).float().square().sum()
        value.backward()
        return value

    def change() -> None:
        with torch.enable_grad():
            optimizer.step(closure)

    return change


def scaled(model: Model) -> Callable[[], object]:
    """Return steps through a loss scaler."""
    device = weight(model).device.type
    optimizer, scaler = torch.optim.SGD(model.parameters(), lr=0.1), torch.amp.GradScaler(device, init_scale=16)

    def change() -> None:
        optimizer.zero_grad()
        scaler.scale(loss(model)).backward()
        scaler.step(optimizer)
        scaler.update()

    return change


def accumulating(model: Model) -> Callable[[], object]:
    """Return steps after several batches, clipped, with a schedule."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.5)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, 1)

    def change() -> None:
        optimizer.zero_grad()
        for _ in range(3):
            (loss(model) / 3).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()

    return change


def checkpointed(model: Model) -> Callable[[], object]:
    """Return steps after a backward that calls the model again."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    def change() -> None:
        optimizer.zero_grad()
        x = torch.randn(4, WIDTH, device=weight(model).device)
        checkpoint(model, x, use_reentrant=False).float().square().sum().backward()
        optimizer.step()

    return change


def in_backward(model: Model) -> Callable[[], object]:
    """Return backwards whose hooks step."""

    def write(parameter: torch.Tensor) -> None:
        assert parameter.grad is not None
        parameter.data.add_(parameter.grad, alpha=-0.1)
        parameter.grad = None

    for parameter in model.parameters():
        parameter.register_post_accumulate_grad_hook(write)
    return lambda: loss(model).backward()


def by_hand(model: Model) -> None:
    """Subtract gradients from ``.data``."""
    for parameter, gradient in zip(
        model.parameters(), torch.autograd.grad(loss(model), [*model.parameters()]), strict=True
    ):
        parameter.data -= 0.1 * gradient


def with_written_gradients(model: Model) -> None:
    """Let a backward accumulate, then write gradients to weights without ``.data``."""
    loss(model).backward()
    with torch.no_grad():
        torch._foreach_sub_([*model.parameters()], [p.grad for p in model.parameters() if p.grad is not None])
    model.zero_grad()


WAYS: dict[str, Way] = {
    "SGD": optimizer("SGD"),
    "SGD with momentum": optimizer("SGD", momentum=0.9),
    "SGD, fused": optimizer("SGD", fused=True),
    "SGD, fused, by its function": at_once(by_its_function),
    "SGD, foreach": optimizer("SGD", foreach=True),
    "Adam": optimizer("Adam"),
    "Adam, fused": optimizer("Adam", fused=True),
    "Adam, foreach": optimizer("Adam", foreach=True),
    "AdamW": optimizer("AdamW"),
    "AdamW, fused": optimizer("AdamW", fused=True),
    "Adagrad": optimizer("Adagrad"),
    "Adagrad, fused": optimizer("Adagrad", fused=True),
    "Adadelta": optimizer("Adadelta"),
    "Adafactor": optimizer("Adafactor"),
    "Adamax": optimizer("Adamax"),
    "ASGD": optimizer("ASGD"),
    "NAdam": optimizer("NAdam"),
    "RAdam": optimizer("RAdam"),
    "RMSprop": optimizer("RMSprop"),
    "Rprop": optimizer("Rprop"),
    "Muon": muon,
    "LBFGS": lbfgs,
    "AdamW, compiled": compiled_step("aot_eager"),
    "scaled": scaled,
    "accumulated": accumulating,
    "checkpointed": checkpointed,
    "in backward": in_backward,
    "by hand": at_once(by_hand),
    "by hand, foreach": at_once(with_written_gradients),
}
