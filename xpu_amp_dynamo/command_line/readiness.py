"""What would run where: by trying to compile, and by what the simulated XPU asks for."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

import xpu_amp_dynamo
from xpu_amp_dynamo.command_line.environment import Finding
from xpu_amp_dynamo.errors import XpuAmpError
from xpu_amp_dynamo.simulator.refusal import refuse_beside_real_xpu

# Names of findings that each takes.
SIMULATED = ("C++ compiler", "Triton")
OPENCL = (*SIMULATED, "Intel's compiler", "OpenCL runtime")


@dataclass(frozen=True)
class Ability:
    """Something that one would want to run.

    Args:
        what: what it is.
        runs: whether it runs here.
        detail: why not, or what it did.
        seconds: how long the trial took; None where nothing was tried.
    """

    what: str
    runs: bool
    detail: str
    seconds: float | None = None


def abilities(findings: Sequence[Finding], device: str) -> list[Ability]:
    """Tell what would run here; the first is whether the backend does."""
    return [
        tried(f'torch.compile(backend="xpu_amp") on {device}', lambda: _compile(device)),
        tried(f"eager autocast on {device}", lambda: _eager(device)),
        _simulated("simulated XPU", SIMULATED, findings),
        _simulated('simulated XPU, mode="opencl"', OPENCL, findings),
        _simulated("machine code of kernels (kernels --compile)", (*SIMULATED, "Intel's compiler", "ocloc"), findings),
    ]


def tried(what: str, trial: Callable[[], str]) -> Ability:
    """Try something, and tell what came of it, whatever it raises."""
    started = time.perf_counter()
    try:
        detail, runs = trial(), True
    except Exception as error:  # a trial is there to fail, and what it says is the result
        detail, runs = f"{type(error).__name__}: {str(error).strip()}", False
    return Ability(what, runs, detail, time.perf_counter() - started)


def _compile(device: str) -> str:
    """Compile a layer and compare it with the same in float32."""
    layer, x = torch.nn.Linear(32, 32).to(device), torch.randn(4, 32).to(device)
    with xpu_amp_dynamo.record_lowerings() as reports, torch.no_grad():
        found, wanted = torch.compile(layer, backend="xpu_amp")(x), layer(x)
    return _compared(found, wanted, f"{sum(report.ops['lower_precision'] for report in reports)} op lowered")


def _eager(device: str) -> str:
    """Run a product inside a region, which leaves the installed policy as it was."""
    layer, x = torch.nn.Linear(32, 32).to(device), torch.randn(4, 32).to(device)
    before = xpu_amp_dynamo.installed_policy(device)
    with torch.no_grad(), xpu_amp_dynamo.autocast(device):
        found = layer(x)
    if before is None:
        xpu_amp_dynamo.uninstall(device)
    return _compared(found, layer(x).detach(), f"gives {str(found.dtype).removeprefix('torch.')}")


def _compared(found: torch.Tensor, wanted: torch.Tensor, text: str) -> str:
    """Return a text with the error of a result.

    Raises:
        XpuAmpError: the result is wrong.
    """
    error = float((found.float() - wanted).norm() / wanted.norm())
    if not error < 0.05:
        raise XpuAmpError(f"results are wrong: {error:.1%} from those in float32; report it with `doctor --check`")
    return f"{text}, {error:.2%} from float32"


def _simulated(what: str, needed: Sequence[str], findings: Sequence[Finding]) -> Ability:
    """Tell whether the simulated XPU would start, without starting it."""
    lacking = [finding.name for finding in findings if finding.name in needed and not finding.present]
    if lacking:
        return Ability(what, False, f"needs {', '.join(lacking)}")
    try:
        refuse_beside_real_xpu()
    except XpuAmpError as error:
        return Ability(what, False, str(error))
    return Ability(what, True, "has what it needs")
