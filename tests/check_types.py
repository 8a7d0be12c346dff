"""Runs the type checker on an installed wheel, and on what uses it: tests, benchmarks and examples.

It cannot follow the package's folders in the source tree.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parent.parent
# Of the documentation, what tests import; the rest is about Sphinx, which is not installed where types are checked.
COPIED, USERS = ("benchmarks", "docs", "examples", "tests"), ("benchmarks", "examples", "tests")


def install_into(folder: str) -> None:
    """Build the wheel of this checkout and unpack it into a folder."""
    # Where setuptools leaves modules that have moved since.
    shutil.rmtree(ROOT / "build", ignore_errors=True)
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", folder, str(ROOT)]
    subprocess.run(command, check=True, timeout=300)


def main() -> int:
    """Build the wheel, unpack it into a folder beside its users and check all of it; return mypy's exit status."""
    with tempfile.TemporaryDirectory() as folder:
        install_into(folder)
        for users in COPIED:
            shutil.copytree(ROOT / users, Path(folder, users))
        command = [sys.executable, "-m", "mypy", "--config-file", str(ROOT / "pyproject.toml")]
        return subprocess.run([*command, "xpu_amp_dynamo", *USERS], cwd=folder, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
