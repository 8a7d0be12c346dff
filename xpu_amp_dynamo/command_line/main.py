"""The group of all commands, and how their errors are printed."""

from __future__ import annotations

import difflib
import importlib
import sys
from collections.abc import Sequence
from typing import Any

import click

from xpu_amp_dynamo.errors import XpuAmpError

# Each is the command `command` of the module of its name, with `_` for `-`.
COMMANDS = ("bench", "doctor", "explain", "export", "install-compiler", "kernels", "policy", "tune")
EXIT_CODES = "Exit codes: 0 all went well, 1 an error that was printed or a check that failed, 2 wrong usage."


class PrintedError(click.ClickException):
    """An error of this package, which names the fix and needs no traceback."""

    def show(self, file: Any = None) -> None:
        """Print the message."""
        click.echo(f"error: {self.message}", file=file, err=True)


class WrongValue(PrintedError):
    """An error of this package about a value that was given."""

    exit_code = click.UsageError.exit_code


def printed(error: XpuAmpError) -> PrintedError:
    """Return what prints an error and ends the command with its status."""
    return WrongValue(str(error)) if isinstance(error, ValueError) else PrintedError(str(error))


class LazyGroup(click.Group):
    """A group that imports a command when it is called: most of them load PyTorch's compilers."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """List the names of all commands."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a command; None if there is none of that name."""
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = importlib.import_module(f"{__package__}.{cmd_name.replace('-', '_')}").command
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Return the command that the words start with.

        Raises:
            UsageError: there is no such command.
        """
        if args[0] not in COMMANDS and not args[0].startswith("-"):
            near = difflib.get_close_matches(args[0], COMMANDS, n=1)
            hint = f"did you mean {near[0]!r}? " if near else ""
            ctx.fail(f"no such command {args[0]!r}; {hint}The commands are {', '.join(COMMANDS)}")
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command.

        Raises:
            PrintedError: an error of this package, whatever wraps it.
        """
        try:
            return super().invoke(ctx)
        except Exception as error:
            ours = _error_of_ours(error)
            if ours is None:
                raise
            raise printed(ours) from error


def _error_of_ours(error: BaseException | None) -> XpuAmpError | None:
    """Return the error of this package that another one was raised for; torch wraps those of backends."""
    seen: set[int] = set()
    while error is not None and not isinstance(error, XpuAmpError) and id(error) not in seen:
        seen.add(id(error))
        error = getattr(error, "inner_exception", None) or error.__cause__
    return error if isinstance(error, XpuAmpError) else None


def _print_version(ctx: click.Context, parameter: click.Parameter, wanted: bool) -> None:
    """Print the versions of this package and of torch, and end."""
    if wanted and not ctx.resilient_parsing:
        import torch

        import xpu_amp_dynamo

        click.echo(f"xpu-amp {xpu_amp_dynamo.__version__}, torch {torch.__version__}")
        ctx.exit()


@click.group(cls=LazyGroup, epilog=EXIT_CODES, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--version", is_flag=True, is_eager=True, expose_value=False, callback=_print_version, help="Print it.")
def xpu_amp() -> None:
    """Automatic mixed precision for Intel GPUs: look, compare, test, tune and export."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        arguments: the words after ``xpu-amp``; those of this process if None.

    Returns:
        The exit status: 0, 1 after an error that was printed or a check that failed, 2 after a usage error.
    """
    try:
        xpu_amp.main(arguments, prog_name="xpu-amp")
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 0
    return 0


def run() -> None:
    """Run the command that this process was started for, and end with its status."""
    sys.exit(main())
