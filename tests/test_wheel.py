"""The built wheel: complete, and its backend found by name."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.check_types import install_into


@pytest.mark.slow
def test_wheel_works_outside_the_source_tree(tmp_path):
    site, work = tmp_path / "site", tmp_path / "work"
    work.mkdir()
    install_into(str(site))
    program = (
        "import torch\n"
        "f = torch.compile(lambda x: x @ x, backend='xpu_amp', options={'inner_backend': 'eager'})\n"
        "x = torch.randn(4, 4)\n"
        "assert torch.equal(f(x), (x.bfloat16() @ x.bfloat16()).float())\n"
        "import xpu_amp_dynamo\n"
        "with xpu_amp_dynamo.autocast('cpu'):\n"
        "    assert (x @ x).dtype is torch.bfloat16\n"
        "print(xpu_amp_dynamo.__file__)\n"
        "print(xpu_amp_dynamo.lowering.__file__)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(site)}
    result = subprocess.run(
        [sys.executable, "-c", program], cwd=work, env=environment, check=True, capture_output=True, text=True
    )
    assert result.stdout.splitlines() == [
        str(site / "xpu_amp_dynamo" / "__init__.py"),
        str(site / "xpu_amp_dynamo" / "lowering" / "__init__.py"),
    ]
