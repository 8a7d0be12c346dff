"""``xpu-amp policy``: which op runs in which dtype."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from xpu_amp_dynamo.command_line.output import console_for, json_option, write_json

if TYPE_CHECKING:
    from xpu_amp_dynamo.policy.policy import Policy

NOT_LISTED = "-"
# What becomes of an op that no list has.
MEANINGS = {
    "lower_precision": "runs in the lower precision",
    "float32": "runs in float32",
    "promote": "runs in the widest dtype of its inputs",
    "follow": "runs in the dtype of its first input",
    "banned": "raises",
    NOT_LISTED: "is in no list: runs in the dtype of its inputs",
}


@click.group("policy")
def command() -> None:
    """Show and compare the named policies."""


@command.command("show")
@click.argument("name", required=False)
@click.option("--op", help="Show only what the policy does with this op, such as softmax or mylib::attention.")
@json_option()
def show(name: str | None, op: str | None, json_file: str | None) -> None:
    """Show the lists of a policy, or what all policies do with an op."""
    from xpu_amp_dynamo.policy.op_names import resolve_op
    from xpu_amp_dynamo.policy.policy import Policy, policy_names

    policies = [Policy.named(each) for each in ([name] if name else policy_names())]
    console = console_for(json_file)
    if op is not None:
        op = resolve_op(op)
        words = {policy.name: _category(policy, op) for policy in policies}
        for policy_name, word in words.items():
            console.print(f"{op} {MEANINGS[word]} by policy {policy_name!r}", soft_wrap=True)
        write_json({"command": "policy show", "op": op, "policies": words}, json_file)
        return
    _print_lists(policies, json_file)


@command.command("diff")
@click.argument("first")
@click.argument("second")
@json_option()
def diff(first: str, second: str, json_file: str | None) -> None:
    """Show the ops with which two policies do something else."""
    from rich.table import Table

    from xpu_amp_dynamo.policy.policy import Policy

    one, other = Policy.named(first), Policy.named(second)
    ops = sorted(one.categories.keys() | other.categories.keys())
    both = ((op, _category(one, op), _category(other, op)) for op in ops)
    rows = [row for row in both if row[1] != row[2]]
    table = Table("op", first, second, caption=f"{len(rows)} of {len(ops)} listed ops differ; {NOT_LISTED}: no list")
    for row in rows:
        table.add_row(*row)
    console_for(json_file).print(table)
    document = {"command": "policy diff", "first": first, "second": second}
    write_json({**document, "ops": {op: {first: a, second: b} for op, a, b in rows}}, json_file)


def _category(policy: Policy, op: str) -> str:
    """Return the list of a policy that an op stands in."""
    category = policy.categories.get(op)
    return category.value if category else NOT_LISTED


def _print_lists(policies: Sequence[Policy], json_file: str | None) -> None:
    """Print the lists of policies: the ops of one policy, else how many there are."""
    from rich.table import Table

    from xpu_amp_dynamo.policy.cast_rule import Category

    lists = {policy.name: {c.value: sorted(getattr(policy, c.value)) for c in Category} for policy in policies}
    table = Table("list", *(lists if len(lists) > 1 else ("ops",)), title="" if len(lists) > 1 else policies[0].name)
    for category in Category:
        columns = [of_policy[category.value] for of_policy in lists.values()]
        cells = [str(len(ops)) if len(lists) > 1 else ", ".join(ops) or NOT_LISTED for ops in columns]
        table.add_row(category.value, *cells)
    console_for(json_file).print(table)
    write_json({"command": "policy show", "policies": lists}, json_file)
