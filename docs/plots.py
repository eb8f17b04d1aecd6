"""Tables and curves of the committed results, one function for each mark `<!-- plot: NAME -->` of a page."""

import re

from rheobase.files import read_table
from rheobase.report.results import Curve, curves, plot


def plot_degradation(results):
    rows = [row for row in read_table(results / "accuracy.csv") if re.fullmatch(r"depth-[a-z]+-\d+", row["recipe"])]
    points = [
        {"block": kind, "layers": layers, "value": 100 * float(row["value"])}
        for row in rows
        for _, kind, layers in [row["recipe"].split("-")]
    ]
    return inline(plot(curves(points, "block", "layers"), "layers", "test accuracy (%)", log_x=True))


def rows_of(study, results):
    return [row for row in read_table(results / "studies.csv") if row["study"] == study]


def plot_gradients(results):
    rows = [row for row in rows_of("depth-gradients", results) if row["metric"] == "gradient ratio"]
    lines = curves(rows, "subject", "size")
    return inline(plot(lines, "blocks", "gradient below / above", log_x=True, log_y=True))


def plot_densities(results):
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


def table_graph_steps(results):
    rows = rows_of("graph-steps", results)
    columns = [
        (f"{title}, T = {T}", metric, T)
        for title, metric in (("accuracy", "test accuracy"), ("spikes a step", "spikes a step of the first layer"))
        for T in (4, 8, 16)
    ]
    return table_of(rows, {"gc_snn": "GC-SNN"}, columns, "network", 3)


