"""The steps of the self test, one after the other, whatever each ends in."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import torch

from xpu_amp_dynamo.command_line.compare_ways import OURS, Times, compare_ways
from xpu_amp_dynamo.command_line.model_source import Source
from xpu_amp_dynamo.command_line.self_test import models
from xpu_amp_dynamo.command_line.self_test.block import WAYS, check_block
from xpu_amp_dynamo.command_line.self_test.ops import check_compiled, check_eager
from xpu_amp_dynamo.command_line.self_test.result import Result, attempt, require_close
from xpu_amp_dynamo.command_line.self_test.samples import CATEGORIES, SAMPLES
from xpu_amp_dynamo.runtime.installation import keeping_installed_policy, uninstall

ROUNDS = 11
TIMED = (models.mlp, models.transformer, models.convolutions)
# Of bfloat16 through a few layers.
BOUND = 5e-2
Step = Callable[[], list[Result]]


@dataclass
class Report:
    """What the self test found so far.

    Args:
        device: device type that it runs on.
        simulated: whether that is a simulated XPU, of which there are no times.
        results: the results of all checks.
        times: times of small models, by name.
        warnings: what PyTorch warned of on the way.
    """

    device: str
    simulated: bool
    results: list[Result] = field(default_factory=list)
    times: dict[str, Times] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)

    @property
    def failed(self) -> list[Result]:
        """What failed."""
        return [result for result in self.results if not result.passed]


def run_steps(report: Report) -> Iterator[str]:
    """Run all steps, yield what each is about before it starts, and add its results to the report."""
    with keeping_installed_policy(report.device):
        uninstall(report.device)
        for name, step in steps(report):
            yield name
            _run(name, step, report)


def _run(name: str, step: Step, report: Report) -> None:
    """Run a step; add its results and what was warned of to the report."""
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("default")
        try:
            report.results += step()
        except Exception as error:  # not of a check, which tells itself, but of what is around
            report.results.append(Result("steps", name, False, None, f"{type(error).__name__}: {error}"))
    texts = [f"{warning.category.__name__}: {warning.message}" for warning in warned]
    report.warnings += [text for text in dict.fromkeys(texts) if text not in report.warnings]


def steps(report: Report) -> list[tuple[str, Step]]:
    """List the steps of the self test, each with what it is about."""
    device, partial = report.device, functools.partial
    found: list[tuple[str, Step]] = [
        (f"eager ops in {dtype}", partial(check_eager, SAMPLES, device, dtype))
        for dtype in (torch.bfloat16, torch.float16)
    ]
    for category in CATEGORIES:
        samples = [sample for sample in SAMPLES if sample.category == category]
        found.append((f"compiled ops, {category}", partial(check_compiled, samples, device, torch.bfloat16)))
    found += [(f"transformer block, {way}", partial(check_block, way, device)) for way in WAYS]
    if not report.simulated:
        found += [(f"times, {make.__name__}", partial(_time, make, report)) for make in TIMED]
    return found


def _time(make: Callable[[], Source], report: Report) -> list[Result]:
    """Time a model in all ways, note the times, and check what ours gives."""

    source = make()

    def check() -> float:
        times = compare_ways(source.moved_to(report.device), report.device, {}, train=False, rounds=ROUNDS)
        report.times[source.name] = times
        return require_close(times.errors[OURS], BOUND)

    return [attempt("small models", source.name, check)]
