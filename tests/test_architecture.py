"""The shape of the code: who imports whom, and that every public name is there."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import xpu_amp_dynamo

ROOT = Path(__file__).parent.parent
FILES = [path for folder in ("xpu_amp_dynamo", "lowering", "runtime") for path in (ROOT / folder).rglob("*.py")]


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    parts = parts if parts[0] == "xpu_amp_dynamo" else ("xpu_amp_dynamo", *parts)
    return ".".join(part for part in parts if part != "__init__")


def imports_of(path: Path) -> set[str]:
    """Return the modules of ours that a file imports: when it is loaded, later, or for annotations only."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("xpu_amp_dynamo"):
            submodules = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= submodules & MODULES or {node.module}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names if alias.name.startswith("xpu_amp_dynamo")}
    return found


MODULES = {module_name(path) for path in FILES}
GRAPH = {module_name(path): imports_of(path) for path in FILES}


def find_cycle(graph: dict[str, set[str]]) -> list[str]:
    """Return the modules of an import cycle, empty if there is none."""
    done: set[str] = set()

    def visit(module: str, path: list[str]) -> list[str]:
        if module in path:
            return [*path[path.index(module) :], module]
        if module in done:
            return []
        for imported in graph.get(module, ()):
            cycle = visit(imported, [*path, module])
            if cycle:
                return cycle
        done.add(module)
        return []

    return next((cycle for cycle in (visit(module, []) for module in graph) if cycle), [])


def test_imports_form_no_cycle():
    assert find_cycle(GRAPH) == []


def test_the_cycle_check_can_fail():
    assert find_cycle({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ["b", "c", "b"]


# From the ground up. What stands in one line does not know each other; a package stands for all that is in it.
FLOORS = [
    ["errors", "compat"],
    ["ops"],
    ["policy"],
    ["lowering.collector", "lowering.records"],
    ["lowering.report", "lowering.run_passes"],
    ["lowering.graph"],
    ["lowering.composites"],
    ["lowering.captured", "lowering.aten"],
    ["lowering.weights"],
    ["lowering.pipeline", "runtime"],
    ["lowering"],
    ["inductor", "dynamo"],
    ["options", "loss_scaling"],
    ["plain_options"],
    ["environment_options"],
    ["backend"],
    ["exported", "configured"],
    ["simulator"],
    ["explanation", "ipex"],
    ["tuning"],
    [""],
    ["command_line", "integrations"],
    ["__main__", "ipex.__main__"],
]


def floor_of(module: str) -> int:
    """Return the floor of a module, by the longest name that it has part in."""
    parts = module.removeprefix("xpu_amp_dynamo").removeprefix(".").split(".")
    names = [".".join(parts[:length]) for length in range(len(parts), 0, -1)]
    return next(floor for name in names for floor, line in enumerate(FLOORS) if name in line)


def test_no_import_goes_up():
    upwards = [(m, i) for m in GRAPH for i in GRAPH[m] if floor_of(i) > floor_of(m)]
    assert upwards == []


def test_what_stands_side_by_side_is_apart():
    """But for what is of one package."""
    for module, imported in GRAPH.items():
        for other in (i for i in imported if floor_of(i) == floor_of(module)):
            line = FLOORS[floor_of(module)]
            homes = [next(n for n in line if f"{m}.".startswith(f"xpu_amp_dynamo.{n}.")) for m in (module, other)]
            assert homes[0] == homes[1], (module, other)


# Where private names of PyTorch may stand; all else asks these for what it needs.
PRIVATE_ROOMS = ("compat", "inductor", "dynamo", "simulator")
# Ops are no private API, however they are called; nor is what named tuples have for a copy.
OPS = ("torch.ops", "aten", "_onednn")
PUBLIC_WITH_UNDERSCORE = {"_replace"}


def is_private(name: str) -> bool:
    return any(part.startswith("_") and not part.startswith("__") for part in name.split("."))


def private_names(tree: ast.Module) -> set[str]:
    """Return the private names that a file imports from PyTorch, and those that it reads of anything but itself.

    An attribute of ``self`` or ``cls`` is its own.
    """
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and str(node.module).split(".")[0] == "torch":
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names if alias.name.split(".")[0] == "torch"}
        elif isinstance(node, ast.Attribute) and is_private(node.attr) and node.attr not in PUBLIC_WITH_UNDERSCORE:
            owner = ast.unparse(node.value)
            if owner not in ("self", "cls") and not owner.startswith(OPS):
                found.add(f"{owner}.{node.attr}")
    return set(filter(is_private, found))


def test_private_names_of_torch_stand_in_rooms_of_their_own():
    found = {module_name(path): private_names(ast.parse(path.read_text())) for path in FILES}
    rooms = tuple(f"xpu_amp_dynamo.{room}." for room in PRIVATE_ROOMS)
    assert {m: names for m, names in found.items() if names and not m.startswith(rooms)} == {}


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("from torch._ops import OpOverload", {"torch._ops.OpOverload"}),
        ("from torch.utils import _pytree as pytree", {"torch.utils._pytree"}),
        ("import torch._guards", {"torch._guards"}),
        ("def f(key: torch._C.DispatchKey): ...", {"torch._C"}),
        ("autocast_mode._enter_autocast", {"autocast_mode._enter_autocast"}),
        ("self.op._handle.redispatch_boxed", {"self.op._handle"}),
        ("value.untyped_storage()._cdata", {"value.untyped_storage()._cdata"}),
        ("torch.ops.aten._unsafe_view.default, self._own, cast._replace(a=1), value.__class__", set()),
    ],
)
def test_the_check_of_private_names_can_fail(source: str, found: set[str]):
    assert private_names(ast.parse(source)) == found


