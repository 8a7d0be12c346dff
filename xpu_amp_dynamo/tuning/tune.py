"""``tune``: finds options for a model that cost least while it stays near float32.

Where the error of the policy is above the tolerance, the modules are kept in float32 that attribution blames, as few as
do. Then modules are kept lower that run in float32 though the policy does not ask for it, where that saves something.
Choices are tried by ``inner_backend="eager"``, which compiles nothing. What is returned is within the tolerance as the
options have it compiled for the device of the model, and costs no more than the start if that is within it too.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeElapsedColumn

from xpu_amp_dynamo.compat.autocast import disabling_autocast
from xpu_amp_dynamo.environment_options import environment_options
from xpu_amp_dynamo.errors import TuningError
from xpu_amp_dynamo.explanation.explain import explain
from xpu_amp_dynamo.explanation.explanation import Explanation
from xpu_amp_dynamo.explanation.unchanged import leaving_unchanged
from xpu_amp_dynamo.tuning.arguments import checked_calls, checked_options
from xpu_amp_dynamo.tuning.assignment import Assignment
from xpu_amp_dynamo.tuning.candidates import Candidates
from xpu_amp_dynamo.tuning.cost import CountedBytes, MeasuredTime
from xpu_amp_dynamo.tuning.measure import QUICK, ErrorMeter, Metric
from xpu_amp_dynamo.tuning.search import Search
from xpu_amp_dynamo.tuning.trials import START, Trials
from xpu_amp_dynamo.tuning.tuning import Measured, Tuning


def tune(
    model: torch.nn.Module,
    inputs: Any,
    *,
    metric: Metric | None = None,
    tolerance: float = 0.01,
    budget: int | None = 100,
    options: Mapping[str, Any] | None = None,
    train: bool = False,
    cost: str = "bytes",
    progress: bool = True,
) -> Tuning:
    """Find which modules of a model to keep in float32 and which lower, for least cost within a tolerance.

    Inputs are copied, and the model is left as it was, with the state of the random numbers. Dynamo forgets what it
    compiled before in this process. Regions around the call do not count.

    Args:
        model: a model, not compiled, in train or evaluation mode as it is to be tuned for.
        inputs: a tuple of arguments, a dict of keyword arguments, or a list of such: the worst error of its members
            counts, and the cost of the first.
        metric: gives a number of at least 0 for an output and the one in float32: how far they are apart. None means
            the largest relative error of their tensors, and in training of all gradients together.
        tolerance: the largest error that is allowed.
        budget: how many choices to try at most; None for as many as there are.
        options: options of the backend to start from, above those of the environment; modules that they
            keep stay as they are.
        train: run the backward too, from the output's ``loss`` if it has one, else from all its tensors.
        cost: ``"bytes"`` that kernels move, of a model on the CPU those of a simulated XPU, or ``"time"`` of a call.
        progress: show a progress bar if the standard error is a terminal.

    Raises:
        InvalidOptionError: an option or argument is outside its legal set.
        TuningError: the model is not within the tolerance even if all of it is kept in float32.
        SimulatorError: bytes cannot be counted here, see :func:`xpu_kernels`.
        TypeError: this is no model, no inputs, or the metric gives no number.
        ValueError: the metric gives a number below 0.
    """
    calls, parsed = checked_calls(model, inputs), checked_options(options, metric, tolerance, budget, cost, train)
    given = {**environment_options(), **(options or {})}
    names = [name for name, _ in model.named_modules(remove_duplicate=False)]
    parsed.kept_modules.check(names)
    costs = CountedBytes(model, calls[0], train) if cost == "bytes" else MeasuredTime(model, calls[0], train, given)
    with leaving_unchanged(model), _showing(progress, budget) as show:
        meter = ErrorMeter(model, calls, train, metric)
        trials = Trials(given, parsed.kept_modules, names, meter, costs, budget, show)
        return _tuned(type(model).__name__, trials, tolerance, cost)


def _tuned(name: str, trials: Trials, tolerance: float, cost: str) -> Tuning:
    """Search and return what was found, once it is verified."""
    at_start = trials.compiled_errors(START)
    explanation = _explain(trials, at_start.index(max(at_start)))
    candidates = Candidates.of(explanation, trials.names, trials.kept)
    search = Search(trials, tolerance)
    search.run(candidates)
    best, error = _verified(search, trials, START.keeping(candidates.names))
    start, tuned = Measured(max(at_start), trials.cost(START)), Measured(error, trials.cost(best))
    return Tuning(name, trials.options_of(best), start, tuned, tolerance, cost, trials.count, not search.stopped)


def _explain(trials: Trials, which: int) -> Explanation:
    """Explain what the options at the start do in one of the calls, beside float32."""
    meter = trials.meter
    call = meter.calls[which].copy()
    options = {**trials.given, **QUICK}
    with disabling_autocast():
        return explain(meter.model, *call.args, options=options, train=meter.train, compare="float32", **call.kwargs)


def _verified(search: Search, trials: Trials, everything: Assignment) -> tuple[Assignment, float]:
    """Return the best assignment found that is within the tolerance when it is compiled, and its error.

    Raises:
        TuningError: there is none, and keeping everything in float32 is not within it either.
    """
    for assignment in (*reversed(search.found), everything):
        error = max(trials.compiled_errors(assignment))
        if error <= search.tolerance:
            return assignment, error
    kept = "all modules that the options do not keep lower" if trials.kept.lower else "all modules"
    reach = f"give a tolerance of at least {error:.3g}" if math.isfinite(error) else "see by explain what overflows"
    raise TuningError(
        f"the error is {error:.3g} with {kept} in float32, above the tolerance of {search.tolerance:.3g}; {reach}"
    )


@contextmanager
def _showing(progress: bool, budget: int | None) -> Iterator[Callable[[int, float], None]]:
    """Show a progress bar on the standard error if that is a terminal; yield what moves it."""
    console = Console(stderr=True)
    columns = (
        "tuning",
        BarColumn(),
        MofNCompleteColumn(),
        "trials, last error {task.fields[error]}",
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console, disable=not (progress and console.is_terminal), transient=True) as bar:
        task = bar.add_task("", total=budget, error="-")
        yield lambda count, error: bar.update(task, completed=count, error=f"{error:.3g}")
