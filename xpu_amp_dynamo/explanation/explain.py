"""``explain``: compiles a model once, runs it, and tells which op ran in which dtype, why, and what that costs."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx

from xpu_amp_dynamo.backend import xpu_amp
from xpu_amp_dynamo.compat.autocast import disabling_autocast
from xpu_amp_dynamo.compat.compilations import break_behind, record_compilations
from xpu_amp_dynamo.environment_options import parse_with_environment
from xpu_amp_dynamo.errors import InvalidOptionError
from xpu_amp_dynamo.explanation.compare import NodeError, compare_with_float32
from xpu_amp_dynamo.explanation.explanation import ExplainedGraph, Explanation
from xpu_amp_dynamo.explanation.fates import fates_of
from xpu_amp_dynamo.explanation.unchanged import leaving_unchanged
from xpu_amp_dynamo.inductor.settings import without_caches
from xpu_amp_dynamo.lowering.report import LoweringReport, record_lowerings
from xpu_amp_dynamo.options import BackendOptions
from xpu_amp_dynamo.simulator.kernel_report import KernelReport
from xpu_amp_dynamo.simulator.xpu_kernels import run_backward


def explain(
    model: Callable[..., Any],
    *args: Any,
    options: Mapping[str, Any] | None = None,
    train: bool = False,
    compare: str | None = None,
    **kwargs: Any,
) -> Explanation:
    """Tell which op of a model runs in which dtype, why, which casts that takes, and what became of them.

    The model is compiled anew for ``backend="xpu_amp"`` and called once on its own device, in the region around this
    call if there is one. Its attributes, buffers and gradients, and the random numbers' state, are put back afterwards.
    Dynamo forgets what it compiled before in this process.

    Args:
        model: a module, compiled or not, or a function of tensors.
        args: what it is called with.
        options: options of the backend, see :class:`BackendOptions`.
        train: run the backward too, from the output's ``loss`` if it has one, else from all its tensors. Otherwise the
            model is called under ``torch.no_grad()``.
        compare: ``"float32"`` also runs every graph beside itself in float32 and tells what error each call adds, and
            what overflows.
        kwargs: keyword arguments of the call.

    Returns:
        An explanation, which prints as a summary and has everything in its ``graphs``.

    Raises:
        InvalidOptionError: an option is unknown or outside its legal set, or ``compare`` is.
        BannedOpError: the policy bans an op of the model.
        LoweringError: a graph cannot be lowered.
        TypeError: the model cannot be called.

    Example:
        >>> print(xpu_amp_dynamo.explain(torch.nn.Linear(64, 64), torch.randn(8, 64), compare="float32"))
    """
    parsed = _checked(model, options, compare)
    original = getattr(model, "_orig_mod", model)
    graphs: list[_Captured] = []
    launched = KernelReport("xpu_amp")
    unchanged, recording = leaving_unchanged(original), _recording(launched, parsed)
    with unchanged, recording, record_compilations() as dynamo, torch.set_grad_enabled(train):
        output = torch.compile(original, backend=_capturing(graphs, options, compare))(*args, **kwargs)
        if train:
            run_backward(output)
    explained = [_explained(graph, launched, parsed) for graph in graphs]
    return Explanation(_name(original), explained, list(map(str, dynamo.recompiled)))


def _checked(model: object, options: Mapping[str, Any] | None, compare: str | None) -> BackendOptions:
    """Return the options once everything that was given is known to be legal."""
    if not callable(model):
        raise TypeError(f"explain takes a model or a function, and got {type(model).__name__}")
    if compare not in (None, "float32"):
        raise InvalidOptionError(f"compare is {compare!r}; it may be 'float32', or None to run nothing beside")
    parsed = parse_with_environment(options)
    original = getattr(model, "_orig_mod", model)
    if isinstance(original, torch.nn.Module):
        parsed.kept_modules.check([name for name, _ in original.named_modules(remove_duplicate=False)])
    return parsed


@dataclass(frozen=True)
class _Captured:
    """What is known of a graph once it is compiled."""

    report: LoweringReport
    errors: dict[str, NodeError]
    ends_because: str


def _capturing(
    graphs: list[_Captured], options: Mapping[str, Any] | None, compare: str | None
) -> Callable[[fx.GraphModule, Sequence[Any]], Callable[..., Any]]:
    """Return a backend that also adds what is known of each graph to a list."""

    def backend(gm: fx.GraphModule, example_inputs: Sequence[Any]) -> Callable[..., Any]:
        with record_lowerings(details=True) as reports:
            compiled = xpu_amp(gm, example_inputs, options=options)
        errors = _errors(gm, example_inputs) if compare else {}
        graphs.append(_Captured(reports[0], errors, str(break_behind(gm) or "")))
        return compiled

    return backend


def _errors(gm: fx.GraphModule, example_inputs: Sequence[Any]) -> dict[str, NodeError]:
    with disabling_autocast(), torch.no_grad():
        return compare_with_float32(gm, example_inputs)


@contextlib.contextmanager
def _recording(launched: KernelReport, options: BackendOptions) -> Iterator[None]:
    """Record what Inductor generates, if it is what compiles, as if nothing had been compiled before or after."""
    torch.compiler.reset()
    if options.inner_backend != "inductor":
        yield
    else:
        from xpu_amp_dynamo.simulator.record_launches import record_launches

        with without_caches(), record_launches(launched):
            yield
    torch.compiler.reset()


def _explained(graph: _Captured, launched: KernelReport, options: BackendOptions) -> ExplainedGraph:
    fates = {}
    if options.inner_backend == "inductor":
        fates = fates_of(graph.report.each_cast, launched.launches, options.weights == "cached")
    return ExplainedGraph(graph.report.calls, graph.report.each_cast, fates, graph.errors, graph.ends_because)


def _name(model: Callable[..., Any]) -> str:
    return type(model).__name__ if isinstance(model, torch.nn.Module) else getattr(model, "__name__", repr(model))
