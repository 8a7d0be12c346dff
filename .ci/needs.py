"""Print what installed packages need besides torch and the libraries of CUDA, for ``pip install``.

    VENV/bin/python .ci/needs.py torch xpu-amp-dynamo[test-core]

``pip install`` of the packages themselves would also install what a CUDA build of torch needs: gigabytes.
"""

from __future__ import annotations

import importlib.metadata
import sys
from collections.abc import Iterator

from packaging.requirements import Requirement

LEFT_OUT = ("torch", "nvidia", "cuda")


def needs_of(package: Requirement) -> Iterator[str]:
    """Yield what a package needs here, with the extras that are asked for."""
    for need in map(Requirement, importlib.metadata.requires(package.name) or ()):
        wanted = not need.marker or any(need.marker.evaluate({"extra": extra}) for extra in ("", *package.extras))
        if wanted and not need.name.startswith(LEFT_OUT):
            yield f"{need.name}{need.specifier}"


print(*(need for package in sys.argv[1:] for need in needs_of(Requirement(package))))
