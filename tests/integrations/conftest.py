"""What all frameworks here share: no network, no progress bars, and warnings of their own that say nothing of us."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
import transformers
from accelerate.state import AcceleratorState


@pytest.fixture(autouse=True)
def quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the libraries offline and silent."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "false")
    transformers.utils.logging.disable_progress_bar()


@pytest.fixture(autouse=True)
def fresh_accelerator() -> Iterator[None]:
    """Leave no state of Accelerate, which is one for the whole process."""
    AcceleratorState._reset_state(reset_partial_state=True)
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


@pytest.fixture
def batches() -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Return four batches of inputs and targets."""
    generator = torch.Generator().manual_seed(1)
    return [(torch.randn(8, 16, generator=generator), torch.randn(8, 4, generator=generator)) for _ in range(4)]


@pytest.fixture(autouse=True)
def verified_passes() -> None:
    """Verify lowered graphs once, as in production: that each pass is right is tested elsewhere, at length."""
