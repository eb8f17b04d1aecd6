"""Sphinx: Markdown pages, and the reference from the docstrings, which are Markdown too."""

import re
import sys
from importlib.metadata import version as installed
from inspect import getdoc
from pathlib import Path

from docutils.nodes import SkipNode, math_block
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx.util.logging import getLogger

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "docs")]  # benchmarks/ is not part of the installed package, nor is plots.py

project = "Rheobase"
author = copyright = "The Rheobase authors"
version = release = installed("rheobase")

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode"]
exclude_patterns = ["_build", "explanation/measured"]
html_math_renderer = "mathml"
html_theme = "furo"
html_title = f"Rheobase {release}"
myst_enable_extensions = ["dollarmath", "deflist"]
myst_heading_anchors = 3

default_role = "code"
autodoc_default_options = {"members": True}
autoclass_content = "both"
autodoc_inherit_docstrings = False
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
autodoc_typehints_format = "short"
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 100
napoleon_numpy_docstring = False
napoleon_use_rtype = False

CODE_OR_MATH_OR_MARK = re.compile(r"(?P<code>`[^`]+`)|\$(?P<math>[^$]+)\$|(?P<mark>[|*])")
SHORT_FRACTION = re.compile(r"\\frac(\d)(\d)")
INDENTED_BLOCK = re.compile(r"\n\n(?=    )")


def to_rst(app, what, name, obj, options, lines):  # noqa: ARG001
    """Rewrite what Markdown writes differently: math, `|` and `*`, blanks in code, the code of module docstrings."""

    def rewrite(found: re.Match[str]) -> str:
        if math := found["math"]:
            return f":math:`{' '.join(math.split())}`"
        if code := found["code"]:
            return f"`{code.strip('`').strip()}`"
        return "\\" + found["mark"]

    text = CODE_OR_MATH_OR_MARK.sub(rewrite, "\n".join(lines))
    if what == "module":
        text = INDENTED_BLOCK.sub("\n\n::\n\n", text, count=1)
    lines[:] = text.split("\n")


def draw_math(translator, node):
    """MathML, which a browser draws without script or network."""
    text = SHORT_FRACTION.sub(r"\\frac{\1}{\2}", node.astext())
    try:
        translator.body.append(tex2mathml(text, as_block=isinstance(node, math_block)))
    except Exception as error:
        getLogger(__name__).warning("this math cannot be drawn (%s): %s", error, text, location=node)
    raise SkipNode


def draw_measured(app):
    """The figures and tables of explanation/performance.md, from the committed tables."""
    from benchmarks.figures import pages

    out = Path(app.srcdir) / "explanation" / "measured"
    out.mkdir(exist_ok=True)
    (out / "measured.md").write_text(pages(ROOT / "results", out))


def fill_neurons(app, docname, source):  # noqa: ARG001
    """Draw the table of neurons from the registry: the first sentence of each docstring, its states and its source."""
    if docname != "explanation/neurons":
        return
    from rheobase.neurons import NEURONS

    rows = [("name", "equation", "states", "emits", "input", "source")]
    for name, entry in sorted(NEURONS.items()):
        paragraphs = [" ".join(p.split()) for p in getdoc(entry.make).split("\n\n")]
        neuron = entry.make() if entry.any_T else entry.make(T=4)
        found = next(p for p in paragraphs if p.startswith("Source: ")).removeprefix("Source: ")
        cells = (", ".join(neuron.scan.step.state) or "none", neuron.emits, f"{entry.drive / 2:g}", found)
        rows.append((f"`{name}`<br>{entry.make.__name__}", paragraphs[0], *cells))
    table = ["```{list-table}", ":header-rows: 1", ""]
    for row in rows:
        table += [("* - " if k == 0 else "  - ") + cell for k, cell in enumerate(row)]
    source[0] = source[0].replace("<!-- the table of neurons -->", "\n".join([*table, "```"]))


def fill_data(app, docname, source):  # noqa: ARG001
    """Tell what the registry knows of each data set, and see that the page names all that is public."""
    if docname != "reference/data":
        return
    from rheobase import data

    def describe(found: re.Match[str]) -> str:
        known = data.about(found[1])
        cells = (f"`{found[1]}`", known.kind, known.title, known.split, known.licence)
        return "* - " + "\n  - ".join(cells)

    told = {
        r"^\* - data set (\w+)$": data.list_datasets(),
        r"^\.\. autofunction:: rheobase\.data\.\w+\.(\w+)$": data.list_datasets(),
        r"^\| `(\w+)` \|": data.list_formats(),
        r"^\.\. auto(?:class|function|data):: (?:rheobase\.data\.events\.)?(\w+)$": data.__all__,
    }
    for pattern, names in told.items():
        if missing := sorted(set(names) - set(re.findall(pattern, source[0], re.MULTILINE))):
            getLogger(__name__).warning("%s.md has no line %s for %s", docname, pattern, ", ".join(missing))
    source[0] = re.sub(r"^\* - data set (\w+)$", describe, source[0], flags=re.MULTILINE)


PLACEHOLDER = re.compile(r"^<!-- (block|measured|plot): (.*?) -->$", re.MULTILINE | re.DOTALL)


def fill_networks(app, docname, source):  # noqa: ARG001
    """Put in the pictures of blocks, the tables of what was measured, and its curves."""
    if not docname.startswith(("networks/", "howto/", "explanation/")):
        return
    from plots import PLOTS

    from rheobase.files import read_table
    from rheobase.report.diagram import diagram
    from rheobase.report.results import accuracy_table

    def fill(found: re.Match[str]) -> str:
        kind, text = found[1], " ".join(found[2].split())
        if kind == "block":
            layers, _, shortcut = text.partition(";")
            return diagram([layer.strip() for layer in layers.split(">")], shortcut.strip())
        if kind == "measured":
            return accuracy_table(read_table(ROOT / "results" / "accuracy.csv"), text.split())
        return PLOTS[text](ROOT / "results")

    source[0] = PLACEHOLDER.sub(fill, source[0])


def setup(app):
    app.connect("builder-inited", draw_measured)
    app.connect("source-read", fill_neurons)
    app.connect("source-read", fill_data)
    app.connect("source-read", fill_networks)
    app.connect("autodoc-process-docstring", to_rst, priority=400)  # before napoleon, which reads the sections
    app.add_html_math_renderer("mathml", (draw_math, None), (draw_math, None))
