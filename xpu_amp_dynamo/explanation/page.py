"""The page of an explanation: a template, and the data that its script shows."""

from __future__ import annotations

from importlib import resources
from typing import Any

import jinja2


def page_of(explanation: dict[str, Any]) -> str:
    """Return a page of HTML that holds an explanation and all that it takes to show it.

    Args:
        explanation: what :meth:`Explanation.to_json` writes.
    """
    folder = resources.files(__package__)
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    template = environment.from_string((folder / "page.html.jinja").read_text(encoding="utf-8"))
    style, script = ((folder / name).read_text(encoding="utf-8") for name in ("page.css", "page.js"))
    return template.render(explanation=explanation, style=style, script=script)
