"""Policies: which ops run in lower precision, in float32, in the widest dtype of their inputs or in the first's."""

from __future__ import annotations

import difflib
import functools
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

from xpu_amp_dynamo.errors import OverlappingOpsError, UnknownOpError, UnknownPolicyError
from xpu_amp_dynamo.policy.cast_rule import Category
from xpu_amp_dynamo.policy.listable import refuse_unlistable
from xpu_amp_dynamo.policy.op_names import overloads_of, resolve_op
from xpu_amp_dynamo.policy.tables import completion, documented, ipex, torch_xpu
from xpu_amp_dynamo.policy.tables.opaque import OPAQUE

Op = str | Callable[..., Any]
# Follows the name of a policy that was derived from another.
CHANGED = " (changed)"


@dataclass(frozen=True, init=False)
class Policy:
    """An autocast policy: lists of op names. An op in no list runs in the type of its inputs.

    Args:
        name: what the policy is called in messages.
        lower_precision: ops that run in the region's dtype, bfloat16 or float16.
        float32: ops that run in float32.
        promote: ops that run in the widest dtype among their inputs.
        banned: ops that raise inside a region.
        casts_inside_kernels: whether eager regions also cast for listed ops that the compiled kernel of an unlisted op
            calls, as those of stock PyTorch do. Compiled code cannot.
        follow: ops that run in the dtype of their first tensor, beside float32 parameters where kernels take them.

    Each list takes op names, callables such as ``torch.nn.functional.softmax``, and overloads.

    Raises:
        UnknownOpError: an entry is no registered out-of-place op.
        UnlistableOpError: an op cannot work in its list: it is a cast or returns a view, or it writes to its arguments.
        OverlappingOpsError: an op stands in two lists.

    Example:
        >>> policy = Policy.named("xpu").with_ops(float32=["softmax"], lower_precision=["mylib::attention"])
    """

    name: str
    lower_precision: frozenset[str]
    float32: frozenset[str]
    promote: frozenset[str]
    banned: frozenset[str]
    casts_inside_kernels: bool
    follow: frozenset[str]

    # Written out, since the fields hold less than what the lists may be given as.
    def __init__(
        self,
        name: str,
        lower_precision: Iterable[Op] = (),
        float32: Iterable[Op] = (),
        promote: Iterable[Op] = (),
        banned: Iterable[Op] = (),
        casts_inside_kernels: bool = False,
        follow: Iterable[Op] = (),
    ) -> None:
        given = {
            "lower_precision": lower_precision,
            "float32": float32,
            "promote": promote,
            "banned": banned,
            "follow": follow,
        }
        lists = {category: _resolve_all(category, ops) for category, ops in given.items()}
        _refuse_overlap(lists)
        refuse_unlistable({name: ops for name, ops in lists.items() if name != Category.BANNED.value})
        for field, value in {"name": name, "casts_inside_kernels": casts_inside_kernels, **lists}.items():
            object.__setattr__(self, field, value)

    @staticmethod
    def named(name: str) -> Policy:
        """Return a named policy.

        Args:
            name: ``"xpu"`` (Intel's documented lists, completed for the mixtures of dtypes that they
                produce), ``"ipex"`` (what Intel Extension for PyTorch 2.1 registered) or ``"torch"``
                (stock PyTorch's table for XPU).

        Raises:
            UnknownPolicyError: there is no such policy.
        """
        if name not in _TABLES:
            near = difflib.get_close_matches(str(name), _TABLES, n=1)
            hint = f"did you mean {near[0]!r}? The" if near else "the"
            raise UnknownPolicyError(f"unknown policy {name!r}; {hint} named policies are {policy_names()}")
        return _named(name)

    def with_ops(
        self,
        *,
        lower_precision: Iterable[Op] = (),
        float32: Iterable[Op] = (),
        promote: Iterable[Op] = (),
        follow: Iterable[Op] = (),
        leave: Iterable[Op] = (),
    ) -> Policy:
        """Return a copy in which the named ops have moved to the given lists.

        Args:
            lower_precision: ops to run in the region's dtype.
            float32: ops to run in float32.
            promote: ops to run in the widest dtype of their inputs.
            follow: ops to run in the dtype of their first tensor.
            leave: ops to take out of every list.

        Raises:
            UnknownOpError: an entry is no registered out-of-place op.
            UnlistableOpError: an op cannot work in its list: it is a cast, returns a view, or writes to its arguments.
            OverlappingOpsError: one call names an op in two lists.
        """
        moves = {
            "lower_precision": _resolve_all("lower_precision", lower_precision),
            "float32": _resolve_all("float32", float32),
            "promote": _resolve_all("promote", promote),
            "follow": _resolve_all("follow", follow),
            "leave": _resolve_all("leave", leave),
        }
        _refuse_overlap(moves)
        moved = frozenset().union(*moves.values())
        lists = {c.value: (getattr(self, c.value) - moved) | moves.get(c.value, frozenset()) for c in Category}
        return replace(self, name=self.name.removesuffix(CHANGED) + CHANGED, **lists)

    def category(self, op: Op) -> Category | None:
        """Return what the policy does with an op; None if it lists it nowhere.

        Args:
            op: what the lists take: a name, a callable or an overload.

        Raises:
            UnknownOpError: it is no registered out-of-place op.

        Example:
            >>> Policy.named("xpu").category(torch.nn.functional.softmax)
        """
        return self.categories.get(resolve_op(op))

    @functools.cached_property
    def opaque_ops(self) -> frozenset[str]:
        """Unlisted ops inside of which autocast is off, since their compiled kernels call ops that are cast.

        Some of the table are new in later versions of torch than this one.
        """
        cast = self.lower_precision | self.float32
        calling = (op for op, called in OPAQUE.items() if cast.intersection(called) and overloads_of(op))
        return frozenset(calling if not self.casts_inside_kernels else ()) - self.categories.keys()

    @functools.cached_property
    def categories(self) -> dict[str, Category]:
        """Every listed op with what the policy does with it."""
        return {op: category for category in Category for op in getattr(self, category.value)}

    def __str__(self) -> str:
        lists = (f"  {c.value}: {', '.join(sorted(getattr(self, c.value))) or '-'}" for c in Category)
        return "\n".join([f"Policy {self.name!r}", *lists])


