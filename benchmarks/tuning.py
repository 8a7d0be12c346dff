"""What ``tune`` finds beside simpler choices: error against float32, and bytes that an XPU would move.

    python -m benchmarks.tuning [--models bert llama] [--tolerances 0.01 0.003] [--train] [--json results.json]

Errors are those of eager code on the CPU; bytes are counted for a simulated XPU, inference or a training step. The
choices beside the tuned one: the policy as it is; stock autocast; all linear layers and convolutions but the last in
lower precision and all else in float32; and one op after the other lowered everywhere while the tolerance holds.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
import transformers
from rich.console import Console
from rich.table import Table

import xpu_amp_dynamo
from benchmarks.models import MODELS, Inputs, Size, build
from xpu_amp_dynamo.policy.policy import Policy
from xpu_amp_dynamo.simulator.ways import WAYS
from xpu_amp_dynamo.tuning.measure import QUICK, Call, ErrorMeter

SIX = ("bert", "gpt2", "llama", "vit", "resnet", "unet")
TRANSFORMER = Size(width=256, layers=2, heads=4, batch=1, length=128)
IMAGES = Size(width=64, layers=2, batch=1, length=64)
CHOICES = ("policy", WAYS[1], "all but the last", "op by op", "tuned")
STOCK = CHOICES[1]
WEIGHTED = (torch.nn.Linear, torch.nn.Conv2d, transformers.pytorch_utils.Conv1D)


class Outcome(NamedTuple):
    """What a choice gives: the error against float32, and bytes of a call."""

    error: float
    bytes: int


class Case(NamedTuple):
    """A model with its inputs, measured for inference or training."""

    model: torch.nn.Module
    inputs: Inputs
    train: bool
    meter: ErrorMeter

    def error(self, options: Mapping[str, Any]) -> float:
        """Return the error with options of the backend."""
        return max(self.meter.errors({**options, **QUICK}))

    def bytes(self, options: Mapping[str, Any]) -> int:
        """Return the bytes with options of the backend."""
        return self.kernels(options).bytes_moved

    def kernels(self, options: Mapping[str, Any], **arguments: Any) -> Any:
        """Return the report of kernels."""
        report = xpu_amp_dynamo.xpu_kernels
        return report(self.model, kwargs=self.inputs, options=options, train=self.train, **arguments)


def measure(name: str, tolerance: float, train: bool) -> dict[str, Outcome]:
    """Return what each choice gives for one model."""
    size = IMAGES if name in ("resnet", "unet") else TRANSFORMER
    model, inputs = build(name, size)
    case = Case(model, inputs, train, ErrorMeter(model, [Call((), inputs)], train))
    tuning = xpu_amp_dynamo.tune(model, inputs, tolerance=tolerance, train=train)
    options = {"policy": {}, "all but the last": _all_but_the_last(model), "op by op": _op_by_op(case, tolerance)}
    outcomes = {choice: Outcome(case.error(each), case.bytes(each)) for choice, each in options.items()}
    stock = case.kernels({}, beside=[STOCK]).beside[STOCK].bytes_moved
    outcomes[STOCK] = Outcome(case.error({"policy": "torch"}), stock)
    outcomes["tuned"] = Outcome(tuning.tuned.error, int(tuning.tuned.cost))
    return {choice: outcomes[choice] for choice in CHOICES}


def _all_but_the_last(model: torch.nn.Module) -> dict[str, Any]:
    names = [name for name, module in model.named_modules() if isinstance(module, WEIGHTED)]
    return {"keep_float32": [""], "keep_lower": names[:-1]}


def _op_by_op(case: Case, tolerance: float) -> dict[str, Any]:
    """Lower the ops that the policy lists so and the model calls, one after the other, while the tolerance holds."""
    inputs: dict[str, Any] = dict(case.inputs)
    explanation = xpu_amp_dynamo.explain(case.model, options=dict(QUICK), **inputs)
    ops = sorted({call.op for call in explanation.calls if call.category == "lower_precision"})
    policy = Policy.named("xpu").with_ops(float32=ops)
    for op in ops:
        lower = policy.with_ops(lower_precision=[op])
        if case.error({"policy": lower}) <= tolerance:
            policy = lower
    return {"policy": policy}


def table_of(results: Mapping[str, Mapping[str, Outcome]]) -> Table:
    """Tabulate error and bytes of all choices, one row for each model and tolerance."""
    table = Table("", *CHOICES, title="error, MB moved")
    for case, outcomes in results.items():
        table.add_row(case, *(f"{each.error:.2%}, {each.bytes / 1e6:.2f}" for each in outcomes.values()))
    return table


def main() -> None:
    """Measure every model and tolerance, and print a table."""
    arguments = _arguments()
    transformers.logging.set_verbosity_error()
    results: dict[str, dict[str, Outcome]] = {}
    kind = "training" if arguments.train else "inference"
    for name in arguments.models:
        for tolerance in arguments.tolerances:
            results[f"{name}, {kind}, at most {tolerance:.1%}"] = measure(name, tolerance, arguments.train)
            Console(width=130).print(table_of(results))
    if arguments.json:
        plain = {case: {choice: each._asdict() for choice, each in found.items()} for case, found in results.items()}
        arguments.json.write_text(json.dumps({"torch": torch.__version__, "results": plain}, indent=1) + "\n")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, help="file to write the results to")
    parser.add_argument("--models", nargs="*", default=list(SIX), choices=list(MODELS))
    parser.add_argument("--tolerances", nargs="*", type=float, default=[0.01, 0.003])
    parser.add_argument("--train", action="store_true", help="count a training step")
    return parser.parse_args()


if __name__ == "__main__":
    main()
