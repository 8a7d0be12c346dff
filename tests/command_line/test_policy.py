"""``policy show`` and ``policy diff``."""

from __future__ import annotations

import json

import pytest

from xpu_amp_dynamo import Policy


def test_lists_of_a_policy(run):
    result = run("policy", "show", "xpu", "--json", "xpu.json")
    assert result.exit_code == 0
    assert "scaled_dot_product_attention" in result.stdout
    assert max(map(len, result.stdout.splitlines())) <= 80
    with open("xpu.json") as file:
        lists = json.load(file)["policies"]["xpu"]
    assert lists["float32"] == sorted(Policy.named("xpu").float32)


def test_all_policies_are_counted(run):
    result = run("policy", "show", "--json", "-")
    document = json.loads(result.stdout)
    assert set(document["policies"]) == {"ipex", "torch", "xpu"}
    assert str(len(document["policies"]["torch"]["float32"])) in result.stderr


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["xpu", "--op", "softmax"], "softmax is in no list: runs in the dtype of its inputs by policy 'xpu'\n"),
        (["torch", "--op", "softmax"], "softmax runs in float32 by policy 'torch'\n"),
        (["xpu", "--op", "cross_entropy"], "cross_entropy_loss runs in float32 by policy 'xpu'\n"),
    ],
)
def test_what_a_policy_does_with_an_op(run, words, text):
    assert run("policy", "show", *words).stdout == text


def test_what_all_policies_do_with_an_op(run):
    document = json.loads(run("policy", "show", "--op", "layer_norm", "--json", "-").stdout)
    assert document["policies"]["xpu"] == "follow"
    assert len(document["policies"]) == 3


def test_an_unknown_op_is_named_with_its_neighbours(run):
    result = run("policy", "show", "--op", "sofmax")
    assert result.exit_code == 2
    assert "softmax" in result.stderr


def test_ops_with_which_two_policies_differ(run):
    document = json.loads(run("policy", "diff", "xpu", "torch", "--json", "-").stdout)
    assert document["ops"]["softmax"] == {"xpu": "-", "torch": "float32"}
    assert "linear" not in document["ops"]
    same = run("policy", "diff", "xpu", "xpu")
    assert same.exit_code == 0
    assert "0 of " in same.stdout
