"""diffusers: blocks compiled one by one, denoising loops, LoRA adapters that are fused, and averages of weights."""

from __future__ import annotations

from typing import Any

import diffusers
import torch
from diffusers.training_utils import EMAModel

import xpu_amp_dynamo
from tests.integrations.flux import flux, run
from tests.integrations.models import lowered_calls
from tests.support.comparison import relative_error

# The package loads its classes late and a type checker takes them for placeholders.
library: Any = diffusers
EAGER = {"inner_backend": "eager"}


def unet():
    torch.manual_seed(0)
    return library.UNet2DModel(
        sample_size=8,
        block_out_channels=(16, 32),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
        norm_num_groups=8,
    ).eval()


def test_repeated_blocks():
    expected = run(flux())
    model = flux()
    model.compile_repeated_blocks(backend="xpu_amp", options=EAGER, fullgraph=True)
    with xpu_amp_dynamo.record_lowerings() as reports:
        output = run(model)
    assert len(reports) == 2
    assert lowered_calls(reports) > 10
    assert output.dtype is torch.float32
    assert 0 < relative_error(output, expected) < 0.01
    assert list(model.state_dict()) == list(flux().state_dict())


def test_denoising_loop():
    """By "eager": torch 2.13's own "aot_eager" fails in this model's group norm on a CPU."""

    def sample(model):
        denoise = library.DDPMPipeline(model, library.DDPMScheduler(num_train_timesteps=10))
        denoise.set_progress_bar_config(disable=True)
        images = denoise(generator=torch.Generator().manual_seed(0), num_inference_steps=3, output_type="np").images
        return torch.from_numpy(images)

    expected, model = sample(unet()), unet()
    model.compile(backend="xpu_amp", options=EAGER)
    with xpu_amp_dynamo.record_lowerings() as reports:
        images = sample(model)
    assert lowered_calls(reports) > 10
    assert images.dtype is expected.dtype is torch.float32
    assert 0 < relative_error(images, expected) < 0.02


def test_lora_is_fused_and_taken_off():
    """Kept casts of the weights follow what happens to these."""
    model, plain = flux(adapter=True), flux(adapter=True)
    model.compile(backend="xpu_amp", options=EAGER)
    expected = run(plain)
    plain.disable_adapters()
    without = run(plain)
    assert relative_error(without, expected) > 0.05
    assert relative_error(run(model), expected) < 0.01
    model.fuse_lora()
    assert relative_error(run(model), expected) < 0.01
    model.unfuse_lora()
    assert relative_error(run(model), expected) < 0.01
    model.disable_adapters()
    assert relative_error(run(model), without) < 0.01


def test_loading_an_adapter(tmp_path):
    """An adapter saved by one model and loaded into another that was compiled and run before."""
    flux(adapter=True).save_lora_adapter(tmp_path)
    expected, model = run(flux(adapter=True)), flux()
    model.compile(backend="xpu_amp", options=EAGER)
    assert relative_error(run(model), expected) > 0.05
    model.load_lora_adapter(tmp_path, prefix=None, weight_name="pytorch_lora_weights.safetensors")
    assert 0 < relative_error(run(model), expected) < 0.01


def test_averaged_weights():
    """EMAModel writes into parameters, and back."""
    model, plain = flux(), flux()
    model.compile(backend="xpu_amp", options=EAGER)
    average = EMAModel(model.parameters())
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.5)
    trained = run(model)
    average.store(model.parameters())
    average.copy_to(model.parameters())
    plain.load_state_dict(model.state_dict())
    expected = run(plain)
    assert relative_error(trained, expected) > 0.05
    assert 0 < relative_error(run(model), expected) < 0.01
    average.restore(model.parameters())
    assert torch.equal(run(model), trained)


def test_training_step():
    """As diffusers' training scripts do it: noise is predicted, and the error of that differentiated."""

    def gradients(model):
        noise = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
        steps = torch.tensor([1, 5])
        noisy = library.DDPMScheduler(num_train_timesteps=10).add_noise(torch.zeros_like(noise), noise, steps)
        torch.nn.functional.mse_loss(model(noisy, steps).sample, noise).backward()
        return torch.cat([parameter.grad.flatten() for parameter in model.parameters()])

    expected, model = gradients(unet().train()), unet().train()
    model.compile(backend="xpu_amp", options=EAGER)
    assert 0 < relative_error(gradients(model), expected) < 0.03
