"""AOTInductor: packages of exported programs. Checked on torch 2.13.0."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
import torch._inductor


def compile_package(program: torch.export.ExportedProgram, path: Path, settings: Mapping[str, Any]) -> None:
    """Compile an exported program into a package.

    Args:
        program: the program.
        path: the file, which ends in ``.pt2``.
        settings: settings of ``torch._inductor.config``.
    """
    torch._inductor.aoti_compile_and_package(program, package_path=str(path), inductor_configs=dict(settings))


def load_package(path: Path) -> Callable[..., Any]:
    """Return the function that a package holds."""
    return torch._inductor.aoti_load_package(str(path))
