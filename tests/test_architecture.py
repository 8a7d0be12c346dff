"""The shape of the code: who imports whom, and that every public name is there."""

from __future__ import annotations

import ast
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
    """Return the modules of ours that a file imports when it is loaded."""
    found: set[str] = set()
    for node in ast.parse(path.read_text()).body:
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


def test_lowering_and_runtime_do_not_know_each_other():
    for module, imported in GRAPH.items():
        for one, other in (("lowering", "runtime"), ("runtime", "lowering")):
            if module.startswith(f"xpu_amp_dynamo.{one}"):
                assert not [i for i in imported if i.startswith(f"xpu_amp_dynamo.{other}")], module


def test_tables_hold_no_logic():
    for path in (ROOT / "xpu_amp_dynamo" / "op_tables").glob("*.py"):
        for node in ast.parse(path.read_text()).body:
            assert isinstance(node, (ast.Expr, ast.Assign)), f"{path.name}:{node.lineno}"


@pytest.mark.parametrize("path", FILES, ids=module_name)
def test_sizes(path):
    tree = ast.parse(path.read_text())
    functions = [n for n in ast.walk(tree) if isinstance(n, (ast.FunctionDef, ast.AsyncFunctionDef))]
    assert len(path.read_text().splitlines()) <= 300
    assert [f.name for f in functions if f.end_lineno - f.lineno >= 50] == []


def test_every_public_name_is_documented():
    names = [name for name in vars(xpu_amp_dynamo) if not name.startswith("_")]
    public = [n for n in names if getattr(getattr(xpu_amp_dynamo, n), "__module__", "").startswith("xpu_amp_dynamo")]
    assert set(public) == {
        "BackendOptions",
        "LoweringReport",
        "Policy",
        "autocast",
        "cached_weight_bytes",
        "default_device_type",
        "install",
        "installed_policy",
        "lower",
        "lower_exported",
        "record_lowerings",
        "refresh_weights",
        "simulated_xpu",
        "uninstall",
        "xpu_amp",
        "xpu_kernels",
    }
    assert [name for name in public if not getattr(xpu_amp_dynamo, name).__doc__] == []
