"""Sphinx's configuration of the site. ``build.py`` stages the pages and calls Sphinx with it; nothing is fetched."""

from __future__ import annotations

import re
import sys
from importlib.metadata import version as version_of
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))  # the extension mathml.py beside this file

project = "kerneltrack"
author = "The kerneltrack developers"
copyright = author
version = release = version_of("kerneltrack")  # of the installed package, which autodoc imports too

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "mathml"]
source_suffix = {".md": "markdown", ".rst": "restructuredtext"}
nitpicky = False
keep_warnings = False

# The same Markdown is read on the repository's host: its dollars, its anchors, its tables.
myst_enable_extensions = ["dollarmath", "colon_fence", "attrs_block"]
myst_heading_anchors = 6
html_math_renderer = "mathml"

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 88
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True
add_module_names = False
toc_object_entries_show_parents = "hide"

html_theme = "furo"
html_title = "kerneltrack"
html_static_path = ["static"]
html_css_files = ["site.css"]
html_show_sourcelink = False
html_copy_source = False
html_show_search_summary = False  # a summary is fetched, which a browser refuses of files
html_show_sphinx = False
html_last_updated_fmt = None
pygments_style = "friendly"
pygments_dark_style = "github-dark"
_FONTS = {
    "font-stack": "system-ui, 'Segoe UI', Roboto, 'Helvetica Neue', 'Noto Sans', Arial, sans-serif",
    "font-stack--monospace": "ui-monospace, SFMono-Regular, Menlo, Consolas, 'Liberation Mono', 'DejaVu Sans Mono', monospace",
}
html_theme_options = {
    "light_css_variables": {"color-brand-primary": "#1f5fa8", "color-brand-content": "#1f5fa8", **_FONTS},
    "dark_css_variables": {"color-brand-primary": "#8ab8f0", "color-brand-content": "#8ab8f0", **_FONTS},
}


def keep_bars(app: Any, what: str, name: str, obj: object, options: object, lines: list[str]) -> None:
    """A docstring's |x| is an absolute value; in reStructuredText it would be a substitution. In ``code`` it stays as it is."""
    for at, line in enumerate(lines):
        if not line.lstrip().startswith(">>>"):
            lines[at] = re.sub(r"``.+?``|\|", lambda found: "\\|" if found[0] == "|" else found[0], line)


def setup(app: Any) -> None:
    app.connect("autodoc-process-docstring", keep_bars)
