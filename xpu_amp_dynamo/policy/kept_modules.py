"""Modules that are kept in one precision whatever the policy says of the ops inside, given by patterns of names."""

from __future__ import annotations

import difflib
import functools
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase

from xpu_amp_dynamo.errors import InvalidOptionError


@dataclass(frozen=True)
class Kept:
    """A module that a pattern names.

    Args:
        module: its qualified name.
        float32: whether it is kept in float32, else in the lower precision.
    """

    module: str
    float32: bool


@dataclass(frozen=True)
class ModulePatterns:
    """Which modules of a model are kept, by globs on the names that ``named_modules()`` gives.

    Args:
        float32: patterns of modules that run in float32.
        lower: patterns of modules that run in the lower precision.
    """

    float32: tuple[str, ...] = ()
    lower: tuple[str, ...] = ()

    @classmethod
    def parse(cls, keep_float32: object, keep_lower: object) -> ModulePatterns:
        """Return checked patterns.

        Raises:
            InvalidOptionError: one of the two is no list of strings.
        """
        return cls(_patterns("keep_float32", keep_float32), _patterns("keep_lower", keep_lower))

    def __bool__(self) -> bool:
        return bool(self.float32 or self.lower)

    def kept(self, names: Iterable[str]) -> Kept | None:
        """Return the innermost kept module that a module is or lies in; None if there is none.

        Args:
            names: all names of the module; a shared one has several.
        """
        found = [kept for name in names if (kept := _innermost(self, name))]
        return max(found, key=lambda kept: len(kept.module), default=None)

    def named(self, name: str) -> Kept | None:
        """Return a module as kept if a pattern names it itself, None else."""
        for float32 in (True, False):
            if self._lists(name, self._of(float32)):
                return Kept(name, float32)
        return None

    def matching(self, kept: Kept) -> list[str]:
        """List the patterns that name a kept module."""
        return [pattern for pattern in self._of(kept.float32) if fnmatchcase(kept.module, pattern)]

    def check(self, names: Collection[str]) -> None:
        """Check the patterns against the names of all modules of a model.

        Raises:
            InvalidOptionError: a pattern names no module, or a module is named in both lists.
        """
        for option, patterns in (("keep_float32", self.float32), ("keep_lower", self.lower)):
            for pattern in patterns:
                if not any(fnmatchcase(name, pattern) for name in names):
                    raise InvalidOptionError(_matches_nothing(option, pattern, names))
        for name in names:
            if self._lists(name, self.float32) and self._lists(name, self.lower):
                raise InvalidOptionError(
                    f"options 'keep_float32' and 'keep_lower' both name module {name!r}; name it in one of them"
                )

    def _of(self, float32: bool) -> tuple[str, ...]:
        return self.float32 if float32 else self.lower

    @staticmethod
    def _lists(name: str, patterns: tuple[str, ...]) -> bool:
        return any(fnmatchcase(name, pattern) for pattern in patterns)


@functools.lru_cache(maxsize=4096)
def _innermost(patterns: ModulePatterns, name: str) -> Kept | None:
    return next(filter(None, map(patterns.named, names_around(name))), None)


def names_around(name: str) -> list[str]:
    """List the qualified name of a module and those of all modules around it, the innermost first."""
    parts = name.split(".") if name else []
    return [".".join(parts[:length]) for length in range(len(parts), -1, -1)]


def _patterns(option: str, given: object) -> tuple[str, ...]:
    """Return patterns as a tuple."""
    if isinstance(given, str):
        raise InvalidOptionError(f"option {option!r} is the string {given!r}; it must be a list: [{given!r}]")
    if not isinstance(given, Collection):
        raise InvalidOptionError(f"option {option!r} is {given!r}; it must be a list of patterns of module names")
    for pattern in given:
        if not isinstance(pattern, str):
            raise InvalidOptionError(
                f"option {option!r} has {pattern!r}; it must be a list of strings, patterns of names as "
                "model.named_modules() gives them"
            )
    return tuple(given)


def _matches_nothing(option: str, pattern: str, names: Collection[str]) -> str:
    near = difflib.get_close_matches(pattern, filter(None, names), n=3)
    others = [name for name in names if name]
    some = ", ".join([*map(repr, others[:5]), *(["..."] if len(others) > 5 else [])]) or "no modules inside"
    hint = f"did you mean {' or '.join(map(repr, near))}? " if near else f"there are {some}. "
    return (
        f"option {option!r} has {pattern!r}, which matches no module; {hint}Patterns are globs on the names that "
        "named_modules() of the compiled or given model gives"
    )