def _resolve_all(name: str, ops: object) -> frozenset[str]:
    """Return the names of the ops that are given for one list."""
    if isinstance(ops, str) or not isinstance(ops, Iterable):
        raise UnknownOpError(f"{name} is {ops!r}; give a list of ops, such as {name}=['softmax']")
    return frozenset(map(resolve_op, ops))


def as_policy(policy: Policy | str | None) -> Policy:
    """Return the policy that a user means.

    Args:
        policy: a policy, the name of one, or None for ``"xpu"``.

    Raises:
        UnknownPolicyError: it is anything else.
    """
    if policy is None or isinstance(policy, str):
        return Policy.named("xpu" if policy is None else policy)
    if not isinstance(policy, Policy):
        raise UnknownPolicyError(f"{policy!r} is no policy; give a Policy or the name of one: {policy_names()}")
    return policy


def policy_names() -> list[str]:
    """Return the names of the named policies."""
    return sorted(_TABLES)


def _refuse_overlap(lists: dict[str, frozenset[str]]) -> None:
    """Raise if an op stands in two of the lists."""
    for op in sorted(frozenset().union(*lists.values())):
        holders = [name for name, ops in lists.items() if op in ops]
        if len(holders) > 1:
            raise OverlappingOpsError(f"op {op!r} stands in {' and '.join(holders)}; name it in one list only")


_TABLES = {
    "xpu": {
        "lower_precision": documented.LOWER_PRECISION + completion.LOWER_PRECISION,
        "float32": documented.FLOAT32,
        "promote": documented.PROMOTE + completion.PROMOTE,
        "follow": completion.FOLLOW,
    },
    # Norms of that extension read float32 parameters beside an input in lower precision; PyTorch's for GPUs refuse it.
    "ipex": {
        "lower_precision": ipex.LOWER_PRECISION,
        "float32": ipex.FLOAT32,
        "promote": ipex.PROMOTE,
        "follow": completion.FOLLOW,
    },
    "torch": {
        "lower_precision": torch_xpu.LOWER_PRECISION,
        "float32": torch_xpu.FLOAT32,
        "promote": torch_xpu.PROMOTE,
        "banned": torch_xpu.BANNED,
    },
}


@functools.cache
def _named(name: str) -> Policy:
    """Build a named policy once."""
    lists = {category: frozenset(ops) for category, ops in _TABLES[name].items()}
    return Policy(name, **lists, casts_inside_kernels=name == "torch")
