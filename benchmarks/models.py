"""Real architectures with random weights: what the tests, the demo and the benchmarks run.

The transformers come from their configurations in the ``transformers`` library, at any size; the convolutional
nets that it lacks are written here. Nothing is downloaded.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import transformers
from torch import nn

VOCABULARY, LABELS = 128, 10
Inputs = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Size:
    """How large a model is, and how much it is given.

    Args:
        width: features of the residual stream; a multiple of 16 times ``heads``.
        layers: number of layers, of the encoder and of the decoder where there are both.
        heads: attention heads.
        batch: examples in a batch.
        length: tokens of a sequence, or pixels of an image's side.
    """

    width: int = 64
    layers: int = 2
    heads: int = 4
    batch: int = 2
    length: int = 32


class ConvolutionalAutoencoder(nn.Module):
    """Convolutions down and transposed convolutions up again."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.down = nn.Conv2d(3, width, 4, stride=2, padding=1)
        self.norm = nn.BatchNorm2d(width)
        self.up = nn.ConvTranspose2d(width, 3, 4, stride=2, padding=1)

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """Return a reconstruction of float images of shape [batch, 3, side, side]."""
        return self.up(torch.relu(self.norm(self.down(pixel_values))))


class UNet(nn.Module):
    """One level of a U-Net: the features before pooling are concatenated with those after upsampling."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.enter = nn.Sequential(nn.Conv2d(3, width, 3, padding=1), nn.GroupNorm(4, width), nn.SiLU())
        self.middle = nn.Sequential(nn.MaxPool2d(2), nn.Conv2d(width, width, 3, padding=1), nn.SiLU())
        self.up = nn.Upsample(scale_factor=2)
        self.leave = nn.Conv2d(2 * width, 3, 3, padding=1)

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """Return float maps of shape [batch, 3, side, side] for images of the same shape."""
        skip = self.enter(pixel_values)
        return self.leave(torch.cat([self.up(self.middle(skip)), skip], dim=1))


def bert(size: Size) -> nn.Module:
    """Build an encoder with a masked language model head."""
    config = transformers.BertConfig(
        hidden_size=size.width,
        num_hidden_layers=size.layers,
        num_attention_heads=size.heads,
        intermediate_size=4 * size.width,
        vocab_size=VOCABULARY,
    )
    return transformers.BertForMaskedLM(config)


def gpt2(size: Size) -> nn.Module:
    """Build a decoder with learned positions."""
    # Here and below: configurations take settings that their types do not name, transformers 5.
    config = transformers.GPT2Config(  # type: ignore[call-arg]
        n_embd=size.width,
        n_layer=size.layers,
        n_head=size.heads,
        vocab_size=VOCABULARY,
        bos_token_id=1,
        eos_token_id=2,
        loss_type="ForCausalLMLoss",
    )
    return transformers.GPT2LMHeadModel(config)


def llama(size: Size) -> nn.Module:
    """Build a decoder with rotary positions and grouped key and value heads."""
    config = transformers.LlamaConfig(
        hidden_size=size.width,
        num_hidden_layers=size.layers,
        num_attention_heads=size.heads,
        num_key_value_heads=size.heads // 2,
        intermediate_size=2 * size.width,
        vocab_size=VOCABULARY,
    )
    return transformers.LlamaForCausalLM(config)


def mixtral(size: Size) -> nn.Module:
    """Build a decoder whose feed-forward layers are mixtures of experts."""
    config = transformers.MixtralConfig(
        hidden_size=size.width,
        num_hidden_layers=size.layers,
        num_attention_heads=size.heads,
        num_key_value_heads=size.heads // 2,
        intermediate_size=2 * size.width,
        num_local_experts=4,
        vocab_size=VOCABULARY,
    )
    return transformers.MixtralForCausalLM(config)


def t5(size: Size) -> nn.Module:
    """Build an encoder and decoder with relative positions."""
    config = transformers.T5Config(  # type: ignore[call-arg]
        d_model=size.width,
        num_layers=size.layers,
        num_heads=size.heads,
        d_kv=size.width // size.heads,
        d_ff=2 * size.width,
        vocab_size=VOCABULARY,
        decoder_start_token_id=0,
    )
    return transformers.T5ForConditionalGeneration(config)


def whisper(size: Size) -> nn.Module:
    """Build a speech model: convolutions, an encoder and a decoder."""
    config = transformers.WhisperConfig(
        d_model=size.width,
        encoder_layers=size.layers,
        decoder_layers=size.layers,
        encoder_attention_heads=size.heads,
        decoder_attention_heads=size.heads,
        encoder_ffn_dim=2 * size.width,
        decoder_ffn_dim=2 * size.width,
        num_mel_bins=16,
        max_source_positions=size.length,
        vocab_size=VOCABULARY,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        decoder_start_token_id=1,
        suppress_tokens=None,
        begin_suppress_tokens=None,
    )
    return transformers.WhisperForConditionalGeneration(config)


def vit(size: Size) -> nn.Module:
    """Build an image classifier on patches."""
    config = transformers.ViTConfig(  # type: ignore[call-arg]
        hidden_size=size.width,
        num_hidden_layers=size.layers,
        num_attention_heads=size.heads,
        intermediate_size=2 * size.width,
        image_size=size.length,
        patch_size=8,
        num_labels=LABELS,
    )
    return transformers.ViTForImageClassification(config)


def resnet(size: Size) -> nn.Module:
    """Build a residual convolutional image classifier."""
    config = transformers.ResNetConfig(  # type: ignore[call-arg]
        embedding_size=size.width // 2,
        hidden_sizes=[size.width // 2, size.width],
        depths=[size.layers, size.layers],
        layer_type="basic",
        num_labels=LABELS,
    )
    return transformers.ResNetForImageClassification(config)


def _tokens(size: Size) -> Inputs:
    ids = torch.randint(3, VOCABULARY, (size.batch, size.length))
    return {"input_ids": ids, "labels": ids}


def _token_pairs(size: Size) -> Inputs:
    ids = torch.randint(3, VOCABULARY, (size.batch, size.length))
    return {"input_ids": ids, "labels": ids[:, : size.length // 2].contiguous()}


def _speech(size: Size) -> Inputs:
    labels = torch.randint(3, VOCABULARY, (size.batch, size.length // 2))
    return {"input_features": torch.randn(size.batch, 16, 2 * size.length), "labels": labels}


def _labelled_images(size: Size) -> Inputs:
    return {**_images(size), "labels": torch.randint(0, LABELS, (size.batch,))}


def _images(size: Size) -> Inputs:
    return {"pixel_values": torch.randn(size.batch, 3, size.length, size.length)}


MODELS: dict[str, tuple[Callable[[Size], nn.Module], Callable[[Size], Inputs]]] = {
    "bert": (bert, _tokens),
    "gpt2": (gpt2, _tokens),
    "llama": (llama, _tokens),
    "mixtral": (mixtral, _tokens),
    "t5": (t5, _token_pairs),
    "whisper": (whisper, _speech),
    "vit": (vit, _labelled_images),
    "resnet": (resnet, _labelled_images),
    "autoencoder": (lambda size: ConvolutionalAutoencoder(size.width), _images),
    "unet": (lambda size: UNet(size.width), _images),
}


def build(name: str, size: Size, device: str = "cpu") -> tuple[nn.Module, Inputs]:
    """Return a model in evaluation mode and a batch of inputs, both the same at every call.

    Args:
        name: a key of ``MODELS``.
        size: how large to make it.
        device: the device to put both on.
    """
    torch.manual_seed(0)
    make_model, make_inputs = MODELS[name]
    model = make_model(size).eval().to(device)
    return model, {key: value.to(device) for key, value in make_inputs(size).items()}


def loss_and_output(result: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the loss and the main output of a model, which for the convolutional nets is a tensor itself."""
    if isinstance(result, torch.Tensor):
        return result.float().square().mean(), result
    return result.loss, result.logits
