"""The model that a command is about: made by a function of the user's, named on the command line."""

from __future__ import annotations

import contextlib
import difflib
import importlib
import importlib.util
import inspect
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from xpu_amp_dynamo.command_line.output import note
from xpu_amp_dynamo.compat.pytree import map_tensors
from xpu_amp_dynamo.errors import XpuAmpError
from xpu_amp_dynamo.simulator.xpu_kernels import backward_roots, run_backward

EXPECTED = "expected MODULE:FACTORY such as my_models:make_bert, or a path such as ./my_models.py:make_bert"


@dataclass
class Source:
    """A model and what it is called with.

    Args:
        name: the words that named it.
        model: the model.
        args: its arguments.
        kwargs: its keyword arguments.
    """

    name: str
    model: torch.nn.Module
    args: tuple[Any, ...]
    kwargs: dict[str, Any]

    def moved_to(self, device: str) -> Source:
        """Return the model and its arguments on a device; the model itself moves."""
        args, kwargs = map_tensors(lambda tensor: tensor.to(device), (self.args, self.kwargs))
        return Source(self.name, self.model.to(device), args, kwargs)

    def forward(self, model: Callable[..., Any], train: bool) -> Any:
        """Call the model, or a compiled form of it, with gradients only for training."""
        with torch.set_grad_enabled(train):
            return model(*self.args, **self.kwargs)

    def step(self, model: Callable[..., Any], train: bool, region: contextlib.AbstractContextManager[Any]) -> Any:
        """Run the model inside a region, and behind it the backward for training; return the output.

        Raises:
            XpuAmpError: there is nothing to differentiate.
        """
        self.model.zero_grad(set_to_none=True)
        with region:
            output = self.forward(model, train)
        if train:
            backward(output, self.name)
        return output


def load_model(name: str, *, train: bool) -> Source:
    """Return what a factory makes, and say so where the model is in the other mode.

    Args:
        name: ``MODULE:FACTORY``, or the path of a Python file in place of the module.
        train: whether the command is about training.

    Raises:
        XpuAmpError: there is no such function, it needs arguments, or it returns something else than a model and its
            arguments.
    """
    factory = load_function(name)
    _refuse_parameters(name, factory)
    made = factory()
    if not (
        isinstance(made, tuple)
        and len(made) == 2
        and isinstance(made[0], torch.nn.Module)
        and isinstance(made[1], (tuple, dict))
    ):
        raise XpuAmpError(f"{name} must return a model and a tuple or dict of its arguments, not {_kinds(made)}")
    model, inputs = made
    if model.training and not train:
        note(
            f"{name} returns a model in train mode, where dropout and batch norm work as in training; for inference "
            "return `model.eval()` from it"
        )
    args, kwargs = ((), inputs) if isinstance(inputs, dict) else (inputs, {})
    return Source(name, model, args, kwargs)


def _refuse_parameters(name: str, factory: Callable[..., Any]) -> None:
    """Refuse a factory that cannot be called without arguments, as far as its signature tells."""
    try:
        parameters = inspect.signature(factory).parameters.values()
    except ValueError:  # of some builtins
        return
    variable = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    needed = [each.name for each in parameters if each.kind not in variable and each.default is each.empty]
    if needed:
        raise XpuAmpError(
            f"{name} is called without arguments, and needs {', '.join(needed)}; give them defaults, or name a "
            "function that calls it"
        )


def backward(output: Any, name: str) -> None:
    """Run the backward of a model's output: of its loss, else of every tensor that has a gradient.

    Raises:
        XpuAmpError: there is none.
    """
    if not backward_roots(output):
        raise XpuAmpError(f"no output of {name} requires a gradient, so there is no backward; leave --train out")
    run_backward(output)


def load_function(name: str) -> Callable[..., Any]:
    """Return the function of a name.

    Args:
        name: ``MODULE:FUNCTION``, or the path of a Python file in place of the module.

    Raises:
        XpuAmpError: there is no such function.
    """
    module_name, _, function_name = name.rpartition(":")
    if not module_name or not function_name:
        raise XpuAmpError(f"{name!r} names no function, {EXPECTED}")
    module = _module(name, module_name)
    factory = getattr(module, function_name, None)
    if not callable(factory):
        near = difflib.get_close_matches(function_name, [n for n, v in vars(module).items() if callable(v)], n=1)
        hint = f"; did you mean {near[0]!r}?" if near else f", {EXPECTED}"
        raise XpuAmpError(f"cannot find {name!r}: {module_name} has no function {function_name!r}{hint}")
    return factory


def _module(name: str, module_name: str) -> ModuleType:
    """Import a module by its name, or by its path.

    Raises:
        XpuAmpError: there is none.
        ImportError: there is one, and something that it imports is not there.
    """
    path = Path(module_name)
    is_path = path.suffix == ".py" or len(path.parts) > 1
    # As `python -m` and `python FILE` do: modules of the current folder, or of the file's, are found.
    sys.path.insert(0, str(path.resolve().parent) if is_path else "")
    try:
        return _from_file(path) if is_path else importlib.import_module(module_name)
    except (ImportError, ValueError, OSError) as error:
        missing = getattr(error, "name", None)
        if missing and not f"{module_name}.".startswith(f"{missing}."):
            raise
        near = difflib.get_close_matches(module_name, [file.stem for file in Path().glob("*.py")], n=1)
        hint = f"; did you mean {near[0]!r}?" if near and not is_path else ""
        raise XpuAmpError(f"cannot find {name!r}, {EXPECTED}: {error}{hint}") from error


def _from_file(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} is no Python file")
    module = sys.modules[path.stem] = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[path.stem]
        raise
    return module


def _kinds(made: object) -> str:
    """Name the type of a value, and those of what it holds if it is a tuple."""
    inside = f" of {', '.join(type(item).__name__ for item in made)}" if isinstance(made, tuple) else ""
    return type(made).__name__ + inside
