"""Averages of weights, adapters and hooks: code of users that swaps, merges and renews weights."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from tests.runtime.weight_changes.small_model import WIDTH, Model, Way, weight


def train(model: Model) -> None:
    """Change the weights as training would, in place."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter))


def averaged_model(model: Model) -> Callable[[], object]:
    """Copy the average of the last models into the model."""
    average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.5))

    def change() -> None:
        train(model)
        average.update_parameters(model)
        for parameter, averaged in zip(model.parameters(), average.parameters(), strict=True):
            parameter.data.copy_(averaged.data)

    return change


def copied_average(model: Model) -> Callable[[], object]:
    """Copy an average in, as at each evaluation, and the weights back at the next change."""
    averages = [parameter.detach().clone() * 0.5 for parameter in model.parameters()]
    stored: list[torch.Tensor] = []

    def change() -> None:
        if stored:
            for parameter, value in zip(model.parameters(), stored, strict=True):
                parameter.data.copy_(value)
            stored.clear()
            return
        stored.extend(parameter.data.clone() for parameter in model.parameters())
        for parameter, average in zip(model.parameters(), averages, strict=True):
            parameter.data.copy_(average)

    return change


def exchanged_average(model: Model) -> Callable[[], object]:
    """Exchange storages with those of an average."""
    averages = [parameter.detach().clone() * 0.5 for parameter in model.parameters()]

    def change() -> None:
        for index, parameter in enumerate(model.parameters()):
            parameter.data, averages[index] = averages[index], parameter.data

    return change


def lerped_average(model: Model) -> Callable[[], object]:
    """Evaluate a model whose weights follow another by ``lerp_`` on held tensors."""
    source = [torch.randn_like(parameter) for parameter in model.parameters()]
    target = [parameter.data for parameter in model.parameters()]
    return lambda: torch._foreach_lerp_(target, source, 0.3)


def adapter(model: Model) -> Callable[[], object]:
    """Merge an adapter and unmerge it at the next change."""
    device = weight(model).device
    delta = torch.randn(WIDTH, 2, device=device) @ torch.randn(2, WIDTH, device=device)
    merged = [False]

    def change() -> None:
        if merged[0]:
            weight(model).data -= delta
        else:
            weight(model).data += delta
        merged[0] = not merged[0]

    return change


def many_adapters(model: Model) -> Callable[[], object]:
    """Merge one adapter after another into weights that were kept."""
    base = weight(model).data.clone()

    def change() -> None:
        up, down = torch.randn(WIDTH, 2, device=base.device), torch.randn(2, WIDTH, device=base.device)
        weight(model).data = base + up @ down

    return change


def adapter_in_forward(model: Model) -> Callable[[], object]:
    """Let a hook merge an adapter before each call of the model from outside."""

    def merge(module: torch.nn.Module, inputs: object) -> None:
        weight(model).data.mul_(2)

    def change() -> None:
        handle = model.register_forward_pre_hook(merge)
        model(torch.randn(1, WIDTH, device=weight(model).device))
        handle.remove()

    return change


def renewed_by_a_hook_of_state(model: Model) -> Callable[[], object]:
    """Let a hook write when a state dictionary was loaded."""

    def write(module: torch.nn.Module, keys: object) -> None:
        weight(model).data.mul_(2)

    model.register_load_state_dict_post_hook(write)
    return lambda: model.load_state_dict(model.state_dict())


def clipped(model: Model) -> Callable[[], object]:
    """Clip weights as in WGAN, after a step."""

    def change() -> None:
        train(model)
        for parameter in model.parameters():
            parameter.data.clamp_(-1.5, 1.5)

    return change


WAYS: dict[str, Way] = {
    "AveragedModel": averaged_model,
    "copied average": copied_average,
    "exchanged average": exchanged_average,
    "average by lerp_": lerped_average,
    "adapter": adapter,
    "many adapters": many_adapters,
    "merged by a forward hook": adapter_in_forward,
    "written by a hook of load_state_dict": renewed_by_a_hook_of_state,
    "clipped": clipped,
}
