"""``xpu-amp kernels``: the kernels that an XPU would run for a model, on any machine."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from xpu_amp_dynamo.command_line.arguments import ABOUT_FACTORIES, model_argument
from xpu_amp_dynamo.command_line.flags import CompilingCommand, backend_flags, given_options
from xpu_amp_dynamo.command_line.output import console_for, json_option, write_json
from xpu_amp_dynamo.simulator.parts import PARTS
from xpu_amp_dynamo.simulator.ways import WAYS

if TYPE_CHECKING:
    from xpu_amp_dynamo.simulator.kernel_report import KernelReport

HELP = f"""Print the kernels that an XPU would run for a model; needs no XPU.

{ABOUT_FACTORIES}
"""


@click.command("kernels", cls=CompilingCommand, flags=backend_flags, help=HELP)
@model_argument()
@click.option("--train", is_flag=True, help="Include the backward.")
@click.option("--region", is_flag=True, help="Call the model inside a region of autocast.")
@click.option("--part", type=click.Choice(sorted(PARTS)), default="max-1550", show_default=True, help="The GPU.")
@click.option("--beside", multiple=True, type=click.Choice(WAYS[1:]), help="Another way to compile, to compare.")
@click.option("--sources", type=click.Path(file_okay=False, path_type=Path), help="Write the generated code here.")
@click.option("--compile", "compiled", is_flag=True, help="Compile the kernels with Intel's compiler, and tell.")
@json_option()
def command(
    factory: str,
    train: bool,
    region: bool,
    part: str,
    beside: tuple[str, ...],
    sources: Path | None,
    compiled: bool,
    json_file: str | None,
    **flags: Any,
) -> None:
    """Print the report of one model, and write its code where that is asked for."""
    from xpu_amp_dynamo.command_line.model_source import load_model
    from xpu_amp_dynamo.simulator.xpu_kernels import xpu_kernels

    source = load_model(factory, train=train)
    report = xpu_kernels(
        source.model,
        *source.args,
        kwargs=source.kwargs,
        options=given_options(flags),
        train=train,
        region=region,
        beside=beside,
        part=part,
    )
    console, document = console_for(json_file), {"command": "kernels", "model": factory, **_document(report)}
    report.print(console)
    if compiled:
        verdicts = report.compile()
        verdicts.print(console)
        document["compiled"] = dataclasses.asdict(verdicts)
    if sources is not None:
        document["sources"] = list(map(str, report.write_sources(sources)))
        for path in document["sources"]:
            console.print(path, soft_wrap=True)
    write_json(document, json_file)


def _document(report: KernelReport) -> dict[str, Any]:
    """Return a report for JSON, without the code."""
    return {
        "way": report.way,
        "part": report.part,
        "triton_launches": report.triton_launches,
        "cast_launches": report.cast_launches,
        "extern_calls": report.extern_calls,
        "bytes_moved": report.bytes_moved,
        "launches": [{**dataclasses.asdict(launch), "support": launch.support.value} for launch in report.launches],
        "beside": {way: _document(other) for way, other in report.beside.items()},
    }
