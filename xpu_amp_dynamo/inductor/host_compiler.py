"""The C++ compiler that Inductor uses for code of the CPU. Checked on torch 2.13.0."""

from __future__ import annotations

from torch._inductor import cpp_builder, exc


def host_compiler() -> str | None:
    """Return the compiler that Inductor would call, None if it finds none."""
    try:
        return cpp_builder.get_cpp_compiler()
    except exc.InvalidCxxCompiler:
        return None
