"""``xpu-amp install-compiler``: Intel's kernel compiler, in a folder of its own."""

from __future__ import annotations

import click


@click.command("install-compiler")
def command() -> None:
    """Install Intel's kernel compiler, beside the Triton of this environment, and print its folder."""
    from xpu_amp_dynamo.simulator.intel_compiler import triton_xpu

    click.echo(triton_xpu.install())
