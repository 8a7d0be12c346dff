"""Runs the self test with a bar of progress, and prints and writes what it found."""

from __future__ import annotations

import dataclasses
import time
from typing import Any

import click
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from xpu_amp_dynamo.command_line.bench import times_table
from xpu_amp_dynamo.command_line.device_choice import chosen_device
from xpu_amp_dynamo.command_line.output import STDOUT, console_for, write_json
from xpu_amp_dynamo.command_line.self_test.machine import machine
from xpu_amp_dynamo.command_line.self_test.result import Result
from xpu_amp_dynamo.command_line.self_test.run import ROUNDS, Report, run_steps, steps

COLUMNS = (BarColumn(), TextColumn("{task.completed}/{task.total} {task.description}"), TimeElapsedColumn())


def self_test(device: str | None, simulated: bool, json_file: str | None) -> bool:
    """Run the self test, and tell whether all checks passed.

    Args:
        device: device type to run on, None for the best there is.
        simulated: whether that is a simulated XPU.
        json_file: where all of it goes; a file is written anew at each step, so that it tells which of them ended the
            process if one does.
    """
    started, report = time.perf_counter(), Report(chosen_device(device), simulated)
    document = {"command": "doctor --check", "device": report.device, "simulated": simulated}
    document["machine"] = machine(report.device)
    to_file = None if json_file == STDOUT else json_file
    with Progress(*COLUMNS, console=Console(stderr=True)) as progress:
        task = progress.add_task("", total=len(steps(report)))
        for done, name in enumerate(run_steps(report)):
            progress.update(task, completed=done, description=name)
            write_json({**document, "complete": False, "running": name, **_found(report)}, to_file)
        progress.update(task, completed=len(steps(report)), description="done")
    seconds = time.perf_counter() - started
    _print(report, console_for(json_file), seconds)
    write_json({**document, "complete": True, "seconds": round(seconds, 1), **_found(report)}, json_file)
    if json_file not in (None, STDOUT):
        click.echo(f"written to {json_file}: attach it to an issue", err=True)
    return not report.failed


def _found(report: Report) -> dict[str, Any]:
    """Return results and times for JSON."""
    return {
        "passed": not report.failed,
        "results": [dataclasses.asdict(result) for result in report.results],
        "times": {name: {**dataclasses.asdict(t), "ratios": t.ratios} for name, t in report.times.items()},
        "warnings": report.warnings,
    }


def _print(report: Report, console: Console, seconds: float) -> None:
    """Print groups, what failed and times."""
    table = Table("checks", "ok", "failed", "largest error", title=f"self test on {report.device}")
    for group in dict.fromkeys(result.group for result in report.results):
        table.add_row(group, *_counts([result for result in report.results if result.group == group]))
    console.print(table)
    if report.failed:
        console.print(_failures(report.failed))
    if report.times:
        console.print(times_table(report.times, f"inference, medians of {ROUNDS} rounds"))
    if report.simulated:
        console.print("No times: a simulated XPU says nothing of speed.")
    counts = f"{len(report.results) - len(report.failed)} of {len(report.results)} checks passed"
    console.print(f"{counts} on {report.device} in {seconds:.0f} s")


def _counts(results: list[Result]) -> list[str]:
    """Return how many passed and failed, and the largest error."""
    failed = sum(not result.passed for result in results)
    errors = [result.error for result in results if result.error is not None]
    return [str(len(results) - failed), f"[red]{failed}[/red]" if failed else "0", f"{max(errors, default=0):.2g}"]


def _failures(failed: list[Result]) -> Table:
    table = Table("check", "what is wrong", title="failed")
    for result in failed:
        first_line = result.detail.strip().partition("\n")[0]
        table.add_row(f"{escape(result.name)}\n{result.group}", escape(first_line))
    return table
