"""Which models a compiled call is of, and which module the frame in hand belongs to.

Dynamo names the modules of a graph as the frame that it compiles reaches them, which behind a graph break may be the
frame of a submodule; but it keys them by the ``id`` of the module. The model that the user compiled is known from the
Python stack: the function in which PyTorch wraps a compiled callable holds it. Checked on torch 2.13.0.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from types import FrameType
from typing import Any

import torch
from torch._dynamo import eval_frame
from torch._dynamo.resume_execution import TORCH_DYNAMO_RESUME_IN_PREFIX
from torch._dynamo.symbolic_convert import InstructionTranslator

from xpu_amp_dynamo.compat.pytree import leaves_of

_WRAPPER = (eval_frame.__file__, "compile_wrapper")
_CALL_OF_MODULE = (inspect.getfile(torch.nn.Module), "_call_impl")


def models_of_compiled_call() -> list[torch.nn.Module] | None:
    """Return the models of the compiled call that Dynamo is compiling for; None where it is not compiling.

    That is one if a model was compiled; if a function was, those among its arguments and in what it refers to.
    """
    for frame in _frames():
        if _place(frame) == _WRAPPER:
            given = frame.f_locals
            return _models_of(given["fn"], (given["args"], given["kwargs"]))
    return None


def module_of_frame() -> torch.nn.Module | None:
    """Return the module whose method Dynamo is compiling, or that calls what it compiles; None if there is none."""
    translator = _translator()
    owner = None if translator is None else translator.f_locals.get("self")
    if isinstance(owner, torch.nn.Module):
        return owner
    for frame in _frames():
        if _place(frame) == _CALL_OF_MODULE:
            module = frame.f_locals["self"]
            return None if isinstance(module, torch._dynamo.OptimizedModule) else module
        if _place(frame) == _WRAPPER:
            break
    return None


def is_resumed() -> bool:
    """Tell whether the frame in hand goes on behind a graph break: its inputs are values from the midst of a call."""
    translator = _translator()
    return translator is not None and translator.f_code.co_name.startswith(TORCH_DYNAMO_RESUME_IN_PREFIX)


def module_id(key: str) -> int | None:
    """Return the ``id`` of the module that Dynamo made a key of ``nn_module_stack`` of; None for other keys."""
    number, _, _ = key.partition("@")
    return int(number) if number.isdigit() else None


def is_compiled(module: torch.nn.Module) -> bool:
    """Tell whether calls of a module run code that Dynamo compiled, so that hooks of it would be compiled too."""
    return isinstance(module, torch._dynamo.OptimizedModule) or module._compiled_call_impl is not None


def _models_of(called: Any, arguments: object) -> list[torch.nn.Module]:
    """List the models that a callable and its arguments hold, each once."""
    owner = getattr(called, "__self__", called)
    if isinstance(owner, torch.nn.Module):
        return [owner]
    function = inspect.unwrap(getattr(called, "__func__", called))
    held = [getattr(owner, "__dict__", {}), arguments]
    if inspect.isfunction(function):
        held += [*inspect.getclosurevars(function)[:2]]
    models = [leaf for leaf in leaves_of(held) if isinstance(leaf, torch.nn.Module)]
    return list({id(model): model for model in models}.values())


def _translator() -> Any:
    """Return what translates the frame in hand, None outside of Dynamo."""
    try:
        return InstructionTranslator.current_tx()
    except AttributeError:
        return None


def _frames() -> Iterator[FrameType]:
    frame = inspect.currentframe()
    while frame is not None:
        yield frame
        frame = frame.f_back


def _place(frame: FrameType) -> tuple[str, str]:
    return frame.f_code.co_filename, frame.f_code.co_name
