"""Options of the backend as flags of a command, made from the dataclass that holds them."""

from __future__ import annotations

import ast
import collections.abc
import dataclasses
import inspect
import re
import types
import typing
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from xpu_amp_dynamo.options import LoweringOptions

PREFIX = "option_"
TUNING = "tuning_file"
Parameters = Callable[[], list[click.Option]]


class CompilingCommand(click.Command):
    """A command with the options of the backend, which are read when its flags are asked for."""

    def __init__(self, *args: Any, flags: Parameters, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._flags = flags

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        """Return the command's own parameters, then the options of the backend."""
        return [*super().get_params(ctx), *self._flags()]


class KeyAndValue(click.ParamType):
    """A setting as ``KEY=VALUE``, whose value is a Python literal, else text."""

    name = "KEY=VALUE"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, Any]:
        """Take one setting apart."""
        if isinstance(value, tuple):
            return value
        key, equals, text = str(value).partition("=")
        if not equals:
            self.fail(f"{value!r} has no '='; give KEY=VALUE, such as max_autotune=True", param, ctx)
        try:
            return key, ast.literal_eval(text)
        except (ValueError, SyntaxError):
            return key, text


def backend_flags() -> list[click.Option]:
    """Return the flags of all options of the backend."""
    from xpu_amp_dynamo.options import BackendOptions

    return [_tuning_flag(), *flags_of(BackendOptions)]


def export_flags() -> list[click.Option]:
    """Return the flags of all options of exported programs, and the settings of Inductor, which compiles them."""
    from xpu_amp_dynamo.options import BackendOptions, ExportOptions

    return [_tuning_flag(), *flags_of(ExportOptions)] + [
        flag for flag in flags_of(BackendOptions) if flag.name == f"{PREFIX}inductor"
    ]


def flags_of(kind: type[LoweringOptions]) -> list[click.Option]:
    """Make the flags of a class of options: one for each field, by its type.

    A bool is a pair of flags; a collection a flag that can be given several times; a mapping one that takes
    ``KEY=VALUE`` and can be given several times. A flag that is not given leaves the option's default.
    """
    hints, texts = typing.get_type_hints(kind), _help_texts(kind)
    return [_flag(field, hints[field.name], texts.get(field.name, "")) for field in dataclasses.fields(kind)]


def given_options(words: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of the backend among the values that click hands to a command, those that were given.

    Raises:
        InvalidOptionError: the file of a tuning is none.
    """
    options = _options_of(words.get(TUNING))
    for name, value in words.items():
        if name.startswith(PREFIX) and value not in (None, ()):
            option = name.removeprefix(PREFIX)
            pairs = isinstance(value, tuple) and all(isinstance(item, tuple) for item in value)
            options[option] = dict(value) if pairs else list(value) if isinstance(value, tuple) else value
    return options


def _tuning_flag() -> click.Option:
    text = "Take options from a file that `xpu-amp tune --out` wrote; other flags stand above it."
    return click.Option(["--tuning", TUNING], type=click.Path(exists=True, dir_okay=False), help=text)


def _options_of(tuning_file: str | None) -> dict[str, Any]:
    """Return the options of a tuning, none without one."""
    if tuning_file is None:
        return {}
    from xpu_amp_dynamo.tuning.tuning import Tuning

    return dict(Tuning.load(tuning_file).options)


def _flag(field: dataclasses.Field[Any], hint: Any, text: str) -> click.Option:
    """Make the flag of one field."""
    flag, plain = field.name.replace("_", "-"), _without_none(hint)
    origin = typing.get_origin(plain) or plain
    if plain is bool:
        return _option(field, f"--{flag}/--no-{flag}", text, default=None)
    if isinstance(origin, type) and issubclass(origin, collections.abc.Mapping):
        return _option(field, f"--{flag}", text, multiple=True, type=KeyAndValue())
    if isinstance(origin, type) and issubclass(origin, collections.abc.Collection) and origin is not str:
        return _option(field, f"--{flag}", text + "; can be given several times", multiple=True, metavar="NAME")
    return _option(field, f"--{flag}", text, type=_value_type(plain))


def _option(field: dataclasses.Field[Any], flag: str, text: str, **settings: Any) -> click.Option:
    default = _default_text(field)
    return click.Option([flag, PREFIX + field.name], help=f"{text}{default and f'  [default: {default}]'}", **settings)


def _default_text(field: dataclasses.Field[Any]) -> str:
    """Return the default of a field for its help, empty where there is no word for it."""
    value = field.default if field.default_factory is dataclasses.MISSING else field.default_factory()
    text = str(getattr(value, "name", value)).removeprefix("torch.")
    return "" if value is None or value in ((), {}) else text


def _value_type(hint: Any) -> click.ParamType:
    """Return what reads the value of a flag; words that an option does not take, it refuses itself."""
    import torch

    if hint is torch.dtype:
        return _Dtype()
    if typing.get_origin(hint) is typing.Literal:
        return click.Choice([str(value) for value in typing.get_args(hint)])
    if hint is int:
        return click.INT
    return click.FLOAT if hint is float else click.STRING


class _Dtype(click.ParamType):
    """A dtype to lower to, by any of its names."""

    name = "dtype"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        from xpu_amp_dynamo.errors import UnsupportedDtypeError
        from xpu_amp_dynamo.policy.devices import check_lower_dtype

        try:
            return check_lower_dtype(value)
        except UnsupportedDtypeError as error:
            self.fail(str(error), param, ctx)


def _without_none(hint: Any) -> Any:
    """Return what a type is besides None."""
    if typing.get_origin(hint) not in (typing.Union, types.UnionType):
        return hint
    others = [part for part in typing.get_args(hint) if part is not type(None)]
    return others[0] if len(others) == 1 else str


def _help_texts(kind: type) -> dict[str, str]:
    """Return what the docstrings of a class and its bases say of their fields, under ``Args:``."""
    texts: dict[str, str] = {}
    for each in reversed(kind.__mro__):
        section = re.search(
            r"^Args:\n((?:    .*\n|\n)*)", inspect.getdoc(each) or "" if "__doc__" in vars(each) else "", re.M
        )
        for name, text in re.findall(r"^    (\w+): (.*(?:\n     +.*)*)", section[1] if section else "", re.M):
            texts[name] = _plain(text)
    return texts


def _plain(text: str) -> str:
    """Return a text of a docstring without its markup."""
    text = re.sub(r":\w+:`~?([^`]*)`", r"\1", re.sub(r"\s+", " ", text))
    return text.replace("``", "").strip().rstrip(".")
