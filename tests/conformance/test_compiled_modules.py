"""Every module of PyTorch's module database, compiled: in a region, and as a float32 program."""

from __future__ import annotations

import contextlib
import dataclasses
import warnings
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch.testing._internal.common_modules import ModuleInfo, ModuleInput, module_db
from torch.utils import _pytree as pytree

import xpu_amp_dynamo
from tests.conformance import compiled_exceptions
from tests.conformance.outcomes import (
    REFUSALS,
    Outcome,
    Region,
    assert_equal,
    assert_near,
    copy_of,
    gradients_of,
)
from tests.support.samples import choose

MODULES: dict[str, ModuleInfo] = {info.name: info for info in module_db if torch.float32 in info.dtypes}
NAMES = sorted(MODULES)
MANY = 12
# Relative errors of norms: a module is a few ops, a Transformer some thirty in a row.
BOUNDS = {torch.bfloat16: 0.02, torch.float16: 0.004}


@dataclass(frozen=True)
class Step:
    """A module with inputs, to be built anew and run as often as one likes."""

    info: ModuleInfo
    sample: ModuleInput
    training: bool
    device: str
    differentiated: int = 0

    def run(self, backend: str | None = None, region: Region = contextlib.nullcontext, **options: Any) -> Outcome:
        """Run forward inside a region and backward outside it; buffers count as outputs."""
        torch._dynamo.reset()
        torch.manual_seed(0)
        build, forward = self.sample.constructor_input, self.sample.forward_input
        with warnings.catch_warnings(), xpu_amp_dynamo.record_lowerings() as reports:
            warnings.simplefilter("ignore")  # the modules' own
            module = self.info.module_cls(*build.args, **build.kwargs).train(self.training).to(self.device)
            call = torch.compile(module, backend=backend, dynamic=False, **options) if backend else module
            args, kwargs = pytree.tree_map_only(torch.Tensor, copy_of, (forward.args, forward.kwargs))
            floats = [t for t in pytree.tree_leaves((args, kwargs)) if _is_float(t)]
            for tensor in floats[: self.differentiated]:
                tensor.requires_grad_()
            with region():
                outputs = pytree.tree_leaves(call(*args, **kwargs))
            leaves = [t for t in [*pytree.tree_leaves((args, kwargs)), *module.parameters()] if _is_leaf(t)]
            gradients, refusal = gradients_of(outputs, leaves)
        outputs = [leaf.detach() if isinstance(leaf, torch.Tensor) else leaf for leaf in [*outputs, *module.buffers()]]
        return Outcome(outputs, gradients, refusal, len(reports))

    def run_compiled(self, region: Region = contextlib.nullcontext, **options: Any) -> Outcome:
        """Run the module compiled by our backend."""
        return self.run("xpu_amp", region, options={"inner_backend": "eager", "device_type": self.device, **options})


def _is_float(value: Any) -> bool:
    return isinstance(value, torch.Tensor) and value.is_floating_point()


def _is_leaf(value: Any) -> bool:
    return isinstance(value, torch.Tensor) and value.requires_grad


def steps_of(name: str, training: bool, device: str, most: int | None) -> list[Step]:
    """Return samples of a module, the first ``most`` or some from everywhere."""
    info = MODULES[name]
    torch.manual_seed(0)
    samples = info.module_inputs_func(info, device=device, dtype=torch.float32, requires_grad=False, training=training)
    return [with_gradients(Step(info, sample, training, device)) for sample in choose(samples, most, MANY)]


def with_gradients(step: Step) -> Step:
    """Return a step that differentiates all its inputs, the first alone where not all can be, or none."""
    for number in (99, 1):
        variant = dataclasses.replace(step, differentiated=number)
        try:
            variant.run()
        except REFUSALS:
            continue
        return variant
    return step


def stock_refuses(step: Step) -> str | None:
    """Return why stock ``torch.compile`` cannot run a module, None if it can."""
    try:
        expected = step.run()
    except REFUSALS as error:
        return f"uncompiled: {type(error).__name__}: {error}"
    try:
        assert_equal(step.run("eager"), expected)
    except Exception as error:  # whatever stock raises is the reason, and is shown
        return f"stock: {type(error).__name__}: {str(error)[:200]}"
    return None


def compare(name: str, step: Step, lower: torch.dtype) -> Outcome:
    """Compare a module with itself compiled, in a region and without one; return the outcome without one."""

    def region() -> torch.autocast:
        return xpu_amp_dynamo.autocast(step.device, lower)

    expected = step.run()
    try:
        in_region = step.run(region=region)
    except REFUSALS:
        in_region = None
    if in_region is not None:
        inside = step.run_compiled(region)
        # Backward kernels for CUDA add up by atomics, in an order that differs from run to run.
        if step.device == "cuda":
            assert_near(inside, in_region, 0.0, 1e-6)
        else:
            assert_equal(inside, in_region)
    actual = step.run_compiled(dtype=lower)
    bound = compiled_exceptions.WIDE_BOUNDS_OF_MODULES.get(name, BOUNDS[lower])
    assert_near(actual, expected, bound, 2 * bound)
    return actual


def check(name: str, training: bool, device: str, most: int | None, lower: torch.dtype) -> None:
    """Compare samples of a module; skip it where stock ``torch.compile`` runs none of them."""
    reasons, graphs = [], 0
    for step in steps_of(name, training, device, most):
        reason = stock_refuses(step)
        if reason is None:
            graphs += compare(name, step, lower).graphs
        reasons.append(reason)
    if reasons and all(reasons):
        pytest.skip(str(reasons[0]))
    assert reasons, "nothing was compared"
    assert (graphs == 0) == (name in compiled_exceptions.MODULES_NOT_CAPTURED), f"{graphs} graphs were captured"


@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
@pytest.mark.parametrize("name", NAMES)
def test_module(name, training, device):
    check(name, training, device, 1, torch.bfloat16)


@pytest.mark.sweep
@pytest.mark.parametrize("lower", [torch.bfloat16, torch.float16], ids=["bfloat16", "float16"])
@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
@pytest.mark.parametrize("name", NAMES)
def test_module_on_many_samples(name, training, lower, device):
    check(name, training, device, None, lower)


def test_exceptions_name_modules():
    assert compiled_exceptions.WIDE_BOUNDS_OF_MODULES.keys() <= MODULES.keys()
    assert compiled_exceptions.MODULES_NOT_CAPTURED.keys() <= MODULES.keys()
