"""The examples of the documentation run as they stand, those of a page one after the other."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch

import xpu_amp_dynamo
from docs.generated_pages import POLICIES, api_reference, policy_table
from tests.conftest import skip_unless_simulated
from xpu_amp_dynamo.policy.policy import Policy, policy_names
from xpu_amp_dynamo.policy.tables import documented

ROOT = Path(__file__).parent.parent
DOCS = [path for path in sorted((ROOT / "docs").rglob("*.md")) if path.parent.name != "generated"]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *DOCS, ROOT / "xpu_amp_dynamo" / "simulator" / "README.md"]
FENCE = re.compile(r"^```(\S*)[^\n]*\n(.*?)^```$", re.M | re.S)
FENCES = {path: FENCE.findall(path.read_text()) for path in PAGES}
EXAMPLES = {path: [text for language, text in FENCES[path] if language == "python"] for path in PAGES}
SIMULATING = ("migration.md", "tune.md", "simulator/README.md")
WITH_EXAMPLES = [path for path in PAGES if EXAMPLES[path]]
# What else may stand in a fence: output, the shell, C++, and what Sphinx puts in another page or makes a page of.
NOT_RUN = {"", "sh", "toml", "cpp", "{toctree}", "{include}", "{eval-rst}"}
# Figures, lists, and what is run where it comes from.
WITHOUT_EXAMPLES = {
    "CONTRIBUTING.md",
    "api.md",
    "changelog.md",
    "command_reference.md",
    "contributing.md",
    "details.md",
    # It needs libraries, with which tests/integrations runs its examples.
    "integrations.md",
    "measurements.md",
    "overview.md",
    "simulator.md",
}


@pytest.mark.slow
@pytest.mark.parametrize("path", WITH_EXAMPLES, ids=lambda path: str(path.relative_to(ROOT)))
@pytest.mark.filterwarnings("ignore:.*GradScaler:UserWarning")
# PyTorch's own, where it packages exported programs, torch 2.13.0.
@pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning")
def test_examples_run(path, tmp_path, monkeypatch, capsys):
    if str(path).endswith(SIMULATING):
        skip_unless_simulated()
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    # The first lines of the README are about any model; each other page stands alone.
    given: dict[str, Any] = {}
    if path.name == "README.md":
        given = {"torch": torch, "model": torch.nn.Linear(64, 64), "x": torch.randn(8, 64)}
    for example in EXAMPLES[path]:
        exec(compile(example, path.name, "exec"), given)


def test_pages_have_examples():
    without = {path.name for path in PAGES if not EXAMPLES[path]}
    assert without == WITHOUT_EXAMPLES


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_example_escapes(path):
    """What looks like Python to a reader is run above: nothing is fenced in another way, or shown as a prompt."""
    text = path.read_text()
    languages = [language for language, _ in FENCES[path]]
    assert set(languages) - {"python"} <= NOT_RUN | ({"py"} if path.name == "integrations.md" else set())
    assert len(re.findall(r"^\s*(?:`{3,}|~{3,})", text, re.M)) == 2 * len(languages)
    assert not re.search(r"^\s*>>> ", text, re.M)
    shown = [text for language, text in FENCES[path] if language == ""]
    assert not [line for line in shown if re.match(r"(import|from|with|model =|torch\.)\b", line)]


def test_every_public_name_is_in_the_reference():
    described = re.findall(r"^\.\. auto\w+:: xpu_amp_dynamo\.(\w+)$", api_reference(), re.M)
    assert sorted(described) == sorted(xpu_amp_dynamo.__all__)


def test_the_table_says_what_the_policies_say():
    rows = dict(re.findall(r"^\| `(\w+)` \| (.*) \|$", policy_table(), re.M))
    assert set(POLICIES) == set(policy_names())
    assert rows.keys() == {op for name in POLICIES for op in Policy.named(name).categories}
    assert rows["mm"] == "lower precision * | lower precision | lower precision"
    assert rows["binary_cross_entropy"].endswith("| raises")
    starred = {op for op, row in rows.items() if "*" in row}
    listed = {*documented.LOWER_PRECISION, *documented.FLOAT32, *documented.PROMOTE}
    assert starred == Policy.named("xpu").categories.keys() - listed
