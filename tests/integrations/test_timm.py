"""timm: a training step with its own loss, optimizer and average of weights."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tests.architectures.torchvision_ops import import_torchvision

import_torchvision()
import timm  # noqa: E402
from timm.loss.cross_entropy import LabelSmoothingCrossEntropy  # noqa: E402
from timm.optim._optim_factory import create_optimizer_v2  # noqa: E402
from timm.utils.model_ema import ModelEmaV3  # noqa: E402

import xpu_amp_dynamo  # noqa: E402
from tests.integrations.models import lowered_calls  # noqa: E402
from tests.support.comparison import relative_error  # noqa: E402

IMAGES = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(1))
LABELS = torch.tensor([0, 1, 2, 3])
SIZES: dict[str, dict[str, Any]] = {
    "resnet18": {},
    "vit_tiny_patch16_224": {"img_size": 32, "patch_size": 8, "depth": 2, "embed_dim": 32, "num_heads": 2},
}


def classifier(name):
    torch.manual_seed(0)
    return timm.create_model(name, num_classes=4, **SIZES[name])


def flat(model):
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


def train(model):
    """Train for two steps; return the losses and the averaged weights."""
    optimizer = create_optimizer_v2(model, opt="sgd", lr=0.001)
    average, loss_of, losses = ModelEmaV3(model, decay=0.5), LabelSmoothingCrossEntropy(), []
    for _ in range(2):
        loss = loss_of(model(IMAGES), LABELS)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        average.update(model)
        losses.append(loss.detach())
    return torch.stack(losses), average.module


@pytest.mark.parametrize("name", SIZES)
def test_training_step(name):
    expected, expected_average = train(classifier(name))
    model = classifier(name)
    model.compile(backend="xpu_amp", options={"inner_backend": "eager"})
    with xpu_amp_dynamo.record_lowerings() as reports:
        losses, average = train(model)
    assert lowered_calls(reports) > 8
    assert losses.dtype is torch.float32
    assert 0 < relative_error(losses, expected) < 0.01
    assert list(model.state_dict()) == list(average.state_dict()) == list(expected_average.state_dict())
    assert {parameter.dtype for parameter in average.parameters()} == {torch.float32}
    start = flat(classifier(name))
    with torch.autocast("cpu", torch.bfloat16):
        stock_average = train(classifier(name))[1]
    # Norms over four images round coarsely: near what stock autocast gives, which is no reference but a bound.
    error, stock_error = (
        relative_error(flat(a) - start, flat(expected_average) - start) for a in (average, stock_average)
    )
    assert 0 < error < 1.25 * stock_error
