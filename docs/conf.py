"""Sphinx: Markdown pages, and the reference from the docstrings, which are Markdown too."""

import re
from importlib.metadata import version as installed

project = "Rheobase"
author = copyright = "The Rheobase authors"
version = release = installed("rheobase")

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.mathjax", "sphinx.ext.viewcode"]
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = f"Rheobase {release}"
myst_enable_extensions = ["dollarmath", "deflist"]
myst_heading_anchors = 3

default_role = "code"
autodoc_default_options = {"members": True, "show-inheritance": True}
autoclass_content = "both"
autodoc_inherit_docstrings = False
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
autodoc_typehints_format = "short"
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 100
napoleon_numpy_docstring = False
napoleon_use_rtype = False

CODE_OR_MATH = re.compile(r"`[^`]+`|\$([^$]+)\$")
INDENTED_BLOCK = re.compile(r"\n\n(?=    )")


def to_rst(app, what, name, obj, options, lines):  # noqa: ARG001
    """Rewrite what Markdown and reStructuredText write differently: inline math and the code of module docstrings."""
    text = "\n".join(lines)
    text = CODE_OR_MATH.sub(lambda found: f":math:`{' '.join(found[1].split())}`" if found[1] else found[0], text)
    if what == "module":
        text = INDENTED_BLOCK.sub("\n\n::\n\n", text, count=1)
    lines[:] = text.split("\n")


def setup(app):
    """Before napoleon (priority 500), which reads the sections."""
    app.connect("autodoc-process-docstring", to_rst, priority=400)
