"""The exceptions of this package: one class per mistake, each message ends in the fix."""

from __future__ import annotations


class XpuAmpError(Exception):
    """Base class of every exception that xpu_amp_dynamo raises on purpose."""


class UnknownOpError(XpuAmpError, ValueError):
    """An op name, callable or overload that stands for no out-of-place op of this process."""


class UnlistableOpError(XpuAmpError, ValueError):
    """An op whose inputs no policy may cast as asked: a view, a cast, an op that writes to what it is given."""


class OverlappingOpsError(XpuAmpError, ValueError):
    """An op that is named in more than one list of a policy."""


class UnknownPolicyError(XpuAmpError, ValueError):
    """What stands for a policy is neither a policy nor one of the named policies."""


class PolicyConflictError(XpuAmpError, RuntimeError):
    """A region asks for another policy than the one installed for its device type."""


class UnsupportedDtypeError(XpuAmpError, ValueError):
    """A dtype that autocast cannot lower to."""


class UnsupportedDeviceError(XpuAmpError, ValueError):
    """A device type without an autocast dispatch key."""


class InvalidOptionError(XpuAmpError, ValueError):
    """An unknown option of the backend, or a value outside its legal set."""


# What does the work of a banned op without its danger.
_SAFE_INSTEAD = {"binary_cross_entropy": "binary_cross_entropy_with_logits"}


class BannedOpError(XpuAmpError, RuntimeError):
    """An op that the policy refuses to run inside an autocast region.

    Args:
        op: name of the op.
        where: where in the user's code the call stands, if that is known.
    """

    def __init__(self, op: str, where: str = "") -> None:
        op = op.removeprefix("aten::")
        instead = f"use {_SAFE_INSTEAD[op]}, or " if op in _SAFE_INSTEAD else ""
        super().__init__(
            f"{op} is unsafe inside an autocast region and the policy bans it; {instead}run it on float32 inputs in a "
            f"region with enabled=False, or take it out of the policy by policy.with_ops(leave=[{op!r}]){where}"
        )


class LoweringError(XpuAmpError, RuntimeError):
    """A graph that cannot be lowered, or a lowered graph that breaks a promise of the lowering."""


def broken_promise(problem: str) -> LoweringError:
    """Return the error of a pass that broke a promise, which is never the user's fault."""
    return LoweringError(f"{problem}; this is a bug of xpu_amp_dynamo")


class SimulatorError(XpuAmpError, RuntimeError):
    """The simulated XPU cannot start here, or was asked for what it cannot do."""


class TuningError(XpuAmpError, RuntimeError):
    """No choice of precisions keeps a model within the tolerance that was asked for."""


class ForeignExtensionError(XpuAmpError, RuntimeError):
    """Intel Extension for PyTorch itself is there, whose names this package would hide."""


class NoCounterpartError(XpuAmpError, AttributeError):
    """A name of Intel Extension for PyTorch that stands for nothing here."""
