"""``xpu-amp explain``: which op of a model runs in which dtype, why, and what that costs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from xpu_amp_dynamo.command_line.arguments import ABOUT_FACTORIES, device_option, model_argument
from xpu_amp_dynamo.command_line.flags import CompilingCommand, backend_flags, given_options
from xpu_amp_dynamo.command_line.output import OutputFile, console_for, json_option, write_json

HELP = f"""Tell which op of a model runs in which dtype, why, which casts that takes and what became of them.

{ABOUT_FACTORIES}
"""


@click.command("explain", cls=CompilingCommand, flags=backend_flags, help=HELP)
@model_argument()
@device_option()
@click.option("--simulated-xpu", "simulated", is_flag=True, help="Compile for a simulated XPU, and leave kernels out.")
@click.option("--train", is_flag=True, help="Run the backward too.")
@click.option("--compare", type=click.Choice(["float32"]), help="Tell what error each call adds, and what overflows.")
@click.option("--calls", "each", is_flag=True, help="List every call with its reason.")
@click.option("--html", type=OutputFile(), help="Write a page to look at in a browser.")
@json_option()
def command(
    factory: str,
    device: str | None,
    simulated: bool,
    train: bool,
    compare: str | None,
    each: bool,
    html: Path | None,
    json_file: str | None,
    **flags: Any,
) -> None:
    """Print the explanation of one model."""
    from xpu_amp_dynamo.command_line.device_choice import chosen_device, simulating
    from xpu_amp_dynamo.command_line.model_source import load_model
    from xpu_amp_dynamo.explanation.explain import explain

    if simulated and device is not None:
        raise click.UsageError("--simulated-xpu chooses the device; leave --device out")
    with simulating(simulated, mode="inspect"):
        source = load_model(factory, train=train).moved_to(chosen_device("xpu" if simulated else device))
        options = given_options(flags)
        explanation = explain(
            source.model, *source.args, options=options, train=train, compare=compare, **source.kwargs
        )
    console = console_for(json_file)
    if each:
        console.print(explanation.table())
    explanation.print(console)
    if html is not None:
        explanation.to_html(html)
    write_json({"command": "explain", **json.loads(explanation.to_json())}, json_file)
