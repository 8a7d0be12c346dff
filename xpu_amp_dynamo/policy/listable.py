"""Which ops a policy may list: those whose inputs can be cast without changing what the program means."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from xpu_amp_dynamo.compat.op_types import schema_of
from xpu_amp_dynamo.errors import UnlistableOpError
from xpu_amp_dynamo.policy.op_names import overloads_of
from xpu_amp_dynamo.policy.tables import unmarked

# Ops that are views by their schemas, as they may return their input, and that are better called what they are.
_CASTS = frozenset((*unmarked.CASTS, "to", "_autocast_to_full_precision", "_autocast_to_reduced_precision"))


def refuse_unlistable(lists: Mapping[str, Iterable[str]]) -> None:
    """Raise if a list holds an op that cannot work there.

    Args:
        lists: op names by the name of their list: ``lower_precision``, ``float32``, ``promote``, ``follow``.

    Raises:
        UnlistableOpError: an op is a cast, returns a view of its input, or would write to the cast of an argument.
    """
    for name, ops in lists.items():
        for op in sorted(ops):
            reason = _reason_against(op, name)
            if reason:
                raise UnlistableOpError(f"op {op!r} cannot stand in {name}: {reason}")


def _reason_against(op: str, name: str) -> str | None:
    """Say why an op cannot stand in a list, and what to do; None if it can."""
    if op in _CASTS:
        return "it is a cast, whose dtype the program chooses; leave it out"
    if op in unmarked.VIEWS or any(r.alias_info for o in overloads_of(op) for r in schema_of(o).returns):
        return (
            "it returns its input or a view of it, and what is written to a view of a cast never reaches the input; "
            "list the ops that read the result instead"
        )
    written = unmarked.WRITTEN_ARGUMENTS.get(op, ())
    if written and name == "lower_precision":
        return (
            f"it writes to {' and '.join(written)}, which would have to be in lower precision too; name it in float32 "
            "or promote, which leave these as they are, or in no list"
        )
    return None
