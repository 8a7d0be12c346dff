"""The backend for the Trainer of transformers, which compiles through Accelerate."""

from __future__ import annotations

from typing import Any

from accelerate.state import AcceleratorState
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from xpu_amp_dynamo.errors import InvalidOptionError
from xpu_amp_dynamo.integrations.accelerate import XpuAmpPlugin


class XpuAmpCallback(TrainerCallback):
    """Have a ``Trainer`` compile its model for training with ``backend="xpu_amp"``, after it wrapped it.

    It is for training over several processes, where ``DistributedDataParallel`` has to be compiled with the model for
    its collectives to overlap with the backward. Else ``model.compile(backend="xpu_amp")`` before the ``Trainer`` does
    more: evaluation after training runs uncompiled here, as with the ``Trainer``'s own ``torch_compile``.
    Checked on transformers 5.23.0.

    Args:
        plugin: how to compile; None means the backend with its defaults.

    Raises:
        InvalidOptionError: when the ``Trainer`` is made or starts training: it has a backend already, or the callback
            was added too late.

    Example:
        >>> callback = XpuAmpCallback(XpuAmpPlugin({"policy": "torch"}))
        >>> Trainer(model, args, train_dataset=data, callbacks=[callback]).train()
    """

    def __init__(self, plugin: XpuAmpPlugin | None = None) -> None:
        self.plugin = XpuAmpPlugin() if plugin is None else plugin

    def on_init_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Give Accelerate the plugin, before it prepares a model."""
        if args.torch_compile:
            raise InvalidOptionError(
                f"torch_compile_backend is {args.torch_compile_backend!r} in the TrainingArguments, and "
                "XpuAmpCallback compiles with 'xpu_amp'; leave all of torch_compile out of the arguments"
            )
        AcceleratorState().dynamo_plugin = self.plugin

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Check that the model was prepared with the plugin."""
        if AcceleratorState().dynamo_plugin is not self.plugin:
            raise InvalidOptionError(
                "XpuAmpCallback came after its Trainer was made, or other TrainingArguments were made since; give it "
                "as Trainer(..., callbacks=[XpuAmpCallback()]), and make the arguments of one Trainer at a time"
            )
