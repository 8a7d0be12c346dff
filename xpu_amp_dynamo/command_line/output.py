"""What commands print: tables for people, JSON for programs, notes beside both."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from rich.console import Console

Function = TypeVar("Function", bound=Callable[..., Any])
STDOUT = "-"


def json_option(*names: str) -> Callable[[Function], Function]:
    """Return the decorator that gives a command ``--json FILE``, under further names too."""
    return click.option(
        "--json",
        *names,
        "json_file",
        metavar="FILE",
        type=OutputFile(or_stdout=True),
        help="Write all of it as JSON; - writes to the standard output, and nothing else does.",
    )


class OutputFile(click.Path):
    """A file that a command writes at its end, in a folder that is made before anything else is done.

    Args:
        or_stdout: take ``-`` for the standard output; paths are then text.
    """

    name = "FILE"

    def __init__(self, *, or_stdout: bool = False) -> None:
        path_type = str if or_stdout else Path
        super().__init__(dir_okay=False, writable=True, allow_dash=or_stdout, path_type=path_type)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the path."""
        path: Any = super().convert(value, param, ctx)
        if path == STDOUT:
            return path
        try:
            Path(path).parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            self.fail(f"cannot write {str(path)!r}: {error}", param, ctx)
        if not os.access(Path(path).parent, os.W_OK):
            self.fail(f"cannot write {str(path)!r}: its folder cannot be written to", param, ctx)
        return path


def console_for(json_file: str | None) -> Console:
    """Return the console for tables: the standard output, unless that gets JSON."""
    from rich.console import Console

    return Console(stderr=json_file == STDOUT, highlight=False)


def note(text: str) -> None:
    """Print a remark beside the results."""
    click.echo(f"note: {text}", err=True)


def write_json(document: Mapping[str, Any], json_file: str | None) -> None:
    """Write a document where it is asked for, with the versions that it was made by.

    Args:
        document: dicts, lists, numbers and text; anything else is written as text.
        json_file: path of the file, in a folder that exists, ``"-"`` for the standard output, None for nowhere.

    Raises:
        UsageError: the file cannot be written.
    """
    if json_file is None:
        return
    import torch

    import xpu_amp_dynamo

    versions = {"xpu_amp_dynamo": xpu_amp_dynamo.__version__, "torch": torch.__version__}
    text = json.dumps({"versions": versions, **document}, indent=1, default=_as_text) + "\n"
    if json_file == STDOUT:
        click.echo(text, nl=False)
        return
    try:
        Path(json_file).write_text(text)
    except OSError as error:
        raise click.UsageError(f"cannot write {json_file!r}: {error}; name another file by --json") from error


def _as_text(value: object) -> str:
    return str(value).removeprefix("torch.")


def milliseconds(seconds: float) -> str:
    """Return a time for a table."""
    return f"{seconds * 1e3:.2f} ms"
