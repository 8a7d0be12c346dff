"""Every private name of PyTorch and Triton that the package uses is there; one that is gone is named with its places.

Seen are names that the source spells out. Private attributes of objects are left to the tests of what uses them.
"""

from __future__ import annotations

import ast
import importlib
from collections.abc import Iterator

import pytest
import torch

from tests.test_architecture import FILES, ROOT

LIBRARIES = ("torch", "triton")
# What XPU builds have and the simulated XPU puts there, and what is there while Inductor compiles.
NOT_ALWAYS = ("torch._C._xpu_", "torch._inductor.virtualized.V.graph.")


def is_private(name: str) -> bool:
    """Tell whether some part of a dotted name of a library is private."""
    library, *parts = name.split(".")
    return library in LIBRARIES and any(part.startswith("_") and not part.startswith("__") for part in parts)


def is_optional(node: ast.AST) -> bool:
    """Tell whether a statement tries an import that may fail."""
    return isinstance(node, ast.Try) and any(
        isinstance(handler.type, ast.Name) and handler.type.id == "ImportError" for handler in node.handlers
    )


def walk(node: ast.AST) -> Iterator[ast.AST]:
    """Yield a node and all below it, but for imports that may fail."""
    yield node
    for child in ast.iter_child_nodes(node):
        if not is_optional(child):
            yield from walk(child)


def dotted(node: ast.AST, imported: dict[str, str]) -> str:
    """Return the full name that an expression spells out; empty if it starts with nothing imported."""
    if isinstance(node, ast.Name):
        return imported.get(node.id, "")
    if not isinstance(node, ast.Attribute):
        return ""
    base = dotted(node.value, imported)
    return f"{base}.{node.attr}" if base else ""


def private_names(source: str) -> dict[str, int]:
    """Return the private names that a module uses, each with the line of its first use."""
    nodes = list(walk(ast.parse(source)))
    imported: dict[str, str] = {}
    names: list[tuple[str, int]] = []
    for node in nodes:
        if isinstance(node, ast.Import):
            imported.update(
                {a.asname or a.name.split(".")[0]: a.name if a.asname else a.name.split(".")[0] for a in node.names}
            )
            names += [(alias.name, node.lineno) for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            imported.update({a.asname or a.name: f"{node.module}.{a.name}" for a in node.names})
            names += [(f"{node.module}.{alias.name}", node.lineno) for alias in node.names]
    for node in nodes:
        if isinstance(node, ast.Attribute):
            names.append((dotted(node, imported), node.lineno))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and " " not in node.value:
            names.append((node.value, node.lineno))
    found: dict[str, int] = {}
    for name, line in sorted(names, key=lambda pair: pair[1]):
        if is_private(name):
            found.setdefault(name, line)
    return found


def is_there(name: str) -> bool:
    """Tell whether a dotted name is a module or an attribute of something."""
    parts = name.split(".")
    thing, place = importlib.import_module(parts[0]), parts[0]
    for part in parts[1:]:
        place = f"{place}.{part}"
        if not hasattr(thing, part):
            try:
                importlib.import_module(place)
            except ImportError:
                return False
        thing = getattr(thing, part)
    return True


USED = {path.relative_to(ROOT).as_posix(): private_names(path.read_text()) for path in sorted(FILES)}


def test_a_name_that_is_gone_is_found():
    names = private_names("import torch\nfrom torch._nowhere import a\nb = torch._C._gone.c")
    assert {name: line for name, line in names.items() if not is_there(name)} == {
        "torch._nowhere.a": 2,
        "torch._C._gone": 3,
        "torch._C._gone.c": 3,
    }


@pytest.mark.parametrize("path", [path for path, names in USED.items() if names])
def test_private_names_are_there(path):
    gone = [
        f"{name}, line {line}"
        for name, line in USED[path].items()
        if not name.startswith(NOT_ALWAYS) and not is_there(name)
    ]
    assert not gone, f"torch {torch.__version__} lacks what {path} uses:\n" + "\n".join(gone)
