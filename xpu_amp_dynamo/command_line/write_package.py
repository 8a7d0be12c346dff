"""Writes the package of an exported model, and loads it again to see what it gives."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

import xpu_amp_dynamo
from xpu_amp_dynamo.command_line.model_source import Source
from xpu_amp_dynamo.explanation.relative_error import largest_relative_error
from xpu_amp_dynamo.inductor.aot import compile_package, load_package
from xpu_amp_dynamo.inductor.settings import check_settings


@dataclass(frozen=True)
class Package:
    """A package that was written.

    Args:
        ops: calls on tensors, by what the policy did with them.
        casts: how many casts the lowered program has.
        error: the largest relative error of its outputs, against the model in float32.
    """

    ops: Counter[str]
    casts: int
    error: float


def write_package(source: Source, out: Path, options: Mapping[str, Any], settings: Mapping[str, Any]) -> Package:
    """Export a model, lower it, compile it into a package and run that once.

    Args:
        source: the model and its arguments, on the device to compile for.
        out: the package.
        options: options of :func:`xpu_amp_dynamo.lower_exported`.
        settings: settings of Inductor.

    Raises:
        InvalidOptionError: an option or a setting is unknown or outside its legal set.
    """
    check_settings(settings)
    out.parent.mkdir(parents=True, exist_ok=True)
    with torch.no_grad(), xpu_amp_dynamo.record_lowerings() as reports:
        exported = torch.export.export(source.model, source.args, source.kwargs)
        lowered = xpu_amp_dynamo.lower_exported(exported, **options)
        compile_package(lowered, out, settings)
        found = load_package(out)(*source.args, **source.kwargs)
        wanted = source.forward(source.model, train=False)
    ops = sum((report.ops for report in reports), Counter[str]())
    return Package(ops, sum(report.casts for report in reports), largest_relative_error(found, wanted))
