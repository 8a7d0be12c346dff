"""The page of an explanation holds all of it, needs nothing else, and works in a browser by mouse and keyboard."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess

import pytest
import torch
from torch import nn

import xpu_amp_dynamo

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
# What a user does, one step after the other; each gives what the page then shows.
STEPS = """
const keyDown = (key) => new KeyboardEvent("keydown", { key, bubbles: true, cancelable: true });
const press = (element, key) => element.dispatchEvent(keyDown(key));
const rows = () => document.querySelectorAll("#nodes tr").length;
const choose = (id, value) => { byId(id).value = value; byId(id).dispatchEvent(new Event("input")); return rows(); };
const seen = {};
seen.all = rows();
seen.modules = [...document.querySelectorAll("#modules button")].map((block) => block.title.split(":")[0]);
seen.lower = choose("kind", "lower");
seen.casts = choose("kind", "cast");
choose("kind", "");
seen.searched = choose("search", "gelu");
choose("search", "");
choose("order", "bytes");
seen.largest = document.querySelector("#nodes td:nth-child(2)").textContent;
choose("order", "");
document.querySelectorAll("#modules button")[0].focus();
press(document.activeElement, "ArrowDown");
press(document.activeElement, "ArrowRight");
seen.focused = document.activeElement.title.split(":")[0];
document.activeElement.click();
seen.selected = rows();
press(document.querySelector("#nodes tr"), "Enter");
seen.detail = byId("detail").textContent;
press(document.body, "/");
seen.searching = document.activeElement.id;
press(document.body, "Escape");
seen.afterwards = [rows(), byId("detail").hidden];
const before = getComputedStyle(document.body).backgroundColor;
byId("theme").click();
seen.dark = before !== getComputedStyle(document.body).backgroundColor;
document.body.replaceChildren(make("pre", { id: "seen", textContent: JSON.stringify(seen) }));
"""


@pytest.fixture
def explanation():
    model = nn.Sequential(nn.Linear(16, 32), nn.GELU(), nn.Linear(32, 4), nn.LogSoftmax(-1))
    return xpu_amp_dynamo.explain(model, torch.randn(8, 16), options={"inner_backend": "eager"}, compare="float32")


def test_the_page_holds_everything_and_needs_nothing_else(explanation, tmp_path):
    explanation.to_html(tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text()
    (data,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    assert json.loads(data) == json.loads(explanation.to_json())
    assert not re.search(r"(src|href)=|url\(|https?:|import ", page)


def test_text_of_users_is_no_code(tmp_path):
    def function(x):
        return x @ x  # </script><script>document.title = "written"</script> & <b>

    function.__name__ = "</title><script>alert(1)</script>"
    explanation = xpu_amp_dynamo.explain(function, torch.randn(4, 4), options={"inner_backend": "eager"})
    explanation.to_html(tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text()
    assert page.count("<script") == 2
    assert page.count("</title>") == 1


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed")
def test_the_page_works_in_a_browser(explanation, tmp_path):
    assert CHROMIUM is not None
    path = tmp_path / "page.html"
    explanation.to_html(path)
    path.write_text(path.read_text().replace("</body>", f"<script>{STEPS}</script></body>"))
    command = [CHROMIUM, "--headless=new", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'user'}"]
    done = subprocess.run(
        [*command, "--virtual-time-budget=2000", "--dump-dom", path.as_uri()],
        capture_output=True,
        text=True,
        timeout=120,
    )
    (found,) = re.findall(r'<pre id="seen">(.*?)</pre>', done.stdout, re.DOTALL)
    seen = json.loads(html.unescape(found))
    casts, calls = len(explanation.casts), explanation.calls
    lower = [call for call in calls if torch.bfloat16 in call.output_dtypes]
    of_second = [node for node in explanation.nodes if node.module == "1"]
    assert (seen["all"], seen["casts"], seen["lower"]) == (len(calls) + casts, casts, len(lower))
    assert seen["modules"] == ["Sequential", "0", "1", "2", "3"]
    assert (seen["searched"], seen["largest"]) == (1, "cast of a weight")
    assert (seen["focused"], seen["selected"]) == ("1", len(of_second))
    assert "gelu" in seen["detail"]
    assert "because" in seen["detail"]
    assert (seen["searching"], seen["afterwards"], seen["dark"]) == ("search", [len(calls) + casts, True], True)
