"""Options of the backend from the environment, for programs that name a backend and cannot pass it options."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import tomlkit
import tomlkit.exceptions

from xpu_amp_dynamo.errors import InvalidOptionError
from xpu_amp_dynamo.options import BackendOptions
from xpu_amp_dynamo.plain_options import options_from

VARIABLE = "XPU_AMP_OPTIONS"
LEGAL = (
    """it must be options as a JSON object, such as '{"dtype": "float16"}', """
    "or the path of a .toml or .json file of them"
)
_READERS: Mapping[str, Callable[[str], Any]] = {
    ".json": lambda text: json.loads(text, object_pairs_hook=_each_once),
    ".toml": lambda text: tomlkit.parse(text).unwrap(),
}


def parse_with_environment(options: Mapping[str, Any] | None) -> BackendOptions:
    """Return checked options, those that were given above those of the environment variable ``XPU_AMP_OPTIONS``.

    Args:
        options: what ``torch.compile`` was given. Each name in it replaces the same name of the variable.

    Raises:
        InvalidOptionError: as :meth:`BackendOptions.parse`; or the variable holds no options, or illegal ones.
    """
    found = environment_options()
    if not found or not isinstance(options, (Mapping, type(None))):
        return BackendOptions.parse(options)
    try:
        return BackendOptions.parse({**found, **(options or {})})
    except InvalidOptionError as error:
        raise InvalidOptionError(f"{error}; environment variable {VARIABLE} gives {found}") from error


def environment_options() -> dict[str, Any]:
    """Return the checked options of the environment variable ``XPU_AMP_OPTIONS``; none if it is unset or empty.

    A value that begins with ``{`` is JSON, any other the path of a file, TOML or JSON by its suffix. The options are
    all that is there, or what stands in its table ``options``, as in a file of :meth:`xpu_amp_dynamo.Tuning.save`.

    Raises:
        InvalidOptionError: the variable holds no options, or illegal ones.
    """
    value = os.environ.get(VARIABLE, "").strip()
    if not value:
        return {}
    try:
        document = _read(value)
    except (ValueError, OSError, tomlkit.exceptions.ParseError) as error:
        raise InvalidOptionError(f"environment variable {VARIABLE} is {value!r}: {error}; {LEGAL}") from error
    try:
        options = options_from(document.get("options", document))
        BackendOptions.parse(options)
    except (ValueError, TypeError) as error:
        raise InvalidOptionError(f"environment variable {VARIABLE} is {value!r}: {error}") from error
    return options


def _read(value: str) -> Mapping[str, Any]:
    """Return what the variable holds or names."""
    if value.startswith("{"):
        found = _READERS[".json"](value)
    else:
        path = Path(value).expanduser()
        if path.suffix not in _READERS:
            raise InvalidOptionError(f"it neither begins with '{{' nor ends in one of {sorted(_READERS)}")
        found = _READERS[path.suffix](path.read_text())
    if not isinstance(found, Mapping) or not isinstance(found.get("options", {}), Mapping):
        raise InvalidOptionError(f"it holds {found!r}, which is no table of options")
    return found


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return a JSON object whose names are given once each, as TOML demands."""
    twice = [name for name, count in Counter(name for name, _ in pairs).items() if count > 1]
    if twice:
        raise InvalidOptionError(f"it gives {', '.join(map(repr, twice))} more than once")
    return dict(pairs)
