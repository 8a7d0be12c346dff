"""The command line: ``python -m xpu_amp_dynamo kernels MODULE:FACTORY`` and ``... install-compiler``."""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from xpu_amp_dynamo.errors import XpuAmpError
from xpu_amp_dynamo.simulator.intel_compiler import triton_xpu
from xpu_amp_dynamo.simulator.parts import PARTS
from xpu_amp_dynamo.simulator.xpu_kernels import WAYS, xpu_kernels

EXPECTED = "expected MODULE:FACTORY such as my_models:make_bert"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        arguments: the words after ``python -m xpu_amp_dynamo``; those of this process if None.

    Returns:
        The exit status: 0, or 1 after an error that was printed.
    """
    given = _parser().parse_args(arguments)
    try:
        given.command(given)
    except XpuAmpError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(prog="python -m xpu_amp_dynamo")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    kernels = commands.add_parser("kernels", help="print the kernels that an XPU would run for a model; needs no XPU")
    kernels.set_defaults(command=_print_kernels)
    kernels.add_argument(
        "factory",
        metavar="MODULE:FACTORY",
        help="a function without arguments that returns a model on the CPU and the arguments to call it with, a "
        "tuple or a dict",
    )
    kernels.add_argument("--train", action="store_true", help="include the backward")
    kernels.add_argument("--dtype", choices=("bfloat16", "float16"), default="bfloat16", help="the lower precision")
    kernels.add_argument("--policy", default="xpu", help="name of the policy")
    kernels.add_argument("--part", choices=sorted(PARTS), default="max-1550", help="the GPU to generate code for")
    kernels.add_argument("--beside", nargs="*", default=[], choices=WAYS[1:], help="other ways to compile, to compare")
    kernels.add_argument("--sources", type=Path, metavar="FOLDER", help="write the generated code here")
    kernels.add_argument("--compile", action="store_true", help="compile the kernels with Intel's compiler, and tell")
    compiler = commands.add_parser("install-compiler", help="install Intel's kernel compiler, in a folder of its own")
    compiler.set_defaults(command=_install_compiler)
    return parser


def _install_compiler(given: argparse.Namespace) -> None:
    """Install Triton for XPUs and say where."""
    print(triton_xpu.install())


def _print_kernels(given: argparse.Namespace) -> None:
    """Print the report of one model, and write its code where that is asked for."""
    model, inputs = _call_factory(given.factory)
    args, kwargs = ((), inputs) if isinstance(inputs, dict) else (inputs, {})
    options = {"dtype": getattr(torch, given.dtype), "policy": given.policy}
    report = xpu_kernels(
        model, *args, kwargs=kwargs, options=options, train=given.train, beside=given.beside, part=given.part
    )
    report.print()
    if given.compile:
        report.compile().print()
    if given.sources is not None:
        for path in report.write_sources(given.sources):
            print(path)


def _call_factory(name: str) -> tuple[torch.nn.Module, tuple[Any, ...] | dict[str, Any]]:
    """Return what the factory of a ``MODULE:FACTORY`` makes.

    Raises:
        XpuAmpError: there is no such function, or it returns something else than a model and its arguments.
    """
    module_name, _, function_name = name.partition(":")
    if not function_name:
        raise XpuAmpError(f"{name!r} names no function, {EXPECTED}")
    sys.path.insert(0, "")  # as `python -m` does: modules of the current folder are found
    try:
        factory = getattr(importlib.import_module(module_name), function_name)
    except (ImportError, AttributeError, ValueError) as error:
        raise XpuAmpError(f"cannot find {name!r}, {EXPECTED}: {error}") from error
    made = factory()
    if not (
        isinstance(made, tuple)
        and len(made) == 2
        and isinstance(made[0], torch.nn.Module)
        and isinstance(made[1], (tuple, dict))
    ):
        raise XpuAmpError(f"{name} must return a model and a tuple or dict of its arguments, not {_kinds(made)}")
    return made


def _kinds(made: object) -> str:
    """Name the type of a value, and those of what it holds if it is a tuple."""
    inside = f" of {', '.join(type(item).__name__ for item in made)}" if isinstance(made, tuple) else ""
    return type(made).__name__ + inside


if __name__ == "__main__":
    sys.exit(main())
