"""Whether the backend really ran on a model: graphs, ops, casts, and what Dynamo left uncompiled."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

import xpu_amp_dynamo
from xpu_amp_dynamo.command_line.model_source import Source
from xpu_amp_dynamo.compat.compilations import Compilations, record_compilations


@dataclass
class ModelFindings:
    """What the backend did with a model that was called twice.

    Args:
        graphs: how many graphs were lowered.
        ops: calls on tensors, by what the policy did with them.
        casts: how many casts the lowered graphs have.
        seconds: how long the lowering took.
        kept_bytes: bytes of casts of weights that are kept between calls.
        dynamo: what Dynamo did.
    """

    graphs: int
    ops: Counter[str]
    casts: int
    seconds: float
    kept_bytes: int
    dynamo: Compilations

    @property
    def lowered(self) -> int:
        """How many calls run in the lower precision by the policy's lists, or in a composite or foreign op."""
        return sum(self.ops[kind] for kind in ("lower_precision", "composite", "foreign"))


def observe(source: Source, options: Mapping[str, Any], *, train: bool) -> ModelFindings:
    """Compile a model with the backend, call it twice, and tell what was done.

    Args:
        source: the model, on the device to run on.
        options: options of the backend.
        train: whether to run the backward too.
    """
    torch.compiler.reset()
    compiled = torch.compile(source.model, backend="xpu_amp", options=dict(options))
    with record_compilations() as dynamo, xpu_amp_dynamo.record_lowerings() as reports:
        for _ in range(2):
            source.step(compiled, train, contextlib.nullcontext())
    return ModelFindings(
        graphs=len(reports),
        ops=sum((report.ops for report in reports), Counter()),
        casts=sum(report.casts for report in reports),
        seconds=sum(report.seconds for report in reports),
        kept_bytes=xpu_amp_dynamo.cached_weight_bytes(source.model),
        dynamo=dynamo,
    )