def table_graph_operations(results):
    rows = rows_of("graph-operations", results)
    columns = [
        (f"{data}, {hidden}", f"{data} share of multiplications", hidden)
        for data in ("cora", "citeseer", "pubmed")
        for hidden in (16, 64)
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
    by_size = {}
    for row in points:
        if row["subject"] == subject:
            by_size.setdefault(row["size"], []).append((float(row["storage"]), float(row["value"])))
    means = sorted(tuple(sum(each) / len(each) for each in zip(*pairs, strict=True)) for pairs in by_size.values())
    return Curve(subject, *map(tuple, zip(*means, strict=True)))


def table_compression(study, sizes):
    """Accuracy and lost points of every method, by how much LATS wins, spikes without pruning; means over seeds."""

    def draw(results):
        rows = rows_of(study, results)
        subjects = {row["subject"]: row["subject"] for row in rows if row["metric"] == "accuracy, %"}
        compared = {row["subject"]: row["subject"] for row in rows if row["metric"] == "points"}
        columns = [
            (f"{title}, {size} %", metric, size)
            for title, metric in (("accuracy", "accuracy, %"), ("lost", "lost points"))
            for size in sizes
        ]
        pruned = {name: name for name in subjects if name.partition(",")[0] in PRUNING}
        whole = [("accuracy", "accuracy, %", 0), ("lost", "lost points", 0), ("spikes", "spikes, % of dense", 0)]
        others = {name: name for name in subjects if name not in pruned}
        return "\n\n".join(
            (
                table_of(rows, pruned, columns, "method, zeros"),
                table_of(rows, compared, [(f"{size} %", "points", size) for size in sizes], "points more"),
                table_of(rows, others, whole, "without pruning"),
            )
        )

    return draw


ATTACKED = {"mnist": "MNIST", "fashion-mnist": "Fashion-MNIST", "event-digits": "event digits"}
FLIPS = {
    "flips": "flips",
    "flips, threshold 1": "flips, threshold 1",
    "flips, adaptive": "flips, wide surrogate",
    "flips, adaptive, threshold 1": "flips, wide surrogate and threshold 1",
    "flips within the events": "flips, at most the number of events",
    "flips within the events, threshold 1": "the same, threshold 1",
    "flips within the events, adaptive": "the same, wide surrogate",
    "flips within the events, adaptive, threshold 1": "the same, both",
    "worst of flips within the events": "the worst of these",
    "random flips, as many as within the events": "as many random flips as flips at most the number of events",
    "random flips, as many as within the events, best of 25": "the best of 25 times as many random flips",
    "image, threshold 1": "change of the image, threshold 1",
}


def percent_of_attacks(results):
    """Rows of all studies attack-curves-*, in percent; the size is the data set."""
    for data in ATTACKED:
        for row in rows_of(f"attack-curves-{data}", results):
            subject = row["subject"].partition(", ")[2]
            yield {**row, "subject": subject, "size": data, "value": 100 * float(row["value"])}


def table_attacks(results):
    """Success of every attack, a line an attack and goal."""
    rows = [row for row in percent_of_attacks(results) if row["metric"] == "success"]
    told = {row["subject"] for row in rows}
    names = {
        f"{attack}, {goal}": f"{shown}, {goal}"
        for goal in ("untargeted", "targeted")
        for attack, shown in FLIPS.items()
        if f"{attack}, {goal}" in told
    }
    return table_of(rows, names, [(shown, "success", data) for data, shown in ATTACKED.items()], "success, %", 1)


def plot_attacks(results):
    """Success with threshold 1 over the share of flipped bits."""
    found = re.compile(r"flips, threshold 1, (untargeted|targeted), at most ([\d.]+)")
    points = [
        {"line": f"{ATTACKED[row['size']]}, {at[1]}", "at": 100 * float(at[2]), "value": row["value"]}
        for row in percent_of_attacks(results)
        if (at := found.fullmatch(row["subject"]))
    ]
    return inline(plot(curves(points, "line", "at"), "flipped bits, at most (%)", "success (%)", log_x=True))


def plot_thresholds(data):
    """Success of targeted attacks, and samples without any gradient, over the threshold."""

    def draw(results):
        how = re.compile(rf"{data}, (\w+), threshold ([\d.]+), window (\w+)(?:, flips, targeted)?")
        shown = {"success": "targeted success (%)", "clean samples without gradient": "samples without gradient (%)"}
        points = [
            {
                "line": f"{'cross-entropy' if at[1] == 'cross_entropy' else 'MSE'}, window {at[3]}",
                "threshold": at[2],
                "value": 100 * float(row["value"]),
                "metric": row["metric"],
            }
            for row in rows_of(f"attack-threshold-{data}", results)
            if (at := how.fullmatch(row["subject"])) and row["metric"] in shown
        ]
        return "\n\n".join(
            inline(
                plot(
                    curves([row for row in points if row["metric"] == metric], "line", "threshold"),
                    "threshold of the last hidden layer while gradients are computed",
                    label,
                    log_x=True,
                )
            )
            for metric, label in shown.items()
        )

    return draw


ANN = {"attacked-mnist-ann": "ReLU", "attacked-mnist-direct": "spikes, current", "attacked-mnist": "spikes, Bernoulli"}


def plot_ann(results):
    """Success over epsilon: the worst of all methods in the box, a line a network."""
    found = re.compile(r"([\w-]+), worst in the box, untargeted, at most ([\d.]+)")
    points = [
        {"line": ANN[at[1]], "at": at[2], "value": 100 * float(row["value"])}
        for row in rows_of("attack-ann", results)
        if row["metric"] == "success" and (at := found.fullmatch(row["subject"]))
    ]
    return inline(plot(curves(points, "line", "at"), "epsilon", "success (%)", log_x=True))


def in_percent(rows):
    return [{**row, "size": "", "value": 100 * float(row["value"])} for row in rows]


def table_transfer(results):
    rows = in_percent(rows_of("attack-transfer", results))
    names = {
        f"event-digits, transfer, {attack}, untargeted": shown
        for attack, shown in FLIPS.items()
        if attack.startswith("flips") and "within" not in attack
    }
    return table_of(rows, names, [("misnamed by the other victim, %", "success", "")], "flips made on one victim", 1)


def table_defences(results):
    """What each defence leaves: a line a defence, a column an attack within the number of events."""
    before, shown = "named rightly before", {"success": "", "mean perturbation": ", bits"}
    rows = in_percent(rows_of("attack-defences", results))
    defences = dict.fromkeys(row["subject"] for row in rows if row["metric"] == before)
    flat = [
        {
            **row,
            "subject": name,
            "metric": row["subject"].removeprefix(f"{name}, ").removesuffix(", untargeted") + shown[row["metric"]],
        }
        for row in rows
        for name in defences
        if row["metric"] in shown and row["subject"].startswith((f"{name}, flips within", f"{name}, worst"))
    ]
    columns = [
        ("named rightly before", before, ""),
        ("fooled: flips", "flips within the events", ""),
        ("threshold 1", "flips within the events, threshold 1", ""),
        ("wide surrogate", "flips within the events, adaptive", ""),
        ("both", "flips within the events, adaptive, threshold 1", ""),
        ("the worst", "worst of flips within the events", ""),
        ("bits flipped by both", "flips within the events, adaptive, threshold 1, bits", ""),
    ]
    return table_of(
        [*flat, *(row for row in rows if row["metric"] == before)],
        {name: name for name in defences},
        columns,
        "defence, %",
        1,
    )


PLOTS = {
    "attacks": table_attacks,
    "attack-ann": plot_ann,
    "attack-curves": plot_attacks,
    "attack-defences": table_defences,
    "attack-transfer": table_transfer,
    "attack-threshold-mnist": plot_thresholds("mnist"),
    "attack-threshold-fashion-mnist": plot_thresholds("fashion-mnist"),
    "attack-threshold-event-digits": plot_thresholds("event-digits"),
    "compression-digits": plot_compression("compression-digits"),
    "compression-mnist": table_compression("compression-mnist", (90, 95)),
    "degradation": plot_degradation,
    "depth-gradients": plot_gradients,
    "h2learn-densities": plot_densities,
    "graph-norms": table_graph_norms,
    "graph-depth": table_graph_depth,
    "graph-operations": table_graph_operations,
    "graph-steps": table_graph_steps,
}


def inline(svg):
    """SVG text for the middle of a page: without what only files have."""
    return '<div class="plot">' + re.sub(r"\s*\n\s*", " ", svg[svg.index("<svg") :]) + "</div>"
