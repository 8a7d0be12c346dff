"""Print what the installed torch needs besides libraries of CUDA, its Triton too, for `pip install`."""

from __future__ import annotations

import importlib.metadata

OF_CUDA = ("nvidia", "cuda")

for need in importlib.metadata.requires("torch") or ():
    name, _, condition = need.partition(";")
    if not name.startswith(OF_CUDA) and "extra" not in condition:
        print(name.strip())
