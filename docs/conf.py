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
sys.path.insert(0, str(ROOT))  # benchmarks/ is not part of the installed package

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


def plot_degradation(results):
    from rheobase.files import read_table
    from rheobase.report.results import curves, plot

    rows = [row for row in read_table(results / "accuracy.csv") if re.fullmatch(r"depth-[a-z]+-\d+", row["recipe"])]
    points = [
        {"block": kind, "layers": layers, "value": 100 * float(row["value"])}
        for row in rows
        for _, kind, layers in [row["recipe"].split("-")]
    ]
    return inline(plot(curves(points, "block", "layers"), "layers", "test accuracy (%)", log_x=True))


def rows_of(study, results):
    from rheobase.files import read_table

    return [row for row in read_table(results / "studies.csv") if row["study"] == study]


def plot_gradients(results):
    from rheobase.report.results import curves, plot

    rows = [row for row in rows_of("depth-gradients", results) if row["metric"] == "gradient ratio"]
    lines = curves(rows, "subject", "size")
    return inline(plot(lines, "blocks", "gradient below / above", log_x=True, log_y=True))


def plot_densities(results):
    from rheobase.report.results import curves, plot

    rows = rows_of("h2learn-densities", results)
    shown = ("spike rate", "window open", "du not zero", "do not zero", "enters the transposed product")
    lines = ["| a | " + " | ".join(shown) + " |", "|---" * (1 + len(shown)) + "|"]
    for subject in sorted({row["subject"] for row in rows}):
        cells = []
        for metric in shown:
            points = [row for row in rows if (row["subject"], row["metric"]) == (subject, metric)]
            (curve,) = curves(points, "subject", "size")
            cells.append(" / ".join(f"{mean:.2f}" for mean in curve.y))
        lines.append(f"| {subject.removeprefix('window ')} | {' | '.join(cells)} |")
    drawn = [
        {**row, "line": f"{row['metric']}, a = {row['subject'].removeprefix('window ')}"}
        for row in rows
        if row["metric"] in ("du not zero", "enters the transposed product")
    ]
    return "\n".join(lines) + "\n\n" + inline(plot(curves(drawn, "line", "size"), "layer", "share that is not zero"))


def table_of(rows, subjects, columns, head, digits=2):
    """Means over seeds: a line for each subject of the rows, a column for each (title, metric, size)."""
    lines = [f"| {head} | " + " | ".join(title for title, *_ in columns) + " |", "|---" * (1 + len(columns)) + "|"]
    for subject, shown in subjects.items():
        cells = []
        for _, metric, size in columns:
            wanted = (subject, metric, str(size))
            found = [float(row["value"]) for row in rows if (row["subject"], row["metric"], row["size"]) == wanted]
            mean = sum(found) / len(found) if found else None
            cells.append("" if mean is None else f"{mean:,.0f}" if mean >= 1000 else f"{mean:.{digits}f}")
        lines.append(f"| {shown} | {' | '.join(cells)} |")
    return "\n".join(lines)


def table_graph_norms(results):
    rows = rows_of("graph-norms", results)
    tables = []
    for metric in ("spikes a step of the first layer before training", "test accuracy"):
        flat = [{**row, "subject": row["subject"].split(", ")[0], "size": row["subject"].split()[-1]} for row in rows]
        columns = [(f"$V_{{th}}$ = {v}", metric, v) for v in sorted({row["size"] for row in flat}, key=float)]
        names = {"stfn": "STFN", "layer": "LayerNorm a step", "batch": "batch norm", "none": "none"}
        tables.append(table_of(flat, names, columns, metric))
    return "\n\n".join(tables)


def table_graph_depth(results):
    rows = rows_of("graph-depth", results)
    columns = [
        (f"{title}, {depth}", metric, depth)
        for title, metric in (("accuracy", "test accuracy"), ("energy", "Dirichlet energy"), ("cosine", "mean cosine"))
        for depth in (2, 4, 8)
    ]
    names = {"gcn": "GCN", "gc_snn, stfn": "GC-SNN", "gc_snn, none": "GC-SNN without norm"}
    return table_of(rows, names, columns, "network")


