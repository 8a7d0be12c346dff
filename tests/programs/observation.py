"""What can be observed of a program's run: values, dtypes, strides, who shares memory with whom, gradients."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree

# One rounding to bfloat16, which is the step of the noise too.
STEP = 2.0**-8
# How much more than noise of one rounding at every call an error may be, and what is allowed without any noise.
FACTOR, LEAST = 6.0, 0.02


@dataclass
class Observation:
    """One run of a program. The inputs, as the program left them, come after the outputs."""

    tensors: list[torch.Tensor]
    others: list[Any]
    gradients: list[torch.Tensor | None]
    shared: list[list[int]]
    shared_gradients: list[list[int]]


class Noise(TorchFunctionMode):
    """Changes every fresh float32 result by about a rounding to bfloat16: how much such errors can grow."""

    def __init__(self, seed: int) -> None:
        self.generator = torch.Generator().manual_seed(seed)
        self.largest = 0.0

    def __torch_function__(
        self, function: Any, types: Any, args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = function(*args, **(kwargs or {}))
        known = {t.untyped_storage().data_ptr() for t in pytree.tree_leaves((args, kwargs)) if _is_tensor(t)}
        if not _is_tensor(result) or result.dtype is not torch.float32:
            return result
        if not known or result.untyped_storage().data_ptr() in known:
            return result
        with torch._C.DisableTorchFunction():
            magnitudes = result.detach().abs()
            self.largest = max([self.largest, *magnitudes[magnitudes < 1e30].flatten().tolist()])
            noise = torch.randn(result.shape, generator=self.generator, device="cpu")
            return result * (1 + STEP * noise.to(result.device))


def _is_tensor(value: Any) -> bool:
    return isinstance(value, torch.Tensor)


def observe(program: Callable[..., Any], inputs: Sequence[torch.Tensor]) -> Observation:
    """Run a program on copies of its inputs, and look at everything."""
    torch.manual_seed(0)
    copies = [t.detach().clone().requires_grad_(t.requires_grad) for t in inputs]
    leaves = pytree.tree_leaves(program(*copies))
    tensors = [leaf for leaf in leaves if _is_tensor(leaf)]
    roots = [t for t in tensors if t.requires_grad]
    if roots:
        sum(root.float().square().sum() for root in roots).backward()
    gradients = [t.grad for t in copies]
    everything = [t.detach() for t in [*tensors, *copies]]
    values = [keep(t) for t in everything]
    kept_gradients = [keep(t) if t is not None else None for t in gradients]
    others = [leaf for leaf in leaves if not _is_tensor(leaf)]
    return Observation(values, others, kept_gradients, who_changes(everything), who_changes(gradients))


def keep(tensor: torch.Tensor) -> torch.Tensor:
    """Copy a tensor's values, with its strides."""
    copy = torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device=tensor.device)
    return copy.copy_(tensor) if _is_writable(tensor) else tensor.clone()


def who_changes(tensors: Sequence[torch.Tensor | None]) -> list[list[int]]:
    """Write to one tensor after the other, and return which of all had changed after each write."""
    return [_changed_by_write(tensor, tensors) for tensor in tensors]


def _changed_by_write(tensor: torch.Tensor | None, tensors: Sequence[torch.Tensor | None]) -> list[int]:
    if tensor is None or not _is_writable(tensor):
        return []
    before = [t.clone() if t is not None else None for t in tensors]
    if tensor.dtype is torch.bool:
        tensor.logical_not_()
    else:
        tensor.copy_((tensor == 0).to(tensor.dtype))  # differs from any value there
    pairs = enumerate(zip(tensors, before, strict=True))
    return [i for i, (now, then) in pairs if now is not None and then is not None and not torch.equal(now, then)]


def _is_writable(tensor: torch.Tensor) -> bool:
    """Tell whether no two elements are one in memory."""
    return all(stride or size == 1 for size, stride in zip(tensor.shape, tensor.stride(), strict=True))


def allowed_errors(
    program: Callable[..., Any], inputs: Sequence[torch.Tensor], exact: Observation
) -> tuple[list[float], float]:
    """Return how far each tensor and gradient of a run may be from the exact one, and the largest value on the way.

    The first are norms. The second passes over constants that stand for minus infinity.
    """
    noises = [Noise(seed) for seed in range(3)]
    noisy = []
    for noise in noises:
        with noise:
            noisy.append(observe(program, inputs))
    wanted = floats(exact)
    runs = [floats(run) for run in noisy]
    errors = [max(norm(run[i] - want) for run in runs) for i, want in enumerate(wanted)]
    allowed = [LEAST * max(1.0, norm(want)) + FACTOR * error for want, error in zip(wanted, errors, strict=True)]
    return allowed, max(noise.largest for noise in noises)


def floats(observation: Observation) -> list[torch.Tensor]:
    """Return the real tensors of a run on any device, gradients included."""
    tensors = [*observation.tensors, *(g for g in observation.gradients if g is not None)]
    return [t.cpu().double() for t in tensors if t.is_floating_point()]


def norm(tensor: torch.Tensor) -> float:
    """Return the norm of a tensor's finite elements."""
    return float(tensor[tensor.isfinite()].norm())


def assert_observed_alike(actual: Observation, expected: Observation, allowed: Sequence[float]) -> None:
    """Check that two runs of one program cannot be told apart but by errors of rounding."""
    assert actual.others == expected.others
    assert describe(actual.tensors) == describe(expected.tensors), "dtypes, shapes, strides"
    assert [g is None for g in actual.gradients] == [g is None for g in expected.gradients]
    assert [g.dtype for g in actual.gradients if g is not None] == [
        g.dtype for g in expected.gradients if g is not None
    ]
    assert actual.shared == expected.shared, "who shares memory"
    assert actual.shared_gradients == expected.shared_gradients, "which gradients share memory"
    for one, other in zip(actual.tensors, expected.tensors, strict=True):
        assert other.is_floating_point() or torch.equal(one.cpu(), other.cpu())
    for index, (one, other, most) in enumerate(zip(floats(actual), floats(expected), allowed, strict=True)):
        assert torch.equal(one.isfinite(), other.isfinite()), f"value {index} is finite in one run only"
        error = norm(one - other)
        assert error <= most, f"value {index} is {error:.3g} off, allowed {most:.3g}"


def describe(tensors: Sequence[torch.Tensor]) -> list[tuple[Any, ...]]:
    """Return dtype, shape and strides of tensors."""
    return [(t.dtype, tuple(t.shape), t.stride()) for t in tensors]
