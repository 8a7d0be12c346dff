"""``xpu-amp export``: a model as a package that runs where neither Python nor this package is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from xpu_amp_dynamo.command_line.arguments import ABOUT_FACTORIES, device_option, model_argument
from xpu_amp_dynamo.command_line.flags import CompilingCommand, export_flags, given_options
from xpu_amp_dynamo.command_line.output import OutputFile, console_for, json_option, write_json

HELP = f"""Export a model with autocast lowered into it, and compile it by AOTInductor into a package.

{ABOUT_FACTORIES} Load the package by torch._inductor.aoti_load_package("model.pt2").
"""


@click.command("export", cls=CompilingCommand, flags=export_flags, help=HELP)
@model_argument()
@click.option("--out", required=True, type=OutputFile(), help="The package, a .pt2 file.")
@device_option()
@json_option()
def command(factory: str, out: Path, device: str | None, json_file: str | None, **flags: Any) -> None:
    """Write the package of one model, and compare what it gives with the model in float32."""
    if out.suffix != ".pt2":
        raise click.UsageError(f"--out {str(out)!r} must end in .pt2, as torch.export's packages do")
    from xpu_amp_dynamo.command_line.device_choice import chosen_device
    from xpu_amp_dynamo.command_line.model_source import load_model
    from xpu_amp_dynamo.command_line.write_package import write_package

    device, options = chosen_device(device), given_options(flags)
    settings = options.pop("inductor", {})
    source = load_model(factory, train=False).moved_to(device)
    written = write_package(source, out, options, settings)
    console = console_for(json_file)
    console.print(
        f"{out}: {written.ops['lower_precision']} calls of ops in lower precision, {written.casts} casts; outputs "
        f"differ from the model's in float32 by {written.error:.2%}",
        soft_wrap=True,
    )
    about = {"command": "export", "model": factory, "device": device, "options": options, "inductor": settings}
    counts = {"ops": dict(written.ops), "casts": written.casts, "error": written.error}
    write_json({**about, "package": str(out), "bytes": out.stat().st_size, **counts}, json_file)
