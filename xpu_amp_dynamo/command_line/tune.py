"""``xpu-amp tune``: which modules of a model run in which precision for least cost within a tolerance."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import click

from xpu_amp_dynamo.command_line.arguments import ABOUT_FACTORIES, device_option, model_argument
from xpu_amp_dynamo.command_line.flags import CompilingCommand, backend_flags, given_options
from xpu_amp_dynamo.command_line.output import OutputFile, console_for, json_option, write_json

HELP = f"""Find which modules of a model to keep in float32 and which lower, for least cost within a tolerance.

{ABOUT_FACTORIES}

The options of the backend are those that the search starts from. What is found goes into a TOML file, which other
commands take by --tuning, and Python by xpu_amp_dynamo.Tuning.load(FILE).options.
"""


@click.command("tune", cls=CompilingCommand, flags=backend_flags, help=HELP)
@model_argument()
@device_option()
@click.option("--tolerance", type=float, default=0.01, show_default=True, help="The largest error that is allowed.")
@click.option("--budget", type=click.IntRange(min=1), default=100, show_default=True, help="How many trials at most.")
@click.option("--train", is_flag=True, help="Run the backward too; the gradients count.")
@click.option("--cost", type=click.Choice(["bytes", "time"]), default="bytes", show_default=True, help="What to save.")
@click.option("--metric", metavar="MODULE:FUNCTION", help="Tells how far an output is from the one in float32.")
@click.option("--out", type=OutputFile(), help="Write what was found into this file.")
@json_option()
def command(
    factory: str,
    device: str | None,
    tolerance: float,
    budget: int,
    train: bool,
    cost: str,
    metric: str | None,
    out: Path | None,
    json_file: str | None,
    **flags: Any,
) -> None:
    """Print what was found for one model."""
    from xpu_amp_dynamo.command_line.device_choice import chosen_device
    from xpu_amp_dynamo.command_line.model_source import load_function, load_model
    from xpu_amp_dynamo.plain_options import plain
    from xpu_amp_dynamo.tuning.tune import tune

    source = load_model(factory, train=train).moved_to(chosen_device(device))
    tuning = tune(
        source.model,
        source.args or source.kwargs,
        metric=load_function(metric) if metric else None,
        tolerance=tolerance,
        budget=budget,
        options=given_options(flags),
        train=train,
        cost=cost,
    )
    tuning.print(console_for(json_file))
    if out is not None:
        tuning.save(out)
    document = {**dataclasses.asdict(tuning), "options": plain(tuning.options)}
    write_json({"command": "tune", **document, "model": factory}, json_file)