def table_graph_operations(results):
    rows = rows_of("graph-operations", results)
    columns = [
        (f"{data}, {hidden}", f"{data} {metric}", hidden)
        for data in ("cora", "citeseer", "pubmed")
        for hidden in (16, 64)
        for metric in ("share of multiplications",)
    ]
    flat = [
        {
            **row,
            "metric": f"{row['subject'].split(', ')[0]} {row['metric']}",
            "subject": row["subject"].partition(", ")[2],
        }
        for row in rows
    ]
    names = {
        "gc_snn / gcn, dense features": "multiplications / GCN, dense features",
        "gc_snn / gcn, sparse features": "multiplications / GCN, sparse features",
    }
    shares = table_of(flat, names, columns, "share", 3)
    energies = [(title, metric.replace("multiplications", "energy"), size) for title, metric, size in columns]
    names = {name: text.replace("multiplications", "energy") for name, text in names.items()}
    return shares + "\n" + "\n".join(table_of(flat, names, energies, "share", 3).splitlines()[2:])


PRUNING = ("LATS", "ADMM", "magnitude", "gradual magnitude", "linear threshold")


def plot_compression(study):
    """Accuracy over zeros, a line a method, and over the bits that are left, those of 3 bits too."""

    def draw(results):
        from rheobase.report.results import curves, plot

        rows = rows_of(study, results)
        storage = {
            (row["subject"], row["size"], row["seed"]): row["value"] for row in rows if "storage" in row["metric"]
        }
        found = [row for row in rows if row["metric"] == "accuracy, %" and row["subject"] != "dense"]
        over_zeros = curves([row for row in found if row["subject"] in PRUNING], "subject", "size")
        shown = (*PRUNING, *(f"{name}, 3 bits" for name in PRUNING))
        points = [
            {**row, "storage": storage[row["subject"], row["size"], row["seed"]]}
            for row in found
            if row["subject"] in shown
        ]
        lines = [of_means(points, subject) for subject in shown if any(row["subject"] == subject for row in points)]
        return "\n\n".join(
            (
                inline(plot(over_zeros, "zeros (%)", "test accuracy (%)")),
                inline(plot(lines, "storage (% of fp32)", "test accuracy (%)", log_x=True)),
            )
        )

    return draw


def of_means(points, subject):
    """A curve through the means over seeds of what has equal size."""
    from rheobase.report.results import Curve

    by_size = {}
    for row in points:
        if row["subject"] == subject:
            by_size.setdefault(row["size"], []).append((float(row["storage"]), float(row["value"])))
    means = sorted(tuple(sum(each) / len(each) for each in zip(*pairs, strict=True)) for pairs in by_size.values())
    return Curve(subject, *map(tuple, zip(*means, strict=True)))


def table_compression(study, sizes):
    """Accuracy, lost points and operations of every method; means over seeds."""

    def draw(results):
        rows = rows_of(study, results)
        subjects = {row["subject"]: row["subject"] for row in rows}
        columns = [
            (f"{title}, {size} %", metric, size)
            for title, metric in (("accuracy", "accuracy, %"), ("lost", "lost points"))
            for size in sizes
        ]
        pruned = {name: name for name in subjects if name.partition(",")[0] in PRUNING}
        whole = [("accuracy", "accuracy, %", 0), ("lost", "lost points", 0), ("spikes", "spikes, % of dense", 0)]
        others = {name: name for name in subjects if name not in pruned}
        return "\n\n".join(
            (table_of(rows, pruned, columns, "method, zeros"), table_of(rows, others, whole, "without pruning"))
        )

    return draw


PLOTS = {
    "compression-digits": plot_compression("compression-digits"),
    "compression-mnist": table_compression("compression-mnist", (90, 95)),
    "degradation": plot_degradation,
    "depth-gradients": plot_gradients,
    "h2learn-densities": plot_densities,
    "graph-norms": table_graph_norms,
    "graph-depth": table_graph_depth,
    "graph-operations": table_graph_operations,
}


def inline(svg):
    """SVG text for the middle of a page: without what only files have."""
    return '<div class="plot">' + re.sub(r"\s*\n\s*", " ", svg[svg.index("<svg") :]) + "</div>"


def setup(app):
    app.connect("builder-inited", draw_measured)
    app.connect("source-read", fill_neurons)
    app.connect("source-read", fill_data)
    app.connect("source-read", fill_networks)
    app.connect("autodoc-process-docstring", to_rst, priority=400)  # before napoleon, which reads the sections
    app.add_html_math_renderer("mathml", (draw_math, None), (draw_math, None))
