"""How Sphinx builds the documentation: ``make docs``."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import Any

import click
from docutils.nodes import Element
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.errors import ExtensionError

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
sys.path.insert(0, str(ROOT))

import xpu_amp_dynamo  # noqa: E402
from docs.generated_pages import write_generated_pages  # noqa: E402
from xpu_amp_dynamo.command_line.flags import CompilingCommand  # noqa: E402
from xpu_amp_dynamo.command_line.main import xpu_amp  # noqa: E402

project = "xpu_amp_dynamo"
release = version = xpu_amp_dynamo.__version__
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx_click"]
# What is included in another page is no page of its own.
exclude_patterns = ["generated"]
# Output of programs stands in fences without a language.
highlight_language = "none"
myst_heading_anchors = 4
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_preserve_defaults = True
python_use_unqualified_type_names = True
add_module_names = False
# What others document, whose indexes of names are not at hand where nothing can be downloaded.
nitpick_ignore_regex = [("py:.*", r"(torch|fx|rich|pathlib|contextlib|collections|typing|sympy|click)[.].*")]
smartquotes = False
html_theme = "furo"
html_title = f"xpu_amp_dynamo {release}"
html_theme_options = {"navigation_with_keys": True}
html_copy_source = False
html_show_copyright = False
# Files outside this folder that pages here include: links to them lead to these pages.
INCLUDED = {
    ROOT / "README.md": "overview.md",
    ROOT / "CONTRIBUTING.md": "contributing.md",
    ROOT / "CHANGELOG.md": "changelog.md",
    ROOT / "xpu_amp_dynamo" / "simulator" / "README.md": "simulator.md",
}
# Pages of the index that are left out of it where they are not there.
OPTIONAL = ("integrations", "migration")
LINK = re.compile(r"(?<=\]\()(?!https?:)([^)#]+)")


def link_page(app: Sphinx, docname: str, source: list[str]) -> None:
    """Let links of a page lead to pages of this documentation, and leave out what is not there."""
    source[0] = link_from(HERE, source[0])
    for page in OPTIONAL:
        if docname == "index" and page not in app.env.found_docs:
            source[0] = source[0].replace(f"\n{page}\n", "\n")


def link_included(app: Sphinx, path: Path, docname: str, content: list[str]) -> None:
    """Let links of an included file lead to pages of this documentation."""
    content[0] = link_from((HERE / path).resolve().parent, content[0])


def link_from(folder: Path, text: str) -> str:
    """Write the links of a text, which stands in a file of a folder, as links of a page of this documentation."""
    return LINK.sub(lambda match: _page_of((folder / match[1]).resolve()), text)


def _page_of(path: Path) -> str:
    return INCLUDED.get(path) or os.path.relpath(path, HERE)


def find_by_last_name(app: Sphinx, env: BuildEnvironment, node: pending_xref, content: Element) -> Element | None:
    """Resolve what docstrings call by its last name alone, and signatures by the module where it is defined."""
    domain, last = env.get_domain("py"), node["reftarget"].rpartition(".")[2]
    found = [name for name in domain.data["objects"] if name.rpartition(".")[2] == last]
    if node.get("refdomain") != "py" or len(found) != 1:
        return None
    target = found[0]
    return domain.resolve_xref(env, node["refdoc"], app.builder, "obj", target, node, content)


def shorten_defaults(
    app: Sphinx, what: str, name: str, described: object, options: object, signature: str | None, returned: str | None
) -> tuple[str | None, str | None]:
    """Write defaults that dataclasses make anew each time so that a signature stays Python."""
    return signature and signature.replace("<factory>", "..."), returned


def list_all_flags() -> None:
    """Give commands the flags that they make when they are asked: sphinx-click 6.2 looks at their ``params`` alone."""
    for name in xpu_amp.list_commands(click.Context(xpu_amp)):
        command = xpu_amp.get_command(click.Context(xpu_amp), name)
        if isinstance(command, CompilingCommand):
            flags = command.get_params(click.Context(command))
            command.params, command.__class__ = flags, click.Command


def check_public_names(app: Sphinx, env: BuildEnvironment) -> None:
    """Refuse a reference that lacks a public name.

    Raises:
        ExtensionError: it lacks one.
    """
    documented: dict[str, Any] = env.get_domain("py").data["objects"]
    missing = [name for name in xpu_amp_dynamo.__all__ if f"xpu_amp_dynamo.{name}" not in documented]
    if missing:
        raise ExtensionError(f"the reference lacks {missing}")


def setup(app: Sphinx) -> None:
    """Write the generated parts before pages are read, and say what is done when."""
    list_all_flags()
    write_generated_pages(HERE / "generated")
    app.connect("source-read", link_page)
    app.connect("include-read", link_included)
    app.connect("missing-reference", find_by_last_name)
    app.connect("autodoc-process-signature", shorten_defaults)
    app.connect("env-check-consistency", check_public_names)
