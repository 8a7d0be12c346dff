"""Runs the type checker on an installed wheel, since it cannot follow the package's folders in the source tree."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parent.parent


def main() -> int:
    """Build the wheel, unpack it into a folder of its own and check it; return mypy's exit status."""
    # Where setuptools leaves modules that have moved since.
    shutil.rmtree(ROOT / "build", ignore_errors=True)
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(
            [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", folder, str(ROOT)], check=True
        )
        command = [sys.executable, "-m", "mypy", "--config-file", str(ROOT / "pyproject.toml"), "xpu_amp_dynamo"]
        return subprocess.run(command, cwd=folder, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
