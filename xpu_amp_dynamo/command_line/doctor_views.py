"""What ``doctor`` prints of an environment and of a model."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from xpu_amp_dynamo.command_line.device_choice import chosen_device
from xpu_amp_dynamo.command_line.environment import Finding, examine
from xpu_amp_dynamo.command_line.model_findings import ModelFindings, observe
from xpu_amp_dynamo.command_line.model_source import load_model
from xpu_amp_dynamo.command_line.output import console_for, write_json
from xpu_amp_dynamo.command_line.readiness import Ability, abilities
from xpu_amp_dynamo.compat.compilations import Place


def examine_environment(device: str | None, json_file: str | None) -> bool:
    """Print what is here and what would run; tell whether the backend does."""
    findings, device = examine(), chosen_device(device)
    able = abilities(findings, device)
    console = console_for(json_file)
    console.print(_findings_table(findings))
    console.print(_abilities_table(able))
    _print_fixes(findings, console)
    document = {"findings": list(map(dataclasses.asdict, findings)), "abilities": list(map(dataclasses.asdict, able))}
    write_json({"command": "doctor", "device": device, "runs": able[0].runs, **document}, json_file)
    return able[0].runs


def examine_model(
    factory: str, device: str | None, train: bool, options: Mapping[str, Any], json_file: str | None
) -> bool:
    """Print what the backend did with a model; tell whether it ran."""
    device = chosen_device(device)
    source = load_model(factory, train=train).moved_to(device)
    found = observe(source, options, train=train)
    console = console_for(json_file)
    console.print(_model_table(factory, device, found))
    for title, places in _lists(found):
        if places:
            console.print(_places_table(title, places))
    ran = found.lowered > 0
    console.print(_verdict(found))
    document = {**dataclasses.asdict(found), "ops": dict(found.ops)}
    write_json({"command": "doctor", "model": factory, "device": device, "ran": ran, **document}, json_file)
    return ran


def _findings_table(findings: Sequence[Finding]) -> Table:
    table = Table("", "", "found", title="what is here")
    for finding in findings:
        mark = "ok" if finding.present else "-" if finding.optional else "[red]lacks[/red]"
        table.add_row(finding.name, mark, escape(finding.detail))
    return table


def _abilities_table(able: Sequence[Ability]) -> Table:
    table = Table("", "runs", "because", title="what would run")
    for ability in able:
        mark = "yes" if ability.runs else "[red]no[/red]"
        seconds = "" if ability.seconds is None else f"; {ability.seconds:.1f} s"
        table.add_row(ability.what, mark, escape(ability.detail + seconds))
    return table


def _print_fixes(findings: Sequence[Finding], console: Console) -> None:
    """Print what to do about each problem, what is needed first."""
    for finding in sorted(findings, key=lambda finding: finding.optional):
        if finding.fix:
            need = "if you want it" if finding.optional else "needed"
            console.print(f"{finding.name} ({need}): {escape(finding.fix)}", soft_wrap=True)


def _model_table(factory: str, device: str, found: ModelFindings) -> Table:
    table = Table("what", "number", title=escape(f"{factory} on {device}, called twice"))
    table.add_row("graphs lowered", str(found.graphs))
    for kind, count in found.ops.most_common():
        table.add_row(f"ops: {kind.replace('_', ' ')}", str(count))
    table.add_row("casts in the graphs", str(found.casts))
    table.add_row("seconds of lowering", f"{found.seconds:.2f}")
    table.add_row("bytes of kept casts of weights", str(found.kept_bytes))
    for title, places in _lists(found):
        table.add_row(title, str(len(places)))
    return table


def _lists(found: ModelFindings) -> list[tuple[str, list[Place]]]:
    dynamo = found.dynamo
    return [("graph breaks", dynamo.breaks), ("recompiled", dynamo.recompiled), ("frames skipped", dynamo.skipped)]


def _places_table(title: str, places: Sequence[Place]) -> Table:
    table = Table("function", "why", title=title)
    for place in places:
        table.add_row(f"{escape(place.function)}\n{escape(place.where)}", escape(place.reason))
    return table


def _verdict(found: ModelFindings) -> str:
    """Return the answer in words, with what to do."""
    if not found.graphs:
        return (
            "The backend did not run: Dynamo gave it no graph. Its reasons are above, if it had any; "
            'TORCH_LOGS="graph_breaks" tells more. xpu_amp_dynamo.autocast lowers uncompiled code.'
        )
    if not found.lowered:
        return "The backend ran, and no op of the policy's lists for lower precision was in its graphs."
    text = f"The backend ran: {found.lowered} calls of ops run in lower precision."
    if found.dynamo.breaks or found.dynamo.skipped:
        text += (
            " Code between graphs runs in the dtypes of its inputs; call the model inside xpu_amp_dynamo.autocast to "
            "lower it too."
        )
    return text
