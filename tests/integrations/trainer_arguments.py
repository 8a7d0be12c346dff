"""The arguments of a Trainer that trains on the CPU in silence, and keeps nothing."""

from __future__ import annotations

from typing import Any

from transformers import TrainingArguments


def trainer_arguments(folder: object, batch: int = 4, **settings: Any) -> TrainingArguments:
    """Return the arguments for one epoch of plain gradient descent.

    Args:
        folder: where the Trainer may write.
        batch: how many examples a process takes at a time.
        settings: any others.
    """
    return TrainingArguments(
        output_dir=str(folder),
        use_cpu=True,
        per_device_train_batch_size=batch,
        num_train_epochs=1,
        learning_rate=1e-2,
        optim="sgd",
        report_to=[],
        disable_tqdm=True,
        logging_steps=1,
        save_strategy="no",
        **settings,
    )