def test_import_loads_no_more_than_users_need():
    """Eager users wait for neither the simulator, nor its tables, nor Inductor."""
    program = (
        "import sys, xpu_amp_dynamo\n"
        "heavy = ('xpu_amp_dynamo.simulator', 'rich', 'torch._inductor.scheduler')\n"
        "print(sorted(m for m in heavy if m in sys.modules))\n"
        "xpu_amp_dynamo.xpu_kernels, xpu_amp_dynamo.simulated_xpu\n"
    )
    output = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True).stdout
    assert output.strip() == "[]"


def test_lowering_and_runtime_do_not_know_each_other():
    for module, imported in GRAPH.items():
        for one, other in (("lowering", "runtime"), ("runtime", "lowering")):
            if module.startswith(f"xpu_amp_dynamo.{one}"):
                assert not [i for i in imported if i.startswith(f"xpu_amp_dynamo.{other}")], module


def test_tables_hold_no_logic():
    for path in (ROOT / "xpu_amp_dynamo" / "policy" / "tables").glob("*.py"):
        for node in ast.parse(path.read_text()).body:
            assert isinstance(node, (ast.Expr, ast.Assign)), f"{path.name}:{node.lineno}"


@pytest.mark.parametrize("path", FILES, ids=module_name)
def test_sizes(path):
    tree = ast.parse(path.read_text())
    functions = [n for n in ast.walk(tree) if isinstance(n, (ast.FunctionDef, ast.AsyncFunctionDef))]
    assert len(path.read_text().splitlines()) <= 300
    assert [f.name for f in functions if f.end_lineno and f.end_lineno - f.lineno >= 50] == []


def test_every_public_name_is_documented():
    names = [name for name in dir(xpu_amp_dynamo) if not name.startswith("_")]
    public = [n for n in names if getattr(getattr(xpu_amp_dynamo, n), "__module__", "").startswith("xpu_amp_dynamo")]
    assert set(public) == {
        "BackendOptions",
        "ConfiguredBackend",
        "Explanation",
        "ExportOptions",
        "LoweringOptions",
        "LoweringReport",
        "Policy",
        "Tuning",
        "autocast",
        "backend_with",
        "cached_weight_bytes",
        "default_device_type",
        "explain",
        "install",
        "install_torch_xpu_amp",
        "installed_policy",
        "keep_precision",
        "lower",
        "lower_exported",
        "record_lowerings",
        "refresh_weights",
        "release_weights",
        "simulated_xpu",
        "tune",
        "uninstall",
        "uninstall_torch_xpu_amp",
        "xpu_amp",
        "xpu_kernels",
    }
    assert [name for name in public if not getattr(xpu_amp_dynamo, name).__doc__] == []
