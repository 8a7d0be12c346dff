"""The specification's own snippets, with the import and the device changed and smaller images."""

from __future__ import annotations

import pytest
import torch

from xpu_amp_dynamo import autocast

SIDE = 32


class SimpleNet(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = torch.nn.Conv2d(64, 128, (3, 3), stride=(2, 2), padding=(1, 1), bias=False)

    def forward(self, x):
        return self.conv(x)


@pytest.fixture
def x(device):
    return torch.rand(4, 64, SIDE, SIDE).to(device)


def close_to_float32(y, model, x):
    return torch.allclose(y.float(), model(x), rtol=0.02, atol=0.02)


def test_default_precision(x, device):
    model = SimpleNet().to(device)
    y = model(x)
    assert y.dtype is torch.float32
    assert y.shape == (4, 128, SIDE // 2, SIDE // 2)


def test_imperative_inference(x, device):
    model = SimpleNet().to(device).eval()
    with autocast(device, dtype=torch.float16):
        y = model(x)
    assert y.dtype is torch.float16
    assert close_to_float32(y, model, x)


def test_torchscript_inference(x, device):
    model = original = SimpleNet().to(device).eval()
    with autocast(device, dtype=torch.float16):
        model = torch.jit.trace(model, x)
        model = torch.jit.freeze(model)
        y = model(x)
    assert y.dtype is torch.float16
    assert close_to_float32(y, original, x)
    casts = [node for node in model.graph.nodes() if node.kind() == "aten::to"]
    assert len(casts) == 1, "freezing folds the weight's cast; that of the input stays"


def test_training(device):
    model = SimpleNet().to(device)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.001)
    criterion = torch.nn.MSELoss()
    batches = [(torch.rand(2, 64, SIDE, SIDE), torch.rand(2, 128, SIDE // 2, SIDE // 2))] * 5
    losses = []
    for images, label in batches:
        with autocast(device):
            loss = criterion(model(images.to(device)), label.to(device))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert model.conv.weight.grad is not None
    assert model.conv.weight.grad.dtype is torch.float32
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < losses[0]


def test_compiled(x, device):
    model = SimpleNet().to(device)
    compiled = torch.compile(model, backend="xpu_amp")
    y = compiled(x)
    y.sum().backward()
    assert y.dtype is torch.float32
    assert close_to_float32(y, model, x)
    assert model.conv.weight.grad is not None
