"""``xpu-amp bench``: a model by the backend, by stock autocast and in float32, side by side."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import click

from xpu_amp_dynamo.command_line.arguments import ABOUT_FACTORIES, device_option, model_argument
from xpu_amp_dynamo.command_line.flags import CompilingCommand, backend_flags, given_options
from xpu_amp_dynamo.command_line.output import console_for, json_option, milliseconds, write_json

if TYPE_CHECKING:
    from rich.table import Table

    from xpu_amp_dynamo.command_line.compare_ways import Times

HELP = f"""Time a model by the backend, by stock autocast and in float32, all compiled by Inductor.

{ABOUT_FACTORIES}

The ways take turns in one process; medians are printed. The options of the backend are for ours only; stock autocast
runs in their dtype.
"""


@click.command("bench", cls=CompilingCommand, flags=backend_flags, help=HELP)
@model_argument()
@device_option()
@click.option("--train", is_flag=True, help="Time forward and backward.")
@click.option("--rounds", type=click.IntRange(min=1), default=15, show_default=True, help="How often each is timed.")
@json_option()
def command(factory: str, device: str | None, train: bool, rounds: int, json_file: str | None, **flags: Any) -> None:
    """Print the times of one model."""
    from xpu_amp_dynamo.command_line.compare_ways import compare_ways
    from xpu_amp_dynamo.command_line.device_choice import chosen_device
    from xpu_amp_dynamo.command_line.model_source import load_model

    device, options = chosen_device(device), given_options(flags)
    source = load_model(factory, train=train).moved_to(device)
    times = compare_ways(source, device, options, train=train, rounds=rounds)
    title = f"{factory} on {device}, {'training step' if train else 'inference'}, medians of {rounds} rounds"
    console_for(json_file).print(times_table({factory: times}, title))
    about = {"command": "bench", "model": factory, "device": device, "train": train, "rounds": rounds}
    write_json({**about, "options": options, **dataclasses.asdict(times), "ratios": times.ratios}, json_file)


def times_table(times: dict[str, Times], title: str) -> Table:
    """Tabulate the times of models, one row for each way, and how far its outputs are from those in float32."""
    from rich.table import Table

    table = Table("model", "way", "median", "times ours", "error", "first call", title=title)
    for name, each in times.items():
        for way, seconds in each.medians.items():
            ratio = f"{each.ratios[way]:.2f}" if way in each.ratios else ""
            error = f"{each.errors[way]:.2%}" if way in each.errors else ""
            table.add_row(name, way, milliseconds(seconds), ratio, error, f"{each.first_calls[way]:.1f} s")
    return table
