"""Parts of pages that are written from the package itself, when the documentation is built."""

from __future__ import annotations

import pydoc
from collections.abc import Iterator
from inspect import isclass
from pathlib import Path

import xpu_amp_dynamo
from xpu_amp_dynamo import errors
from xpu_amp_dynamo.policy.policy import Policy
from xpu_amp_dynamo.policy.tables import completion

# The headings of the reference, by the part of the package that a public name comes from.
HEADINGS = {
    "backend": "Compiled code",
    "configured": "The backend with options of its own",
    "ipex": "Programs for IPEX",
    "exported": "Exported programs",
    "options": "Options",
    "runtime": "Eager code and kept weights",
    "policy": "Policies and devices",
    "explanation": "Explanations",
    "lowering": "Reports of lowerings",
    "tuning": "Tuning",
    "simulator": "The simulated XPU",
}
# What the public functions return, and what that holds.
RETURNED = (
    "explanation.explanation.ExplainedGraph",
    "explanation.fates.Fate",
    "explanation.compare.NodeError",
    "lowering.records.LoweredNode",
    "lowering.records.LoweredCall",
    "lowering.records.LoweredCast",
    "policy.cast_rule.Category",
    "simulator.compile_report.CompileReport",
    "simulator.compile_report.KernelVerdict",
    "simulator.kernel_report.KernelLaunch",
    "simulator.kernel_report.KernelReport",
    "simulator.intel_compiler.ocloc.MachineCode",
    "simulator.parts.XpuProperties",
    "simulator.xpu_ops.XpuSupport",
    "tuning.tuning.Measured",
)
# Members of public classes that are for this package.
INTERNAL = "kept_modules, parse_for"
POLICIES = ("xpu", "ipex", "torch")
WORDS = {
    "lower_precision": "lower precision",
    "float32": "float32",
    "promote": "widest",
    "follow": "first",
    "banned": "raises",
    None: "",
}


def write_generated_pages(folder: Path) -> None:
    """Write all generated parts.

    Args:
        folder: where to; it is made if it is not there.
    """
    folder.mkdir(exist_ok=True)
    (folder / "api.rst").write_text(api_reference())
    (folder / "policies.md").write_text(policy_table())


def api_reference() -> str:
    """Return directives of autodoc for each public name, what they return and raise, below a heading for each part."""
    parts = {name: _part_of(name) for name in xpu_amp_dynamo.__all__}
    sections = {title: [name for name in parts if parts[name] == part] for part, title in HEADINGS.items()}
    sections["What they return"] = list(RETURNED)
    sections["Errors"] = [f"errors.{name}" for name, value in vars(errors).items() if isclass(value)]
    return "\n".join(line for title, names in sections.items() for line in _section(title, names))


def _part_of(name: str) -> str:
    """Return the part of the package that a public name is defined in."""
    part = getattr(xpu_amp_dynamo, name).__module__.split(".")[1]
    if part not in HEADINGS:
        raise KeyError(f"{name} is of {part!r}, which has no heading in {__file__}; add one to HEADINGS")
    return part


def _section(title: str, names: list[str]) -> Iterator[str]:
    """Yield the lines of one section."""
    yield from (title, "-" * len(title), "")
    for name in names:
        described = pydoc.locate(f"xpu_amp_dynamo.{name}")
        kind = "function" if not isclass(described) else "exception" if issubclass(described, Exception) else "class"
        members = f"   :members:\n   :exclude-members: {INTERNAL}\n" if kind == "class" else ""
        yield f".. auto{kind}:: xpu_amp_dynamo.{name}\n{members}"


def policy_table() -> str:
    """Return a table of all ops that a named policy lists, with what each policy does with them."""
    policies = [Policy.named(name) for name in POLICIES]
    ops = sorted(frozenset().union(*(policy.categories for policy in policies)), key=lambda op: (op.lstrip("_"), op))
    lines = ["| op | " + " | ".join(f'`"{name}"`' for name in POLICIES) + " |", "|---" * (len(POLICIES) + 1) + "|"]
    lines += [f"| `{op}` | {' | '.join(_cell(policy, op) for policy in policies)} |" for op in ops]
    return "\n".join(lines) + "\n"


def _cell(policy: Policy, op: str) -> str:
    """Return what a policy does with an op, with a star where Intel's documentation does not say so."""
    category = policy.category(op)
    completed = policy.name == "xpu" and op in completion.LOWER_PRECISION + completion.PROMOTE + completion.FOLLOW
    return WORDS[category.value if category else None] + (" *" if completed else "")
