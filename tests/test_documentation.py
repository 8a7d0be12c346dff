"""The examples of the documentation run as they stand, those of a page one after the other."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch

import xpu_amp_dynamo
from tests.conftest import skip_unless_simulated

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), ROOT / "xpu_amp_dynamo" / "simulator" / "README.md"]
EXAMPLES = {path: re.findall(r"^```python\n(.*?)^```", path.read_text(), re.M | re.S) for path in PAGES}
SIMULATING = ("tune.md", "simulator/README.md")
WITH_EXAMPLES = [path for path in PAGES if EXAMPLES[path]]


@pytest.mark.slow
@pytest.mark.parametrize("path", WITH_EXAMPLES, ids=lambda path: str(path.relative_to(ROOT)))
@pytest.mark.filterwarnings("ignore:.*GradScaler:UserWarning")
# PyTorch's own, where it packages exported programs, torch 2.13.0.
@pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning")
def test_examples_run(path, tmp_path, monkeypatch, capsys):
    if str(path).endswith(SIMULATING):
        skip_unless_simulated()
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    given: dict[str, Any] = {"torch": torch, "xpu_amp_dynamo": xpu_amp_dynamo, "model": torch.nn.Linear(64, 64)}
    given["x"] = given["inputs"] = torch.randn(8, 64)
    for example in EXAMPLES[path]:
        exec(compile(example, path.name, "exec"), given)


def test_pages_have_examples():
    without = {path.name for path in PAGES if not EXAMPLES[path]}
    # Those of integrations.md need libraries that tests/integrations has.
    assert without == {"measurements.md", "integrations.md"}
