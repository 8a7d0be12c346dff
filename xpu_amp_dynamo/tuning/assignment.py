"""Which modules are kept in which precision, and the patterns that say so."""

from __future__ import annotations

import glob
import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase

# A number between dots: the place of a module in a list of alike ones.
NUMBER = re.compile(r"(?<![^.])\d+(?![^.])")


@dataclass(frozen=True)
class Assignment:
    """Modules that are kept in one precision, beside what the options say that the search starts from.

    Args:
        float32: qualified names of modules kept in float32.
        lower: of modules kept in the lower precision.
    """

    float32: frozenset[str] = frozenset()
    lower: frozenset[str] = frozenset()

    def keeping(self, modules: Iterable[str]) -> Assignment:
        """Return it with more modules in float32."""
        names = frozenset(modules)
        return Assignment(self.float32 | names, self.lower - names)

    def lowering(self, modules: Iterable[str]) -> Assignment:
        """Return it with more modules in the lower precision, but for those that are kept in float32."""
        return Assignment(self.float32, self.lower | (frozenset(modules) - self.float32))

    def without(self, modules: Iterable[str]) -> Assignment:
        """Return it without some modules: the policy decides on their calls, or a module around them does."""
        names = frozenset(modules)
        return Assignment(self.float32 - names, self.lower - names)

    def patterns(self, names: Collection[str]) -> dict[str, list[str]]:
        """Return the lists ``keep_float32`` and ``keep_lower`` of options, without those that are empty.

        Args:
            names: the names of all modules of the model.
        """
        lists = {"keep_float32": patterns_of(self.float32, names), "keep_lower": patterns_of(self.lower, names)}
        return {option: patterns for option, patterns in lists.items() if patterns}


def patterns_of(modules: Collection[str], names: Collection[str]) -> list[str]:
    """Return few globs that match the given modules and no others.

    Args:
        modules: qualified names.
        names: the names of all modules of the model, among them these.

    Example:
        >>> patterns_of(["layers.0.norm", "layers.1.norm"], ["", "layers", "layers.0.norm", "layers.1.norm"])
        ['layers.*.norm']
    """
    if modules and set(names) <= set(modules):
        return ["*"]
    left, patterns = set(modules), []
    for name in sorted(modules):
        if name in left:
            pattern = family_of(name)
            matched = {other for other in names if fnmatchcase(other, pattern)}
            if not matched <= set(modules):
                pattern, matched = glob.escape(name), {name}
            patterns.append(pattern)
            left -= matched
    return patterns


def family_of(name: str) -> str:
    """Return the glob that matches a module and those at its place in other members of the same lists."""
    return NUMBER.sub("*", glob.escape(name))


def by_family(modules: Iterable[str]) -> list[list[str]]:
    """Return modules by family, each module once, in the order in which families and modules come."""
    families: dict[str, dict[str, None]] = {}
    for module in modules:
        families.setdefault(family_of(module), {}).setdefault(module)
    return [list(members) for members in families.values()]
