"""The arguments that commands share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

ABOUT_FACTORIES = """MODULE:FACTORY, or FILE.py:FACTORY, names a function without arguments that returns a model on
the CPU and the arguments to call it with, a tuple or a dict."""


def model_argument(*, required: bool = True) -> Callable[..., Any]:
    """Return the decorator that gives a command the name of a model's factory."""
    return click.argument("factory", metavar="MODULE:FACTORY" if required else "[MODULE:FACTORY]", required=required)


def device_option() -> Callable[..., Any]:
    """Return the decorator that gives a command ``--device``."""
    text = "xpu, cuda or cpu.  [default: an XPU if there is one, else a GPU, else the CPU]"
    return click.option("--device", metavar="TYPE", help=text)
