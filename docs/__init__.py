"""The documentation: pages in Markdown, and the programs that Sphinx builds them with."""
