"""Type checkers follow the package into a user's program, after an editable install and into a wheel."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.check_types import install_into

PROGRAM = (Path(__file__).parent / "user_of_the_package.txt").read_text()
CHECKERS = {
    # The cache is that of both runs: PyTorch itself takes longest.
    "mypy": ["mypy", "--strict", "--cache-dir", "../cache"],
    "pyright": ["pyright", "--pythonpath", sys.executable],
}
WRONG = [number for number, line in enumerate(PROGRAM.splitlines(), start=1) if "# wrong: " in line]
SENTINEL = "import xpu_amp_dynamo.only_in_the_wheel\n"


def lines_with_errors(checker: str, folder: Path, environment: dict[str, str]) -> list[int]:
    """Run a type checker in a folder on the program there, and list the lines in which it finds errors."""
    command = [sys.executable, "-m", *CHECKERS[checker], "program.py"]
    environment = {**os.environ, "PYTHONPATH": "", "PYRIGHT_PYTHON_IGNORE_WARNINGS": "1", **environment}
    result = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 1, result.stdout + result.stderr
    return [int(line) for line in re.findall(r"program\.py:(\d+):.* error: ", result.stdout)]


@pytest.mark.slow
@pytest.mark.parametrize("checker", CHECKERS)
def test_errors_are_those_of_the_user(checker, tmp_path):
    """The editable install is that of the environment that these tests run in."""
    site, editable, wheel = (tmp_path / name for name in ("site", "editable", "wheel"))
    for folder in (editable, wheel):
        folder.mkdir()
    (editable / "program.py").write_text(PROGRAM)
    assert lines_with_errors(checker, editable, {}) == WRONG

    install_into(str(site))
    assert (site / "xpu_amp_dynamo" / "py.typed").exists()
    (site / "xpu_amp_dynamo" / "only_in_the_wheel.py").touch()
    (wheel / "program.py").write_text(PROGRAM + SENTINEL)
    (wheel / "pyrightconfig.json").write_text(f'{{"extraPaths": ["{site}"]}}')
    assert lines_with_errors(checker, wheel, {"MYPYPATH": str(site)}) == WRONG
